"""Sweeps beside a running service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog
from tests.support.app import host_of
from tests.support.people import sweeper
from tests.support.world import make_service

from emarsys_cdp.metrics import Metrics
from emarsys_cdp.service.sweeps import Sweeps
from emarsys_cdp.store import Claim, StoreUnavailable
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.memory import MemoryStore

ROWS = [Claim(letter * 24, None, owned_by("DEADDEADDEAD")) for letter in "ABC"]


async def until(done: Any) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.01)


def shown(metrics: Metrics, name: str) -> bool:
    """Tell whether a line is among the metrics."""
    return f"emarsys_cdp_sweep_{name}\n" in metrics.expose().decode()


def test_one_of_several_workers_sweeps() -> None:
    """The others find that it is done, and it is counted and logged."""
    store = MemoryStore()

    async def run() -> tuple[list[Metrics], list[Any]]:
        await store.claim(ROWS)
        every = [Metrics() for _ in range(3)]
        with structlog.testing.capture_logs() as logs:
            tasks = [
                asyncio.create_task(Sweeps(sweeper(store, str(number)), metrics, lambda: 0.5, 0.01).run())
                for number, metrics in enumerate(every)
            ]
            await until(lambda: logs)
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return every, list(logs)

    every, logs = asyncio.run(run())

    assert [log["event"] for log in logs] == ["users_table_swept"]
    assert (logs[0]["rows"], logs[0]["removed"]) == (3, 3)
    assert sum(shown(metrics, 'runs_total{outcome="whole"} 1.0') for metrics in every) == 1
    assert sum(shown(metrics, 'done_total{what="rows_removed"} 3.0') for metrics in every) == 1
    assert all(shown(metrics, "running 0.0") for metrics in every)
    assert not store.rows


def test_an_outage_does_not_end_the_sweeps() -> None:
    """It is logged, and the next one goes through."""

    class Failing(MemoryStore):
        failures = 2

        async def walk(self, step: int) -> AsyncIterator[Any]:
            self.failures -= 1
            if self.failures >= 0:
                raise (StoreUnavailable("down"), RuntimeError("a fault"))[self.failures]
            async for one in super().walk(step):
                yield one

    async def run() -> list[str]:
        metrics = Metrics()
        with structlog.testing.capture_logs() as logs:
            task = asyncio.create_task(Sweeps(sweeper(Failing()), metrics, lambda: 0.5, 0.01).run())
            await until(lambda: len(logs) == 3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert shown(metrics, 'runs_total{outcome="cut_short"} 2.0')
        return [log["event"] for log in logs]

    assert asyncio.run(run()) == ["sweep_failed", "sweep_cut_short", "users_table_swept"]


def test_the_service_sweeps_by_itself() -> None:
    """From its start to its end."""
    store = MemoryStore()

    async def run() -> None:
        await store.claim(ROWS)
        service = make_service(store)
        service.sweeps = Sweeps(sweeper(store), service.metrics, lambda: 0.5, 0.01)
        async with host_of(service) as host:
            await until(lambda: store.kept)
            assert not store.rows
            assert await host.metric("emarsys_cdp_sweep_done_total", what="rows_removed") == 3

    asyncio.run(run())
