"""What only a cluster can get wrong: slots that move, masters that leave, are silent, or have nobody for a slot."""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from threading import Event
from typing import Any

import msgspec
import pytest
from redis.crc import key_slot
from tests.support.servers import Cluster, Node
from tests.support.stores import on

from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable, topology, wire
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import cell_key, record_key, row_key, shard
from emarsys_cdp.store.outbox import LEASED, EffectRef, Posting, StoredEffect
from emarsys_cdp.store.record import Record, pack
from emarsys_cdp.store.redis import RedisStore

TAG = "AB"
"""The first characters of names decide about their shard, and so about their slot."""

ROWS = [TAG + urlsafe_b64encode(bytes([number]) * 16).decode()[:22] for number in range(6)]
PIDS = [name[:12] for name in ROWS]
NEW = [TAG + "new" + name[5:] for name in ROWS]
SLOT = key_slot(row_key(ROWS[0]).encode())
EVERY = [urlsafe_b64encode(number.to_bytes(2, "big") * 9).decode() for number in range(0, 65536, 64)]
"""Row names of all shards."""


@pytest.fixture(autouse=True)
def _empty(cluster: Cluster) -> None:
    cluster.flush()


@pytest.fixture
def source(cluster: Cluster) -> Node:
    """Return the master of the slot that is moved."""
    return cluster.home(row_key(ROWS[0]))


@pytest.fixture
def target(cluster: Cluster, source: Node) -> Node:
    """Return the master that it is moved to."""
    return next(node for node in cluster.nodes if node is not source)


@pytest.fixture
def steps(cluster: Cluster, source: Node, target: Node) -> Iterator[Iterator[str]]:
    """Give the steps of a move of the slot."""
    with cluster.moving(SLOT, source, target) as steps:
        yield steps


def opened(cluster: Cluster) -> Callable[[], Store]:
    """Return what opens a store in the cluster."""
    return lambda: RedisStore(cluster.url)


def stored(revision: int) -> bytes:
    """Return the stored form of a record."""
    return pack(Record("dest-1", user="u1"), revision)


def test_the_names_share_a_slot() -> None:
    """The tests of a moving slot use names that are all in it."""
    keys = [*map(row_key, ROWS + NEW), *map(cell_key, ROWS), *map(record_key, PIDS)]

    assert {key_slot(key.encode()) for key in keys} == {SLOT}


def test_every_step_of_a_move(cluster: Cluster, source: Node, target: Node, steps: Iterator[str]) -> None:
    """Wherever a move of a slot has come to: what is there is read, and written once by who knows it, also if new."""

    async def use(store: Store) -> None:
        await store.claim([Claim(name, None, b"0") for name in ROWS])
        for number, step in enumerate(steps):
            old, new, again = (b"%d" % (number + more) for more in range(3))
            assert await store.read_rows(ROWS) == [old] * len(ROWS), step
            assert await store.claim([Claim(name, old, new) for name in ROWS]) == [True] * len(ROWS), step
            assert await store.claim([Claim(name, old, again) for name in ROWS]) == [False] * len(ROWS), step
            assert await store.claim([Claim(f"{name[:-1]}{number:x}", None, old) for name in NEW]) == [True] * 6, step

    asked, moved = source.refusals("ASK"), source.refusals("MOVED")
    on(opened(cluster), use)

    assert source.refusals("ASK") > asked
    assert source.refusals("MOVED") > moved


def test_a_pipeline_over_a_moving_slot(cluster: Cluster, source: Node, target: Node, steps: Iterator[str]) -> None:
    """Answers from the owner, from the server that imports, and from the rest of the cluster come in their order."""
    names = [*EVERY[:400], *ROWS[:3], *EVERY[400:800], *ROWS[3:], *EVERY[800:]]

    async def use(store: Store) -> Any:
        await store.claim([Claim(name, None, name.encode()) for name in names])
        while next(steps) != "a key has moved":
            pass
        before = source.refusals("ASK")
        return await store.read_rows([*names, *NEW]), source.refusals("ASK") - before

    rows, asked = on(opened(cluster), use)

    assert rows == [name.encode() for name in names] + [None] * len(NEW)
    assert asked == 1 + len(NEW)


def test_the_first_of_two_commits_wins(cluster: Cluster, steps: Iterator[str]) -> None:
    """Two commits of one round trip that are both sent on to the importing server stay in their order."""

    async def use(store: Store) -> Any:
        next(steps), next(steps)
        both = await store.commit([Commit(pid, 0, stored(revision)) for pid in PIDS for revision in (1, 2)])
        return both, await store.read_records(PIDS)

    assert on(opened(cluster), use) == ([True, False] * len(PIDS), [stored(1)] * len(PIDS))


def test_effects_while_a_slot_moves(cluster: Cluster, source: Node, steps: Iterator[str]) -> None:
    """What needs keys of both servers is done when the move is, whole and once."""
    number = shard(PIDS[0])
    ref, wake = EffectRef(number, "0" * 32), 1000

    async def use(store: Store) -> Any:
        await store.commit([Commit(pid, 0, stored(1), wake=wake) for pid in PIDS])
        while next(steps) != "a key has moved":
            pass
        refused = source.refusals("TRYAGAIN")
        posting = Commit(PIDS[0], 1, stored(2), wake=0, postings=(Posting(ref.id, b"content", wake),))
        done = asyncio.create_task(store.commit([posting, posting]))
        while source.refusals("TRYAGAIN") == refused and not done.done():  # the first of its tries has been answered
            await asyncio.sleep(0.001)
        for _ in steps:
            pass
        found = await done, await store.read_records(PIDS[:1]), await store.count_timers()
        return *found, await store.lease_effects([ref, ref], "one", wake, 2 * wake)

    written, records, timers, leased = on(opened(cluster), use)

    assert (written, records, timers) == ([True, False], [stored(2)], len(PIDS) - 1)
    assert leased == [StoredEffect(ref, LEASED, b"content", "one", 2 * wake, 1), None]


def test_scripts_that_the_importing_server_forgot(cluster: Cluster, target: Node, steps: Iterator[str]) -> None:
    """They are loaded there, too, and what waits for them is sent on again."""

    async def use(store: Store) -> list[bool]:
        await store.ping()
        next(steps), next(steps)
        target.client.script_flush()
        return await store.claim([Claim(name, None, b"s") for name in ROWS])

    assert on(opened(cluster), use) == [True] * len(ROWS)


def test_scan_while_a_slot_moves(cluster: Cluster, steps: Iterator[str]) -> None:
    """Profiles of a slot that moves are found."""

    async def use(store: Store) -> set[str]:
        await store.commit([Commit(pid, 0, stored(1)) for pid in PIDS])
        while next(steps) != "a key has moved":
            pass
        return {pid async for pid, _ in store.scan()}

    assert on(opened(cluster), use) == set(PIDS)


class Count(msgspec.Struct, frozen=True, array_like=True):
    """A counter, and who has counted last."""

    number: int = 0
    writer: str = ""


def test_a_node_that_knows_less(cluster: Cluster) -> None:
    """Of a slot that has moved its old owner knows more than a node that has not heard of it: one MOVED is enough."""
    uninformed, source, target = cluster.nodes

    async def use(store: Store) -> int:
        await store.claim([Claim(name, None, b"s") for name in ROWS])
        with cluster.moving(SLOT, source, target) as steps, uninformed.uninformed():
            for _ in steps:
                pass
            moved = source.refusals("MOVED")
            assert await store.read_rows(ROWS) == [b"s"] * len(ROWS)
            return source.refusals("MOVED") - moved

    assert on(opened(cluster), use) == len(ROWS)


async def count_up(store: Store, writer: str, times: int) -> list[tuple[str, int]]:
    """Increment counters in turn, ten at once; return for each time whose turn it was and what it has come to."""
    cells = Cells(store, Count, Count())

    async def once(name: str) -> tuple[str, int]:
        return name, await cells.change(name, lambda state: (Count(state.number + 1, writer), state.number + 1))

    turns = [ROWS[turn % len(ROWS)] for turn in range(times)]
    return [found for few in batched(turns, 10) for found in await asyncio.gather(*map(once, few))]


def batched(names: list[str], size: int) -> list[list[str]]:
    """Return the names in parts of this size."""
    return [names[start : start + size] for start in range(0, len(names), size)]


def test_no_increment_is_lost(cluster: Cluster, source: Node, target: Node) -> None:
    """While a slot is moved back and forth each of 2,000 increments of its keys succeeds, and once."""
    workers, each, done = 4, 500, Event()

    def move() -> int:
        moves = 0
        while not done.is_set():
            cluster.move_slot(SLOT, source, target)
            cluster.move_slot(SLOT, target, source)
            moves += 2
        return moves

    async def main() -> tuple[list[tuple[str, int]], dict[str, int], int]:
        async with AsyncExitStack() as stack:
            stores = [RedisStore(cluster.url) for _ in range(workers)]
            for store in stores:
                stack.push_async_callback(store.close)
            moving = asyncio.create_task(asyncio.to_thread(move))
            try:
                found = await asyncio.gather(*(count_up(one, f"{writer}", each) for writer, one in enumerate(stores)))
            finally:
                done.set()
                moves = await moving
            cells = Cells(stores[0], Count, Count())
            last = {name: (await cells.read(name)).number for name in ROWS}
            return [one for some in found for one in some], last, moves

    asked = source.refusals("ASK") + target.refusals("ASK")
    found, last, moves = asyncio.run(main())

    assert Counter(found) == Counter((name, number + 1) for name in ROWS for number in range(last[name]))
    assert sum(last.values()) == workers * each
    assert moves >= 2
    assert source.refusals("ASK") + target.refusals("ASK") > asked


def test_slots_that_the_servers_move_themselves(cluster: Cluster) -> None:
    """While all slots of a master move at once, by the servers, nothing fails, and what is there stays there."""
    done = Event()

    def move() -> None:
        with cluster.without(cluster.nodes[0]):
            pass
        done.set()

    async def use(store: Store) -> int:
        await store.claim([Claim(name, None, b"0") for name in EVERY])
        moving, rounds = asyncio.create_task(asyncio.to_thread(move)), 0
        while not done.is_set():
            old, new = b"%d" % rounds, b"%d" % (rounds + 1)
            assert await store.claim([Claim(name, old, new) for name in EVERY]) == [True] * len(EVERY)
            assert await store.read_rows(EVERY) == [new] * len(EVERY)
            rounds += 1
        await moving
        return rounds

    moved = cluster.nodes[0].refusals("MOVED")

    assert on(opened(cluster), use) > 1
    assert cluster.nodes[0].refusals("MOVED") > moved


def test_nodes_that_do_not_agree(cluster: Cluster, source: Node, target: Node) -> None:
    """Two nodes that each say for a moment that the other one has a slot are given the time to agree."""

    async def use(store: Store) -> tuple[list[bytes | None], bool]:
        await store.ping()
        cluster.settle()
        refused = target.refusals("MOVED")
        target.ask("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.name)
        source.ask("CLUSTER", "SETSLOT", SLOT, "NODE", target.name)
        agreement = asyncio.create_task(asyncio.to_thread(_agree, target))
        try:
            return await store.read_rows(ROWS), target.refusals("MOVED") > refused
        finally:
            await agreement
            cluster.move_slot(SLOT, target, source)

    for _ in range(20):
        rows, disagreed = on(opened(cluster), use)
        assert rows == [None] * len(ROWS)
        if disagreed:  # else the servers have told each other before they were asked
            return
    pytest.fail("the servers were never caught in disagreement")


def _agree(target: Node) -> None:
    """After a while, tell a node that a slot is its own."""
    time.sleep(0.2)
    target.ask("CLUSTER", "SETSLOT", SLOT, "NODE", target.name)


def test_one_slot_that_has_moved_tells_of_all(cluster: Cluster, source: Node) -> None:
    """After one MOVED the masters of all slots are known: what else has moved is not asked at the wrong server."""

    async def use(store: Store) -> int:
        await store.ping()
        with cluster.without(source):
            moved = source.refusals("MOVED")
            await store.read_rows(ROWS[:1])
            await store.read_rows(EVERY)
            return source.refusals("MOVED") - moved

    assert on(opened(cluster), use) == 1


def test_a_master_that_has_left(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without slots is asked for nothing any more, not even for a sign of life, and its connection closed."""
    monkeypatch.setattr(topology, "LEAVE_SECONDS", 0.01)
    left = cluster.nodes[0]

    async def use(store: Store) -> Any:
        await store.read_rows(EVERY)
        before = left.connections()
        with cluster.without(left):
            await store.ping()
            await asyncio.sleep(0.05)
            after = left.connections()
            with left.silent():
                await store.ping()
                rows = await store.read_rows(EVERY)
        await store.ping()
        return before - after, rows, left.connections() - after, await store.read_rows(EVERY)

    nothing = [None] * len(EVERY)
    assert on(opened(cluster), use) == (1, nothing, 1, nothing)


def test_a_master_that_comes_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has slots again before its old connection is closed is used over another one."""
    monkeypatch.setattr(topology, "LEAVE_SECONDS", 0.5)

    async def use(store: Store) -> None:
        await store.ping()
        with cluster.without(cluster.nodes[0]):
            await store.ping()
            end = asyncio.get_running_loop().time() + 0.6
        await store.ping()
        while asyncio.get_running_loop().time() < end:
            assert await store.read_rows(EVERY) == [None] * len(EVERY)

    on(opened(cluster), use)


def test_what_is_in_flight_when_a_master_leaves(cluster: Cluster) -> None:
    """Gets its answer: the connection is kept for as long as one may take."""
    left = cluster.nodes[2]

    async def use(store: Store) -> list[bytes | None]:
        await store.ping()
        with cluster.without(left):
            with left.silent():
                read = asyncio.create_task(store.read_rows(EVERY))
                await asyncio.sleep(0.01)
                await store.ping()
                assert not read.done()
            return await read

    assert on(opened(cluster), use) == [None] * len(EVERY)


def test_a_scan_that_a_master_leaves(cluster: Cluster) -> None:
    """Is given up: the rest of its profiles may be on a server that was asked before."""
    left = cluster.nodes[2]

    async def use(store: Store) -> None:
        await store.commit([Commit(name[:12], 0, stored(1)) for name in EVERY])
        scan = store.scan()
        await anext(scan)
        with cluster.without(left):
            await store.ping()
            with pytest.raises(StoreUnavailable, match=f"{left.address[1]} has left the cluster"):
                [found async for found in scan]

    on(opened(cluster), use)


@pytest.mark.parametrize("number", [0, 2], ids=["the seed", "another one"])
def test_a_master_that_is_gone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What needs it fails, the rest waits for nothing; as soon as it has a successor everything is well."""
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.4)
    gone = cluster.nodes[number]
    others = [name for name in EVERY if cluster.home(row_key(name)) is not gone]

    async def use(store: Store) -> Any:
        await store.claim([Claim(name, None, b"s") for name in EVERY])
        with gone.silent():
            with pytest.raises(StoreUnavailable, match=f"{gone.address[1]} did not answer"):
                await store.read_rows(EVERY)
            begin = asyncio.get_running_loop().time()
            assert await store.read_rows(others) == [b"s"] * len(others)
            assert asyncio.get_running_loop().time() - begin < wire.REPLY_SECONDS
            with pytest.raises(StoreUnavailable, match=f"{gone.address[1]} did not answer"):
                await store.ping()
        with cluster.without(gone), gone.silent():
            with pytest.raises(StoreUnavailable, match=f"{gone.address[1]} did not answer"):
                await store.read_rows(EVERY)
            rows = await store.read_rows(EVERY)
            await store.ping()
            return rows

    assert on(opened(cluster), use) == [b"s"] * len(EVERY)


def test_a_slot_that_nobody_has(cluster: Cluster, source: Node) -> None:
    """An outage for its keys, said so, that ends when somebody has it again."""

    async def use(store: Store) -> list[bytes | None]:
        await store.claim([Claim(ROWS[0], None, b"s")])
        source.ask("CLUSTER", "DELSLOTS", SLOT)
        looked = [node.calls("cluster|slots") for node in cluster.nodes]
        try:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
                    await store.read_rows(ROWS)
        finally:
            source.ask("CLUSTER", "ADDSLOTS", SLOT)
            cluster.settle()
        assert [node.calls("cluster|slots") for node in cluster.nodes] != looked
        return await store.read_rows(ROWS[:1])

    assert on(opened(cluster), use) == [b"s"]


def test_a_seed_with_another_name(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address in the URL is used to find the masters; a connection to it is not kept beside theirs."""
    monkeypatch.setattr(topology, "LEAVE_SECONDS", 0.01)
    seed = cluster.nodes[0]

    async def use(store: Store) -> Any:
        before = seed.connections()
        await store.read_rows(EVERY)
        await asyncio.sleep(0.05)
        await store.ping()
        return seed.connections() - before

    assert on(lambda: RedisStore(cluster.url.replace("127.0.0.1", "localhost")), use) == 1
