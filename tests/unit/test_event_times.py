"""When a call happened, by what it says and by when it arrived."""

from __future__ import annotations

from datetime import datetime

import pytest

from emarsys_cdp.calls import make_call


def milliseconds(text: str) -> int:
    """Return the milliseconds since 1970 of a time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


ARRIVAL = "2026-11-24T10:00:00+00:00"


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00+00:00"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999+00:00"),
        ("2099-01-01T00:00:00.000Z", ARRIVAL),
        ("2026-11-24T10:05:00.000Z", "2026-11-24T10:05:00+00:00"),
        ("2026-11-24T10:05:00.001Z", ARRIVAL),
        ("yesterday", ARRIVAL),
        ("2026-02-30T10:00:00.000Z", ARRIVAL),
        ("", ARRIVAL),
        (None, ARRIVAL),
        (1_764_000_000_000, ARRIVAL),
        ({"at": "10:00"}, ARRIVAL),
    ],
)
def test_a_time_that_cannot_be_is_the_arrival(said: object, counts: str) -> None:
    """A call of long ago is of then; one of more than five minutes ahead, or of no time, is of when it arrived."""
    call = make_call(0, {"type": "page", "messageId": "m", "timestamp": said}, milliseconds(ARRIVAL))

    assert call.event_time == milliseconds(counts)
