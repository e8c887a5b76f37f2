"""What only a store in Redis can get wrong: time to live, scripts, outages, connections, cluster slots."""

from __future__ import annotations

import asyncio
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from tests.support.servers import Cluster, flush

from emarsys_cdp.store import CELL_SECONDS, STUB_SECONDS, Claim, Commit, StoreUnavailable, wire
from emarsys_cdp.store.address import read_address
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import (
    SHARDS,
    cell_key,
    dead_key,
    effect_key,
    kept_key,
    lease_key,
    queue_key,
    record_key,
    row_key,
    shard,
    timers_key,
)
from emarsys_cdp.store.record import Record, pack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.store.redis_outbox import SCRIPTS
from emarsys_cdp.store.scripts import load
from emarsys_cdp.store.wire import Address, Wire
from emarsys_cdp_hooks import StopAndFix

T = TypeVar("T")

PID = "AAAAAAAAAAAA"
ROW = "BBBBBBBBBBBBBBBBBBBBBBBB"
RECORD = pack(Record("dest-1", user="u1"), 1)
NEXT = pack(Record("dest-1", user="u1"), 2)
SECRET = "hunter2"  # noqa: S105 - it protects nothing
NAMES = [urlsafe_b64encode(number.to_bytes(2, "big") * 9).decode() for number in range(0, 65536, 21)]


def on(url: str, use: Callable[[RedisStore], Awaitable[T]]) -> T:
    """Open a store, use it, close it."""

    async def main() -> T:
        store = RedisStore(url)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(main())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Run a server of this test's own."""
    server = EmbeddedServer(tmp_path / "one")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """Return a general client of this test's own server."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def shared_client(valkey_url: str) -> Iterator[redis.Redis]:
    """Return a general client of the empty stand-alone server of all tests."""
    flush(valkey_url)
    with redis.Redis.from_url(valkey_url) as client:
        yield client


def test_a_stub_disappears(valkey_url: str, shared_client: redis.Redis) -> None:
    """A record that nobody names yet is written with its time to live."""
    on(valkey_url, lambda store: store.commit([Commit(PID, 0, RECORD, stub=True)]))

    assert STUB_SECONDS - 60 < shared_client.ttl(record_key(PID)) <= STUB_SECONDS


def test_a_lease_ends(valkey_url: str, shared_client: redis.Redis) -> None:
    """A name that its holder never gives back is free again after its time, counted anew when it is taken again."""

    async def use(store: RedisStore) -> None:
        await store.lease([ROW], "one", 5_000)
        await store.lease([ROW], "one", 60_000)

    on(valkey_url, use)

    assert 50_000 < shared_client.pttl(lease_key(ROW)) <= 60_000


def test_a_cell_lives_on_when_it_is_set(valkey_url: str, shared_client: redis.Redis) -> None:
    """A state that nobody changes any more disappears at last."""
    on(valkey_url, lambda store: store.swap_cell(ROW, None, b"state"))

    assert CELL_SECONDS - 60 < shared_client.ttl(cell_key(ROW)) <= CELL_SECONDS


def test_a_stub_becomes_permanent(valkey_url: str, shared_client: redis.Redis) -> None:
    """A stub that is written again stays for good."""

    async def use(store: RedisStore) -> None:
        await store.commit([Commit(PID, 0, RECORD, stub=True)])
        await store.commit([Commit(PID, 1, NEXT)])

    on(valkey_url, use)

    assert shared_client.ttl(record_key(PID)) == -1


def test_what_is_permanent(valkey_url: str, shared_client: redis.Redis) -> None:
    """A record that is no stub and an identifier row have no time to live; sealed bytes have theirs."""

    async def use(store: RedisStore) -> None:
        await store.commit([Commit(PID, 0, RECORD)])
        await store.claim([Claim(ROW, None, b"s")])
        await store.keep({ROW: b"sealed"}, 50)

    on(valkey_url, use)

    assert [shared_client.ttl(key) for key in (record_key(PID), row_key(ROW))] == [-1, -1]
    assert 40 < shared_client.ttl(kept_key(ROW)) <= 50


def test_scripts_that_the_server_forgot_are_loaded_again(valkey_url: str, shared_client: redis.Redis) -> None:
    """After SCRIPT FLUSH every pipeline is carried out all the same, and once."""

    async def use(store: RedisStore) -> list[bool]:
        await store.ping()
        shared_client.script_flush()
        pipelines = [store.claim([Claim(name, None, b"s") for name in NAMES[start::10]]) for start in range(10)]
        won = [ok for answers in await asyncio.gather(*pipelines) for ok in answers]
        shared_client.script_flush()
        return won + await store.commit([Commit(PID, 0, RECORD)])

    assert on(valkey_url, use) == [True] * (len(NAMES) + 1)


def test_outage_and_recovery(server: EmbeddedServer) -> None:
    """While the server is down every method says so; when it is back on its socket the store works on."""

    async def use(store: RedisStore) -> Any:
        await store.commit([Commit(PID, 0, RECORD)])
        server.stop()
        read = [store.read_rows([ROW]), store.read_records([PID]), store.read_kept(ROW), store.ping()]
        for call in (*read, store.commit([Commit(PID, 1, NEXT)]), store.claim([Claim(ROW, None, b"s")])):
            with pytest.raises(StoreUnavailable, match=r"valkey\.sock"):
                await call
        server.start()
        return await store.read_records([PID]), await store.commit([Commit(PID, 1, NEXT)])

    assert on(server.url, use) == ([RECORD], [True])


@pytest.mark.parametrize("reason", ["READONLY", "OOM"])
def test_refused_writes(server: EmbeddedServer, client: redis.Redis, reason: str) -> None:
    """A server that is read-only or full changes nothing, can still be read, and is written when it is well."""

    async def use(store: RedisStore) -> Any:
        await store.commit([Commit(PID, 0, RECORD)])
        client.config_set("maxmemory", 1) if reason == "OOM" else client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match=reason):
            await store.commit([Commit(PID, 1, NEXT), Commit("CCCCCCCCCCCC", 0, RECORD, stub=True)])
        with pytest.raises(StoreUnavailable, match=reason):
            await store.claim([Claim(ROW, None, b"s")])
        with pytest.raises(StoreUnavailable, match=reason):
            await store.keep({ROW: b"sealed"}, 60)
        between = await store.read_records([PID, "CCCCCCCCCCCC"]), await store.read_rows([ROW]), client.dbsize()
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)
        return between, await store.commit([Commit(PID, 1, NEXT)])

    assert on(server.url, use) == (([RECORD, None], [None], 1), [True])


def test_a_demoted_server_is_left(server: EmbeddedServer, client: redis.Redis, tmp_path: Path) -> None:
    """When the address leads to another server because the old one became read-only, that one is written."""
    promoted = EmbeddedServer(tmp_path / "two")
    promoted.start()

    async def use(store: RedisStore) -> list[bool]:
        await store.ping()
        client.replicaof("127.0.0.1", 1)
        os.replace(tmp_path / "two" / "valkey.sock", tmp_path / "one" / "valkey.sock")
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await store.claim([Claim(ROW, None, b"s")])
        return await store.claim([Claim(ROW, None, b"s")])

    try:
        assert on(server.url, use) == [True]
    finally:
        promoted.stop()


def test_wrong_password(server: EmbeddedServer, client: redis.Redis) -> None:
    """A wrong password is an outage that shows neither the password nor the user."""
    client.config_set("requirepass", "right")
    url = server.url.replace("unix://", f"unix://jane:{SECRET}@")

    with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
        on(url, lambda store: store.read_rows([ROW]))

    assert SECRET not in str(caught.getrepr(style="native"))
    assert "jane" not in str(caught.value)


def test_right_password(server: EmbeddedServer, client: redis.Redis) -> None:
    """With the right password, and a database of its own, the store works."""
    client.config_set("requirepass", SECRET)
    url = server.url.replace("unix://", f"unix://:{SECRET}@") + "?db=3"

    assert on(url, lambda store: store.claim([Claim(ROW, None, b"s")])) == [True]
    assert client.info("keyspace").keys() == {"db3"}


def test_scan_without_permission(server: EmbeddedServer, client: redis.Redis) -> None:
    """A scan that the server refuses is an outage like any other."""
    client.acl_setuser("jane", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all", "-scan"])
    url = server.url.replace("unix://", f"unix://jane:{SECRET}@")

    async def use(store: RedisStore) -> list[tuple[str, bytes]]:
        return [found async for found in store.scan()]

    with pytest.raises(StoreUnavailable, match="NOPERM"):
        on(url, use)


def with_wire(address: Address, use: Callable[[Wire], Awaitable[T]]) -> T:
    """Open a connection, use it, close it."""

    async def main() -> T:
        with closing(Wire(address, [("PING",)])) as connection:
            return await use(connection)

    return asyncio.run(main())


def echoes(number: int) -> list[tuple[str, bytes]]:
    """Return a pipeline whose replies are not those of another one."""
    return [("ECHO", b"%d-%d" % (number, part)) for part in range(number % 7 + 1)]


def replies(number: int) -> list[bytes]:
    """Return the replies of `echoes`."""
    return [words[1] for words in echoes(number)]


def test_concurrent_pipelines(valkey_url: str) -> None:
    """Pipelines in flight at once share a connection and each gets its own replies."""

    async def use(connection: Wire) -> Any:
        answers = await asyncio.gather(*[connection.run(echoes(number)) for number in range(500)])
        ids = await asyncio.gather(*[connection.run([("CLIENT", "ID")]) for _ in range(5)])
        return answers, {reply for (reply,) in ids}

    answers, ids = with_wire(read_address(valkey_url), use)

    assert answers == [replies(number) for number in range(500)]
    assert len(ids) == 1


def test_cancelled_pipelines(valkey_url: str) -> None:
    """Who stops waiting takes no replies away from the others, on the same connection."""

    async def use(connection: Wire) -> Any:
        await connection.run([("PING",)])
        tasks = [asyncio.create_task(connection.run(echoes(number))) for number in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        return await asyncio.gather(*tasks, connection.run(echoes(100)), return_exceptions=True)

    answers = with_wire(read_address(valkey_url), use)

    assert [type(answer) for answer in answers[:100:2]] == [asyncio.CancelledError] * 50
    assert answers[1::2] == [replies(number) for number in range(1, 100, 2)]
    assert answers[100] == replies(100)


def test_connection_lost_in_a_pipeline(valkey_url: str) -> None:
    """When the connection breaks between two replies all that is in flight fails, and the next pipeline is whole."""

    async def use(connection: Wire) -> Any:
        (number,) = await connection.run([("CLIENT", "ID")])
        kill = ("CLIENT", "KILL", "ID", number, "SKIPME", "no")
        broken = connection.run([("ECHO", "a"), kill, ("ECHO", "b")])
        lost = await asyncio.gather(broken, connection.run(echoes(3)), return_exceptions=True)
        return lost, await asyncio.gather(connection.run(echoes(5)), connection.run(echoes(6)))

    lost, whole = with_wire(read_address(valkey_url), use)

    assert [type(error) for error in lost] == [StoreUnavailable] * 2
    assert whole == [replies(5), replies(6)]


@asynccontextmanager
async def stranger(
    directory: Path, says: bytes
) -> AsyncIterator[tuple[Address, list[asyncio.StreamWriter], asyncio.Event]]:
    """Run a server that says something and is silent from then on; give its connections and whether one was left."""
    path, connections, left = str(directory / "stranger.sock"), list[asyncio.StreamWriter](), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(asyncio.CancelledError):  # of the end of the test, which asyncio would log as an error
            await reader.read(1)
            writer.write(says)
            await reader.read()
            left.set()

    async with await asyncio.start_unix_server(serve, path):
        try:
            yield Address(path=path), connections, left
        finally:
            for writer in connections:
                writer.close()


def test_no_redis_at_the_address(tmp_path: Path) -> None:
    """A server that does not speak the protocol is an outage."""

    async def main() -> None:
        async with stranger(tmp_path, b"HTTP/1.1 400 Bad Request\r\n\r\n") as (address, _, _):
            with closing(Wire(address)) as connection:
                await connection.run([("PING",)])

    with pytest.raises(StoreUnavailable, match=r"stranger\.sock"):
        asyncio.run(main())


def test_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up, once for all who wait for the same opening."""
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.05)

    async def main() -> Any:
        async with stranger(tmp_path, b"") as (address, connections, _):
            connection = Wire(address, [("PING",)])
            answers = [connection.run([("PING",)]) for _ in range(5)]
            return await asyncio.gather(*answers, return_exceptions=True), len(connections)

    errors, connections = asyncio.run(main())

    assert [type(error) for error in errors] == [StoreUnavailable] * 5
    assert connections == 1


def test_cancelled_while_opening(tmp_path: Path) -> None:
    """A connection whose only user stopped waiting is not left open."""

    async def main() -> bool:
        async with stranger(tmp_path, b"") as (address, connections, left):
            task = asyncio.create_task(Wire(address, [("PING",)]).run([("PING",)]))
            while not connections:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            async with asyncio.timeout(5):
                return await left.wait()

    assert asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "", SECRET, f"jane:{SECRET}@redis:6379", f"http://jane:{SECRET}@redis:6379", "unix://", "unix://valkey.sock",
        f"redis://jane:{SECRET}@redis:port/0", f"redis://jane:{SECRET}@redis:99999/0", f"redis://jane:{SECRET}@[::1/0",
        f"redis://jane:pass/{SECRET}@redis:6379/0", f"redis://jane:6379{SECRET}/@redis:6379/0",
        f"redis://jane:{SECRET}@redis/prod", f"redis://jane:{SECRET}@redis/-1", f"redis://redis/?db=x&password={SECRET}",
        "redis+sentinel://", "redis+sentinel:///main", f"redis+sentinel://jane:{SECRET}@redis:26379",
        f"redis+sentinel://jane:{SECRET}@redis:port/main", f"redis+sentinel://jane:{SECRET}@redis,/main/0",
        f"redis+sentinel://jane:{SECRET}@redis/main/x", f"redis+sentinel://jane:6379/{SECRET}@redis:26379",
        f"redis+sentinel://redis/main?password={SECRET}", f"rediss+sentinel://jane:{SECRET}@redis/m/0#x",
    ],
)  # fmt: skip
def test_bad_url(url: str) -> None:
    """A URL that is none is refused with the forms that are right, and shows no secret, not even in a traceback."""
    with pytest.raises(StopAndFix, match=r"EMARSYS_CDP_REDIS_URL .*: write redis://host:6379/0") as caught:
        RedisStore(url)

    assert "jane" not in str(caught.value)
    assert SECRET not in str(caught.getrepr(style="native"))


def test_address_of_a_sentinel() -> None:
    """Every sentinel has its port or the usual one; user, password and TLS are for all of the servers."""
    address = read_address("rediss+sentinel://jane:hunter%402@one,[::1]:5000/main-1/2")

    assert [str(sentinel) for sentinel in address.sentinels] == ["one:26379", "::1:5000"]
    assert {(one.username, one.password) for one in (address, *address.sentinels)} == {("jane", "hunter@2")}
    assert None not in {one.tls for one in (address, *address.sentinels)}
    assert (str(address), address.database) == ("main-1", 2)


@pytest.mark.parametrize("url", ["redis+sentinel://one/main", "redis+sentinel://one:26379/main/0"])
def test_short_address_of_a_sentinel(url: str) -> None:
    """Port, credentials and database may be left out."""
    assert read_address(url) == Address(master="main", sentinels=(Address(host="one", port=26379),))


def test_an_address_hides_its_password() -> None:
    """An address that gets into a log or a traceback shows no password."""
    address = read_address(f"redis://jane:{SECRET}@redis:6380/2")

    assert (address.username, address.password, address.port, address.database) == ("jane", SECRET, 6380, 2)
    assert SECRET not in f"{address} {address!r}"


@pytest.mark.parametrize("name", ["claim", "commit", *SCRIPTS])
def test_scripts_may_not_touch_undeclared_keys(cluster: Cluster, name: str) -> None:
    """A server in cluster mode refuses a key that was not declared, and does so for the first line of our scripts."""
    cluster.flush()
    first_line = load(name).source.decode().splitlines()[0]
    node, touch = cluster.home(row_key(ROW)), "return redis.call('SET', ARGV[1], 'x')"
    other = next(row_key(name) for name in NAMES if shard(name) != shard(ROW) and cluster.home(row_key(name)) is node)

    with pytest.raises(redis.ResponseError, match="do not hash to the same slot"):
        node.client.eval(f"{first_line}\n{touch}", 1, row_key(ROW), other)

    assert node.client.eval(touch, 1, row_key(ROW), other) == b"OK"


def test_keys_of_a_profile_share_a_slot(cluster: Cluster) -> None:
    """The keys of a profile carry the tag of its shard: ten bits of its id, which alone decide about the slot."""
    pids = [name[:12] for name in NAMES]
    bits = [(int.from_bytes(urlsafe_b64decode(pid)[:2], "big") >> 4) % SHARDS for pid in pids]

    assert [shard(pid) for pid in pids] == bits
    assert [record_key(pid) for pid in pids] == [
        f"ecdp:{{{number:03x}}}:p:{pid}" for pid, number in zip(pids, bits, strict=True)
    ]
    assert len(set(bits)) == SHARDS
    ask = cluster.nodes[0].ask
    for pid, number in zip(pids[::100], bits[::100], strict=True):
        others = timers_key(number), queue_key(number), dead_key(number), effect_key(number, "0" * 32)
        slots = {ask("CLUSTER", "KEYSLOT", key) for key in (record_key(pid), *others)}
        assert slots == {ask("CLUSTER", "KEYSLOT", f"{number:03x}")}
