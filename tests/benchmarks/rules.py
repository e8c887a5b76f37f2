"""
Measure what rules cost: `python -m tests.benchmarks rules`.

The same track calls go through the pipeline of a worker - data maps, users table, rules, requests; no HTTP - over an
embedded Valkey, with documents that differ in their rules only. All are measured in turn, in a new random order each
round; what a document costs is the median of the differences to the one without rules in the same round. Rules that
match have an instance of every person already, and all of a person's calls in their log.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tests.benchmarks.processes import cpu_of, set_cores

from emarsys_cdp.calls import make_call
from emarsys_cdp.credentials import Secret, Wsse
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Call, Json

GROWTH, MATCHING = 1.2, 25.0
"""The issue's limits: rules that do not match change the cost by less than a fifth; ten that do add at most 25 us."""

PEOPLE, BATCH, CALLS = 500, 20, 4000
START = 1_764_000_000_000
_random = random.Random()  # noqa: S311 - samples, no secret


class Cost(Struct, frozen=True):
    """Microseconds of one event: of this process and of Valkey."""

    python: float
    server: float


def document(rules: Sequence[Json]) -> dict[str, Json]:
    """Return a document with some rules."""
    maps = [
        {"name": "email", "path": "context.traits.email", "type": "string", "field": "3"},
        {"name": "first_name", "path": "context.traits.firstName", "type": "string", "field": "1"},
        {"name": "event", "path": "event", "type": "string"},
        {"name": "revenue", "path": "properties.revenue", "type": "numeric"},
        {"name": "product", "path": "properties.product_id", "type": "string"},
    ]
    return {"identity": {"primaryKey": "context.traits.email"}, "dataMaps": maps, "rules": rules}


def rule(number: int, event: str) -> dict[str, Json]:
    """Return a rule like that of the picture, with criteria and a variable."""
    return {
        "id": f"rule-{number}",
        "lifetime": "48h",
        "conditions": [
            {
                "seq": 0,
                "type": "start",
                "on": "track",
                "match": [f"event = {event}", "revenue >= 10"],
                "variables": ["product"],
            },
            {"seq": 0, "type": "exclude", "on": "track", "match": f"event = Order {number}"},
            {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "event": "test", "eventId": 12}]},
        ],
    }


DOCUMENTS = {
    "no rule": document([]),
    **{
        f"{number:,} that do not match": document([rule(one, f"Nothing {one}") for one in range(number)])
        for number in (1, 10, 100, 1000)
    },
    "1 that matches": document([rule(0, "Product Viewed")]),
    "10 that match": document([rule(number, "Product Viewed") for number in range(10)]),
}
BASE = "no rule"


class _NoTokens:
    async def token(self, *_: object) -> str:
        raise AssertionError


class Bench:
    """A worker with one document and a Valkey."""

    def __init__(self, name: str, raw: dict[str, Json], url: str, server: int) -> None:
        manager = build_plugin_manager([])
        compiler = build_compiler(manager)
        self._server = server
        self._numbers = count()
        self._space: CompiledSpace = compiler.compile(
            name.replace(" ", "-"), "benchmark", compiler.read(name, raw), Wsse("user", Secret("secret"))
        )
        self.store = RedisStore(url)
        namer = Namer(b"a secret of the benchmarks")
        rounds = Rounds(self.store, namer, lambda: new_pid(_random.randbytes), lambda _: 0.0, _random.getrandbits(60))
        signer = Signer(_NoTokens(), self._clock, _random.randbytes)
        self._pipeline = Pipeline(
            Steps(manager), rounds, namer, signer, Metrics(), self._clock, "https://api", FirstSeen(self.store, namer)
        )
        self._now = START

    def _clock(self) -> int:
        return self._now

    def _call(self) -> Call:
        number = next(self._numbers)
        person = number % PEOPLE
        self._now = START + number
        message: dict[str, Any] = {
            "type": "track",
            "messageId": f"0b6f5a3e-58c1-4c1f-9a34-{number:012d}",
            "userId": f"user-{person}",
            "anonymousId": f"5d1f0d4c-7f3e-4a55-9c1e-{person:012d}",
            "event": "Product Viewed",
            "timestamp": iso_time(self._now),
            "properties": {"product_id": f"p{number % 91}", "revenue": 20.5},
            "context": {"traits": {"email": f"person{person}@shop.example", "firstName": f"First{number % 977}"}},
        }
        return make_call(number, message, self._now)

    async def run(self, calls: int) -> Cost:
        """Process calls and return what one of them costs."""
        batches = [[self._call() for _ in range(BATCH)] for _ in range(calls // BATCH)]
        gc.collect()
        gc.freeze()
        python, server = time.process_time(), cpu_of(self._server)
        for batch in batches:
            await self._pipeline.process(self._space, batch)
        python, server = time.process_time() - python, cpu_of(self._server) - server
        return Cost(python / calls * 1e6, server / calls * 1e6)


async def measure(rounds: int) -> dict[str, list[Cost]]:
    """Measure all documents in turn."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = EmbeddedServer(directory, appendonly="no")
        server.start()
        stack.callback(server.stop)
        pid = int((directory / "valkey.pid").read_text())
        set_cores([pid])
        costs: dict[str, list[Cost]] = {name: [] for name in DOCUMENTS}
        for _ in track(range(rounds), "measuring", console=Console(stderr=True)):
            benches = {name: Bench(name, raw, server.url, pid) for name, raw in DOCUMENTS.items()}
            for bench in benches.values():
                await bench.run(PEOPLE * 4)  # everybody is known, and has an instance
            for name in _random.sample(list(benches), len(benches)):
                costs[name].append(await benches[name].run(CALLS))
            for bench in benches.values():
                await bench.store.close()
    return costs


def run(rounds: int) -> bool:
    """Print what rules cost; tell whether the limits are kept."""
    costs = asyncio.run(measure(rounds))
    table = Table(title="Cost of an event through a worker's pipeline, batches of 20", title_justify="left")
    for column in ("rules", "Python us", "Valkey us", "more Python us", "times"):
        table.add_column(column, justify="left" if column == "rules" else "right")
    kept = True
    for name, found in costs.items():
        more = statistics.median(one.python - base.python for one, base in zip(found, costs[BASE], strict=True))
        times = statistics.median(one.python / base.python for one, base in zip(found, costs[BASE], strict=True))
        kept &= more <= MATCHING if "match" in name and "not" not in name else times < GROWTH
        python, server = (statistics.median(getattr(one, part) for one in found) for part in ("python", "server"))
        table.add_row(name, f"{python:.1f}", f"{server:.1f}", f"{more:.1f}", f"{times:.2f}")
    Console().print(table)
    return kept
