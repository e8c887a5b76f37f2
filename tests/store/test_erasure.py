"""Erasing and suppressing people: nothing comes back, whoever comes in between and wherever the process dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import pytest
from tests.support.people import (
    MakeStore,
    call,
    contradictions,
    flat_results,
    people,
    rows_of,
    sweeper,
    worker,
)
from tests.support.stores import on

from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.users_table import Erased, UsersTable

KNOWN = [(1, 1, 1), (1, 2, 2)]
"""User, key and device of a person's calls: two devices, a former key."""


def calls(space: str = "s", start: int = 10) -> list[Any]:
    """Return the calls of a person, from a time on."""
    return [call(number, *of, space=space) for number, of in enumerate(KNOWN, start)]


async def states(store: Store, space: str = "s") -> dict[str, str]:
    """Return the state of each identifier of the person."""
    named = [("user", "user1"), ("key", "key1"), ("key", "key2"), ("anon", "anon1"), ("anon", "anon2")]
    return {value: await people(store).state(space, kind, value) for kind, value in named}


async def traces(store: Store) -> list[str]:
    """Return what the store still says of a person in plain text."""
    found = [f"{name} {content!r}" for name, content in (await rows_of(store)).items()]
    found += [f"{pid} {content!r}" async for pid, content in store.scan()]
    return [one for one in found if any(word in one for word in ("user1", "key1", "key2", "anon1", "anon2", "gold"))]


@pytest.mark.parametrize("kind", ["user", "key", "anon"])
def test_an_erased_person_leaves_tombstones_only(make_store: MakeStore, kind: str) -> None:
    """Erasing by any identifier erases all of them, former keys and values as well, and says which."""

    async def use(store: Store) -> tuple[Erased, dict[str, str], list[str]]:
        await worker(store).add([call(5, 1, 1, 1, tier="gold"), *calls()])
        erased = await people(store).erase("s", kind, f"{kind}1", "delete", 100)
        return erased, await states(store), await traces(store)

    erased, found, left = on(make_store, use)

    assert sorted(erased.identifiers) == [
        ("anon", "anon1"), ("anon", "anon2"), ("key", "key1"), ("key", "key2"), ("user", "user1"),
    ]  # fmt: skip
    assert sorted(erased.keys) == ["key1", "key2"]
    assert set(found.values()) == {"deleted"}
    assert left == []


def test_calls_from_before_the_erasure_are_dropped_for_ever(make_store: MakeStore) -> None:
    """A replay does not bring a person back, also when a later call has, and not in a worker that remembers it."""

    async def use(store: Store) -> list[Any]:
        one, other = worker(store), worker(store)
        await one.add(calls())
        await other.add(calls())
        await people(store).erase("s", "user", "user1", "delete", 100)
        replayed = [
            await each.add([call(number, *of)])
            for each in (one, other)
            for number, of in ((50, (1, 0, 0)), (100, (0, 2, 0)))
        ]
        later = await one.add([call(101, 1)])
        again = await other.add([call(60, 1, 0, 0), call(102, 1), call(61, 1)])
        remembered = await one.add([call(103, 1)]), await one.add([call(70, 1)])
        return [*[added for (added,) in replayed], *later, *again, *flat_results(remembered)]

    results = on(make_store, use)

    assert [one.filtered is not None for one in results] == [True] * 4 + [False, True] * 3
    assert results[4].profile.key is None
    assert results[4].profile.anonymous_ids == ()


def test_a_suppressed_person_stays_away(make_store: MakeStore) -> None:
    """All calls are dropped until the person is taken again, then none is: nothing was deleted."""

    async def use(store: Store) -> list[Any]:
        one, table_of = worker(store), people(store)
        await one.add(calls())
        await table_of.erase("s", "anon", "anon2", "suppress", 100)
        dropped = await one.add([call(200, 1), call(201, 0, 1), call(202, 2, 0, 1)])
        state = await states(store)
        lifted = await table_of.unsuppress("s", "key", "key1"), await table_of.unsuppress("s", "key", "key1")
        after = await one.add([call(203, 1, 1, 1), call(99, 1)])
        return [dropped, state, lifted, after, await traces(store)]

    dropped, state, lifted, after, _ = on(make_store, use)

    assert [one.profile for one in dropped] == [None] * 3
    assert set(state.values()) == {"suppressed"}
    assert lifted == (True, False)
    assert [one.profile is not None for one in after] == [True, True]


def test_a_merged_person_is_erased_with_all_that_was_merged(make_store: MakeStore) -> None:
    """Redirects go too: no record is left, whichever profile an identifier came from."""

    async def use(store: Store) -> tuple[list[str], list[Any], set[str]]:
        await worker(store).add([call(1, 0, 1, 1), call(2, 1, 0, 2)])
        await worker(store).add([call(3, 1, 1)])
        await people(store).erase("s", "anon", "anon1", "delete", 100)
        records = [pid async for pid, _ in store.scan()]
        return await traces(store), records, {await people(store).state("s", "user", "user1")}

    assert on(make_store, use) == ([], [], {"deleted"})


def test_what_others_own_is_not_erased(make_store: MakeStore) -> None:
    """A key that another user claimed first and a device that was shared stay as they are."""

    async def use(store: Store) -> tuple[Erased, list[str], Any]:
        one = worker(store)
        await one.add([call(1, 1, 1, 1), call(2, 2, 1, 2), call(3, 2, 0, 1), call(4, 0, 0, 1)])
        erased = await people(store).erase("s", "user", "user2", "delete", 100)
        kinds = [("user", "user1"), ("key", "key1"), ("anon", "anon1"), ("anon", "anon2")]
        return erased, [await people(store).state("s", *each) for each in kinds], await one.add([call(50, 1, 1)])

    erased, found, (added,) = on(make_store, use)

    assert sorted(erased.identifiers) == [("anon", "anon2"), ("user", "user2")]
    assert erased.keys == ()
    assert found == ["owned", "owned", "shared", "deleted"]
    assert added.profile.user == "user1"


def test_an_unknown_identifier_leaves_a_tombstone(make_store: MakeStore) -> None:
    """Who is erased before anything is known of them does not come in with calls from before."""

    async def use(store: Store) -> list[Any]:
        await people(store).erase("s", "user", "user1", "delete", 100)
        return await worker(store).add([call(100, 1), call(101, 1)])

    early, late = on(make_store, use)

    assert (early.profile, late.profile.user) == (None, "user1")


def test_the_calls_of_a_shared_device_are_forgotten(make_store: MakeStore) -> None:
    """Erasing by a shared device removes its isolate and its mark, and drops its calls; its users stay."""

    async def use(store: Store) -> tuple[str, list[str | None]]:
        await worker(store).add([call(1, 1, 0, 1), call(2, 2, 0, 1), call(3, 0, 0, 1)])
        await people(store).erase("s", "anon", "anon1", "delete", 100)
        users = sorted([found.record.user async for found in people(store).scan("s")], key=str)
        return await people(store).state("s", "anon", "anon1"), users

    assert on(make_store, use) == ("deleted", ["user1", "user2"])


class Interruption:
    """Does something before a round trip, counted from when it is armed."""

    def __init__(self, step: int, do: Callable[[], Awaitable[Any]]) -> None:
        self._step, self._do = step, do
        self.armed = False

    async def before(self, _: str, __: Sequence[Any]) -> None:
        """Do it when its time has come."""
        if self.armed:
            if self._step == 0:
                await self._do()
            self._step -= 1


LATE = {
    "the same person": (1, 1, 1),
    "a new device": (1, 0, 3),
    "a merge": (1, 3, 0),
    "the device alone": (0, 0, 1),
    "the device by another user": (2, 0, 1),
    "the key by another user": (2, 1, 0),
    "a new key": (1, 4, 0),
}
"""A call that is under way while its person is erased."""


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("mode", ["delete", "suppress"])
def test_a_call_under_way_does_not_bring_an_erased_person_back(make_store: MakeStore, late: str, mode: str) -> None:
    """Wherever an erasure comes in between round trips of a call, no identifier of the person has an owner."""

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in range(20):
            space = f"{late} {mode} {step}"
            known, other = [*calls(space), call(13, 0, 3, 4, space=space)], call(20, *LATE[late], space=space)
            interruption = Interruption(step, partial(people(store).erase, space, "user", "user1", mode, 100))
            one = worker(store, interruption.before)
            await one.add(known)
            interruption.armed = True
            await one.add([other])
            await people(store).erase(space, "user", "user1", mode, 100)
            found = await states(store, space)
            wrong += [f"{step}: {value} is {state}" for value, state in found.items() if state == "owned"]
            await sweeper(store).run()  # a row that was claimed meanwhile names nobody; until then it is there
            wrong += await contradictions(store, [*known, other])
        return wrong

    allowed = {"key1", "anon1"} if "another user" in late else set()
    assert [one for one in on(make_store, use) if not any(f" {value} is owned" in one for value in allowed)] == []


def dying(store: Store, step: int) -> UsersTable:
    """Return a users table whose process dies before its round trip *step*."""
    trips = count()

    async def die(_: str, __: Sequence[Any]) -> None:
        if next(trips) == step:
            raise StoreUnavailable("the process died")

    return people(store, die)


@pytest.mark.parametrize("mode", ["delete", "suppress"])
@pytest.mark.parametrize("again", ["erase", "call", "sweep"])
def test_a_crash_during_an_erasure(make_store: MakeStore, mode: str, again: str) -> None:
    """Wherever the process dies, the erasure that comes again, a call or a sweep finishes what was begun."""

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in count():
            space = f"{step}"
            await worker(store).add(calls(space))
            await worker(store).add([call(1, 0, 3, 3, space=space), call(2, 1, 3, space=space)])
            try:
                await dying(store, step).erase(space, "user", "user1", mode, 100)
            except StoreUnavailable:
                if again == "erase":
                    await people(store).erase(space, "user", "user1", mode, 100)
                elif again == "call":
                    await worker(store).add([call(100, *of, space=space) for of in KNOWN])
                else:
                    await sweeper(store).run()
                found = set((await states(store, space)).values())
                done = {"deleted", "suppressed"} if again == "erase" else {"deleted", "suppressed", "owned"}
                wrong += [f"{step}: {found}"] if len(found) > 1 or not found <= done else []
            else:
                return wrong
        return []

    assert on(make_store, use) == []


def test_a_person_can_be_found_by_everything(make_store: MakeStore) -> None:
    """Looking up follows merges, and says of an identifier what it is."""

    async def use(store: Store) -> list[Any]:
        await worker(store).add([call(1, 0, 1, 1), call(2, 1, 0, 2)])
        await worker(store).add([call(3, 1, 1)])
        found = [
            await people(store).find("s", *each) for each in (("user", "user1"), ("key", "key1"), ("anon", "anon1"))
        ]
        nobody = await people(store).find("s", "user", "user2"), await people(store).state("s", "user", "user2")
        return [*found, nobody]

    user, key, anon, nobody = on(make_store, use)

    assert user == key == anon
    assert user.record.user == "user1"
    assert nobody == (None, "absent")
