"""Requests of two workers that meet, in every way in which their round trips can follow each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, count, permutations
from typing import Any, TypeAlias

import pytest
from tests.support.people import (
    SHARED_DEVICE,
    MakeStore,
    Request,
    by_itself,
    call,
    contradictions,
    follow,
    owners,
    permanent,
    pids_of,
    table,
    worker,
)
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.identity.entries import DEFAULT_POLICY, Entry
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore

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
    return [
        call(number, *of, space=space, policy=DEFAULT_POLICY, previous=None, **{f"call {number}": number})
        for number, of in enumerate(flat_ids(RACES[race]), 1)
    ]


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
                (content,) = (await owners(store, [probe])).values()
                row = await follow(store, None if content is None else content[1:13].decode() or None)
                found.append([None if person is None else person.id for person in people] + [row])
        return found

    assert [one for one in on(make_store, use) if len(set(one)) > 1] == []


@pytest.mark.parametrize("race", RACES)
def test_every_call_is_in_one_person_after_a_race(make_store: MakeStore, race: str) -> None:
    """Wherever requests meet, no call leaves its values with somebody else, also if it took several tries."""

    async def use(store: Store) -> list[str]:
        met = {calls[0].space: calls for calls, _ in await races(store, race)}
        found = {(space, name): 0 for space, calls in met.items() for each in calls for name in each.values}
        async for _, stored in store.scan():
            record = unpack(stored)[1]
            if not record.redirect and not record.stub:
                for name in record.values:
                    found[record.space, name] += 1
        return [f"{where}: {number}" for where, number in found.items() if where[1] != "last" and number != 1]

    assert on(make_store, use) == []


ALIASES: dict[str, tuple[list[Ids], list[Ids]]] = {
    "nobody and nobody": ([], [(514, 0, 0), (14, 0, 0)]),
    "a user and nobody": ([(14, 0, 0)], [(514, 0, 0), (14, 0, 0)]),
    "nobody and a user": ([(514, 0, 0)], [(514, 0, 0), (14, 0, 0)]),
}
"""User, key and device of the calls before, and of those that meet an alias call, user 514 to 14, of another worker."""


@pytest.mark.parametrize("race", ALIASES)
@pytest.mark.parametrize("first", ["alias", "user514", "user14"])
def test_a_user_is_in_one_person_after_a_race_with_an_alias_call(make_store: MakeStore, race: str, first: str) -> None:
    """Wherever an alias call and calls of both userIds meet, either userId is in one record only."""

    async def use(store: Store) -> list[str]:
        found = []
        for steps in combinations_with_replacement(range(TRIPS), 2):
            space = f"{race} {first} {steps}"
            known = [call(number, *of, space=space) for number, of in enumerate(ALIASES[race][0], 1)]
            both = [call(number, *of, space=space) for number, of in enumerate(ALIASES[race][1], 5)]
            alias = call(9, 14, previous="user514", space=space)
            meeting = {
                "alias": [alias, *both],
                "user514": [both[0], alias, both[1]],
                "user14": [both[1], alias, both[0]],
            }
            await meet(store, known, meeting[first], steps, remember=True)
            users: list[str] = []
            async for _, stored in store.scan():
                record = unpack(stored)[1]
                if record.space == space and not record.redirect and not record.stub:
                    users += [user for user in (record.user, *record.aliases) if user is not None]
            found += [f"{steps}: {users}"] if sorted(users) != ["user14", "user514"] else []
        return found

    assert on(make_store, use) == []


@pytest.mark.parametrize("race", RACES)
def test_nobody_disappears_after_a_race(valkey_url: str, race: str) -> None:
    """Wherever two requests met, a profile that some identifier names is there to stay."""
    flush(valkey_url)

    async def use(store: Store) -> set[str]:
        return {pid for calls, _ in await races(store, race) for pid in await pids_of(store, calls)}

    stays = permanent(valkey_url, on(lambda: RedisStore(valkey_url), use))

    assert [pid for pid in stays if not stays[pid]] == []
