"""Group commit and its promises, on every store: requests that arrive together, and what others change meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.people import (
    SHARED_DEVICE,
    MakeStore,
    Table,
    by_itself,
    call,
    flat,
    flat_results,
    pids_of,
    table,
    worker,
)
from tests.support.stores import on

from emarsys_cdp import rounds
from emarsys_cdp.rounds import Added
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import Record, header, pack, unpack
from emarsys_cdp.store.redis import RedisStore

PERSON = "AAAAAAAAAAAA"


def test_requests_that_arrive_during_a_round_form_the_next_one(make_store: MakeStore) -> None:
    """Whatever arrives while a round trip is in flight is read and written together."""
    trips: Counter[str] = Counter()

    async def use(store: Store) -> list[Added]:
        later: list[asyncio.Task[list[Added]]] = []

        async def arrive(method: str, _: Sequence[Any]) -> None:
            trips[method] += 1
            if not later:
                later.extend(asyncio.create_task(one.add([call(n, n, n, n)])) for n in range(2, 52))
                await asyncio.sleep(0)

        one = worker(store, arrive)
        first = await one.add([call(1, 1, 1, 1)])
        return first + flat_results(await asyncio.gather(*later))

    people = [added.profile for added in on(make_store, use)]

    assert [person and person.user for person in people] == [f"user{n}" for n in range(1, 52)]
    assert trips == {"read_rows": 2, "commit": 4, "claim": 6}


def test_rounds_are_bounded(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round takes whole requests up to its limit; the rest forms further rounds."""
    monkeypatch.setattr(rounds, "MAX_CALLS", 10)
    sizes: list[int] = []

    async def count_people(method: str, arguments: Sequence[Any]) -> None:
        if method == "commit":
            sizes.append(len(arguments))

    async def use(store: Store) -> None:
        one = worker(store, count_people)
        await asyncio.gather(*[one.add([call(n + part, n + part) for part in range(4)]) for n in range(1, 21, 4)])
        await one.add([call(n, n) for n in range(100, 130)])

    on(make_store, use)

    assert sizes == [8, 8, 8, 8, 4, 4, 30, 30]  # new people are written twice: before and after the claims


def test_calls_of_a_person_in_one_round(make_store: MakeStore) -> None:
    """The calls of one person in one round are folded together, and every one gets the person after all of them."""
    request = [call(2, 1, anon=1), call(1, anon=1), call(3, key=1, anon=1), call(4, 1, first="Jane")]

    async def use(store: Store) -> Any:
        return await worker(store).add(request), await table(store, request)

    added, people = on(make_store, use)

    (record,) = people.values()
    assert list(people) == [("anon1", "key1", "user1")]
    assert isinstance(record, Record)
    assert {name: value.value for name, value in record.values.items()} == {"last": 4, "first": "Jane"}
    assert len({str(one.profile) for one in added}) == 1


def test_a_device_of_two_users_is_shared(make_store: MakeStore) -> None:
    """An anonymousId that two users use belongs to nobody from then on, and alone it names nobody."""
    requests = [[call(1, 1, anon=1)], [call(2, 2, anon=1)], [call(3, anon=1)], [call(4, 1, anon=1)]]

    async def use(store: Store) -> Any:
        one = worker(store)
        return [(await one.add(request))[0] for request in requests], await table(store, flat(requests))

    added, people = on(make_store, use)

    assert people[("anon1",)] == SHARED_DEVICE
    assert [one.profile and one.profile.user for one in added] == ["user1", "user2", None, "user1"]
    assert [one.warnings for one in added] == [(), ("anon_shared",), (), ()]
    assert {record.devices for record in people.values() if isinstance(record, Record)} == {()}


def test_a_dead_owner_is_replaced(make_store: MakeStore) -> None:
    """An identifier whose owner has no record is taken over by the next call."""
    one = call(1, 1, 1, 1)

    async def use(store: Store) -> Any:
        await store.claim([Claim(name, None, owned_by(PERSON)) for name in one.names if name])
        await worker(store).add([one])
        return await table(store, [one]), await store.read_records([PERSON])

    people, dead = on(make_store, use)

    assert list(people) == [("anon1", "key1", "user1")]
    assert [type(record) for record in people.values()] == [Record]
    assert dead == [None]


@pytest.mark.parametrize("stored", [b"\x02" + pack(Record("s"), 1)[1:], header(1) + b"\xc1"], ids=["newer", "damaged"])
def test_an_unreadable_record_costs_only_its_person(make_store: MakeStore, stored: bytes) -> None:
    """The person's calls fail and the record stays as it is; the other calls of the round are added."""
    request = [call(1, 1), call(2, 2), call(3, 1, 5, 5), call(4, 3)]

    async def use(store: Store) -> Any:
        await store.commit([Commit(PERSON, 0, stored)])
        await store.claim([Claim(request[0].names[0] or "", None, owned_by(PERSON))])
        return await worker(store).add(request), await store.read_records([PERSON])

    added, record = on(make_store, use)

    assert [one.profile and one.profile.user for one in added] == [None, "user2", None, "user3"]
    assert [PERSON in (one.failure or "") for one in added] == [True, False, True, False]
    assert record == [stored]


def test_a_call_that_cannot_be_stored_costs_only_its_request(make_store: MakeStore) -> None:
    """A value that no record can hold fails for who brought it; the other requests of the round are answered."""

    async def use(store: Store) -> Any:
        one = worker(store)
        bad, good = one.add([call(1, 1, huge=2**70)]), one.add([call(2, 2)])
        return await asyncio.gather(bad, good, return_exceptions=True)

    bad, good = on(make_store, use)

    assert not isinstance(good, Exception)
    assert [one.profile.user for one in good] == ["user2"]
    assert isinstance(bad, Exception) or bad[0].failure


def test_a_store_error_reaches_every_waiting_request(make_store: MakeStore) -> None:
    """All who wait for a round learn of its outage, nobody waits forever, and the next request works."""

    async def use(store: Store) -> Any:
        down = [True]

        async def fail(method: str, _: Sequence[Any]) -> None:
            if down and method == "commit":
                down.clear()
                raise StoreUnavailable("down")

        one = worker(store, fail)
        async with asyncio.timeout(10):
            errors = await asyncio.gather(*[one.add([call(n, n)]) for n in (1, 2, 3)], return_exceptions=True)
            return errors, await one.add([call(4, 1)])

    errors, (added,) = on(make_store, use)

    assert [str(error) for error in errors] == ["down"] * 3
    assert added.profile.user == "user1"


def test_a_cancelled_request_leaves_the_others(make_store: MakeStore) -> None:
    """Who stops waiting takes nothing away from the requests of the same round and of the next one."""

    async def use(store: Store) -> Any:
        async def cancel(method: str, _: Sequence[Any]) -> None:
            if method == "commit":
                tasks[0].cancel()

        one = worker(store, cancel)
        tasks = [asyncio.create_task(one.add([call(n, n)])) for n in (1, 2)]
        return await asyncio.gather(*tasks, return_exceptions=True), await one.add([call(3, 3)])

    (cancelled, (other,)), (after,) = on(make_store, use)

    assert isinstance(cancelled, asyncio.CancelledError)
    assert (other.profile.user, after.profile.user) == ("user2", "user3")


async def overtake(store: Store, pid: str) -> None:
    """Write a person's record again, as another worker does."""
    (stored,) = await store.read_records([pid])
    assert stored is not None
    revision, record = unpack(stored)
    await store.commit([Commit(pid, revision, pack(record, revision + 1))])


def test_a_busy_person_does_not_hold_up_the_others(make_store: MakeStore) -> None:
    """While another worker overtakes a person again and again, a request of somebody else is answered."""

    async def use(store: Store) -> Any:
        later: list[asyncio.Task[list[Added]]] = []

        async def hinder(method: str, arguments: Sequence[Any]) -> None:
            busy = [commit.pid for commit in arguments if commit.pid in pids] if method == "commit" else []
            if busy and not (later and later[0].done()):
                await overtake(store, busy[0])
                later[:] = later or [asyncio.create_task(one.add([call(3, 2)]))]

        one = worker(store, hinder)
        pids: set[str] = set()
        await one.add([call(1, 1)])
        pids |= await pids_of(store, [call(1, 1)])
        return await one.add([call(2, 1)]), await later[0]

    (busy,), (other,) = on(make_store, use)

    assert (busy.profile.values["last"].value, other.profile.user) == (2, "user2")


def test_a_person_that_always_loses_costs_only_its_request(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that lost too often is refused for now; the other requests of its round are answered."""
    monkeypatch.setattr(rounds, "MAX_TRIES", 5)

    async def use(store: Store) -> Any:
        async def hinder(method: str, arguments: Sequence[Any]) -> None:
            for commit in arguments if method == "commit" else ():
                if commit.pid in pids:
                    await overtake(store, commit.pid)

        one = worker(store, hinder)
        pids: set[str] = set()
        await one.add([call(1, 1)])
        pids |= await pids_of(store, [call(1, 1)])
        return await asyncio.gather(one.add([call(2, 1)]), one.add([call(3, 2)]), return_exceptions=True)

    busy, other = on(make_store, use)

    assert isinstance(busy, StoreUnavailable)
    assert not isinstance(other, Exception)
    assert other[0].profile.user == "user2"


def test_a_redelivered_call_gets_the_person_of_now(make_store: MakeStore) -> None:
    """A call that changes nothing is answered with the person as another worker has left it since."""

    async def use(store: Store) -> list[Added]:
        one, other = worker(store), worker(store)
        await one.add([call(1, 1, anon=1)])
        await other.add([call(2, 1)])
        return await one.add([call(1, 1, anon=1)])

    (added,) = on(make_store, use)

    assert added.profile is not None
    assert added.profile.values["last"].value == 2


def test_an_emptied_store_is_filled_again() -> None:
    """A worker that has seen everything before relies on nothing that the store has lost."""
    request = [call(1, 1, 1, 1), call(2, 2, 2)]

    async def main() -> tuple[Table, Table]:
        store = MemoryStore()
        one = worker(store)
        await one.add(request)
        before = await table(store, request)
        store.rows.clear()
        store.records.clear()
        await one.add(request)
        return before, await table(store, request)

    before, after = asyncio.run(main())

    assert after == before


def test_a_failover_loses_nothing_new() -> None:
    """When the store has lost the last write of a person, what another worker wrote since then is not overwritten."""

    async def main() -> Record:
        store = MemoryStore()
        one, other = worker(store), worker(store)
        await one.add([call(1, 1, a=1)])
        ((pid, before),) = store.records.items()
        await one.add([call(2, 1, b=2)])
        store.records[pid] = before
        await other.add([call(3, 1, c=3)])
        await one.add([call(4, 1, d=4)])
        return unpack(store.records[pid])[1]

    values = asyncio.run(main()).values

    assert (values["a"].value, values["c"].value, values["d"].value) == (1, 3, 4)


SPACES = count()
identifiers = st.tuples(*[st.integers(0, 2)] * 3)


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(st.lists(identifiers, min_size=1, max_size=3), max_size=6), st.randoms(use_true_random=False))
def test_memory_and_valkey_are_equal(valkey_url: str, drawn: list[list[tuple[int, int, int]]], random: Random) -> None:
    """The same requests give the same users table in both stores, up to the ids of profiles."""
    space, numbers = f"hypothesis {next(SPACES)}", list(range(1, 20))
    random.shuffle(numbers)
    requests = [[call(numbers.pop(), *of, space=space) for of in request] for request in drawn]

    tables = [on(make, partial(by_itself, requests=requests)) for make in (MemoryStore, lambda: RedisStore(valkey_url))]

    assert tables[0] == tables[1]
