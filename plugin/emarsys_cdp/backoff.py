"""How long to wait before something that ended by itself is started again."""

from __future__ import annotations

LONGEST_WAIT = 30.0
STEADY_SECONDS = 5.0
"""What ran this long, and longer than was waited for it, was well: its end is the first of a new row."""


class Backoff:
    """Waits of one thing that is kept running: none, then 1, 2, 4 ... 30 seconds; it is never given up."""

    def __init__(self) -> None:
        self._ends = 0

    def wait_after(self, ran_seconds: float) -> float:
        """Return the seconds to wait after an end; *ran_seconds* is how long it ran before, 0 when it did not start."""
        if ran_seconds >= max(STEADY_SECONDS, self._wait()):
            self._ends = 0
        self._ends += 1
        return self._wait()

    def _wait(self) -> float:
        return 0.0 if self._ends <= 1 else min(LONGEST_WAIT, 2.0 ** min(self._ends - 2, 10))
