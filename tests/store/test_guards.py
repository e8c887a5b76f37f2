"""Guards of the protocol that nothing else would miss: tests/README.md lists all of them, each with its test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from tests.support.people import (
    NAMER,
    MakeStore,
    Request,
    call,
    contradictions,
    people,
    permanent,
    pids_of,
    sweeper,
    worker,
)
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.identity.entries import Entry, Policy
from emarsys_cdp.merging import Known, Merger
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import Record, pack, unpack
from emarsys_cdp.store.redis import RedisStore


async def die_in(store: Store, request: Request, step: int) -> bool:
    """Add a request; the process dies before its round trip *step*, and nobody sends it again. Tell whether it died."""
    trips = count()

    async def die(_: str, __: Sequence[Any]) -> None:
        if next(trips) == step:
            raise StoreUnavailable("the process died")

    try:
        await worker(store, die).add(request)
    except StoreUnavailable:
        return True
    return False


def test_a_person_whom_nobody_names_disappears(valkey_url: str) -> None:
    """Wherever a process dies, a record that no identifier leads to does not stay for ever."""
    flush(valkey_url)

    async def use(store: Store) -> set[str]:
        named = set()
        for step in range(6):
            request = [call(1, 1, 1, 1, space=f"{step}")]
            await die_in(store, request, step)
            named |= await pids_of(store, request)
        return {pid async for pid, _ in store.scan()} - named

    orphans = on(lambda: RedisStore(valkey_url), use)

    assert orphans
    assert [pid for pid, stays in permanent(valkey_url, orphans).items() if stays] == []


def test_a_key_that_a_dead_process_was_about_to_claim_is_nobodys(make_store: MakeStore) -> None:
    """Who gave it may use it, but nobody counts as its owner who has not got its row."""

    async def use(store: Store) -> list[str]:
        wrong, step = [], count()
        while True:
            space = f"{next(step)}"
            calls = [call(n, *of, space=space) for n, of in enumerate([(1, 0, 1), (0, 2, 1), (2, 2, 3)], 1)]
            await worker(store).add(calls[:1])
            died = await die_in(store, calls[1:2], int(space))
            await worker(store).add(calls[2:])
            wrong += [one for one in await contradictions(store, calls) if "owns_key=True" in one]
            if not died:
                return wrong

    assert on(make_store, use) == []


def test_a_key_that_a_dead_process_was_about_to_claim_goes_along_in_a_merge(make_store: MakeStore) -> None:
    """A row that was never claimed is claimed for the person that the record becomes part of."""

    async def use(store: Store) -> tuple[str, Any, Any]:
        async def die(method: str, _: Sequence[Any]) -> None:
            if method == "claim":
                raise StoreUnavailable("the process died")

        await worker(store).add([call(1, 0, 0, 1)])
        try:
            await worker(store, die).add([call(2, 0, 1, 1)])
        except StoreUnavailable:
            await worker(store).add([call(3, 1, 0, 2)])
        await worker(store).add([call(4, 1, 0, 1)])
        table = people(store)
        return (
            await table.state("s", "key", "key1"),
            await table.find("s", "key", "key1"),
            await table.find("s", "user", "user1"),
        )

    state, by_key, by_user = on(make_store, use)

    assert state == "owned"
    assert by_key == by_user


def test_a_merge_does_nothing_when_the_survivor_has_changed(make_store: MakeStore) -> None:
    """The loser does not become a redirect: the two are looked at anew, and may be the other way round by then."""
    kept, lost = Record("s", user="user1", first_seen=1), Record("s", first_seen=2)

    async def use(store: Store) -> Record:
        first = [Commit("A" * 12, 0, pack(kept, 1)), Commit("B" * 12, 0, pack(lost, 2))]
        await store.commit([*first, Commit("A" * 12, 1, pack(kept, 3))])
        await Merger(store, NAMER, count(9)).merge(Known("A" * 12, 1, kept), Known("B" * 12, 2, lost))
        (stored,) = await store.read_records(["B" * 12])
        assert stored is not None
        return unpack(stored)[1]

    assert on(make_store, use).redirect is None


def test_a_value_that_cannot_be_stored_costs_no_merge(make_store: MakeStore) -> None:
    """A call that cannot be added is refused alone, also when the next one of its request merges its person."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 0, 1, 1), call(2, 1, 0, 2)])
        return await worker(store).add([call(3, 1, big=2**70), call(4, 1, 1)])

    refused, added = on(make_store, use)

    assert refused.failure is not None
    assert (added.profile.user, added.profile.key) == ("user1", "key1")


def test_a_redelivered_call_among_others_gets_the_person_of_now(make_store: MakeStore) -> None:
    """A call that changes nothing is answered with the person as another worker has left it, whoever comes with it."""

    async def use(store: Store) -> Any:
        one, other = worker(store), worker(store)
        await one.add([call(1, 1, anon=1)])
        await other.add([call(2, 1)])
        return await one.add([call(1, 1, anon=1), call(3, 2)])

    again, _ = on(make_store, use)

    assert again.profile.values["last"].value == 2


def test_the_survivor_of_a_half_done_merge_is_one_person_for_its_next_call(make_store: MakeStore) -> None:
    """When a process dies after it has marked the loser, a call of the survivor finds what the loser knew."""

    async def use(store: Store) -> Any:
        async def die(method: str, commits: Sequence[Any]) -> None:
            if method == "commit" and unpack(commits[0].record)[1].merged_from:
                raise StoreUnavailable("the process died")

        await worker(store).add([call(1, 0, 1, 1), call(2, 1, 0, 2)])
        try:
            await worker(store, die).add([call(3, 1, 1)])
        except StoreUnavailable:
            return await worker(store).add([call(4, 1, 0, 2)])

    (added,) = on(make_store, use)

    assert (added.profile.key, added.profile.anonymous_ids) == ("key1", ("anon2", "anon1"))


def test_a_device_is_nobodys_no_longer_than_its_row_says() -> None:
    """When the row of a shared device has expired, a worker that has seen it shared takes it for a new one."""

    async def use(store: Store) -> Any:
        one = worker(store)
        await one.add([call(1, 1, 0, 1)])
        await one.add([call(2, 2, 0, 1)])
        shared = [await one.add([call(number, 0, 0, 1)]) for number in (3, 4)]
        assert isinstance(store, MemoryStore)
        store.rows.pop(NAMER("s", "a", "anon1"))
        return [added.filtered is not None for (added,) in [*shared, await one.add([call(5, 0, 0, 1)])]]

    assert on(MemoryStore, use) == [True, True, False]


def test_who_takes_a_key_and_then_the_person_keeps_the_key(make_store: MakeStore) -> None:
    """Wherever an alias call merges two users of whom one is just taking a key of the other, the merged one has it."""
    policy = Policy(alias_merge_known=True)

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in range(14):
            space, trips = f"{step}", count()
            known = [call(1, 1, 1, space=space), call(5, 1, 2, space=space)]
            take, alias = call(6, 2, 1, space=space), call(7, 2, previous="user1", policy=policy, space=space)

            async def merge(
                _: str, __: Sequence[Any], trips: Any = trips, step: int = step, alias: Any = alias
            ) -> None:
                if next(trips) == step:
                    await worker(store).add([alias])

            await worker(store).add(known)
            await worker(store, merge).add([take])
            found = await people(store).find(space, "key", "key1")
            has = found is not None and "key1" in (found.record.key, *found.record.former_keys)
            wrong += [] if has else [f"{step}: {found}"]
        return wrong

    assert on(make_store, use) == []


@pytest.mark.parametrize("first", ["alias", "other"])
def test_a_user_whose_row_names_somebody_who_does_not_list_it(make_store: MakeStore, first: str) -> None:
    """Wherever an alias call, which lets its person list it, and a call of that user meet, only one of the two does."""

    async def use(store: Store) -> list[str]:
        wrong = []
        for step in range(10):
            space, trips = f"{step}", count()
            (pid,) = await added(store, call(1, 14, space=space))
            await store.claim([Claim(NAMER(space, "u", "user514"), None, owned_by(pid))])
            alias, other = call(2, 14, previous="user514", space=space), call(3, 514, space=space)
            mine, its = (alias, other) if first == "alias" else (other, alias)

            async def meet(_: str, __: Sequence[Any], trips: Any = trips, step: int = step, its: Any = its) -> None:
                if next(trips) == step:
                    await worker(store).add([its])

            await worker(store, meet).add([mine])
            users = []
            async for _, stored in store.scan():
                record = unpack(stored)[1]
                if record.space == space and not record.stub and record.redirect is None:
                    users += [user for user in (record.user, *record.aliases) if user is not None]
            wrong += [f"{step}: {users}"] if sorted(users) != ["user14", "user514"] else []
        return wrong

    assert on(make_store, use) == []


def test_an_alias_that_a_dead_process_was_about_to_claim_is_somebody_elses(make_store: MakeStore) -> None:
    """When the userId came by itself meanwhile, the alias call that comes again is refused, and lists it no longer."""

    async def use(store: Store) -> list[str]:
        wrong, step = [], count()
        while True:
            space = f"{next(step)}"
            await worker(store).add([call(1, 14, space=space)])
            alias = call(2, 14, previous="user514", space=space)
            died = await die_in(store, [alias], int(space))
            await worker(store).add([call(3, 514, space=space)])
            await worker(store).add([alias])
            users = []
            async for _, stored in store.scan():
                record = unpack(stored)[1]
                if record.space == space and not record.stub and record.redirect is None:
                    users += [user for user in (record.user, *record.aliases) if user is not None]
            wrong += [f"{space}: {users}"] if sorted(users) != ["user14", "user514"] else []
            if not died:
                return wrong

    assert on(make_store, use) == []


def test_a_user_that_a_dead_process_was_about_to_claim_is_swept_from_whom_nobody_meets(make_store: MakeStore) -> None:
    """When its device became shared and the user somebody else's, no call leads to the record; the sweep does."""

    async def use(store: Store) -> list[str]:
        wrong, step = [], count()
        while True:
            space = f"{next(step)}"
            await worker(store).add([call(1, 0, 0, 1, space=space)])
            login = call(2, 1, 0, 1, space=space)
            died = await die_in(store, [login], int(space))
            await worker(store).add([call(3, 1, 0, 2, space=space)])
            await worker(store).add([call(4, 2, 0, 1, space=space)])
            await worker(store).add([login])
            await sweeper(store).run()
            users = []
            async for _, stored in store.scan():
                record = unpack(stored)[1]
                if record.space == space and not record.stub and record.redirect is None and record.user is not None:
                    users.append(record.user)
            wrong += [f"{space}: {users}"] if sorted(users) != ["user1", "user2"] else []
            if not died:
                return wrong

    assert on(make_store, use) == []


async def added(store: Store, one: Entry) -> list[str]:
    """Add a call; return the profile that it is of."""
    return [result.profile.id for result in await worker(store).add([one]) if result.profile is not None]
