"""A process dies in any of its round trips, and the request comes again."""

from __future__ import annotations

from itertools import count

import pytest
from tests.support.people import MakeStore, Table, by_itself, call, crash, flat, permanent, pids_of, table
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.store import Store
from emarsys_cdp.store.redis import RedisStore

STORY = [[(0, 0, 1)], [(1, 1, 1), (0, 0, 1)], [(2, 2, 1)], [(1, 3, 0)], [(3, 1, 2), (0, 4, 3)], [(0, 0, 2), (0, 0, 1)]]
"""User, key and device of the calls of some requests: a login, a shared device, a key change, a shared key."""


def story(space: str) -> list[list[Entry]]:
    """Return the requests of the story in a space of their own."""
    numbers = count(1)
    return [[call(next(numbers), *of, space=space) for of in request] for request in STORY]


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
