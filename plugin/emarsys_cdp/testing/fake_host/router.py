"""
The router of one destination: workers with batches of their own, order keys, retries (reference 1.6).

A job goes to the worker that its key is hashed to. A worker collects jobs, has them transformed in one request, and
sends the outputs one after another; meanwhile its other jobs wait.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, Protocol

from msgspec import Struct

from emarsys_cdp.testing.fake_host.backoff import (
    UNREADABLE_REQUEST,
    is_final,
    is_given_up,
    is_success,
    next_attempt_after,
    state_after,
)
from emarsys_cdp.testing.fake_host.barrier import Barrier
from emarsys_cdp.testing.fake_host.jobs import Place, Record
from emarsys_cdp.testing.fake_host.outcome import Outcome, Request, alike, read_requests
from emarsys_cdp.testing.fake_host.requests import Item
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.transform import Transformer
from emarsys_cdp.testing.fake_host.values import JobState
from emarsys_cdp.testing.fake_host.verdict import Output

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193

SKIPPED: Final = "skipping sending to destination because previous job (of user) in batch failed."


class Sends(Protocol):
    """Sends the requests of an output: `OwnDelivery` or `ProxyDelivery`."""

    async def send(self, requests: Sequence[Request], output: Output, items: Sequence[Item]) -> Outcome:
        """Send them and say what became of each job. Raises ValueError for a number that is too large."""


class RouterSettings(Struct, frozen=True):
    """*workers* of a destination, jobs in a *batch*, and whether jobs of the processor stage go to /batch."""

    workers: int
    batch: int
    batching: bool
    threshold: int


class Router:
    """
    Brings the jobs of one destination to their end.

    *item_of* says where a job comes from and goes to, with the settings of now.
    """

    def __init__(
        self,
        run: Run,
        transformer: Transformer,
        delivery: Sends,
        settings: RouterSettings,
        item_of: Callable[[Record], Item],
    ) -> None:
        self.run = run
        self.transformer = transformer
        self.delivery = delivery
        self.settings = settings
        self.barrier = Barrier(settings.threshold, run.pace.order_off)
        self.item_of = item_of
        self._chance = random.Random(0)  # noqa: S311 - which worker a job without order goes to
        self._workers = [Worker(self) for _ in range(settings.workers)]

    async def work(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                tasks.create_task(worker.work())

    def submit(self, record: Record) -> None:
        """Take a job, new or to be tried again; it may have to wait for another of its key."""
        if self.barrier.enter(record, self.run.seconds()):
            self._assign(record)
            self._release(record)

    def _assign(self, record: Record) -> None:
        if self.barrier.is_unordered(record, self.run.seconds()):
            worker = self._chance.choice(self._workers)
        else:
            worker = self._workers[fnv1a(record.order_key) % len(self._workers)]
        worker.put(record)

    def items(self, records: Sequence[Record]) -> list[Item]:
        """Return jobs with where they come from and go to; what the server hands out has nanoseconds."""
        now = self.run.now().strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
        items = [self.item_of(record) for record in records]
        return [Item(item.record, item.source, item.destination, now) for item in items]

    def failed(self, record: Record, status: int, error: str) -> None:
        """Have a job tried again after its back-off; it holds the later ones of its key back."""
        now = self.run.seconds()
        record.state, record.status, record.error = JobState.FAILED, status, error
        if record.first_attempt is None:
            record.first_attempt, record.first_attempted = now, self.run.written_now()
        self.barrier.failed(record, now)
        wait = 0.0 if self._is_given_up(record) else next_attempt_after(record.attempts, self.run.pace)
        asyncio.get_running_loop().call_later(wait, self._again, record)

    def _is_given_up(self, record: Record) -> bool:
        first = record.first_attempt
        seconds = 0.0 if first is None else self.run.seconds() - first
        return is_given_up(record.status, record.attempts, seconds, self.run.pace)

    def _again(self, record: Record) -> None:
        if self._is_given_up(record):
            self.finished(record, JobState.ABORTED, record.status, f"retry limit reached: {record.error}")
        else:
            self.submit(record)

    def waits(self, record: Record, blocker: Record, reason: str) -> None:
        """
        Put a job back among those that wait for a failed one of their key.

        That is no attempt of it; and the server forgets with it whether the job may be batched, and when it was
        first tried.
        """
        record.state, record.error = JobState.WAITING, f"{reason} {blocker.id}"
        record.dont_batch, record.first_attempt, record.first_attempted = False, None, ""
        self.barrier.back(record)

    def finished(self, record: Record, state: JobState, status: int, error: str) -> None:
        """Give a job its final state; others may go on now."""
        self.run.store.finish(record, state, status, error)
        self.barrier.finished(record, aborted=state is JobState.ABORTED)
        self._release(record)

    def _release(self, record: Record) -> None:
        for free in self.barrier.released(record.order_key, self.run.seconds()):
            self._assign(free)


class Worker:
    """One worker of a router."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._run = router.run
        self._inbox: list[tuple[Place, int, Record]] = []
        self._arrived = asyncio.Event()

    def put(self, record: Record) -> None:
        """Give it a job."""
        heapq.heappush(self._inbox, (record.place, record.id, record))
        self._arrived.set()

    async def work(self) -> None:
        """Work until cancelled."""
        while True:
            records = await self._collected()
            if records:
                await self._handle(records)

    async def _collected(self) -> list[Record]:
        """Return a full batch, or what there is when no job has come for a while; a ready request goes alone."""
        records: list[Record] = []
        while len(records) < self._router.settings.batch:
            record = self._next()
            if record is not None:
                record.state = JobState.EXECUTING
                records.append(record)
                if self._goes_alone(record):
                    break
            elif not await self._arrival(self._run.pace.batch_timeout if records else None):
                break
        return records

    def _goes_alone(self, record: Record) -> bool:
        return record.request is not None and not self._router.settings.batching

    def _next(self) -> Record | None:
        while self._inbox:
            record = heapq.heappop(self._inbox)[2]
            blocker = self._router.barrier.blocker(record, self._run.seconds())
            if blocker is None:
                return record
            self._router.waits(record, blocker, "behind job")
        self._arrived.clear()
        return None

    async def _arrival(self, seconds: float | None) -> bool:
        """Wait for a job; False when none has come in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def _handle(self, records: list[Record]) -> None:
        items = self._router.items(records)
        if self._goes_alone(records[0]):
            config = items[0].destination.config_json
            await self._send([Output((records[0],), 0, request=records[0].request or b"", config=config)], items)
            return
        verdict = await self._router.transformer.router(items, batch=records[0].request is not None)
        if verdict.panicked:
            # The server starts again and finds the jobs as they were; status 0 never counts towards giving up.
            error = next((str(one.breach) for one in verdict.found), "")
            self._settle(records, alike(records, 0, f"the server has ended itself: {error}", sent=False))
        else:
            await self._send(verdict.outputs, items)

    async def _send(self, outputs: Sequence[Output], items: Sequence[Item]) -> None:
        """Send the outputs in order; what shares a key with a job that failed is not sent any more."""
        known = {item.record.id: item for item in items}
        failed: set[str] = set()
        settled: list[tuple[Output, Outcome]] = []
        for output in outputs:
            outcome = await self._outcome(output, [known[record.id] for record in output.records], failed)
            now = self._run.seconds()
            failed.update(
                record.order_key
                for record in output.records
                if not is_final(outcome.status(record)) and not self._router.barrier.is_unordered(record, now)
            )
            settled.append((output, outcome))
        for output, outcome in settled:
            self._keep_directives(output.records, outcome)
        pairs = [(record, outcome) for output, outcome in settled for record in output.records]
        self._settle_all(sorted(pairs, key=lambda pair: pair[0].place))

    async def _outcome(self, output: Output, items: Sequence[Item], failed: set[str]) -> Outcome:
        if output.status not in (0, HTTPStatus.OK):
            return alike(output.records, output.status, output.error, sent=False)
        if any(record.order_key in failed for record in output.records):
            return alike(output.records, HTTPStatus.INTERNAL_SERVER_ERROR, SKIPPED, sent=False)
        try:
            requests = read_requests(output.request, several=output.records[0].request is None)
            return await self._router.delivery.send(requests, output, items)
        except (ValueError, RecursionError) as error:
            text = f"transformer response unmarshal error: {error}"
            return alike(output.records, UNREADABLE_REQUEST, text, sent=False)

    @staticmethod
    def _keep_directives(records: Sequence[Record], outcome: Outcome) -> None:
        for record in records:
            record.dont_batch = outcome.dont_batch.get(record.id, False)

    def _settle(self, records: Sequence[Record], outcome: Outcome) -> None:
        self._settle_all([(record, outcome) for record in records])

    def _settle_all(self, pairs: Sequence[tuple[Record, Outcome]]) -> None:
        """Give jobs their new states, in their order: of a key only one is failed, the others wait for it."""
        blockers: dict[str, Record] = {}
        for record, outcome in pairs:
            status, error = outcome.status(record), outcome.error(record)
            if not is_final(status) and record.order_key in blockers:
                self._router.waits(record, blockers[record.order_key], "sent in a batch that failed, behind job")
                continue
            record.attempts += 1
            if is_final(status):
                kept = not is_success(status) or self._keeps_responses(record)
                self._router.finished(record, state_after(status, sent=outcome.sent), status, error if kept else "")
            else:
                blockers[record.order_key] = record
                self._router.failed(record, status, error)

    def _keeps_responses(self, record: Record) -> bool:
        definition = self._router.item_of(record).destination.destination_definition
        return bool(definition.settings.get("saveDestinationResponse"))


def fnv1a(text: str) -> int:
    """Return the hash by which the server chooses a worker (misc.GetHash)."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value
