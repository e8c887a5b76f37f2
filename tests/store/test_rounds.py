"""Group commit and its promises, on every store: between requests, between workers, and over crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import combinations_with_replacement, count, permutations
from math import ceil
from random import Random
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp import rounds
from emarsys_cdp.identity.resolution import Entry
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import SHARED, Namer, new_pid, owned_by, owner, record_key
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import Record, header, pack, unpack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp_hooks import Identifiers, Json, StoredValue

T = TypeVar("T")
MakeStore: TypeAlias = Callable[[], Store]
Hook: TypeAlias = Callable[[str, Sequence[Any]], Awaitable[None]]
Request: TypeAlias = Sequence[Entry]
Table: TypeAlias = dict[tuple[str, ...], Record | str]

NAMER = Namer(b"a secret of the tests")
PERSON = "AAAAAAAAAAAA"
PIDS = Random(1)  # noqa: S311 - the same in every run, and never the same twice
SHARED_DEVICE = f"{SHARED!r} is no profile"


def call(number: int, user: int = 0, key: int = 0, anon: int = 0, *, space: str = "s", **values: Json) -> Entry:
    """Return the call with this number as its time and messageId; an identifier 0 is none."""
    given = [f"{kind}{of}" if of else None for kind, of in (("user", user), ("key", key), ("anon", anon))]
    names = [value and NAMER(space, value[0], value) for value in given]
    mid = f"m{number:04}"
    read = {name: StoredValue(value, number, mid) for name, value in {"last": number, **values}.items()}
    return Entry(
        space, "track", mid, number, Identifiers(given[0], given[1], given[2]), (names[0], names[1], names[2]), read
    )


class _Watched:
    """A store with something to await before and after each of its round trips."""

    def __init__(self, store: Store, before: Hook | None, after: Hook | None) -> None:
        self._store, self._before, self._after = store, before, after

    def __getattr__(self, method: str) -> Callable[[Sequence[Any]], Awaitable[Any]]:
        async def trip(arguments: Sequence[Any]) -> Any:
            if self._before is not None:
                await self._before(method, arguments)
            answer = await getattr(self._store, method)(arguments)
            if self._after is not None:
                await self._after(method, arguments)
            return answer

        return trip


def worker(store: Store, before: Hook | None = None, after: Hook | None = None) -> Rounds:
    """Return the rounds of a worker; the hooks are awaited around each round trip to the real store."""
    return Rounds(cast(Store, _Watched(store, before, after)), partial(new_pid, PIDS.randbytes), lambda _: 0.0)


async def owners(store: Store, calls: Request) -> dict[str, bytes | None]:
    """Return the content of the row of every identifier of the calls."""
    named = [(one.names, (one.ids.user, one.ids.key, one.ids.anon)) for one in calls]
    rows = {value: name for pair in named for name, value in zip(*pair, strict=True) if name and value}
    return dict(zip(rows, await store.read_rows(list(rows.values())), strict=True))


async def pids_of(store: Store, calls: Request) -> set[str]:
    """Return every profile that a row of the calls names."""
    return {pid for row in (await owners(store, calls)).values() if (pid := owner(row))}


async def table(store: Store, calls: Request) -> Table:
    """Return the users table of some calls without profile ids: the identifiers of each profile, and its record."""
    people: dict[bytes | None, list[str]] = {}
    for value, row in (await owners(store, calls)).items():
        people.setdefault(row, []).append(value)
    found: Table = {}
    for row, values in people.items():
        pid = owner(row)
        (stored,) = await store.read_records([pid]) if pid else [None]
        found[tuple(sorted(values))] = replace(unpack(stored)[1], space="") if stored else f"{row!r} is no profile"
    return found


def flat(requests: Sequence[Request]) -> list[Entry]:
    """Return the calls of some requests."""
    return [one for request in requests for one in request]


async def by_itself(store: Store, requests: Sequence[Request]) -> Table:
    """Return the users table after requests that came one after the other to one worker."""
    alone = worker(store)
    for request in requests:
        await alone.add(request)
    return await table(store, flat(requests))


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


def flat_results(results: Sequence[Sequence[Added]]) -> list[Added]:
    """Return the results of some requests."""
    return [added for result in results for added in result]


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


Ids: TypeAlias = tuple[int, int, int]

RACES: dict[str, tuple[list[Ids], list[Ids]]] = {
    "a new person's device": ([], [(1, 1, 1), (0, 0, 1)]),
    "a new person's key": ([], [(1, 1, 1), (0, 1, 0)]),
    "a new person's user": ([], [(1, 1, 1), (1, 0, 2)]),
    "the same call": ([], [(1, 1, 1), (1, 1, 1)]),
    "two users on a new device": ([], [(1, 1, 1), (2, 2, 1)]),
    "two users with a new key": ([], [(1, 1, 1), (2, 1, 2)]),
    "two keys on a new device": ([], [(0, 1, 1), (0, 2, 1)]),
    "a login that both see": ([(0, 0, 1)], [(1, 0, 1), (1, 0, 0)]),
    "two logins on a device": ([(0, 0, 1)], [(1, 0, 1), (2, 0, 1)]),
    "two users of a known key": ([(0, 1, 0)], [(1, 1, 1), (2, 1, 2)]),
    "a login by key and by device": ([(0, 1, 0), (0, 0, 1)], [(1, 1, 0), (1, 0, 1)]),
    "a page while the device becomes shared": ([(1, 0, 1)], [(2, 0, 1), (0, 0, 1)]),
    "a device becomes shared during a page": ([(1, 0, 1)], [(0, 0, 1), (2, 0, 1)]),
    "the owner while the device becomes shared": ([(1, 0, 1)], [(2, 0, 1), (1, 0, 1)]),
    "a third user while the device becomes shared": ([(1, 0, 1)], [(2, 0, 1), (3, 0, 1)]),
    "a change of key by both": ([(1, 1, 1)], [(1, 2, 0), (1, 3, 0)]),
    "a page of a device that two users log in on": ([], [(0, 0, 1), (1, 0, 1), (2, 0, 1)]),
    "a login that loses its device before another": ([(0, 1, 2)], [(1, 1, 1), (0, 0, 1), (2, 1, 1)]),
    "a login that comes twice before another": ([(0, 1, 0)], [(1, 1, 2), (1, 1, 0), (2, 1, 0)]),
}
"""User, key and device of the calls before, and of those that meet."""

TRIPS = 9
"""Round trips of a request that others may come in between."""


def made(race: str, space: str) -> list[Entry]:
    """Return the calls of a race in a space of their own."""
    return [call(number, *of, space=space) for number, of in enumerate(flat_ids(RACES[race]), 1)]


def flat_ids(race: tuple[list[Ids], list[Ids]]) -> list[Ids]:
    """Return the identifiers of all calls of a race."""
    return [*race[0], *race[1]]


async def meet(store: Store, known: Request, meeting: Request, steps: Sequence[int], remember: bool) -> list[Rounds]:
    """
    Add calls; of those that meet the first is interrupted before its round trips *steps* by the others.

    The others are added by another worker, after it where there is no such round trip. Returns the two workers. With
    *remember* both have seen the calls before.
    """
    trips: Iterator[int] = iter(())
    waiting = list(zip(steps, meeting[1:], strict=True))

    async def interrupt(_: str, __: Sequence[Any]) -> None:
        trip = next(trips, None)
        while waiting and waiting[0][0] == trip:
            await other.add([waiting.pop(0)[1]])

    one, other = worker(store, interrupt), worker(store)
    for each in (other, one) if remember else (other,):
        for before in known:
            await each.add([before])
    trips = count()
    await one.add(meeting[:1])
    for _, late in waiting:
        await other.add([late])
    return [one, other]


async def races(store: Store, race: str) -> list[tuple[list[Entry], list[Rounds]]]:
    """Let the calls of a race meet in every way; return the calls and the workers of each."""
    ways = []
    known, meeting = map(len, RACES[race])
    for steps in combinations_with_replacement(range(TRIPS), meeting - 1):
        for remember in (True, False) if known else (True,):
            calls = made(race, f"steps {steps} {remember}")
            ways.append((calls, await meet(store, calls[:known], calls[known:], steps, remember)))
    return ways


async def contradictions(store: Store, calls: Request) -> list[str]:
    """
    Return where a profile's record and the rows of the calls' identifiers do not say the same.

    Two profiles may have the same user, since nobody is merged; a user's row names one of them.
    """
    rows = {value: owner(row) for value, row in (await owners(store, calls)).items()}
    pids = sorted(await pids_of(store, calls))
    stored = dict(zip(pids, await store.read_records(pids), strict=True))
    records = {pid: unpack(packed)[1] for pid, packed in stored.items() if packed}
    found = [f"{value}: {pid} is dead" for value, pid in rows.items() if pid and pid not in records]
    for pid, record in records.items():
        says = {device.value: True for device in record.devices} | ({record.key: record.owns_key} if record.key else {})
        found += [f"{value}: {record}" for value, mine in says.items() if (rows[value] == pid) != mine]
        if record.user and records[rows[record.user] or pid].user != record.user:
            found.append(f"{record.user}: {record}")
        users = [value for value in rows if rows[value] == pid and value.startswith("user")]
        found += [f"{value} owned by: {record}" for value in users if value != record.user]
    return found


@pytest.mark.parametrize("race", RACES)
def test_records_and_rows_agree_after_a_race(make_store: MakeStore, race: str) -> None:
    """Wherever requests meet, a profile has no user, device or owned key that the rows give to somebody else."""

    async def use(store: Store) -> list[str]:
        return [one for calls, _ in await races(store, race) for one in await contradictions(store, calls)]

    assert on(make_store, use) == []


@pytest.mark.parametrize("race", [name for name in RACES if "device" in name])
def test_a_race_shares_a_device_as_a_serial_order_does(make_store: MakeStore, race: str) -> None:
    """Wherever requests meet, a device is shared only and always if it is when they come one after the other."""

    async def use(store: Store) -> tuple[set[bool], set[bool]]:
        serial, (known, meeting) = set(), map(len, RACES[race])
        for order in permutations(range(known, known + meeting)):
            calls = made(race, f"order {order}")
            people = await by_itself(store, [[calls[index]] for index in (*range(known), *order)])
            serial.add(SHARED_DEVICE in people.values())
        found = [await table(store, calls) for calls, _ in await races(store, race)]
        return {SHARED_DEVICE in people.values() for people in found}, serial

    found, serial = on(make_store, use)

    assert found <= serial


@pytest.mark.parametrize("race", RACES)
def test_two_workers_agree(make_store: MakeStore, race: str) -> None:
    """Wherever two requests met, both workers know the same person of each identifier, that of its row."""

    async def use(store: Store) -> list[list[str | None]]:
        found = []
        for calls, workers in await races(store, race):
            for of in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
                probe = call(9, *of, space=calls[0].space)
                people = [(await each.add([probe]))[0].profile for each in workers]
                row: list[str | None] = [*await pids_of(store, [probe])]
                found.append([None if person is None else person.id for person in people] + (row or [None]))
        return found

    assert [one for one in on(make_store, use) if len(set(one)) > 1] == []


def permanent(url: str, pids: set[str]) -> dict[str, bool]:
    """Tell for each profile whether it stays."""
    with redis.Redis.from_url(url) as client:
        return {pid: client.ttl(record_key(pid)) == -1 for pid in sorted(pids)}


@pytest.mark.parametrize("race", RACES)
def test_nobody_disappears_after_a_race(valkey_url: str, race: str) -> None:
    """Wherever two requests met, a profile that some identifier names is there to stay."""
    flush(valkey_url)

    async def use(store: Store) -> set[str]:
        return {pid for calls, _ in await races(store, race) for pid in await pids_of(store, calls)}

    stays = permanent(valkey_url, on(lambda: RedisStore(valkey_url), use))

    assert [pid for pid in stays if not stays[pid]] == []


STORY = [[(0, 0, 1)], [(1, 1, 1), (0, 0, 1)], [(2, 2, 1)], [(1, 3, 0)], [(3, 1, 2), (0, 4, 3)], [(0, 0, 2), (0, 0, 1)]]
"""User, key and device of the calls of some requests: a login, a shared device, a key change, a shared key."""


def story(space: str) -> list[list[Entry]]:
    """Return the requests of the story in a space of their own."""
    numbers = count(1)
    return [[call(next(numbers), *of, space=space) for of in request] for request in STORY]


async def crash(store: Store, requests: Sequence[Request], step: int, done: float) -> bool:
    """
    Add requests one by one; the process dies in round trip *step*, of which a part is done.

    Another process adds the request again and those after it. Returns whether there was such a round trip.
    """
    trips = count()

    async def die(method: str, arguments: Sequence[Any]) -> None:
        if next(trips) == step:
            await getattr(store, method)(arguments[: ceil(len(arguments) * done)])
            raise StoreUnavailable("the process died")

    alive = worker(store, die)
    for request in requests:
        try:
            await alive.add(request)
        except StoreUnavailable:
            alive = worker(store)
            await alive.add(request)
    return next(trips) > step


@pytest.mark.parametrize("done", [0, 0.5, 1], ids=["before", "half done", "after"])
def test_a_crash_leaves_no_trace(make_store: MakeStore, done: float) -> None:
    """Wherever a process dies, its request added again ends in the users table as it is without the crash."""

    async def use(store: Store) -> tuple[list[Table], Table]:
        found = []
        for step in count():
            requests = story(f"{step}")
            crashed = await crash(store, requests, step, done)
            found.append(await table(store, flat(requests)))
            if not crashed:
                break
        return found, await by_itself(store, story("none"))

    found, wanted = on(make_store, use)

    assert len(found) > 20
    assert [one for one in found if one != wanted] == []


def test_nobody_disappears_after_a_crash(valkey_url: str) -> None:
    """Wherever a process dies, a profile that some identifier names is there to stay once the request came again."""
    flush(valkey_url)

    async def use(store: Store) -> set[str]:
        pids = set()
        for step in range(10):
            request = [call(1, 1, 1, 1, space=f"{step}")]
            await crash(store, [request], step, 1)
            pids |= await pids_of(store, request)
        return pids

    stays = permanent(valkey_url, on(lambda: RedisStore(valkey_url), use))

    assert [pid for pid in stays if not stays[pid]] == []


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


class Crowd(NamedTuple):
    """What became of the calls of many clients: results, rows, people, users ever written to a profile."""

    calls: list[Entry]
    added: list[Added]
    rows: dict[str, bytes | None]
    people: dict[str, Record]
    users: dict[str, set[str | None]]
    contradictions: list[str]


@pytest.fixture
def crowd(make_store: MakeStore) -> Crowd:
    """Have clients of two workers send hundreds of calls of the same few people at once."""
    random = Random(4711)  # noqa: S311 - the same in every run
    numbers = iter(random.sample(range(1, 9999), 360))
    calls = [
        call(next(numbers), random.choice([0, 0, 1, 2, 3]), random.choice([0, 0, 1, 2]), random.randrange(6))
        for _ in range(360)
    ]
    users: dict[str, set[str | None]] = {}

    async def dawdle(_: str, __: Sequence[Any]) -> None:
        for _each in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def look(method: str, commits: Sequence[Any]) -> None:
        for commit in commits if method == "commit" else ():
            users.setdefault(commit.pid, set()).add(unpack(commit.record)[1].user)

    async def client(of: Rounds, mine: Request) -> list[Added]:
        return [added for start in range(0, len(mine), 3) for added in await of.add(mine[start : start + 3])]

    async def use(store: Store) -> Crowd:
        second = make_store()
        workers = [worker(store, dawdle, look), worker(second, dawdle, look)]
        every = [calls[start : start + 30] for start in range(0, len(calls), 30)]
        added = await asyncio.gather(*[client(workers[n % 2], mine) for n, mine in enumerate(every)])
        pids = sorted(await pids_of(store, calls))
        records = [unpack(stored)[1] for stored in await store.read_records(pids) if stored]
        await second.close()
        people = dict(zip(pids, records, strict=True))
        wrong = await contradictions(store, calls)
        return Crowd(calls, [a for of in added for a in of], await owners(store, calls), people, users, wrong)

    return on(make_store, use)


def test_a_crowd_loses_nothing(crowd: Crowd) -> None:
    """Every call is added to a person, whose values are the last ones by version of all calls that were."""
    last: dict[str, int] = {}
    for one, result in zip(crowd.calls, crowd.added, strict=True):
        if result.profile is not None:
            last[result.profile.id] = max(last.get(result.profile.id, 0), one.event_time)

    nobody = [one.ids for one, result in zip(crowd.calls, crowd.added, strict=True) if result.profile is None]
    assert [ids for ids in nobody if ids.user or ids.key] == []
    assert [result.failure for result in crowd.added if result.failure] == []
    assert last == {pid: record.values["last"].value for pid, record in crowd.people.items()}


def test_a_crowd_stays_apart(crowd: Crowd) -> None:
    """No profile ever has two users, and every user owns the profile that has it."""
    assert max(len(seen - {None}) for seen in crowd.users.values()) == 1
    for value, row in crowd.rows.items():
        assert not value.startswith("user") or crowd.people[owner(row) or ""].user == value


def test_a_crowd_has_owners(crowd: Crowd) -> None:
    """Every identifier has exactly one owner, which is there; only a device may be shared."""
    shared = [value for value, row in crowd.rows.items() if row == SHARED]

    assert [value for value in shared if not value.startswith("anon")] == []
    assert [value for value, row in crowd.rows.items() if owner(row) not in crowd.people and row != SHARED] == []


def test_records_and_rows_agree_after_a_crowd(crowd: Crowd) -> None:
    """A profile has no user, device or owned key that the rows give to somebody else."""
    assert crowd.contradictions == []


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
