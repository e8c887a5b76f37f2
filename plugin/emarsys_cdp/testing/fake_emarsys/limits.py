"""Rate limits: requests of an API user, and tokens of a client."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from emarsys_cdp.testing.fake_emarsys.options import Window

MINUTE: Final = 60_000
"""Milliseconds."""


class _Use(Struct):
    """What one user has used up: the times of the last 60 seconds, and the count of one minute of the clock."""

    times: deque[int] = field(default_factory=deque)
    minute: int = 0
    count: int = 0

    def at(self, now: int) -> _Use:
        """Forget what is no longer counted."""
        while self.times and self.times[0] <= now - MINUTE:
            self.times.popleft()
        if self.minute != now // MINUTE:
            self.minute, self.count = now // MINUTE, 0
        return self


class RateLimit:
    """
    Requests a minute of each API user.

    Two counts are kept. The headers always tell the one of the clock's minute, as Emarsys' do: how many are left in
    it and when it ends. *window* says which count decides: `sliding` lets nobody have more than the limit in any 60
    seconds, so that a user of the headers alone may be refused after a minute has turned; `fixed` decides by what the
    headers tell. Refused requests count in neither.
    """

    def __init__(self, limit: int, window: Window) -> None:
        self._limit = limit
        self._window = window
        self._users: dict[str, _Use] = {}

    def take(self, user: str, now: int) -> str | None:
        """Count a request; returns None, or in words why it is one too many."""
        use = self._users.setdefault(user, _Use()).at(now)
        used = len(use.times) if self._window == "sliding" else use.count
        if used >= self._limit:
            span = "60 seconds" if self._window == "sliding" else "this minute"
            return f"{used} requests in {span}, the limit is {self._limit}"
        use.times.append(now)
        use.count += 1
        return None

    def headers(self, user: str | None, now: int) -> dict[str, str]:
        """Return the headers that every answer has; of nobody they tell an unused limit."""
        use = self._users.get(user or "")
        used = 0 if use is None else use.at(now).count
        return {
            "X-RateLimit-Limit": str(self._limit),
            "X-Ratelimit-Remaining": str(max(0, self._limit - used)),
            "X-RateLimit-Reset": str((now // MINUTE + 1) * MINUTE // 1000),
        }


class FetchLimit:
    """Tokens handed out to each client: *limits* are pairs of a count and its seconds."""

    def __init__(self, limits: Sequence[tuple[int, float]]) -> None:
        self._limits = limits
        self._times: dict[str, deque[int]] = {}

    def take(self, client: str, now: int) -> str | None:
        """Count a fetch; returns None, or in words why it is one too many. Refused ones do not count."""
        longest = max((count for count, _ in self._limits), default=0)
        times = self._times.setdefault(client, deque(maxlen=longest))
        for count, seconds in self._limits:
            if len(times) >= count and times[-count] > now - seconds * 1000:
                return f"{count} tokens in {seconds:g} seconds, which is the limit"
        times.append(now)
        return None
