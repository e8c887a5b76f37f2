from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emarsys_cdp.store.record import HEADER_BYTES, Device, Record, UnreadableRecord, header, pack, profile, unpack
from emarsys_cdp_hooks import Profile, StoredValue

FULL = Record(
    space="dest-1",
    user="u1",
    key="jane@example.com",
    key_time=1_700_000_000_000,
    key_message="m-9",
    owns_key=True,
    former_keys=("jane@exmaple.com", "j@example.com"),
    devices=(Device("d2", 2, 9), Device("d1", 1, 3)),
    first_seen=1,
    last_seen=9,
    last_type="identify",
    last_message="m-9",
    values={
        "name": StoredValue("J\u00e4ne \U0001f600", 9, "m-9"),
        "opted_in": StoredValue(True, 8, "m-8"),
        "sizes": StoredValue(["s", "m"], 7, "m-7"),
        "gone": StoredValue(None, 6, "m-6"),
    },
)

BEFORE_VALUES = ["dest-1", "u1", "jane@example.com", 5, "m-5", True, ["old@example.com"], [["d1", 1, 5]]]
"""The fields of a record as a version without times and values would have written them."""

times = st.integers(-(10**14), 10**15)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.none() | texts | st.booleans() | st.lists(texts, max_size=3)
records = st.builds(
    Record,
    space=texts,
    user=st.none() | texts,
    key=st.none() | texts,
    key_time=times,
    key_message=texts,
    owns_key=st.booleans(),
    former_keys=st.lists(texts, max_size=3).map(tuple),
    devices=st.lists(st.builds(Device, texts, times, times), max_size=3).map(tuple),
    first_seen=times,
    last_seen=times,
    last_type=texts,
    last_message=texts,
    values=st.dictionaries(texts, st.builds(StoredValue, values, times, texts), max_size=3),
)


@settings(deadline=None, database=None)
@given(records, st.integers(0, 2**64 - 1))
def test_round_trip(record: Record, revision: int) -> None:
    """What is packed is unpacked as it was, with its revision."""
    assert unpack(pack(record, revision)) == (revision, record)


def test_full_record_round_trip() -> None:
    """A record that uses every field comes back as it was."""
    assert unpack(pack(FULL, 7)) == (7, FULL)


@pytest.mark.parametrize("revision", [0, 1, 255, 256, 2**32, 2**64 - 1])
def test_header(revision: int) -> None:
    """The header that a compare-and-set expects is how a stored record of this revision begins."""
    assert pack(FULL, revision)[:HEADER_BYTES] == header(revision)


@pytest.mark.parametrize("first", [b"\x00", b"\x02", b"\xff", b"{"])
def test_unknown_format(first: bytes) -> None:
    """A record of another format is refused, with the format found and the one that is read."""
    with pytest.raises(UnreadableRecord, match="is unknown, this version reads 1") as caught:
        unpack(first + pack(FULL, 1)[1:])

    assert repr(first) in str(caught.value)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        header(1)[:5],
        header(1),
        pack(FULL, 1)[:-1],
        pack(FULL, 1) + b"\x00",
        header(1) + b"\xc1",
        header(1) + msgspec.msgpack.encode({"space": "dest-1"}),
        header(1) + msgspec.msgpack.encode([]),
        header(1) + msgspec.msgpack.encode([1]),
        header(1) + msgspec.msgpack.encode(["dest-1", 4711]),
    ],
    ids=[
        "empty",
        "part of the header",
        "no fields",
        "cut off",
        "too long",
        "no MessagePack",
        "a map",
        "no space",
        "space of wrong type",
        "user of wrong type",
    ],
)
def test_damaged_record(stored: bytes) -> None:
    """A record that was damaged is refused by the one error that callers expect."""
    with pytest.raises(UnreadableRecord):
        unpack(stored)


@pytest.mark.parametrize("length", range(1, len(BEFORE_VALUES) + 1))
def test_older_record(length: int) -> None:
    """A record with fewer fields is read; the fields that it lacks have their defaults."""
    older = msgspec.msgpack.encode(BEFORE_VALUES[:length])
    known = dict(zip(Record.__struct_fields__, msgspec.structs.astuple(_expected()), strict=True))
    wanted: dict[str, Any] = {name: known[name] for name in Record.__struct_fields__[:length]}

    assert unpack(header(3) + older) == (3, Record(**wanted))


def test_newer_record() -> None:
    """A record that a newer version wrote with one field more is read without it."""
    newer = msgspec.msgpack.encode([*msgspec.structs.astuple(FULL), "a field of the future"])

    assert unpack(header(3) + newer) == (3, FULL)


def test_defaults_are_not_shared() -> None:
    """Two new records have values of their own."""
    first, second = Record("dest-1"), Record("dest-1")

    assert first.values is not second.values


def test_profile() -> None:
    """Hooks see the person's id, user, key, devices by last use, times and values."""
    assert profile("pid-1", FULL) == Profile(
        id="pid-1",
        user="u1",
        key="jane@example.com",
        anonymous_ids=("d2", "d1"),
        first_seen=1,
        last_seen=9,
        values=FULL.values,
    )


def _expected() -> Record:
    """Return the record of `BEFORE_VALUES`."""
    return Record("dest-1", "u1", "jane@example.com", 5, "m-5", True, ("old@example.com",), (Device("d1", 1, 5),))
