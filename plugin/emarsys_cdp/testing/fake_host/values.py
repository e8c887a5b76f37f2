"""What a `FakeHost` tells about a run: jobs, deliveries, breaches, overtakings; and how fast it goes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.testing.conformance_types import Breach, Json


class JobState(StrEnum):
    """What became of a job. The last four are final."""

    WAITING = "waiting"
    """Not tried yet, or behind another job of its person."""
    EXECUTING = "executing"
    """In a request to the transformer, or in a delivery."""
    FAILED = "failed"
    """Tried without success; it is tried again after its back-off."""
    DELIVERED = "delivered"
    """Sent, and the status that came back for it was a success."""
    DONE = "done"
    """A success without sending: the transformer answered a 2xx other than 200 and 298."""
    FILTERED = "filtered"
    """Not wanted: status 298, or the destination does not take the call."""
    ABORTED = "aborted"
    """Given up; a real server never tries it again."""


FINAL: Final = frozenset({JobState.DELIVERED, JobState.DONE, JobState.FILTERED, JobState.ABORTED})


class Stage(StrEnum):
    """Where a destination's calls are transformed."""

    ROUTER = "router"
    PROCESSOR = "processor"


class Job(Struct, frozen=True):
    """
    One call for one destination, as it was at the moment of asking.

    *id* is the jobId that the transformer sees, in the order of arrival, and *call* the message. *order_key* is
    the metadata's userId: jobs of one key keep their order, others do not. *status* is the last one that decided,
    0 before, *error* the text that came with it, or what the job waits for. *attempts* counts the tries that came
    to a result. *transforms* and *deliveries* are the times at which requests with it were sent, in seconds since
    the host's start.
    """

    id: int
    source: str
    destination: str
    call: dict[str, Json]
    order_key: str
    state: JobState
    status: int
    error: str
    attempts: int
    dont_batch: bool
    transforms: tuple[float, ...]
    deliveries: tuple[float, ...]

    @property
    def final(self) -> bool:
        """Tell whether nothing more happens to it."""
        return self.state in FINAL


class Delivery(Struct, frozen=True):
    """
    One request of jobs: sent by the host itself, or by way of the transformer's *proxy*.

    *sent* and *answered* are seconds since the host's start. *status* is the HTTP status of the answer, 504 or 500
    where there was none and *error* says why; *statuses* are what it meant for each job.
    """

    destination: str
    method: str
    endpoint: str
    proxy: bool
    jobs: tuple[int, ...]
    sent: float
    answered: float
    status: int
    error: str
    statuses: dict[int, int]


class Consequence(StrEnum):
    """What a real server does about a breach."""

    NOTED = "noted"
    """It goes on with what came back, which is not what was meant."""
    THROWN_AWAY = "answer thrown away"
    """Every job of the request gets a 500 and is tried again; its log says nothing."""
    LOST = "calls lost"
    """It aborts the calls, though nothing was wrong with them."""
    PANIC = "server ended itself"
    """Every destination stands still until it has started again."""


class SeenBreach(Breach, frozen=True, kw_only=True):
    """
    A breach of the host's rules that happened in a run.

    *path* is the endpoint, *jobs* are those of the request, *at* is in seconds since the host's start.
    """

    path: str
    consequence: Consequence
    jobs: tuple[int, ...] = ()
    at: float = 0.0

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}: {self.message} ({self.consequence})"


class Overtaking(Struct, frozen=True):
    """
    Two delivered jobs of one person, the *later* of which reached the destination first or was answered first.

    *identifier* is what they share, for instance `userId u-1`.
    """

    destination: str
    identifier: str
    earlier: int
    later: int


class Pace(Struct, frozen=True, kw_only=True):
    """
    The waiting times of a host, in seconds; the defaults are those of a real server.

    Reference sections 1.3 (rule 5), 1.4, 1.6 and 1.7; the names of the settings are RudderStack's.
    """

    batch_timeout: float = 5.0
    """Router.jobsBatchTimeout: a worker waits so long for one more job before it sends what it has."""
    min_backoff: float = 10.0
    """Router.minRetryBackoff, doubled with every attempt."""
    max_backoff: float = 300.0
    """Router.maxRetryBackoff."""
    give_up_after: float = 180 * 60.0
    """Router.retryTimeWindow: a 5xx is given up when the first attempt is older than this."""
    give_up_attempts: int = 3
    """Router.maxFailedCountForJob: and it was tried at least so often."""
    order_off: float = 20 * 60.0
    """Router.eventOrderDisabledStateDuration: a key that was too busy is without order for so long."""
    connection_sleep: float = 0.1
    """Processor.retrySleep: between the router's tries to reach the transformer."""
    processor_min_backoff: float = 0.5
    processor_max_backoff: float = 30.0
    """Processor.maxRetryBackoffInterval."""
    should_retry_min: float = 1.0
    """Transformer.Client.retryRudderErrors.initialInterval: after a 503 with X-Rudder-Should-Retry."""
    should_retry_max: float = 30.0
    features_sleep: float = 10.0
    """Transformer.pollInterval: between two tries to get the features."""
    delivery_timeout: float = 10.0
    """Router.httpTimeout, also told to the proxy."""
    transform_timeout: float = 600.0
    """HttpClient.routerTransformer.timeout and HttpClient.procTransformer.timeout."""

    def scaled(self, factor: float) -> Pace:
        """
        Return the same with every wait multiplied by *factor*.

        Time-outs stay: the other side is not quicker for it. So do the tries to reach the transformer, which takes
        as long as ever to start again.
        """
        waits = (
            "batch_timeout min_backoff max_backoff give_up_after order_off processor_min_backoff processor_max_backoff"
            " should_retry_min should_retry_max features_sleep"
        )
        return replace(self, **{name: getattr(self, name) * factor for name in waits.split()})


REAL_PACE: Final = Pace()
"""As slow as a real server."""

QUICK_PACE: Final = REAL_PACE.scaled(1 / 200)
"""For tests: a back-off of 10 s takes 50 ms, and 3 hours of trying are 54 s."""
