"""What a status means for a job, and when it is tried again (reference 1.6). Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from emarsys_cdp.testing.fake_host.values import JobState, Pace

FILTERED: Final = 298
UNREADABLE_REQUEST: Final = 599
"""Status of a batchedRequest that cannot be read: retried, never counted out."""

_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def is_success(status: int) -> bool:
    """Tell whether a status is a 2xx."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def is_final(status: int) -> bool:
    """Tell whether a status ends a job, one way or the other: 2xx, 3xx and 4xx but 408 and 429."""
    return status not in _RETRIED and HTTPStatus.OK <= status < HTTPStatus.INTERNAL_SERVER_ERROR


def state_after(status: int, *, sent: bool) -> JobState:
    """Return what a job is after a status: that of a delivery, or of a transform answer that is not *sent*."""
    if status == FILTERED:
        return JobState.FILTERED
    if is_success(status):
        return JobState.DELIVERED if sent else JobState.DONE
    return JobState.ABORTED if is_final(status) else JobState.FAILED


def next_attempt_after(attempts: int, pace: Pace) -> float:
    """Return the seconds until the next try after so many."""
    return float(min(pace.max_backoff, pace.min_backoff * 2 ** (min(max(attempts, 1), 64) - 1)))


def is_given_up(status: int, attempts: int, seconds: float, pace: Pace) -> bool:
    """
    Tell whether a job is given up that was last answered *status*, its first try being so many *seconds* ago.

    408, 429, statuses below 200 and 599 are never counted.
    """
    counted = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != UNREADABLE_REQUEST
    return counted and seconds > pace.give_up_after and attempts >= pace.give_up_attempts
