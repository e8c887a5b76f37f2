"""Identifier rows: what they say, and that nothing else can be said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emarsys_cdp.store.keys import owner
from emarsys_cdp.store.rows import DAY, DELETE, SUPPRESS, Row, read_row

PID = "AAAAAAAAAAAA"

ROWS = {
    b"pAAAAAAAAAAAA": Row("p", PID),
    b"pAAAAAAAAAAAA+tag--1": Row("p", PID, ("tag--1",)),
    b"pAAAAAAAAAAAA+tag--1tag_-2~17": Row("p", PID, ("tag--1", "tag_-2"), 17),
    b"pAAAAAAAAAAAA~17": Row("p", PID, (), 17),
    b"s": Row("s"),
    b"s^20094": Row("s", None, (), 0, None, 20_094 * DAY),
    b"sAAAAAAAAAAAA^20094~17": Row("s", PID, (), 17, None, 20_094 * DAY),
    b"sAAAAAAAAAAAA": Row("s", PID),
    b"q": Row("q"),
    b"q~17": Row("q", None, (), 17),
    b"td17": Row("t", None, (), 17, DELETE),
    b"ts17": Row("t", None, (), 0, SUPPRESS, 17),
    b"ts17@AAAAAAAAAAAA": Row("t", PID, (), 0, SUPPRESS, 17),
    b"ts17~15@AAAAAAAAAAAA": Row("t", PID, (), 15, SUPPRESS, 17),
}


@pytest.mark.parametrize("content", ROWS, ids=repr)
def test_a_row_reads_as_it_is_written(content: bytes) -> None:
    """Every kind of row has one form."""
    assert read_row(content) == ROWS[content]
    assert ROWS[content].content() == content


@pytest.mark.parametrize(
    "content", [b"", b"x", b"t", b"td", b"tx17", b"p A", b"pA+", b"pA+3", b"pA~x", b"s^x", b"\xff", b"td17\n"], ids=repr
)
def test_what_is_no_row_names_nobody(content: bytes) -> None:
    """A damaged row is taken over by the next call."""
    assert read_row(content) is None


@given(st.sampled_from(sorted(ROWS)))
def test_both_ways_of_asking_for_the_owner_agree(content: bytes) -> None:
    """`owner` reads only whose a row is."""
    row = ROWS[content]

    assert owner(content) == (row.pid if row.kind == "p" else None)


@pytest.mark.parametrize(
    ("row", "dropped"), [(b"td17", [16, 17]), (b"ts17", [16, 17, 18]), (b"pAAAAAAAAAAAA~17", [16, 17]), (b"q", [])]
)
def test_which_calls_a_row_keeps_out(row: bytes, dropped: list[int]) -> None:
    """An erasure keeps out calls of its time and before, a suppression all."""
    read = read_row(row)

    assert read is not None
    assert [time for time in (16, 17, 18) if read.drops(time)] == dropped
