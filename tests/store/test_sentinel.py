"""What a sentinel adds: who the master is, and another one when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.sentinels import NAME, Sentinel, sentinel
from tests.support.stores import on

from emarsys_cdp.store import Claim, Store, StoreUnavailable
from emarsys_cdp.store.redis import RedisStore

ROW = "BBBBBBBBBBBBBBBBBBBBBBBB"
SECRET = "hunter2"  # noqa: S105 - it protects nothing


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinel]:
    """Run a master, its replica and a sentinel."""
    with sentinel(tmp_path_factory.mktemp("sentinel")) as watched:
        yield watched


async def read(store: Store) -> list[bytes | None]:
    """Read the row of all these tests."""
    return await store.read_rows([ROW])


def test_the_master_is_found(watched: Sentinel) -> None:
    """The store is where the sentinel says, also when another sentinel in the URL is down."""
    url = watched.url.replace("//", "//127.0.0.1:1,")

    async def use(store: Store) -> Any:
        return await store.claim([Claim(ROW, None, b"s")]), await store.read_rows([ROW])

    assert on(lambda: RedisStore(url), use) == ([True], [b"s"])
    assert watched.clients[0].dbsize() == 1


def test_another_name(watched: Sentinel) -> None:
    """A name that no sentinel knows is an outage that says so."""
    url = watched.url.replace(NAME, "other")

    with pytest.raises(StoreUnavailable, match=f"the sentinel at 127.0.0.1:{watched.port} knows no master other"):
        on(lambda: RedisStore(url), read)


def test_no_sentinel() -> None:
    """An outage, when no sentinel can be reached."""
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
        on(lambda: RedisStore("redis+sentinel://127.0.0.1:1/main"), read)


def test_password_of_a_sentinel(watched: Sentinel) -> None:
    """A sentinel that asks for a password gets that of the URL; a wrong one is an outage that does not show it."""
    url = watched.url.replace("//", f"//:{SECRET}@")
    everybody = (watched.client, watched.clients[0])
    for client in everybody:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    try:
        with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
            on(lambda: RedisStore(url.replace(SECRET, SECRET[::-1])), read)
        with pytest.raises(StoreUnavailable, match="NOAUTH"):
            on(lambda: RedisStore(watched.url), read)

        assert SECRET[::-1] not in str(caught.getrepr(style="native"))
        on(lambda: RedisStore(url), read)
    finally:
        for client in everybody:
            client.execute_command("ACL", "SETUSER", "default", "nopass")


def test_a_sentinel_that_does_not_know_yet(watched: Sentinel) -> None:
    """A server that is no master any more is not used, whatever the sentinel says, and nothing is read from it."""
    master = watched.clients[0]
    master.replicaof("127.0.0.1", watched.servers[1].port)
    try:
        with pytest.raises(StoreUnavailable, match=f"{watched.servers[0].port} is no master"):
            on(lambda: RedisStore(watched.url), read)
    finally:
        master.replicaof("NO", "ONE")


def test_fail_over(watched: Sentinel) -> None:
    """When the master dies its replica takes over, and the store goes there with what was written before."""

    async def use(store: Store) -> Any:
        await store.claim([Claim(ROW, None, b"s")])
        assert watched.clients[0].wait(1, 5000) == 1
        watched.servers[0].terminate()
        for _ in range(1000):
            try:
                return await store.read_rows([ROW]), await store.claim([Claim(ROW, b"s", b"pone")])
            except StoreUnavailable:
                await asyncio.sleep(0.02)
        raise AssertionError("nobody took over")

    assert on(lambda: RedisStore(watched.url), use) == ([b"s"], [True])
    assert watched.clients[1].role()[0] == "master"
