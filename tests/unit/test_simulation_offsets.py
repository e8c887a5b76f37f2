"""Times of a simulation: offsets from a Monday morning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.world import milliseconds

from emarsys_cdp.simulation.offsets import MAX_DAYS, START, read_offset, show_offset

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


def test_the_start_is_that_of_the_specification() -> None:
    """Offsets count from 2025-01-06T10:00:00Z."""
    assert milliseconds("2025-01-06T10:00:00Z") == START


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("0:00", 0),
        ("0:30", 30 * MINUTE),
        ("30:05", 30 * HOUR + 5 * MINUTE),
        ("2d", 2 * DAY),
        ("2d 0:00", 2 * DAY),
        ("2d 23:59:59", 3 * DAY - SECOND),
        ("1:00:01", HOUR + SECOND),
        ("-1d 0:00", -DAY),
        ("-1d 6:00", -30 * HOUR),
        ("-0:30", -30 * MINUTE),
        (" 1d  2:00 ", 26 * HOUR),
        (f"{MAX_DAYS}d", MAX_DAYS * DAY),
    ],
)
def test_a_written_offset_is_read(text: str, offset: int) -> None:
    """Days, hours, minutes and seconds; the sign is that of the whole offset."""
    assert read_offset(text) == offset


@pytest.mark.parametrize(
    "text", ["", "-", "d", "1", "1d2:00", "1d 2", "0:60", "0:00:60", "0:5", "1.5d", "2w", "1d 1:00 x", "٣d", 30, None]
)
def test_what_is_no_offset_is_refused(text: object) -> None:
    """The error shows how to write one."""
    with pytest.raises(ValueError, match="is no offset of time: write for instance 0:30"):
        read_offset(text)


@pytest.mark.parametrize("text", [f"{MAX_DAYS}d 0:00:01", "-36501d", "876001:00"])
def test_an_offset_beyond_all_calendars_is_refused(text: str) -> None:
    """A hundred years are enough."""
    with pytest.raises(ValueError, match="too far away"):
        read_offset(text)


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (0, "0d 00:00"),
        (999, "0d 00:00"),
        (30 * MINUTE, "0d 00:30"),
        (2 * DAY + SECOND, "2d 00:00:01"),
        (5 * HOUR + 1999, "0d 05:00:01"),
        (-DAY, "-1d 00:00"),
        (-1, "-0d 00:00:01"),
    ],
)
def test_an_offset_is_shown_to_the_second(offset: int, text: str) -> None:
    """Floored, and without the seconds where there are none."""
    assert show_offset(offset) == text


@given(st.integers(-MAX_DAYS * 86_400, MAX_DAYS * 86_400))
def test_what_is_shown_can_be_read(seconds: int) -> None:
    """The two forms are one language."""
    assert read_offset(show_offset(seconds * 1000)) == seconds * 1000
