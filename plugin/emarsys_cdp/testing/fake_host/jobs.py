"""The job store: every call for every destination, from its arrival to its final state."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.values import FINAL, Delivery, Job, JobState

Place: TypeAlias = tuple[int, int]
"""Where a job stands in its order: the number of its call, then of the processor's output for it."""

LONGEST_ERROR = 10_000
"""Characters of an error text that are kept (reference 1.6)."""

_SHOWN_JOBS = 5


class Record(Struct, eq=False):
    """
    A job as the host works on it; `Job` is what others see.

    *message* is what the transformer gets as such, *request* what the processor stage made of it, null at the router
    stage. *first_attempt* is in seconds of the loop's clock. *ordered* is false where the host has switched the order
    of its key off.
    """

    id: int
    place: Place
    source: str
    destination: str
    call: dict[str, Json]
    message: bytes
    order_key: str
    received: str
    created: str = ""
    state: JobState = JobState.WAITING
    status: int = 0
    error: str = ""
    attempts: int = 0
    first_attempt: float | None = None
    first_attempted: str = ""
    dont_batch: bool = False
    request: bytes | None = None
    transforms: list[float] = []
    deliveries: list[float] = []

    @property
    def final(self) -> bool:
        """Tell whether nothing more happens to it."""
        return self.state in FINAL

    def shown(self) -> Job:
        """Return it as others see it."""
        return Job(
            self.id,
            self.source,
            self.destination,
            self.call,
            self.order_key,
            self.state,
            self.status,
            self.error,
            self.attempts,
            self.dont_batch,
            tuple(self.transforms),
            tuple(self.deliveries),
        )


class JobStore:
    """All jobs of a host. *first* is the first jobId; its methods are called in the host's loop."""

    def __init__(self, first: int = 1) -> None:
        self.records: list[Record] = []
        self.deliveries: list[Delivery] = []
        self.transforms = 0
        self._next = first
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def next_id(self) -> int:
        """Return a jobId that no job has had."""
        self._next += 1
        return self._next - 1

    def add(self, record: Record) -> None:
        """Keep a new job."""
        self.records.append(record)
        if not record.final:
            self._open += 1
            self._idle.clear()

    def finish(self, record: Record, state: JobState, status: int, error: str) -> None:
        """Give an open job its final state."""
        record.state, record.status, record.error = state, status, error[:LONGEST_ERROR]
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until every job is in a final state."""
        await self._idle.wait()

    def counts(self) -> dict[str, int]:
        """Return the number of jobs, in all and by state, of requests to the transformer, and of deliveries."""
        by_state = Counter(record.state for record in self.records)
        return {
            "jobs": len(self.records),
            "open": self._open,
            **{str(state): by_state[state] for state in JobState},
            "transforms": self.transforms,
            "deliveries": len(self.deliveries),
        }


def describe_open(records: Iterable[Record]) -> list[str]:
    """Say in a line for each state and error which jobs are in no final state, the most first."""
    groups: defaultdict[tuple[str, int, str], list[Record]] = defaultdict(list)
    for record in records:
        if not record.final:
            groups[(str(record.state), record.status, record.error)].append(record)
    return [_line(*key, group) for key, group in sorted(groups.items(), key=lambda item: -len(item[1]))]


def _line(state: str, status: int, error: str, group: list[Record]) -> str:
    shown = ", ".join(str(record.id) for record in group[:_SHOWN_JOBS])
    more = ", ..." if len(group) > _SHOWN_JOBS else ""
    attempts = max(record.attempts for record in group)
    about = ": ".join(filter(None, (str(status or ""), error[:200])))
    tried = f", up to {attempts} attempts" if attempts else ""
    return f"{len(group)} {state}{tried} (jobs {shown}{more}){' - ' + about if about else ''}"
