"""How long profiles and rows stay, and what is left of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis
from tests.support.people import MakeStore, call, owners, pids_of, rows_of, sweeper, table, worker
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.store import ANONYMOUS_SECONDS, KNOWN_SECONDS, REDIRECT_SECONDS, SHARED_SECONDS, Claim, Commit, Store
from emarsys_cdp.store.keys import owned_by, record_key, row_key
from emarsys_cdp.store.lifetimes import Lifetimes
from emarsys_cdp.store.record import Record, pack, unpack
from emarsys_cdp.store.redis import RedisStore


def lifetime(url: str, key: str) -> int:
    """Return how long a key of the store stays, -1 for ever."""
    with redis.Redis.from_url(url) as client:
        return cast(int, client.ttl(key))


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [
        ([call(1, 0, 0, 1)], ANONYMOUS_SECONDS),
        ([call(1, 1, 0, 1)], KNOWN_SECONDS),
        ([call(1, 0, 1, 1)], -1),
        ([call(1, 0, 0, 1), call(2, 1, 0, 1)], KNOWN_SECONDS),
        ([call(1, 0, 0, 1), call(2, 0, 1, 1)], -1),
        ([call(1, 0, 0, 1), call(2, 0, 0, 1)], ANONYMOUS_SECONDS),
        ([call(1, 0, 1, 1), call(2, 1, 0, 2), call(3, 1, 1)], -1),
    ],
    ids=["anonymous", "known", "reachable", "login", "newsletter", "returning", "merged"],
)
def test_a_profile_stays_as_long_as_what_is_known_of_it(valkey_url: str, calls: list[Any], seconds: int) -> None:
    """Anonymous 30 days after the last call, known without a key a year, with a key for ever."""
    flush(valkey_url)

    async def use(store: Store) -> str:
        for each in calls:
            await worker(store).add([each])
        (pid,) = await pids_of(store, calls)
        return pid

    left = lifetime(valkey_url, record_key(on(lambda: RedisStore(valkey_url), use)))

    assert left == seconds if seconds == -1 else seconds - 60 < left <= seconds


@pytest.mark.parametrize(
    ("calls", "seconds"),
    [
        ([call(1, 0, 0, 1)], 100_000),
        ([call(1, 1, 0, 1), call(2, 1, 0, 1)], 200_000),
        ([call(1, 0, 1, 1), call(2, 0, 1, 1)], 300_000),
        ([call(1, 1, 0, 1), call(2, 2, 0, 1), call(3, 1)], 200_000),
        ([call(1, 0, 1, 1), call(2, 1, 0, 2), call(3, 1, 1)], 300_000),
        ([call(1, 1, 0, 1, space="other")], KNOWN_SECONDS),
    ],
    ids=["anonymous", "known", "reachable", "after a device was shared", "merged", "another space"],
)
def test_a_space_has_lifetimes_of_its_own(valkey_url: str, calls: list[Any], seconds: int) -> None:
    """However a record is written: new, by a remembered person's call, with a device taken away, merged."""
    flush(valkey_url)
    own = Lifetimes(100_000, 200_000, 300_000, 400_000)

    async def use(store: Store) -> str:
        one = worker(store, lifetimes=lambda space: own if space == "s" else Lifetimes())
        for each in calls:
            await one.add([each])
        (pid,) = await pids_of(store, calls[:1])
        return pid

    left = lifetime(valkey_url, record_key(on(lambda: RedisStore(valkey_url), use)))

    assert seconds - 60 < left <= seconds


def test_a_redirect_and_a_shared_device_do_not_stay_for_ever(valkey_url: str) -> None:
    """The id of a merged profile leads to the other for 60 days, a device is nobody's for 90."""
    flush(valkey_url)
    device = call(9, 0, 0, 3).names[2] or ""

    async def use(store: Store) -> str:
        for each in (call(1, 0, 1, 1), call(2, 1, 0, 2), call(3, 1, 1), call(4, 1, 0, 3), call(5, 2, 0, 3)):
            await worker(store).add([each])
        return next(pid for pid, stored in [one async for one in store.scan()] if unpack(stored)[1].redirect)

    redirect = on(lambda: RedisStore(valkey_url), use)

    assert 0 < REDIRECT_SECONDS - lifetime(valkey_url, record_key(redirect)) + 60 <= 120
    assert 0 < SHARED_SECONDS - lifetime(valkey_url, row_key(device)) + 60 <= 120


def test_an_expired_person_merges_nobody(make_store: MakeStore) -> None:
    """A device whose owner has expired starts afresh, also for a worker that remembers the owner."""
    first, second = call(1, 0, 0, 1), call(2, 1, 1, 1)

    async def use(store: Store) -> Any:
        one = worker(store)
        await one.add([first])
        for pid, stored in [each async for each in store.scan()]:
            await store.commit([Commit(pid, unpack(stored)[0], b"")])
        await one.add([second])
        return await table(store, [second])

    ((who, record),) = on(make_store, use).items()

    assert who == ("anon1", "key1", "user1")
    assert record.first_seen == 2


def test_a_sweep_removes_the_rows_of_expired_people(make_store: MakeStore) -> None:
    """Rows without an owner go, all others stay."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1, 1, 1)])
        dead = call(2, 2, 2, 2)
        await store.claim([Claim(name, None, owned_by("DEADDEADDEAD")) for name in dead.names if name])
        removed = (await sweeper(store).run()).removed
        return removed, await owners(store, [dead]), await owners(store, [call(1, 1, 1, 1)])

    removed, dead, alive = on(make_store, use)

    assert removed == 3
    assert set(dead.values()) == {None}
    assert None not in alive.values()


def test_a_removed_row_and_a_removed_record_are_gone(make_store: MakeStore) -> None:
    """Empty contents remove, by the same compare-and-set; what another has written stays."""
    name, pid = "B" * 24, "A" * 12

    async def use(store: Store) -> Any:
        await store.claim([Claim(name, None, b"s")])
        await store.commit([Commit(pid, 0, pack(Record("s"), 1))])
        refused = await store.claim([Claim(name, b"q", b"")]), await store.commit([Commit(pid, 2, b"")])
        done = await store.claim([Claim(name, b"s", b"")]), await store.commit([Commit(pid, 1, b"")])
        again = await store.claim([Claim(name, b"s", b"")]), await store.commit([Commit(pid, 1, b"")])
        return refused, done, again, await store.read_rows([name]), await store.read_records([pid])

    refused, done, again, rows, records = on(make_store, use)

    assert (refused, done) == (([False], [False]), ([True], [True]))
    assert again == ([True], [False])
    assert (rows, records) == ([None], [None])


def test_all_rows_can_be_gone_through(make_store: MakeStore) -> None:
    """Every row with its content, and nothing else of the store."""

    async def use(store: Store) -> dict[str, bytes]:
        await store.claim([Claim(letter * 24, None, b"s") for letter in "ABC"])
        await store.keep({"D" * 24: b"kept"}, 100)
        return await rows_of(store)

    assert on(make_store, use) == {letter * 24: b"s" for letter in "ABC"}
