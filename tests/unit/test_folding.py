from __future__ import annotations

from functools import reduce
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from emarsys_cdp.identity.entries import DEFAULT_POLICY, Entry
from emarsys_cdp.identity.folding import MAX_FORMER_KEYS, fold
from emarsys_cdp.store.record import Device, Record
from emarsys_cdp_hooks import Identifiers, StoredValue, Value

USER, ANON = "u1", "d1"


def call(
    time: int,
    mid: str,
    *,
    key: str | None = None,
    anon: str | None = None,
    user: str | None = None,
    kind: str = "track",
    **values: Value,
) -> Entry:
    """Return a call; *values* are what its data maps read."""
    ids = Identifiers(user, key, anon)
    read = {name: StoredValue(value, time, mid) for name, value in values.items()}
    return Entry("dest-1", kind, mid, time, ids, read)


def add(record: Record | None, entry: Entry) -> Record:
    """Add a call to a person who owns the call's identifiers."""
    return fold(record, entry, owns_anon=True, owns_key=True)


def person(*calls: Entry) -> Record:
    """Return the record of a person's calls in this order of arrival."""
    record = reduce(add, calls, None)
    assert record is not None
    return record


def unordered(record: Record) -> Record:
    """Return the record with those parts sorted whose order is that of arrival where nothing else decides."""
    devices = tuple(sorted(record.devices, key=lambda device: device.value))
    return replace(record, former_keys=tuple(sorted(record.former_keys)), devices=devices, released=())


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    """Make the calls of one person: few times, so that messageIds decide; every messageId once."""
    count = draw(st.integers(1, 6))
    return [
        call(
            draw(st.integers(0, 3)),
            f"m{number}",
            key=draw(st.sampled_from([None, "k1", "k2", "k3"])),
            anon=draw(st.sampled_from([None, "d1", "d2", "d3"])),
            user=draw(st.sampled_from([None, USER])),
            kind=draw(st.sampled_from(["page", "track", "identify"])),
            **draw(st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", None]))),
        )
        for number in range(count)
    ]


@settings(deadline=None, database=None)
@given(histories(), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_person(calls: list[Entry], random: Random) -> None:
    """The order of arrival does not matter, whatever the calls carry."""
    shuffled = list(calls)
    random.shuffle(shuffled)

    assert unordered(person(*shuffled)) == unordered(person(*calls))


@settings(deadline=None, database=None)
@given(histories(), st.data())
def test_redelivery_changes_nothing(calls: list[Entry], data: st.DataObject) -> None:
    """Calls that come again, any of them, in any order and any time later, leave the person as it was."""
    again = data.draw(st.lists(st.sampled_from(calls)))

    assert unordered(person(*calls, *again)) == unordered(person(*calls))


@settings(deadline=None, database=None)
@given(histories())
def test_adding_a_call_twice_is_adding_it_once(calls: list[Entry]) -> None:
    """The very same record comes out when the last call comes twice, so that nothing is written."""
    assert person(*calls, calls[-1]) == person(*calls)


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        ((1, "m1"), (2, "m0"), "second"),
        ((2, "m1"), (1, "m2"), "first"),
        ((1, "m1"), (1, "m2"), "second"),
        ((1, "m2"), (1, "m1"), "first"),
        ((9, "m1"), (10, "m0"), "second"),
    ],
    ids=["later", "late arrival", "same time, greater messageId", "same time, lesser messageId", "not as text"],
)
def test_last_writer(first: tuple[int, str], second: tuple[int, str], want: str) -> None:
    """Value and key are those of the call that is last by (event time, messageId), not by arrival."""
    record = person(call(*first, key="first", name="first"), call(*second, key="second", name="second"))

    version = {"first": first, "second": second}[want]
    assert record.values["name"] == StoredValue(want, *version)
    assert (record.key, record.key_time, record.key_message) == (want, *version)


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))), ids=str)
def test_last_call(order: tuple[int, int, int]) -> None:
    """The last call is the one that is last by (event time, messageId), not by arrival."""
    calls = [call(1, "m9", kind="page"), call(2, "m1", kind="track"), call(2, "m2", kind="identify")]

    record = person(*[calls[index] for index in order])

    assert (record.last_type, record.last_message) == ("identify", "m2")
    assert (record.first_seen, record.last_seen) == (1, 2)


def test_values_are_kept_one_by_one() -> None:
    """A call overwrites the values that it carries and leaves the others."""
    record = person(call(1, "m1", name="Jane", city="Graz"), call(2, "m2", city="Linz"))

    assert record.values == {"name": StoredValue("Jane", 1, "m1"), "city": StoredValue("Linz", 2, "m2")}


def test_the_record_that_was_is_left_alone() -> None:
    """Adding a call returns a new record; the values of the old one stay as they were."""
    before = person(call(1, "m1", name="Jane"))

    add(before, call(2, "m2", name="Joe", city="Linz"))

    assert before.values == {"name": StoredValue("Jane", 1, "m1")}


def test_the_user_stays() -> None:
    """A call without userId keeps the person's, and a first one sets it."""
    assert person(call(1, "m1", anon=ANON), call(2, "m2", user=USER), call(3, "m3")).user == USER


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))), ids=str)
def test_former_keys(order: tuple[int, int, int]) -> None:
    """Every key but the last one becomes a former key, in any order of arrival."""
    calls = [call(1, "m1", key="k1"), call(2, "m2", key="k2"), call(3, "m3", key="k3")]

    record = person(*[calls[index] for index in order])

    assert record.key == "k3"
    assert set(record.former_keys) == {"k1", "k2"}


def test_return_to_a_former_key() -> None:
    """A key that comes back is the key of now and no former one."""
    record = person(call(1, "m1", key="k1"), call(2, "m2", key="k2"), call(3, "m3", key="k1"))

    assert (record.key, record.former_keys) == ("k1", ("k2",))


def test_a_later_call_with_the_same_key_moves_its_version() -> None:
    """After a later confirmation of the key, another key from before it loses."""
    record = person(call(1, "m1", key="k1"), call(5, "m5", key="k1"), call(3, "m3", key="k2"))

    assert (record.key, record.key_time, record.key_message) == ("k1", 5, "m5")
    assert record.former_keys == ("k2",)


def test_former_keys_are_limited() -> None:
    """Only the newest former keys are kept."""
    record = person(*[call(time, f"m{time}", key=f"k{time}") for time in range(MAX_FORMER_KEYS + 5)])

    newest = range(MAX_FORMER_KEYS + 3, 3, -1)
    assert record.former_keys == tuple(f"k{time}" for time in newest)


@pytest.mark.parametrize("owns", [True, False])
def test_owning_the_key(owns: bool) -> None:
    """The record tells whether the person owns the key of now, and a call learns that it has changed."""
    first = fold(None, call(1, "m1", key="k1"), owns_anon=False, owns_key=not owns)

    record = fold(first, call(1, "m1", key="k1"), owns_anon=False, owns_key=owns)

    assert (first.owns_key, record.owns_key) == (not owns, owns)


def test_a_losing_key_leaves_the_ownership() -> None:
    """An older key that the person does not own changes nothing about the key of now."""
    first = fold(None, call(2, "m2", key="k2"), owns_anon=False, owns_key=True)

    record = fold(first, call(1, "m1", key="k1"), owns_anon=False, owns_key=False)

    assert (record.key, record.owns_key, record.former_keys) == ("k2", True, ("k1",))


def test_devices_are_ordered_by_last_use() -> None:
    """A device has its first and last time; the one used last comes first, whatever came last."""
    calls = [call(5, "m1", anon="d1"), call(7, "m2", anon="d2"), call(9, "m3", anon="d1"), call(1, "m4", anon="d2")]

    assert person(*calls).devices == (Device("d1", 5, 9), Device("d2", 1, 7))


def test_a_device_of_somebody_else_is_not_listed() -> None:
    """An anonymousId that the person does not own is not among the devices."""
    assert fold(None, call(1, "m1", anon=ANON), owns_anon=False, owns_key=False).devices == ()


def test_a_device_that_was_lost_is_not_listed() -> None:
    """An anonymousId that the person does not own any more leaves the devices."""
    before = fold(None, call(1, "m1", anon=ANON, user=USER), owns_anon=True, owns_key=False)

    record = fold(before, call(1, "m1", anon=ANON, user=USER), owns_anon=False, owns_key=False)

    assert record.devices == ()


def test_devices_are_limited() -> None:
    """The least recently seen devices leave, in any order of arrival."""
    limit = DEFAULT_POLICY.anon_limit
    calls = [call(time, f"m{time}", anon=f"d{time}") for time in range(limit + 10)]

    forwards, backwards = person(*calls), person(*reversed(calls))

    assert [device.value for device in forwards.devices] == [f"d{n}" for n in range(limit + 9, 9, -1)]
    assert backwards.devices == forwards.devices


def test_first_record() -> None:
    """The first call of a person makes a record with all that it says."""
    record = person(call(4, "m1", key="k1", anon=ANON, user=USER, kind="identify", name="Jane"))

    assert record == Record(
        space="dest-1",
        user=USER,
        key="k1",
        key_time=4,
        key_message="m1",
        owns_key=True,
        devices=(Device(ANON, 4, 4),),
        first_seen=4,
        last_seen=4,
        last_type="identify",
        last_message="m1",
        values={"name": StoredValue("Jane", 4, "m1")},
    )
