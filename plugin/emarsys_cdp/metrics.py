"""
Counters for Prometheus: what came in, what became of it, what went out. No label holds personal data.

What is counted is noted, and given to Prometheus' counters when somebody looks or there is a lot of it: one by one,
their locks and labels cost twice as much.
"""

from __future__ import annotations

from collections import defaultdict

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

MAX_NOTED = 100
"""Times of one kind that are noted at most."""

KNOWN_TYPES = frozenset(("identify", "track", "page", "screen", "group", "alias"))


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "emarsys_cdp_calls",
            "Calls by what became of them.",
            ("host", "type", "outcome"),
            registry=self.registry,
        )
        self._warnings = Counter(
            "emarsys_cdp_warnings",
            "Calls that met a condition worth looking at.",
            ("code",),
            registry=self.registry,
        )
        self._requests = Counter(
            "emarsys_cdp_requests",
            "Emarsys requests handed to the host, by kind.",
            ("kind",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "emarsys_cdp_http_seconds",
            "Time to answer the host.",
            ("path", "status"),
            registry=self.registry,
        )
        self._noted: defaultdict[tuple[Counter, tuple[str, ...]], int] = defaultdict(int)
        self._times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)

    def count_calls(self, host: str, kind: str, outcome: str, number: int = 1) -> None:
        """Count calls; an unknown type counts as `other`."""
        self._noted[self._calls, (host, kind if kind in KNOWN_TYPES else "other", outcome)] += number

    def count_warning(self, code: str) -> None:
        """Count a call with a warning."""
        self._noted[self._warnings, (code,)] += 1

    def count_request(self, path: str) -> None:
        """Count a request by the first part of its path: contact, contactlist, event."""
        self._noted[self._requests, (path.split("/", 1)[0],)] += 1

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count an answered HTTP request."""
        times = self._times[path, status]
        times.append(seconds)
        if len(times) >= MAX_NOTED:
            self._settle()

    def expose(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        self._settle()
        return generate_latest(self.registry)

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
