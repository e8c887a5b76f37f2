"""
Counters for Prometheus: what came in, what became of it, what went out. No label holds personal data.

What is counted is noted, and given to Prometheus' counters when somebody looks or there is a lot of it: one by one,
their locks and labels cost twice as much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

MAX_NOTED = 100
"""Times of one kind that are noted at most."""

KNOWN_TYPES = frozenset(("identify", "track", "page", "screen", "group", "alias"))


PREFIX = "emarsys_cdp_"
"""Beginning of the name of every metric."""

USER_LENGTH = 8
"""Characters of an API user's hash that tell it from others."""


class Metrics(Collector):
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.exposed: Collector = self
        """What /metrics shows: these counters, or with several workers those of all of them."""
        self._calls = self._counter("calls", "Calls by what became of them.", "host", "type", "outcome")
        self._warnings = self._counter("warnings", "Calls that met a condition worth looking at.", "code")
        self._requests = self._counter("requests", "Emarsys requests handed to the host, by kind.", "kind")
        self._deliveries = self._counter(
            "deliveries", "Rows that we sent to Emarsys, by kind of request and what became of them.", "kind", "outcome"
        )
        self._used = self._of_api_user("budget_used", "Requests of an API user that count against its limit now.")
        self._limit = self._of_api_user("budget_limit", "Requests a minute that an API user may send.")
        self._circuit = self._of_api_user(
            "circuit_open",
            "1 while an API user sends nothing because Emarsys failed several times in a row, 0.5 while one tries.",
        )
        self._sweeps = self._counter("sweep_runs", "Sweeps of the users table by how they ended.", "outcome")
        self._swept = self._counter("sweep_done", "What sweeps have passed, removed, finished.", "what")
        self._sweeping = Gauge(PREFIX + "sweep_running", "1 while this worker sweeps.", registry=self.registry)
        self._effects = self._counter(
            "effects", "Effects of rules by their kind: emitted, or what became of a try to send.", "kind", "outcome"
        )
        self._queue = Gauge(
            PREFIX + "outbox_effects", "Effects that wait in this worker's part of the outbox.", registry=self.registry
        )
        self._oldest = Gauge(
            PREFIX + "outbox_oldest_seconds", "Age of the oldest effect that waits in it.", registry=self.registry
        )
        self._seconds = Histogram(
            f"{PREFIX}http_seconds", "Time to answer the host.", ("path", "status"), registry=self.registry
        )
        self._noted: defaultdict[tuple[Counter, tuple[str, ...]], int] = defaultdict(int)
        self._times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, meaning, labels, registry=self.registry)

    def _of_api_user(self, name: str, meaning: str) -> Gauge:
        return Gauge(PREFIX + name, meaning, ("api_user",), registry=self.registry)

    def count_calls(self, host: str, kind: str, outcome: str, number: int = 1) -> None:
        """Count calls; an unknown type counts as `other`."""
        self._noted[self._calls, (host, kind if kind in KNOWN_TYPES else "other", outcome)] += number

    def count_warning(self, code: str) -> None:
        """Count a call with a warning."""
        self._noted[self._warnings, (code,)] += 1

    def count_request(self, path: str) -> None:
        """Count a request by the first part of its path: contact, contactlist, event."""
        self._noted[self._requests, (path.split("/", 1)[0],)] += 1

    def count_delivery(self, path: str, outcome: str) -> None:
        """Count a row of a request that we sent, by the first part of the request's path."""
        self._deliveries.labels(path.partition("/")[0].partition("?")[0], outcome).inc()

    def show_budget(self, user: str, used: int, limit: int, circuit: str) -> None:
        """Set what an API user, given by a hash, has left; *circuit* is closed, half-open or open."""
        label = user[:USER_LENGTH]
        self._used.labels(label).set(used)
        self._limit.labels(label).set(limit)
        self._circuit.labels(label).set({"open": 1.0, "half-open": 0.5}.get(circuit, 0.0))

    def show_sweeping(self, running: bool) -> None:
        """Tell whether this worker sweeps."""
        self._sweeping.set(running)

    def count_swept(self, keys: int, removed: int, finished: int, mended: int) -> None:
        """Count what a sweep has passed and done since the last time."""
        done = {"keys_passed": keys, "rows_removed": removed, "finished": finished, "mended": mended}
        for what, number in done.items():
            self._swept.labels(what).inc(number)

    def count_sweep(self, outcome: str) -> None:
        """Count a sweep that has ended: `whole`, or `cut_short`."""
        self._sweeps.labels(outcome).inc()

    def count_effect(self, kind: str, outcome: str) -> None:
        """Count an effect that was emitted, or a try to send one: sent, posted, handed, postponed, held, dead."""
        self._effects.labels(kind, outcome).inc()

    def show_outbox(self, effects: int, seconds: float) -> None:
        """Show how many effects wait, and the age of the oldest."""
        self._queue.set(effects)
        self._oldest.set(seconds)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count an answered HTTP request."""
        times = self._times[path, status]
        times.append(seconds)
        if len(times) >= MAX_NOTED:
            self._settle()

    def expose(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self.exposed)

    def collect(self) -> Iterable[Metric]:
        """Return all metrics with everything that was noted."""
        self._settle()
        return self.registry.collect()

    def _settle(self) -> None:
        """Give what was noted to Prometheus' counters."""
        for (counter, labels), number in self._noted.items():
            counter.labels(*labels).inc(number)
        for (path, status), times in self._times.items():
            histogram = self._seconds.labels(path, str(status))
            for seconds in times:
                histogram.observe(seconds)
        self._noted.clear()
        self._times.clear()
