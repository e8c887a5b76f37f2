"""Workers that share the shards."""

from __future__ import annotations

import asyncio

from emarsys_cdp.shares import BEAT, DEAD, Shares, shards_of
from emarsys_cdp.store.keys import SHARDS, Namer
from emarsys_cdp.store.memory import MemoryStore


def test_every_shard_is_of_one_worker() -> None:
    """Whoever is alive, each shard is of exactly one of them, and nobody has much more than a fair part."""
    alive = ("a", "b", "c", "d")
    parts = [shards_of(one, alive) for one in alive]

    assert sorted(shard for part in parts for shard in part) == list(range(SHARDS))
    assert max(map(len, parts)) < 1.3 * SHARDS / len(alive)


def test_few_shards_move() -> None:
    """When a worker leaves, only its own shards change hands."""
    before, after = ("a", "b", "c"), ("a", "c")

    assert set(shards_of("a", before)) <= set(shards_of("a", after))
    assert set(shards_of("c", before)) <= set(shards_of("c", after))


def test_the_shards_of_the_dead_are_taken() -> None:
    """A worker that says nothing any more loses its shards to the others; one that leaves gives them up at once."""
    now = 1_764_000_000_000
    store, namer = MemoryStore(), Namer(b"a secret of the test")
    first, second, third = (Shares(store, namer, name, lambda: now) for name in ("first", "second", "third"))

    async def run() -> None:
        nonlocal now
        for _ in range(2):
            for one in (first, second, third):
                await one.beat()
            now += BEAT
        assert sum(len(one.shards) for one in (first, second, third)) == SHARDS
        await third.leave()
        now += BEAT
        for one in (first, second):
            await one.beat()
        assert len(first.shards) + len(second.shards) == SHARDS
        now += DEAD + BEAT
        await first.beat()
        assert len(first.shards) == SHARDS

    asyncio.run(run())
