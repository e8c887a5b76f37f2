"""The host itself: what a RudderStack server does between a call's arrival and its last delivery. For asyncio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from types import TracebackType
from typing import Self, Unpack

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp.testing.fake_host.calls import Arrival, Refused, Taken, invalid_json, is_wanted, take
from emarsys_cdp.testing.fake_host.delivery import OwnDelivery
from emarsys_cdp.testing.fake_host.gateway import gateway
from emarsys_cdp.testing.fake_host.http_client import Address, HttpClient
from emarsys_cdp.testing.fake_host.jobs import Record, describe_open
from emarsys_cdp.testing.fake_host.listening import listening
from emarsys_cdp.testing.fake_host.options import Destinations, HostOptions, Setup
from emarsys_cdp.testing.fake_host.overtaking import overtakings
from emarsys_cdp.testing.fake_host.processor import Processor
from emarsys_cdp.testing.fake_host.proxy import ProxyDelivery
from emarsys_cdp.testing.fake_host.requests import Item
from emarsys_cdp.testing.fake_host.router import Router, RouterSettings, Sends
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.transform import Transformer
from emarsys_cdp.testing.fake_host.values import Delivery, Job, JobState, Overtaking, SeenBreach, Stage
from emarsys_cdp.testing.fake_host.workspace import Destination, Settings, Source, with_config


class NotDrained(TimeoutError):
    """Jobs are in no final state after the time that they had; the message says which, and what they wait for."""


class AsyncFakeHost:
    """
    A stand-in for a RudderStack server with an asyncio loop of the caller's; `FakeHost` is the one to begin with.

    Args:
        transformer: URL of the transformer.
        destinations: the settings of each destination by its id, or destinations as in workspaceConfig.json.
        options: see `HostOptions`.

    Raises:
        StopAndFix: the URL or the destinations cannot be used.
        ValueError: an option makes no sense.

    """

    def __init__(
        self, transformer: str, destinations: Destinations | None = None, **options: Unpack[HostOptions]
    ) -> None:
        setup = Setup(**options)
        self._setup = setup
        self._address = Address(transformer, setup.host_token)
        proxy = setup.delivery_transformer
        self._proxy_address = self._address if proxy is None else Address(proxy, setup.host_token)
        self._workspace = setup.sources(destinations)
        self._index()
        self._calls = 0
        self._early: list[Record] | None = []
        self._exit = AsyncExitStack()
        self._started: Run | None = None
        self._working: asyncio.Task[None]
        self.url = ""

    def _index(self) -> None:
        self._sources = {source.id: source for source in self._workspace.sources}
        self._destinations = {one.id: one for source in self._workspace.sources for one in source.active}

    @property
    def _run(self) -> Run:
        if self._started is None:
            raise RuntimeError("the host has not been started: use it as `with FakeHost(...) as host`")
        return self._started

    async def __aenter__(self) -> Self:
        setup = self._setup
        self._started = Run(setup.real_pace(), setup.clock, setup.first_job)
        async with AsyncExitStack() as stack:
            to_transformer = HttpClient(keep_alive=setup.keep_alive)
            stack.push_async_callback(to_transformer.close)
            to_destinations = HttpClient(keep_alive=True)
            stack.push_async_callback(to_destinations.close)
            self._transformer = Transformer(self._address, to_transformer, self._run, compacted=setup.compacted)
            self._working = asyncio.create_task(self._work(to_transformer, to_destinations))
            stack.push_async_callback(self._stop_working)
            self.url = await stack.enter_async_context(listening(gateway(self), setup.host, setup.port))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _stop_working(self) -> None:
        self._working.cancel()
        await asyncio.wait({self._working})
        if not self._working.cancelled():
            self._working.result()  # a fault of the host's own

    async def _work(self, to_transformer: HttpClient, to_destinations: HttpClient) -> None:
        """Wait for the features as a server does when it starts, then work until cancelled."""
        await self._transformer.read_features()
        delivery = self._delivery(to_transformer, to_destinations)
        setup = self._setup
        settings = RouterSettings(setup.workers, setup.batch, setup.batching, setup.order_threshold)
        self._routers = {
            name: Router(self._run, self._transformer, delivery, settings, self._item) for name in self._destinations
        }
        self._processor = Processor(self._run, self._transformer, self._item, self._to_router)
        early, self._early = self._early or [], None
        for record in early:
            self._dispatch(record)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._processor.work())
            for router in self._routers.values():
                tasks.create_task(router.work())

    def _delivery(self, to_transformer: HttpClient, to_destinations: HttpClient) -> Sends:
        if not self._setup.proxy:
            return OwnDelivery(to_destinations, self._run)
        v1 = self._transformer.features.proxy_v1
        return ProxyDelivery(self._proxy_address, to_transformer, self._run, v1=v1)

    def _item(self, record: Record) -> Item:
        return Item(record, self._sources[record.source], self._destinations[record.destination])

    def _stage(self, destination: Destination) -> Stage:
        """Return where calls of a destination are transformed (reference 1.6, "Stage choice")."""
        definition = destination.destination_definition
        wanted = self._setup.stage or definition.settings.get("transformAtV1")
        able = definition.name in self._transformer.features.router
        return Stage.ROUTER if wanted == Stage.ROUTER and able else Stage.PROCESSOR

    def _dispatch(self, record: Record) -> None:
        if self._stage(self._destinations[record.destination]) is Stage.ROUTER:
            record.created = self._run.written_now()
            self._to_router(record)
        else:
            self._processor.submit(record)

    def _to_router(self, record: Record) -> None:
        self._routers[record.destination].submit(record)

    def send(self, calls: Iterable[Json], *, write_key: str | None = None) -> list[int]:
        """
        Take calls as the gateway does, without HTTP, and return the jobIds: one for each call and destination.

        *write_key* is that of the first source, if it is left out.

        Raises:
            Refused: the gateway would not take one of them; then none is taken.

        """
        return self.store(*self.prepare(calls, write_key))

    def take(self, calls: Iterable[Json], write_key: str, *, address: str = "", header: str = "") -> list[int]:
        """Take calls that came over HTTP, read by `go_json.loads`. Raises as `send`."""
        arrival = Arrival(self._run.now(), address, header)
        source = self._source(write_key)
        return self.store(source, [take(call, arrival, self._setup.new_id) for call in calls])

    def prepare(self, calls: Iterable[Json], write_key: str | None = None) -> tuple[Source, list[Taken]]:
        """Do the part of `send` that may happen in any thread."""
        source, arrival = self._source(write_key), Arrival(self._run.now())
        try:
            read = go_json.loads(json.dumps(list(calls)))
        except (TypeError, ValueError, RecursionError) as error:
            raise invalid_json() from error
        return source, [take(call, arrival, self._setup.new_id) for call in read]

    def store(self, source: Source, calls: Sequence[Taken]) -> list[int]:
        """Do the rest of `send`."""
        return [job for call in calls for job in self._store(source, call)]

    def _source(self, write_key: str | None) -> Source:
        sources = self._workspace.sources
        source = self._workspace.source(write_key) if write_key is not None else next(iter(sources), None)
        if source is None:
            raise Refused(HTTPStatus.UNAUTHORIZED, "Invalid Write Key")
        if not source.enabled:
            raise Refused(HTTPStatus.NOT_FOUND, "Source is disabled")
        return source

    def _store(self, source: Source, call: Taken) -> list[int]:
        """Make a job of a call for every destination of its source."""
        self._calls += 1
        jobs = []
        for destination in source.active:
            job = self._run.store.next_id()
            record = Record(
                id=job,
                place=(self._calls, 0),
                source=source.id,
                destination=destination.id,
                call=call.call,
                message=call.message,
                order_key=call.order_key,
                received=call.call["receivedAt"],
            )
            self._run.store.add(record)
            self._admit(record, destination)
            jobs.append(job)
        return jobs

    def _admit(self, record: Record, destination: Destination) -> None:
        definition = destination.destination_definition
        if not definition.takes(str(record.call.get("type") or "")):
            self._run.store.finish(record, JobState.FILTERED, 0, "the destination does not take calls of this type")
        elif not is_wanted(record.call, definition.display_name):
            self._run.store.finish(record, JobState.FILTERED, 0, "the call's integrations leave the destination out")
        elif self._early is None:
            self._dispatch(record)
        else:
            self._early.append(record)

    def configure(self, destination: str, config: Settings) -> None:
        """Give a destination other settings from now on. Raises WrongWorkspace: there is no such destination."""
        self._workspace = with_config(self._workspace, destination, config)
        self._index()

    async def drain(self, timeout: float = 30.0) -> dict[str, int]:
        """
        Wait until every job is in a final state and return `counts`.

        Raises:
            NotDrained: they are not, after *timeout* seconds.

        """
        idle = asyncio.create_task(self._run.store.idle())
        try:
            await asyncio.wait({idle, self._working}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._working.done():
                self._working.result()  # a fault of the host's own
            if not idle.done():
                raise NotDrained(self._stuck(timeout))
        finally:
            idle.cancel()
        return self.counts()

    def _stuck(self, timeout: float) -> str:
        counts = self.counts()
        lines = [f"{counts['open']} of {counts['jobs']} jobs are in no final state after {timeout:g} s"]
        lines += [self._run.standstill] if self._run.standstill else []
        lines += describe_open(self._run.store.records)
        if counts["breaches"]:
            lines.append(f"{counts['breaches']} breaches, the first: {self.breaches[0]}")
        return "\n  ".join(lines)

    @property
    def jobs(self) -> list[Job]:
        """Return all jobs as they are now, in the order of their ids."""
        return [record.shown() for record in sorted(self._run.store.records, key=lambda record: record.id)]

    @property
    def deliveries(self) -> list[Delivery]:
        """Return the requests that were sent, in the order in which their answers came."""
        return list(self._run.store.deliveries)

    @property
    def breaches(self) -> list[SeenBreach]:
        """Return the breaches of the host's rules in the order of their discovery, the first 10,000."""
        return list(self._run.breaches)

    @property
    def failed(self) -> bool:
        """Tell whether a real server would have ended itself."""
        return bool(self._run.counts()["panics"])

    @property
    def overtakings(self) -> list[Overtaking]:
        """Return which jobs of one person overtook others on the way to the destination."""
        return overtakings(self.jobs, self.deliveries)

    def counts(self) -> dict[str, int]:
        """Return the numbers of jobs by state, of requests, breaches and panics."""
        return self._run.counts()
