"""One run of a host: its clocks, its jobs, and what was seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from emarsys_cdp.testing.conformance_types import Breach
from emarsys_cdp.testing.fake_host.calls import written
from emarsys_cdp.testing.fake_host.jobs import JobStore, Record
from emarsys_cdp.testing.fake_host.values import Consequence, Delivery, Pace, SeenBreach

MAX_BREACHES: Final = 10_000
"""Breaches that are kept; the others are counted."""


class Run:
    """
    What all parts of a host share; used in its loop only.

    *clock* gives the time of the world in seconds since 1970, for what is written into calls and metadata.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float], first_job: int) -> None:
        self.pace = pace
        self.store = JobStore(first_job)
        self.breaches: list[SeenBreach] = []
        self.consequences: Counter[Consequence] = Counter()
        self.standstill = "GET /features was not answered yet"
        self._clock = clock
        self._started = time.perf_counter()  # uvloop's clock has milliseconds, too few to tell what came first

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self._started

    def now(self) -> datetime:
        """Return the time of the world."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def written_now(self) -> str:
        """Return the time of the world as the host writes it."""
        return written(self.now())

    def breach(self, path: str, breach: Breach, consequence: Consequence, records: Iterable[Record] = ()) -> None:
        """Note a breach of the host's rules."""
        self.consequences[consequence] += 1
        if len(self.breaches) < MAX_BREACHES:
            jobs, at = tuple(record.id for record in records), self.seconds()
            self.breaches.append(
                SeenBreach(breach.rule, breach.message, path=path, consequence=consequence, jobs=jobs, at=at)
            )

    def delivered(self, delivery: Delivery, records: Iterable[Record]) -> None:
        """Note a request of jobs, whatever came of it."""
        self.store.deliveries.append(delivery)
        for record in records:
            record.deliveries.append(delivery.sent)

    def counts(self) -> dict[str, int]:
        """Return what there was of everything."""
        return {
            **self.store.counts(),
            "breaches": self.consequences.total(),
            "panics": self.consequences[Consequence.PANIC],
        }
