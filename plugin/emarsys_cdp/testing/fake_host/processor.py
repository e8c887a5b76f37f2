"""The processor stage: calls are transformed as they arrive, and what comes out goes to the router (reference 1.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final

from msgspec.structs import replace

from emarsys_cdp.testing.fake_host.backoff import FILTERED
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.requests import Item
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.transform import Transformer
from emarsys_cdp.testing.fake_host.values import JobState
from emarsys_cdp.testing.fake_host.verdict import Output

CHUNK: Final = 100
"""Processor.transformBatchSize."""
MAX_ROUND: Final = 10_000
"""Processor.maxLoopProcessEvents."""


class Processor:
    """
    Transforms jobs in rounds: all chunks of a round at once, the next round only when they are all answered.

    *hand_over* takes what is to be sent, in the order of the calls.
    """

    def __init__(
        self,
        run: Run,
        transformer: Transformer,
        item_of: Callable[[Record], Item],
        hand_over: Callable[[Record], None],
    ) -> None:
        self._run = run
        self._transformer = transformer
        self._item_of = item_of
        self._hand_over = hand_over
        self._pending: list[Record] = []
        self._arrived = asyncio.Event()

    def submit(self, record: Record) -> None:
        """Take a job."""
        self._pending.append(record)
        self._arrived.set()

    async def work(self) -> None:
        """Work until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pending:
                records, self._pending = self._pending[:MAX_ROUND], self._pending[MAX_ROUND:]
                await self._round(records)

    async def _round(self, records: Sequence[Record]) -> None:
        for record in records:
            record.state = JobState.EXECUTING
        items = [self._item_of(record) for record in records]
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(self._transformer.processor(chunk)) for chunk in chunks(items)]
        for answer in answers:
            for output in answer.result():
                self._apply(output)

    def _apply(self, output: Output) -> None:
        record = output.records[0]
        if record.final or record.request is not None:
            record = self._another(record)
        record.error = ""
        if output.status == HTTPStatus.OK:
            record.request, record.created, record.state = output.request, self._run.written_now(), JobState.WAITING
            self._hand_over(record)
        elif output.status == FILTERED:
            self._run.store.finish(record, JobState.FILTERED, output.status, output.error)
        else:
            record.attempts = 1
            self._run.store.finish(record, JobState.ABORTED, output.status, output.error)

    def _another(self, first: Record) -> Record:
        """Return a job of its own for a further output of a call, in order behind those before it."""
        store = self._run.store
        job = store.next_id()
        record = replace(
            first,
            id=job,
            place=(first.place[0], job),
            state=JobState.EXECUTING,
            request=None,
            transforms=list(first.transforms),
            deliveries=[],
        )
        store.add(record)
        return record


def chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the items of each source and destination, in their order, at most so many as a request may hold."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.pair, []).append(item)
    for group in groups.values():
        for start in range(0, len(group), CHUNK):
            yield group[start : start + CHUNK]
