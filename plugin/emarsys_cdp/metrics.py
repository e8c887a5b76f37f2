"""Counters for Prometheus: what came in, what became of it, what went out. No label holds personal data."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

KNOWN_TYPES = frozenset(("identify", "track", "page", "screen", "group", "alias"))


USER_LENGTH = 8
"""Characters of an API user's hash that tell it from others."""


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
        self._deliveries = Counter(
            "emarsys_cdp_deliveries",
            "Rows that we sent to Emarsys, by kind of request and what became of them.",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self._used = Gauge(
            "emarsys_cdp_budget_used",
            "Requests of an API user that count against its limit now.",
            ("api_user",),
            registry=self.registry,
        )
        self._limit = Gauge(
            "emarsys_cdp_budget_limit",
            "Requests a minute that an API user may send.",
            ("api_user",),
            registry=self.registry,
        )
        self._circuit = Gauge(
            "emarsys_cdp_circuit_open",
            "1 while an API user sends nothing because Emarsys failed several times in a row, 0.5 while one tries.",
            ("api_user",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "emarsys_cdp_http_seconds",
            "Time to answer the host.",
            ("path", "status"),
            registry=self.registry,
        )

        self._of_calls = lru_cache(1024)(self._calls.labels)
        self._of_requests = lru_cache(64)(self._requests.labels)
        self._of_seconds = lru_cache(256)(self._seconds.labels)

    def count_calls(self, host: str, kind: str, outcome: str, number: int = 1) -> None:
        """Count calls; an unknown type counts as `other`."""
        self._of_calls(host, kind if kind in KNOWN_TYPES else "other", outcome).inc(number)

    def count_warning(self, code: str) -> None:
        """Count a call with a warning."""
        self._warnings.labels(code).inc()

    def count_request(self, path: str) -> None:
        """Count a request by the first part of its path: contact, contactlist, event."""
        self._of_requests(path.split("/", 1)[0]).inc()

    def count_delivery(self, path: str, outcome: str) -> None:
        """Count a row of a request that we sent, by the first part of the request's path."""
        self._deliveries.labels(path.partition("/")[0].partition("?")[0], outcome).inc()

    def show_budget(self, user: str, used: int, limit: int, circuit: str) -> None:
        """Set what an API user, given by a hash, has left; *circuit* is closed, half-open or open."""
        label = user[:USER_LENGTH]
        self._used.labels(label).set(used)
        self._limit.labels(label).set(limit)
        self._circuit.labels(label).set({"open": 1.0, "half-open": 0.5}.get(circuit, 0.0))

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count an answered HTTP request."""
        self._of_seconds(path, str(status)).observe(seconds)

    def expose(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self.registry)
