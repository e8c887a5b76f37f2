"""
Measure timers and effects that wait: `python -m tests.benchmarks timers`.

A Valkey of its own has 1,000,000 timers and some effects of the next 60 days. Measured are a look at all shards when
nothing is due, what it takes to get 10,000 timers that are due, and memory.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import redis
from msgspec import Struct
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tests.benchmarks.processes import cpu_of, set_cores

from emarsys_cdp.store import Commit
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import SHARDS, new_pid, shard, timers_key
from emarsys_cdp.store.outbox import Posting
from emarsys_cdp.store.record import Record, pack
from emarsys_cdp.store.redis import RedisStore

TIMERS, DUE, EFFECTS = 1_000_000, 10_000, 100_000
LOOK_MS = 10
"""What a look at all shards, once a second, may cost the server when nothing is due: a hundredth of its core."""

SPAN = 60 * 86_400_000
NOW = 1_764_000_000_000
CHUNK = 2_000
LIMIT = 1_000
CONTENT = bytes(400)
"""An effect with a few variables is packed into about so many bytes."""

EVERY = range(SHARDS)
_random = random.Random()  # noqa: S311 - samples, no secret


class Cost(Struct, frozen=True):
    """Milliseconds that something takes: on the clock, of this process and of the server's processor."""

    wall: float
    python: float
    server: float


class Bench:
    """A server with a store over it."""

    def __init__(self, server: EmbeddedServer, directory: Path) -> None:
        self.pid = int((directory / "valkey.pid").read_text())
        self.client: Any = redis.Redis.from_url(server.url)
        self.store = RedisStore(server.url)

    def memory(self) -> int:
        """Return the bytes that the server uses for data."""
        return int(self.client.info("memory")["used_memory"])

    async def cost(self, run: Callable[[], Awaitable[Any]]) -> Cost:
        """Return what running it takes."""
        started, python, server = time.perf_counter(), time.process_time(), cpu_of(self.pid)
        await run()
        wall = time.perf_counter() - started
        return Cost(*(1000 * one for one in (wall, time.process_time() - python, cpu_of(self.pid) - server)))

    async def median(self, run: Callable[[], Awaitable[Any]], rounds: int) -> Cost:
        """Return the medians of several runs, without the first one."""
        found = [await self.cost(run) for _ in range(rounds + 1)][1:]
        return Cost(*(statistics.median(getattr(one, name) for one in found) for name in Cost.__struct_fields__))

    def set_timers(self) -> float:
        """Set timers of the next 60 days as commits set them, and return the bytes that each takes."""
        before = self.memory()
        for _ in track(range(TIMERS // CHUNK), "setting timers", console=Console(stderr=True)):
            pipeline = self.client.pipeline(transaction=False)
            for pid in (new_pid(_random.randbytes) for _ in range(CHUNK)):
                pipeline.zadd(timers_key(shard(pid)), {pid: NOW + 1 + _random.randrange(SPAN)})
            pipeline.execute()
        return (self.memory() - before) / TIMERS

    async def post(self, count: int, *, effects: bool) -> tuple[Cost, float]:
        """Commit new people, with an effect each or none; return what a commit takes, and the bytes of each."""
        record, before = pack(Record("dest-1"), 1), self.memory()
        commits = []
        for _ in range(count):
            due = NOW + 1 + _random.randrange(SPAN)
            postings = (Posting(_random.randbytes(16).hex(), CONTENT, due),) if effects else ()
            commits.append(Commit(new_pid(_random.randbytes), 0, record, postings=postings))

        async def run() -> None:
            for start in range(0, count, CHUNK):
                await self.store.commit(commits[start : start + CHUNK])

        cost = await self.cost(run)
        return Cost(cost.wall / count, cost.python / count, cost.server / count), (self.memory() - before) / count

    async def due(self) -> Cost:
        """Let 10,000 timers be due, and return what it takes to get them all."""
        record = pack(Record("dest-1"), 1)
        pids = [new_pid(_random.randbytes) for _ in range(DUE)]
        await self.store.commit([Commit(pid, 0, record, wake=NOW - _random.randrange(1000)) for pid in pids])
        found: list[str] = []

        async def run() -> None:
            found.extend(await self.store.due_timers(EVERY, NOW, LIMIT, NOW + 30_000))

        cost = await self.cost(run)
        assert set(found) == set(pids)
        return cost


async def measure(rounds: int) -> dict[str, Any]:
    """Fill a server and return the figures; costs are in milliseconds, of commits in milliseconds each."""
    with tempfile.TemporaryDirectory() as name:
        server = EmbeddedServer(directory := Path(name), appendonly="no")
        server.start()
        try:
            bench = Bench(server, directory)
            with closing(bench.client):
                set_cores([bench.pid])
                figures = await _measure(bench, rounds)
            await bench.store.close()
        finally:
            server.stop()
    return figures


async def _measure(bench: Bench, rounds: int) -> dict[str, Any]:
    store = bench.store
    await store.ping()
    timer_bytes = bench.set_timers()
    plain, plain_bytes = await bench.post(EFFECTS, effects=False)
    posting, posting_bytes = await bench.post(EFFECTS, effects=True)
    return {
        "bytes": {"timer": timer_bytes, "effect": posting_bytes - plain_bytes},
        "costs": {
            "look for due timers": await bench.median(lambda: store.due_timers(EVERY, NOW, LIMIT, NOW), rounds),
            "look for due effects": await bench.median(lambda: store.queued(EVERY, NOW, LIMIT), rounds),
            "count the timers": await bench.median(store.count_timers, rounds),
            f"get {DUE:,} due timers": await bench.due(),
            "commit a record": plain,
            "commit a record and an effect": posting,
        },
    }


def show(figures: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    table = Table(title=f"{TIMERS:,} timers, {EFFECTS:,} effects, {SHARDS:,} shards; medians")
    for column in ("what", "wall us", "Python us", "Valkey us"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, cost in figures["costs"].items():
        table.add_row(what, *(f"{1000 * one:,.1f}" for one in (cost.wall, cost.python, cost.server)))
    console.print(table)
    console.print(", ".join(f"{size:,.0f} bytes of each {what}" for what, size in figures["bytes"].items()))


def run(rounds: int, file: Path | None) -> int:
    """Run the benchmark, print its tables, and return 1 when a look costs too much."""
    figures = asyncio.run(measure(rounds))
    show(figures, Console(width=120))
    look = figures["costs"]["look for due timers"].server
    each = 1000 * look / SHARDS
    print(f"a look for due timers: {look:.1f} ms of Valkey (goal: at most {LOOK_MS}), {each:.2f} us a shard")
    if file is not None:
        costs = {what: [cost.wall, cost.python, cost.server] for what, cost in figures["costs"].items()}
        file.write_text(json.dumps({**figures, "costs": costs}, indent=2) + "\n")
    return 0 if look <= LOOK_MS else 1
