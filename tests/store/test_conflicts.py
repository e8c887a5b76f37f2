"""Identifiers that contradict each other, alias calls and limits: what each mode of a space makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.people import MakeStore, Request, call, flat, people, rows_of, table, worker
from tests.support.stores import on

from emarsys_cdp.identity.entries import Policy
from emarsys_cdp.rounds import Added
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import Record


def after(make_store: MakeStore, *calls: Any) -> tuple[list[Added], dict[tuple[str, ...], Any]]:
    """Return the results of calls that came one by one, and user, key, former keys, aliases of each profile."""

    async def use(store: Store) -> Any:
        one = worker(store)
        added = [(await one.add([each]))[0] for each in calls]
        return added, await table(store, flat([calls]))

    added, found = on(make_store, use)
    return added, {who: _said(record) for who, record in found.items()}


def _said(record: Record | str) -> Any:
    return record if isinstance(record, str) else (record.user, record.key, record.former_keys, record.aliases)


def warnings(added: list[Added]) -> list[str]:
    """Return the codes of all warnings in the order of the calls."""
    return [code for one in added for code in one.warnings]


STRICT, FIRST_OWNER = Policy(stitch="strict"), Policy(stitch="first-owner")


def test_strict_joins_purely_anonymous_profiles_only(make_store: MakeStore) -> None:
    """A key on a device and a user on it are two people; a device that nothing is known of belongs to the user."""
    calls = [(0, 1, 1), (1, 0, 2), (1, 0, 1), (0, 0, 3), (1, 0, 3)]
    added, found = after(make_store, *[call(n, *of, policy=STRICT) for n, of in enumerate(calls, 1)])

    assert warnings(added) == ["anon_shared"]
    assert sorted(found) == [("anon1",), ("anon2", "anon3", "user1"), ("key1",)]
    assert found[("anon1",)] == "shared"


def test_first_owner_keeps_the_device(make_store: MakeStore) -> None:
    """A device of one user that another uses stays the first one's, and says nothing of the second."""
    added, found = after(
        make_store, *[call(n, *of, policy=FIRST_OWNER) for n, of in enumerate([(1, 0, 1), (2, 0, 1), (0, 0, 1)], 1)]
    )

    assert warnings(added) == []
    assert sorted(found) == [("anon1", "user1"), ("user2",)]
    assert added[2].profile is not None
    assert added[2].profile.user == "user1"


TWO_USERS = [(1, 1, 1), (2, 1, 2), (0, 1, 0)]
"""Two users give the same key, then a call with the key alone."""

SHARED_KEYS = {
    "share": (["key_shared"], {("anon1", "key1", "user1"): "key1", ("anon2", "user2"): "key1"}, "user1"),
    "refuse": (["key_shared"], {("anon1", "key1", "user1"): "key1", ("anon2", "user2"): None}, "user1"),
    "move": (["key_shared"], {("anon1", "user1"): None, ("anon2", "key1", "user2"): "key1"}, "user2"),
    "merge": (["key_shared"], {("anon1", "anon2", "key1", "user1", "user2"): "key1"}, "user1"),
}


@pytest.mark.parametrize("mode", SHARED_KEYS)
def test_two_users_with_one_key(make_store: MakeStore, mode: str) -> None:
    """Each mode of onKeyShared: who has the key afterwards, and who is meant by the key alone."""
    policy = Policy(on_key_shared=mode)
    added, found = after(make_store, *[call(n, *of, policy=policy) for n, of in enumerate(TWO_USERS, 1)])
    said, keys, user = SHARED_KEYS[mode]

    assert warnings(added) == said
    assert {who: record[1] for who, record in found.items()} == keys
    assert added[2].profile is not None
    assert added[2].profile.user == user


def test_a_former_key_is_taken_over(make_store: MakeStore) -> None:
    """A former key finds its person until another user claims it; then it is that user's alone."""
    calls = [call(1, 1, 1), call(9, 1, 2), call(3, 0, 1), call(4, 2, 1), call(5, 0, 1)]
    added, found = after(make_store, *calls)

    assert [one.profile and one.profile.user for one in added] == ["user1", "user1", "user1", "user2", "user2"]
    assert found == {("key2", "user1"): ("user1", "key2", (), ()), ("key1", "user2"): ("user2", "key1", (), ())}
    assert warnings(added) == []


def test_a_key_of_many_users_is_nobodys(make_store: MakeStore) -> None:
    """The sixth user of a key makes it one by which nobody is known; contacts are addressed by it all the same."""
    calls = [*(call(user, user, 1) for user in range(1, 7)), call(7, 0, 1), call(8, 7, 1)]

    async def use(store: Store) -> Any:
        one = worker(store)
        added = [(await one.add([each]))[0] for each in calls]
        return added, await people(store).state("s", "key", "key1"), (await one.add([call(9, 1, 1)]))[0]

    added, state, again = on(make_store, use)

    assert state == "quarantined"
    assert [one.profile and one.profile.key for one in added] == ["key1"] * 6 + [None, "key1"]
    assert warnings(added) == ["key_shared"] * 7
    assert (again.profile.user, again.profile.key) == ("user1", "key1")


@pytest.mark.parametrize("moved", [False, True], ids=["its key", "a former key"])
def test_a_worker_that_knew_the_owner_of_a_key_learns_that_it_is_nobodys(make_store: MakeStore, moved: bool) -> None:
    """What one worker has made nobody's key finds nobody at another one that remembers whose it was."""
    moves = [call(99, 1, 2)] if moved else []

    async def use(store: Store) -> Any:
        one, other = worker(store), worker(store)
        for each in (call(1, 1, 1), call(2, 0, 1)):
            await one.add([each])
        for user in range(2, 6):
            await other.add([call(user + 10, user, 1)])
        for each in moves:
            await one.add([each])
        await other.add([call(16, 6, 1)])
        known = await one.add([call(20, 1)])
        return known, await one.add([call(21, 0, 1)]), await one.add([call(22, 1, 1)])

    (known,), (alone,), (own,) = on(make_store, use)

    assert (known.profile.user, own.profile.user) == ("user1", "user1")
    assert (alone.profile, alone.warnings) == (None, ("key_shared",))
    assert own.warnings == ("key_shared",)


def test_a_redelivered_call_is_no_further_user_of_a_key(make_store: MakeStore) -> None:
    """The same two users again and again stay two users."""
    calls = [call(1, 1, 1), *[call(2, 2, 1)] * 9]

    async def use(store: Store) -> str:
        for each in calls:
            await worker(store).add([each])
        return await people(store).state("s", "key", "key1")

    assert on(make_store, use) == "owned"


def test_the_least_recent_device_leaves(make_store: MakeStore) -> None:
    """Beyond the limit the device seen longest ago leaves its person, and may be anybody's from then on."""
    policy = Policy(anon_limit=3)
    calls = [*(call(n, 1, 0, n, policy=policy) for n in (1, 2, 3, 4)), call(5, 2, 0, 1, policy=policy)]
    added, found = after(make_store, *calls)

    assert sorted(found) == [("anon1", "user2"), ("anon2", "anon3", "anon4", "user1")]
    assert warnings(added) == []


def test_a_thousand_devices_of_one_user(make_store: MakeStore) -> None:
    """The hundred used last stay; the rows of the others are gone, so they are anybody's."""
    calls = [call(number, 1, 0, number) for number in range(1, 1001)]

    async def use(store: Store) -> Any:
        one = worker(store)
        for start in range(0, 1000, 50):
            await one.add(calls[start : start + 50])
        return await table(store, [call(1, 1)]), await rows_of(store)

    found, rows = on(make_store, use)
    record = found[("user1",)]

    assert isinstance(record, Record)
    assert {device.value for device in record.devices} == {f"anon{number}" for number in range(901, 1001)}
    assert len(rows) == 101


@pytest.mark.parametrize("at_once", [False, True])
def test_a_device_that_was_used_before_all_others_finds_no_room(make_store: MakeStore, at_once: bool) -> None:
    """Its call counts for the person, but the device stays nobody's; one that comes again in time stays."""
    policy = Policy(anon_limit=3)
    given = [(5, 5), (6, 6), (7, 7), (2, 2), (8, 8), (9, 5)]
    calls = [call(number, 1, 0, anon, policy=policy) for number, anon in given]

    async def use(store: Store) -> Any:
        one = worker(store)
        for request in [calls] if at_once else [[each] for each in calls]:
            await one.add(request)
        return [await people(store).state("s", "anon", f"anon{n}") for n in range(2, 10)], await table(store, calls)

    states, found = on(make_store, use)
    record = next(record for who, record in found.items() if "user1" in who)

    assert isinstance(record, Record)
    assert sorted(device.value for device in record.devices) == ["anon5", "anon7", "anon8"]
    assert states == ["absent", "absent", "absent", "owned", "absent", "owned", "owned", "absent"]


ALIASES: dict[str, tuple[Request, list[str], dict[tuple[str, ...], Any]]] = {
    "nobody and nobody": (
        [call(1, 2, previous="user1"), call(2, 1)],
        [],
        {("user1", "user2"): ("user2", None, (), ("user1",))},
    ),
    "a device and nobody": (
        [call(1, 0, 0, 1), call(2, 2, previous="anon1"), call(3, 0, 0, 1)],
        [],
        {("anon1", "user2"): ("user2", None, (), ())},
    ),
    "a user and nobody": (
        [call(1, 1, 1), call(2, 2, previous="user1"), call(3, 1)],
        [],
        {("key1", "user1", "user2"): ("user2", "key1", (), ("user1",))},
    ),
    "nobody and a user": (
        [call(1, 2, 1), call(2, 2, previous="user1"), call(3, 1)],
        [],
        {("key1", "user1", "user2"): ("user2", "key1", (), ("user1",))},
    ),
    "a device and a user": (
        [call(1, 0, 0, 1), call(2, 2, 1), call(3, 2, previous="anon1")],
        [],
        {("anon1", "key1", "user2"): ("user2", "key1", (), ())},
    ),
    "two users": (
        [call(1, 1, 1), call(2, 2, 2), call(3, 2, previous="user1")],
        ["alias_refused"],
        {("key1", "user1"): ("user1", "key1", (), ()), ("key2", "user2"): ("user2", "key2", (), ())},
    ),
    "the device of a user and another user": (
        [call(1, 1, 0, 1), call(2, 2, previous="anon1")],
        ["alias_refused"],
        {("anon1", "user1"): ("user1", None, (), ()), ("user2",): ("user2", None, (), ())},
    ),
    "a loop": (
        [call(1, 2, previous="user1"), call(2, 1, previous="user2"), call(3, 2, previous="user1"), call(4, 1)],
        [],
        {("user1", "user2"): ("user2", None, (), ("user1",))},
    ),
    "itself": ([call(1, 1, previous="user1")], ["alias_incomplete"], {("user1",): ("user1", None, (), ())}),
    "no user": ([call(1, 0, 0, 1, previous="user1")], ["alias_incomplete"], {("anon1",): (None, None, (), ())}),
}
"""Calls, warnings, and the profiles afterwards with their user, key, former keys and aliases."""


@pytest.mark.parametrize("case", ALIASES)
def test_alias(make_store: MakeStore, case: str) -> None:
    """Each row of the table of alias calls, and what they are when they come again."""
    calls, said, profiles = ALIASES[case]
    added, found = after(make_store, *calls)
    again, found_again = after(make_store, *calls, *calls)

    assert warnings(added) == said
    assert found == profiles
    assert found_again == profiles
    assert warnings(again) == said * 3 or warnings(again) == said * 2


def test_two_known_users_merge_when_the_space_says_so(make_store: MakeStore) -> None:
    """With aliasMergeKnown an alias of two users makes one person, whose key is the last one."""
    policy = Policy(alias_merge_known=True)
    calls = [call(1, 1, 1), call(2, 2, 2), call(3, 2, previous="user1", policy=policy), call(4, 1)]
    _, found = after(make_store, *calls)

    ((who, said),) = found.items()
    assert who == ("key1", "key2", "user1", "user2")
    assert (said[1], said[2]) == ("key2", ("key1",))
    assert {said[0], *said[3]} == {"user1", "user2"}
