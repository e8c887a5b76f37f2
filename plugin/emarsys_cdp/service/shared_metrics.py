"""Counters of several workers, shown by whichever of them is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.registry import Collector

from emarsys_cdp.metrics import Metrics

WRITE_SECONDS = 1.0
"""What another worker has counted is shown this much later at the most."""


class Family(Struct, array_like=True):
    """A metric and its samples: name, labels, value."""

    name: str
    help: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


class WorkersMetrics(Collector):
    """
    The counters of this worker and, from their files in *directory*, those of the others.

    Each sample has the label `worker`. They are not added up here: when a worker is started again its counters begin at
    0, which a database of metrics understands of each but not of their sum.

    Once *stopping* the file is left to the worker that comes next: it has the same number.
    """

    def __init__(self, own: Collector, directory: Path, worker: int, stopping: Callable[[], bool]) -> None:
        self._own = own
        self._directory = directory
        self._worker = worker
        self._stopping = stopping

    def write(self) -> None:
        """Write what this worker has counted to its file."""
        if self._stopping():
            return
        families = [
            Family(
                one.name, one.documentation, one.type, [(each.name, each.labels, each.value) for each in one.samples]
            )
            for one in self._own.collect()
        ]
        fresh = self._directory / f"{self._worker}.new"
        fresh.write_bytes(msgspec.msgpack.encode(families))
        os.replace(fresh, self._directory / str(self._worker))

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all workers."""
        with suppress(OSError):
            self.write()
        found: dict[str, Metric] = {}
        for path in sorted(self._directory.glob("[0-9]*")):
            if not path.name.isdigit():
                continue
            for family in msgspec.msgpack.decode(path.read_bytes(), type=list[Family]):
                metric = found.setdefault(family.name, Metric(family.name, family.help, family.type))
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**labels, "worker": path.name}, value)
        return found.values()


@asynccontextmanager
async def sharing(metrics: Metrics, directory: Path, worker: int, stopping: Callable[[], bool]) -> AsyncIterator[None]:
    """Show the counters of all workers, and write ours for the others to show."""
    shared = metrics.exposed = WorkersMetrics(metrics, directory, worker, stopping)

    async def write() -> None:
        while True:
            with suppress(OSError):  # the directory goes with the parent
                shared.write()
            await asyncio.sleep(WRITE_SECONDS)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
