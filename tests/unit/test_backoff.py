from __future__ import annotations

from emarsys_cdp.backoff import LONGEST_WAIT, STEADY_SECONDS, Backoff


def test_waits_grow() -> None:
    """The first end is followed by a start at once, the next ones by 1, 2, 4 ... 30 seconds, for ever."""
    backoff = Backoff()
    waits = [backoff.wait_after(ran) for ran in (5, 0, 59.9, 0, 0, 0, 0, 0)]

    assert waits == [0, 1, 2, 4, 8, 16, 30, 30]
    assert {backoff.wait_after(0) for _ in range(2000)} == {LONGEST_WAIT}


def test_what_ran_well_starts_anew() -> None:
    """An end after a minute of running is like the first one."""
    backoff = Backoff()
    waits = [backoff.wait_after(ran) for ran in (0, 0, 0, STEADY_SECONDS, 0)]

    assert waits == [0, 1, 2, 0, 1]
