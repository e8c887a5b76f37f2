"""
Measure how the cost of a call grows with the number of people: `python -m tests.benchmarks growth`.

Each size has a Valkey of its own, filled through the rounds of a worker as calls fill it. All are measured in turn, in
a new random order each round, so that a busy machine hits all sizes alike; growth is the median of the rounds' ratios.
Calls are of people whom the worker remembers, and of people whom it does not. What is in front of the users table -
HTTP, JSON, data maps - does not know how many people there are, and is not run.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import redis
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from tests.benchmarks.processes import cpu_of, set_cores

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp_hooks import Identifiers, StoredValue

SIZES = (10_000, 100_000, 1_000_000)
PYTHON_GROWTH, SERVER_GROWTH, BYTES = 1.2, 2.0, 1024
"""design.md section 7: at most so many times from the smallest to the largest size, and so many bytes a person."""

LOADED = 2000
"""People of one round while a table is filled."""

ROUND, CALLS = 200, 10_000
"""Calls of one round, and of one sample."""

REMEMBERED = 2000
"""People whose calls come again and again."""

MEASURED_KEYS = 2000
"""Keys of a kind whose memory is asked for."""

SPACE = "2mfZ3xq4yT6uV8wX0zA1bC2dE3f"
SECRET = b"a secret of the benchmarks"
_random = random.Random()  # noqa: S311 - samples, no secret
_times = count(1_764_000_000_000)

Load = Callable[[int], None]


def call_of(person: int) -> Entry:
    """Return an identify call of a person with userId, key and anonymousId that is later than all before."""
    ids, moment = _ids_of(person), next(_times)
    mid = f"0b6f5a3e-58c1-4c1f-9a34-{moment % 10**12:012}"
    read = {"email": ids.key, "first_name": f"First{moment % 977}", "last_name": f"Last{person}"}
    values = {name: StoredValue(value, moment, mid) for name, value in read.items()}
    return Entry(SPACE, "identify", mid, moment, ids, values)


@lru_cache(REMEMBERED)
def _ids_of(person: int) -> Identifiers:
    """Return the identifiers of a person; they are the same object for a time, as those that are read from calls."""
    return Identifiers(f"user-{person:07}", f"person{person:07}@shop.example", f"5d1f0d4c-7f3e-4a55-9c1e-{person:012}")


class Sized:
    """A table of *size* people in a server of its own."""

    def __init__(self, size: int, directory: Path, stack: ExitStack) -> None:
        server = EmbeddedServer(directory, appendonly="no")  # the file would be rewritten amid the samples
        server.start()
        stack.callback(server.stop)
        self.size = size
        self._url = server.url
        self._client: Any = redis.Redis.from_url(server.url)
        self.pid = int((directory / "valkey.pid").read_text())
        self._empty = self._memory()
        self._store: RedisStore | None = None
        self._known: Rounds | None = None
        self.loading = 0.0

    def _memory(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def worker(self) -> Rounds:
        """Return a worker that remembers nobody."""
        self._store = self._store or RedisStore(self._url)
        return Rounds(
            self._store, Namer(SECRET), lambda: new_pid(_random.randbytes), lambda _: 0.0, _random.getrandbits(60)
        )

    async def load(self, loaded: Load) -> None:
        """Fill the table with calls, many a round."""
        worker, started = self.worker(), time.perf_counter()
        for first in range(0, self.size, LOADED):
            people = range(first, min(self.size, first + LOADED))
            await worker.add([call_of(person) for person in people])
            loaded(len(people))
        self.loading = self.size / (time.perf_counter() - started)

    async def remembered(self) -> Sample:
        """Measure calls of people whom the worker remembers."""
        people = [person * (self.size // REMEMBERED) for person in range(REMEMBERED)]
        self._known = self._known or self.worker()
        await self._known.add([call_of(person) for person in people])  # other workers have had calls of some of them
        return await self._measure(self._known, [people[index % REMEMBERED] for index in range(CALLS)])

    async def unremembered(self) -> Sample:
        """Measure calls of people whom the worker has not seen: each is read first."""
        people = _random.sample(range(self.size), min(CALLS, self.size))
        return await self._measure(self.worker(), people)

    async def _measure(self, worker: Rounds, people: Sequence[int]) -> Sample:
        rounds = [[call_of(one) for one in people[start : start + ROUND]] for start in range(0, len(people), ROUND)]
        gc.collect()
        gc.freeze()  # as the service does: what is remembered is not looked through again and again
        started, python, server = time.perf_counter(), time.process_time(), cpu_of(self.pid)
        for calls in rounds:
            await worker.add(calls)
        seconds = time.perf_counter() - started
        python, server = time.process_time() - python, cpu_of(self.pid) - server
        return Sample(len(people) / seconds, python / len(people) * 1e6, server / len(people) * 1e6)

    def bytes_a_person(self) -> dict[str, float]:
        """Return the bytes that a person takes: all, and of it the record, the rows and the rest (hash tables)."""
        total = (self._memory() - self._empty) / self.size
        record, row = (self._bytes_a_key(kind) for kind in "pi")
        return {"all": total, "record": record, "rows": 3 * row, "rest": total - record - 3 * row}

    def _bytes_a_key(self, kind: str) -> float:
        keys = list(self._some_keys(f"ecdp:{{???}}:{kind}:*"))
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.memory_usage(key)
        return float(statistics.mean(pipeline.execute()))

    def _some_keys(self, pattern: str) -> Iterator[bytes]:
        found = self._client.scan_iter(match=pattern, count=1000)
        return (key for key, _ in zip(found, range(MEASURED_KEYS), strict=False))

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._store is not None:
            await self._store.close()


class Sample(Struct, frozen=True):
    """What one call costs: calls a second of one worker, and microseconds of its and of the server's processor."""

    calls_a_second: float
    python_us: float
    server_us: float


Samples = dict[str, dict[int, list[Sample]]]


async def measure(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Fill the tables, measure them in turn, and return the figures."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tables = [Sized(size, directory / str(size), stack) for size in sizes]
        set_cores([table.pid for table in tables])
        progress = stack.enter_context(_progress())
        loading = progress.add_task("filling the tables", total=sum(sizes))
        for table in tables:
            await table.load(lambda people: progress.advance(loading, people))
        memory = {table.size: table.bytes_a_person() for table in tables}
        samples = await _sample(tables, rounds, progress)
        loads = {table.size: table.loading for table in tables}
        for table in tables:
            await table.close()
    return {"memory": memory, "loading": loads, "samples": samples}


async def _sample(tables: Sequence[Sized], rounds: int, progress: Progress) -> Samples:
    kinds: dict[str, Callable[[Sized], Awaitable[Sample]]] = {
        "remembered": Sized.remembered,
        "not remembered": Sized.unremembered,
    }
    samples: Samples = {kind: {table.size: [] for table in tables} for kind in kinds}
    measuring = progress.add_task("measuring", total=(rounds + 1) * len(tables) * len(kinds))
    for number in range(rounds + 1):
        for table in _random.sample(tables, len(tables)):
            for kind, run in kinds.items():
                sample = await run(table)
                if number:  # the first round warms up
                    samples[kind][table.size].append(sample)
                progress.advance(measuring)
    return samples


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console
    )


def growth(samples: dict[int, list[Sample]], size: int, of: Callable[[Sample], float]) -> float:
    """Return how many times a cost is that of the smallest size: the median of the rounds' ratios."""
    first = samples[min(samples)]
    return statistics.median(of(one) / of(other) for one, other in zip(samples[size], first, strict=True))


def show(results: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    table = Table(title=f"one worker, rounds of {ROUND} calls, every call writing; medians")
    for column in ("calls of people", "people", "calls/s", "Python us", "Valkey us", "Python growth", "Valkey growth"):
        table.add_column(column, justify="left" if column == "calls of people" else "right")
    for kind, samples in results["samples"].items():
        for size, found in samples.items():
            medians = [statistics.median(values) for values in zip(*map(_numbers, found), strict=True)]
            table.add_row(
                kind,
                f"{size:,}",
                f"{medians[0]:,.0f}",
                *(f"{number:.1f}" for number in medians[1:]),
                f"{growth(samples, size, lambda one: one.python_us):.2f}",
                f"{growth(samples, size, lambda one: one.server_us):.2f}",
            )
    console.print(table)
    memory = Table(title="bytes of Valkey a person with three identifiers and three values")
    for column in ("people", "all", "record", "three rows", "hash tables and the rest", "new people/s"):
        memory.add_column(column, justify="right")
    for size, parts in results["memory"].items():
        memory.add_row(f"{size:,}", *(f"{part:,.0f}" for part in parts.values()), f"{results['loading'][size]:,.0f}")
    console.print(memory)


def _numbers(sample: Sample) -> tuple[float, float, float]:
    return sample.calls_a_second, sample.python_us, sample.server_us


def misses(results: dict[str, Any]) -> Iterator[str]:
    """Yield which limits are missed."""
    for kind, samples in results["samples"].items():
        size = max(samples)
        python = growth(samples, size, lambda one: one.python_us)
        server = growth(samples, size, lambda one: one.server_us)
        if python > PYTHON_GROWTH:
            yield f"{kind}: Python costs {python:.2f} times as much (at most {PYTHON_GROWTH})"
        if server > SERVER_GROWTH:
            yield f"{kind}: Valkey costs {server:.2f} times as much (at most {SERVER_GROWTH})"
    for size, parts in results["memory"].items():
        if parts["all"] > BYTES:
            yield f"{size:,} people: {parts['all']:,.0f} bytes a person (at most {BYTES})"


def run(sizes: Sequence[int], rounds: int, file: Path | None) -> int:
    """Run the benchmark, print its tables, and return 1 when a limit is missed."""
    results = asyncio.run(measure(sizes, rounds))
    show(results, Console(width=120))
    missed = list(misses(results))
    for one in missed:
        print(f"missed: {one}")
    if not missed:
        print(f"within the limits: Python {PYTHON_GROWTH} times, Valkey {SERVER_GROWTH} times, {BYTES} bytes a person")
    if file is not None:
        plain = {
            kind: {size: [_numbers(one) for one in found] for size, found in samples.items()}
            for kind, samples in results["samples"].items()
        }
        file.write_text(json.dumps({**results, "samples": plain}, indent=2) + "\n")
    return 1 if missed else 0
