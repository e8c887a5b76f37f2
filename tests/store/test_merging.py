"""Two profiles become one: whoever comes in between, and wherever a process dies, nothing is lost or mixed up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations_with_replacement, count, permutations
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.people import (
    MakeStore,
    Table,
    by_itself,
    call,
    contradictions,
    crash,
    flat,
    sweeper,
    table,
    worker,
)
from tests.support.stores import on

from emarsys_cdp import rounds
from emarsys_cdp.identity.entries import Entry, Policy
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import Record, pack

Ids: TypeAlias = tuple[int, int, int]

BUYER = [(0, 1, 1), (1, 0, 2)]
"""A newsletter by key on one device, a login on another: two profiles until a call has user and key."""

MEETINGS: dict[str, tuple[list[Ids], list[Ids]]] = {
    "the same merge": (BUYER, [(1, 1, 0), (1, 1, 0)]),
    "a page of the loser": (BUYER, [(1, 1, 0), (0, 0, 1)]),
    "a page of the survivor": (BUYER, [(1, 1, 0), (0, 0, 2)]),
    "a new device of the loser": (BUYER, [(1, 1, 0), (0, 1, 3)]),
    "a new device of the survivor": (BUYER, [(1, 1, 0), (1, 0, 3)]),
    "the loser becomes another user": (BUYER, [(1, 1, 0), (2, 0, 1)]),
    "the loser's key becomes another user's": (BUYER, [(1, 1, 0), (2, 1, 0)]),
    "the survivor's device becomes another user's": (BUYER, [(1, 1, 0), (2, 0, 2)]),
    "the survivor gets another key": (BUYER, [(1, 1, 0), (1, 2, 0)]),
    "the survivor merges another": ([*BUYER, (0, 0, 3)], [(1, 1, 0), (1, 0, 3)]),
    "the loser merges another": ([*BUYER, (0, 0, 3)], [(1, 1, 0), (0, 1, 3)]),
    "two users want the loser": ([*BUYER, (2, 0, 3)], [(1, 1, 0), (2, 1, 0)]),
    "two devices become one": ([(0, 0, 1), (1, 0, 2)], [(1, 0, 1), (1, 0, 1)]),
    "a device is merged and shared": ([(0, 0, 1), (1, 0, 2)], [(1, 0, 1), (2, 0, 1)]),
    "a device is shared while its person is merged": (BUYER, [(2, 2, 1), (0, 0, 1), (1, 1, 0)]),
    "a key that another user takes first": ([(1, 0, 1)], [(0, 2, 1), (2, 2, 3)]),
    "a login whose person is merged by another login": ([(0, 0, 1)], [(1, 0, 1), (1, 0, 2), (1, 0, 1)]),
    "a ring of three": ([(0, 1, 1), (1, 0, 2), (0, 0, 3)], [(1, 1, 0), (0, 1, 3), (1, 0, 3)]),
}
"""User, key and device of the calls before, and of those that meet: the first of them merges."""

TRIPS = 18
"""Round trips of a merging request that others may come in between."""


def made(meeting: str, space: str) -> list[Entry]:
    """Return the calls of a meeting in a space of their own."""
    known, meet = MEETINGS[meeting]
    return [call(number, *of, space=space) for number, of in enumerate([*known, *meet], 1)]


async def interrupted(store: Store, known: list[Entry], meeting: list[Entry], steps: Sequence[int]) -> None:
    """Add calls; the first of those that meet is interrupted before its round trips *steps* by the others."""
    trips, waiting = count(), list(zip(steps, meeting[1:], strict=True))
    started = False

    async def interrupt(_: str, __: Sequence[Any]) -> None:
        if started:
            trip = next(trips)
            while waiting and waiting[0][0] == trip:
                await other.add([waiting.pop(0)[1]])

    one, other = worker(store, interrupt), worker(store)
    for before in known:
        await other.add([before])
        await one.add([before])
    started = True
    await one.add(meeting[:1])
    for _, late in waiting:
        await other.add([late])


@pytest.mark.parametrize("meeting", MEETINGS)
def test_a_merge_that_others_come_into_is_as_if_they_came_before_or_after(make_store: MakeStore, meeting: str) -> None:
    """Wherever other workers' calls come in between, the users table is that of one of the serial orders."""
    known, meet = map(len, MEETINGS[meeting])

    async def use(store: Store) -> tuple[list[Table], list[Table], list[str]]:
        serial, found, wrong = [], [], []
        for order in permutations(range(known, known + meet)):
            calls = made(meeting, f"{meeting} order {order}")
            serial.append(await by_itself(store, [[calls[index]] for index in (*range(known), *order)]))
        for steps in combinations_with_replacement(range(TRIPS), meet - 1):
            calls = made(meeting, f"{meeting} steps {steps}")
            await interrupted(store, calls[:known], calls[known:], steps)
            found.append(await table(store, calls))
            wrong += await contradictions(store, calls)
        return found, serial, wrong

    found, serial, wrong = on(make_store, use)

    assert wrong == []
    assert [one for one in found if one not in serial][:1] == []


@pytest.mark.parametrize("lost", [(1, 0, 3), (1, 2, 0), (0, 1, 3), (0, 0, 3)], ids=str)
def test_a_merge_after_a_lost_claim(make_store: MakeStore, lost: Ids) -> None:
    """A person who loses an identifier to another worker in the round that asks for a merge keeps nothing of it."""

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in range(TRIPS):
            space, trips = f"{lost} {step}", count()
            known = [call(number, *of, space=space) for number, of in enumerate(BUYER, 1)]
            request = [call(3, *lost, space=space), call(4, 1, 1, space=space)]
            rival = call(5, 2, lost[1] and 2, lost[2], space=space)

            async def claim(
                _: str, __: Sequence[Any], trips: Any = trips, step: int = step, rival: Any = rival
            ) -> None:
                if next(trips) == step:
                    await worker(store).add([rival])

            await worker(store).add(known)
            await worker(store, claim).add(request)
            wrong += await contradictions(store, [*known, *request, rival])
        return wrong

    assert on(make_store, use) == []


STORY = [
    [(0, 1, 1)],
    [(1, 0, 2), (0, 0, 3)],
    [(1, 1, 0)],
    [(1, 0, 3), (0, 2, 4)],
    [(2, 0, 5)],
    [(2, 2, 0), (0, 0, 4), (0, 1, 0)],
]
"""User, key and device of some requests: three merges of two people."""


def story(space: str) -> list[list[Entry]]:
    """Return the requests of the story in a space of their own."""
    numbers = count(1)
    return [[call(next(numbers), *of, space=space) for of in request] for request in STORY]


@pytest.mark.parametrize("done", [0, 0.5, 1], ids=["before", "half done", "after"])
def test_a_crash_in_a_merge_leaves_no_trace(make_store: MakeStore, done: float) -> None:
    """Wherever a process dies, its request added again ends in the users table as it is without the crash."""

    async def use(store: Store) -> tuple[list[Table], Table, list[str]]:
        found, wrong = [], []
        for step in count():
            requests = story(f"{step}")
            crashed = await crash(store, requests, step, done)
            found.append(await table(store, flat(requests)))
            await sweeper(store).run()  # rows that nobody has called by since may name the merged profile still
            wrong += await contradictions(store, flat(requests))
            if not crashed:
                break
        return found, await by_itself(store, story("none")), wrong

    found, wanted, wrong = on(make_store, use)

    assert len(found) > 40
    assert wrong == []
    assert [one for one in found if one != wanted] == []


@pytest.mark.parametrize("who", [(0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 2)], ids=str)
def test_whoever_meets_a_half_done_merge_finishes_it(make_store: MakeStore, who: Ids) -> None:
    """The next call of either profile finds one person or still two, never half of one; the merge never comes."""

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in count():
            known = [call(1, 0, 1, 1, space=f"{step}"), call(2, 1, 0, 2, space=f"{step}")]
            merge, probe = call(3, 1, 1, space=f"{step}"), call(4, *who, space=f"{step}")
            trips = count()

            async def die(_: str, __: Sequence[Any], trips: Any = trips, step: int = step) -> None:
                if next(trips) == step:
                    raise StoreUnavailable("the process died")

            await worker(store).add(known)
            try:
                await worker(store, die).add([merge])
            except StoreUnavailable:
                await worker(store).add([probe])
                before = await contradictions(store, [*known, merge, probe])
                wrong += [one for one in before if "intents=()" in one]  # a noted intent alone is met by the survivor
                await sweeper(store).run()
                every = [*known, merge, probe]
                wrong += await contradictions(store, every)
                wrong += [f"{step}: {value}" for value in (await table(store, every)).values() if value == "absent"]
            else:
                return wrong
        return []

    assert on(make_store, use) == []


def test_a_merge_takes_everything_along(make_store: MakeStore) -> None:
    """The survivor has the identifiers, former keys, devices, values and times of both, by event time."""
    requests = [[call(5, 0, 1, 1, a=5, b=5)], [call(2, 1, 2, 2, a=2, c=2)], [call(9, 1, 1)]]

    async def use(store: Store) -> Table:
        return await by_itself(store, requests)

    ((values, record),) = on(make_store, use).items()

    assert isinstance(record, Record)
    assert values == ("anon1", "anon2", "key1", "key2", "user1")
    assert (record.user, record.key, record.former_keys) == ("user1", "key1", ("key2",))
    assert {name: value.value for name, value in record.values.items()} == {"last": 9, "a": 5, "b": 5, "c": 2}
    assert (record.first_seen, record.last_seen, len(record.merged_from)) == (2, 9, 1)


def test_complementary_profiles_of_one_device_are_one(make_store: MakeStore) -> None:
    """A key on a device, then a user on it: nothing says that they are two people."""

    async def use(store: Store) -> Table:
        return await by_itself(store, [[call(1, 0, 1, 1)], [call(2, 1, 0, 2)], [call(3, 1, 0, 1)]])

    assert list(on(make_store, use)) == [("anon1", "anon2", "key1", "user1")]


def test_a_merge_beyond_the_limit_is_refused(make_store: MakeStore) -> None:
    """The call still counts for its person, the other profile stays what it is, and a warning says so."""
    policy = Policy(merge_limit=2)
    given = [(1, 0), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]
    limited = [[call(number, user, 0, anon, policy=policy)] for number, (user, anon) in enumerate(given, 1)]

    async def use(store: Store) -> Any:
        one = worker(store)
        results = [await one.add(request) for request in limited]
        return results[-1][0], await table(store, flat(limited))

    last, found = on(make_store, use)

    assert last.warnings == ("merge_limit",)
    assert last.profile.user == "user1"
    assert sorted(found) == [("anon2", "anon3", "user1"), ("anon4",)]


def test_a_redirect_to_an_unreadable_record_costs_only_its_person(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls of who was merged into it are refused for now; the others of the round are added."""
    monkeypatch.setattr(rounds, "MAX_TRIES", 5)
    lost, damaged = "A" * 12, "B" * 12
    mine, other = call(1, 1), call(2, 2)

    async def use(store: Store) -> Any:
        record = Record("s", user="user1", redirect=damaged)
        await store.commit([Commit(lost, 0, pack(record, 1)), Commit(damaged, 0, b"\x02" + pack(record, 1)[1:])])
        await store.claim([Claim(mine.names[0] or "", None, owned_by(lost))])
        one = worker(store)
        return await asyncio.gather(one.add([mine]), one.add([other]), return_exceptions=True)

    refused, added = on(make_store, use)

    assert isinstance(refused, StoreUnavailable)
    assert not isinstance(added, BaseException)
    assert added[0].profile.user == "user2"


SPACES = count()
PARTS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2), (1, 0, 1), (0, 1, 2), (1, 1, 0)]
PERSON = st.lists(st.sampled_from(PARTS), max_size=7)


@settings(deadline=None, database=None, max_examples=150)
@given(PERSON, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(drawn: list[Ids], random: Any) -> None:
    """Where identifiers contradict nothing, calls in any order make the same profiles with the same values."""
    orders = list(range(len(drawn)))
    random.shuffle(orders)

    def made_by(order: Sequence[int]) -> Table:
        space = f"order {next(SPACES)}"
        calls = [call(number + 1, *drawn[number], space=space) for number in order]
        found = on(MemoryStore, lambda store: by_itself(store, [[one] for one in calls]))
        return {who: _identity(record) for who, record in found.items()}

    assert made_by(orders) == made_by(range(len(drawn)))


def _identity(record: Record | str) -> Any:
    """Return what of a record must not depend on the order of arrival: all but what was sent and merged when."""
    if isinstance(record, str):
        return record
    values = {name: value.value for name, value in record.values.items()}
    devices = [(device.value, device.first_seen, device.last_seen) for device in record.devices]
    return record.user, record.key, record.key_time, record.former_keys, devices, values, record.first_seen
