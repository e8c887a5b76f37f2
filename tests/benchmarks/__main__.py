"""
Measure the service: events per second of one core, beside reading and writing the same JSON.

    python -m tests.benchmarks [--rounds N] [--json FILE]
    python -m tests.benchmarks growth [--rounds N] [--json FILE] [--sizes N,N]
    python -m tests.benchmarks timers [--rounds N] [--json FILE]
    python -m tests.benchmarks rules [--rounds N]

`growth` measures the users table as it grows (`growth.py`), `timers` what waits for its time (`timers.py`), `rules`
what rules cost (`rules.py`); what follows is about the first.

The service runs in a process of its own with the embedded Valkey. CPU seconds are those of the service's process, the
server's stand beside them. In each round all batch sizes run in a new random order, each with the JSON reference right
after it, so that a busy machine hits all of them alike; ratios are of one sample, and the table has the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tests.benchmarks.growth import SIZES
from tests.benchmarks.growth import run as grow
from tests.benchmarks.load import router_bodies, send
from tests.benchmarks.processes import Measured, service
from tests.benchmarks.rules import run as cost_rules
from tests.benchmarks.timers import run as wait

BATCHES = {1: 6000, 20: 1000, 200: 100, 1000: 20}
"""Batch size to requests of one sample: half a second to a second of work each."""

CONNECTIONS = 8

COLUMNS = (
    "batch",
    "events/s per core",
    "events/s wall",
    "Python us",
    "Valkey us",
    "JSON us",
    "ratio",
    "p50 ms",
    "p99 ms",
    "MB",
)


def reference(bodies: list[bytes]) -> float:
    """Return CPU seconds that `orjson.loads` and `orjson.dumps` of the bodies take in this process."""
    started = time.process_time()
    for body in bodies:
        orjson.dumps(orjson.loads(body))
    return time.process_time() - started


def run(rounds: int) -> dict[int, dict[str, float]]:
    """Run all rounds and return for each batch size the medians of what was measured."""
    samples: dict[int, list[dict[str, float]]] = {batch: [] for batch in BATCHES}
    with tempfile.TemporaryDirectory() as directory, service(Path(directory)) as measured:
        first = 0
        for number in track(range(rounds + 1), "rounds", console=Console(stderr=True)):
            for batch in random.sample(list(BATCHES), len(BATCHES)):
                bodies = list(router_bodies(batch, first, BATCHES[batch]))
                first += batch * len(bodies)
                sample = one(measured, bodies, batch)
                if number:  # the first round makes the persons and warms up
                    samples[batch].append(sample)
    return {batch: _medians(found) for batch, found in samples.items()}


def one(measured: Measured, bodies: list[bytes], batch: int) -> dict[str, float]:
    """Send the bodies and return rates and times of this sample, with the reference run right after it."""
    events = batch * len(bodies)
    before = measured.cpu()
    started = time.perf_counter()
    times = sorted(asyncio.run(send("127.0.0.1", measured.port, bodies, CONNECTIONS)))
    wall = time.perf_counter() - started
    after = measured.cpu()
    python, server = after[0] - before[0], after[1] - before[1]
    json_seconds = reference(bodies)
    return {
        "events_per_cpu_second": events / python,
        "events_per_second": events / wall,
        "python_us": python / events * 1e6,
        "server_us": server / events * 1e6,
        "json_us": json_seconds / events * 1e6,
        "ratio": python / json_seconds,
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[int(len(times) * 0.99)] * 1e3,
        "bytes_per_event": sum(map(len, bodies)) / events,
        "memory_mb": measured.memory() / 1e6,
    }


def _medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def show(results: dict[int, dict[str, float]]) -> None:
    """Print the table."""
    table = Table(title="identify, router transform, every event writing; medians")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for batch, row in results.items():
        table.add_row(
            str(batch),
            f"{row['events_per_cpu_second']:,.0f}",
            f"{row['events_per_second']:,.0f}",
            *(f"{row[name]:.1f}" for name in ("python_us", "server_us", "json_us")),
            f"{row['ratio']:.2f}",
            *(f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "memory_mb")),
        )
    Console(width=120).print(table)


def _sizes(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(","))


def main() -> None:
    """Run a benchmark and print its tables; exit code 1 when its goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "what", nargs="?", choices=["speed", "growth", "timers", "rules"], default="speed", help="default: speed"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--json", type=Path, help="also write the medians to this file")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="of growth: numbers of people, with commas")
    arguments = parser.parse_args()
    if arguments.what == "growth":
        sys.exit(grow(arguments.sizes, arguments.rounds, arguments.json))
    if arguments.what == "timers":
        sys.exit(wait(arguments.rounds, arguments.json))
    if arguments.what == "rules":
        sys.exit(0 if cost_rules(arguments.rounds) else 1)
    results = run(arguments.rounds)
    show(results)
    ratio = results[20]["ratio"]
    print(f"ratio at batch 20: {ratio:.2f} (goal: at most 4)")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if ratio <= 4 else 1)


if __name__ == "__main__":
    main()
