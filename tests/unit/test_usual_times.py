"""Times in the form that SDKs send are read by halves that are remembered."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emarsys_cdp.values.times import parse_time, parse_usual_time

USUAL = st.builds(
    lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    st.datetimes(min_value=datetime(2026, 11, 24), max_value=datetime(2026, 11, 25), timezones=st.just(UTC)),  # noqa: DTZ001
)
HALVES = ["2026-11-24T10:00:", "2026-11-24T10:60:", "2026-02-30T10:00:", "0001-01-01T00:00:", "2026-11-24 10:00:", ""]
RESTS = ["05.123Z", "60.000Z", "05.123", "05.123+", "05Z", "\u06605.123Z", "05.1234", " 5.123Z", "", "+05.12Z"]
MIXED = st.builds(str.__add__, st.sampled_from(HALVES), st.sampled_from(RESTS))


@given(st.lists(USUAL | MIXED, min_size=2))
def test_remembered_halves_say_the_same(texts: list[str]) -> None:
    """Whatever was read before, a text is read as it is without a memory."""
    assert [parse_usual_time(text) for text in texts] == [parse_time(text) for text in texts]


@pytest.mark.parametrize("text", ["2026-11-24T10:00:05.123Z", "1969-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z"])
def test_a_usual_time_comes_again(text: str) -> None:
    """The first reading and those by the memory agree, before 1970 too."""
    assert [parse_usual_time(text) for _ in range(3)] == [parse_time(text)] * 3
