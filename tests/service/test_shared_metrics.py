from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from emarsys_cdp.metrics import Metrics
from emarsys_cdp.service.shared_metrics import WorkersMetrics, sharing


def worker(number: int, directory: Path, *, stopping: bool = False) -> tuple[Metrics, WorkersMetrics]:
    """Return the counters of a worker and what shares them."""
    metrics = Metrics()
    shared = WorkersMetrics(metrics, directory, number, lambda: stopping)
    metrics.exposed = shared
    return metrics, shared


def shown(metrics: Metrics, name: str) -> Mapping[str, float]:
    """Return the values that a worker shows, by the number of the worker that has counted them."""
    families = text_string_to_metric_families(metrics.expose().decode())
    return {one.labels["worker"]: one.value for family in families for one in family.samples if one.name == name}


def test_any_worker_shows_all(tmp_path: Path) -> None:
    """Counters of others are shown beside one's own, each family once, told apart by the label."""
    (one, first), (two, _) = worker(1, tmp_path), worker(12, tmp_path)
    one.count_calls("rudderstack", "track", "request", 3)
    first.write()
    two.count_calls("rudderstack", "track", "request", 4)

    assert shown(two, "emarsys_cdp_calls_total") == {"1": 3, "12": 4}
    assert two.expose().decode().count("# TYPE emarsys_cdp_calls_total counter") == 1


def test_histograms_are_shown_whole(tmp_path: Path) -> None:
    """A histogram of another worker keeps its buckets, sum and count."""
    (one, first), (two, _) = worker(1, tmp_path), worker(2, tmp_path)
    one.observe("/routerTransform", 200, 0.5)
    first.write()
    text = two.expose().decode()

    assert 'emarsys_cdp_http_seconds_bucket{le="0.5",path="/routerTransform",status="200",worker="1"} 1.0' in text
    assert shown(two, "emarsys_cdp_http_seconds_sum") == {"1": 0.5}


def test_the_next_worker_has_the_number(tmp_path: Path) -> None:
    """A worker that stops leaves its number to the one that takes its place."""
    (old, before), (new, after) = worker(1, tmp_path, stopping=True), worker(1, tmp_path)
    old.count_calls("rudderstack", "track", "request", 9)
    new.count_calls("rudderstack", "track", "request", 1)
    after.write()
    before.write()

    assert shown(old, "emarsys_cdp_calls_total") == {"1": 1}


def test_counters_are_written_by_themselves(tmp_path: Path) -> None:
    """Others see what a worker has counted without asking it, also when nothing was counted yet."""
    one, (two, _) = Metrics(), worker(2, tmp_path)

    async def main() -> None:
        async with sharing(one, tmp_path, 1, lambda: False):
            while not (tmp_path / "1").exists():
                await asyncio.sleep(0.001)

    one.count_calls("rudderstack", "track", "request", 2)
    asyncio.run(main())

    assert shown(two, "emarsys_cdp_calls_total") == {"1": 2}


def test_a_directory_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    """A worker that outlives its parent answers, with nothing to show."""
    one, _ = worker(1, tmp_path / "gone")
    one.count_calls("rudderstack", "track", "request")

    assert one.expose() == b""
