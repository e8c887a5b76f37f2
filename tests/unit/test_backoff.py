from __future__ import annotations

from emarsys_cdp.backoff import LONGEST_WAIT, STEADY_SECONDS, Backoff


def test_waits_grow() -> None:
    """The first end is followed by a start at once, the next ones by 1, 2, 4 ... 30 seconds, for ever."""
    backoff = Backoff()
    waits = [backoff.wait_after(ran) for ran in (4, 0, 4.9, 0, 0, 7.9, 15.9, 29.9)]

    assert waits == [0, 1, 2, 4, 8, 16, 30, 30]
    assert {backoff.wait_after(0) for _ in range(2000)} == {LONGEST_WAIT}


def test_what_ran_well_starts_anew() -> None:
    """An end after five seconds of running is like the first one."""
    backoff = Backoff()
    waits = [backoff.wait_after(ran) for ran in (0, 0, 0, STEADY_SECONDS, 0)]

    assert waits == [0, 1, 2, 0, 1]


def test_what_was_waited_for_has_to_run_longer_than_that() -> None:
    """Something that ends again and again is not started more than half of the time."""
    backoff = Backoff()
    waits = [backoff.wait_after(ran) for ran in (0, 0, 0, 0, 0, 7.9, 16, 0)]

    assert waits == [0, 1, 2, 4, 8, 16, 0, 1]
