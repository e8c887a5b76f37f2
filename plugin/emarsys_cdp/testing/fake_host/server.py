"""The host in a thread of its own, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack

import uvloop

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.core import AsyncFakeHost
from emarsys_cdp.testing.fake_host.options import Destinations, HostOptions
from emarsys_cdp.testing.fake_host.values import Delivery, Job, Overtaking, SeenBreach
from emarsys_cdp.testing.fake_host.workspace import Settings

T = TypeVar("T")

_AT_ONCE: Final = 500
"""Calls that are taken without letting the host do anything else meanwhile."""


class FakeHost:
    """
    A stand-in for a RudderStack server: takes calls, has them transformed, and delivers what comes back.

        with FakeHost("http://127.0.0.1:9090", {"dest-1": {"apiKey": "id:secret"}}) as host:
            host.send([{"type": "identify", "userId": "u-1", "traits": {"email": "ada@example.com"}}])
            host.drain()
            expect(host.breaches)

    It talks to the transformer as the server does: in requests of many jobs, several at a time, with back-off,
    order per person and all its ways of losing a call. It only waits less. What it waits for, and everything else
    that can be told, is in `HostOptions`. `url` is its gateway, for calls over HTTP.

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
        self._core = AsyncFakeHost(transformer, destinations, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._stopping: asyncio.Event
        self._fault: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, once. Raises StopAndFix: it cannot listen on the port."""
        if self._thread is not None:
            raise RuntimeError("a host can be started only once")
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = Thread(target=self._main, args=(started,), name="fake-host", daemon=True)
        self._thread.start()
        self._loop = started.result()

    def stop(self) -> None:
        """Stop it; what it has seen can still be asked for."""
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        if self._fault is not None:
            raise self._fault

    def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._live(started))
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
            if started.done():
                self._fault = error
            else:
                started.set_exception(error)

    async def _live(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._stopping = asyncio.Event()
        async with self._core:
            started.set_result(asyncio.get_running_loop())
            await self._stopping.wait()

    def _ask(self, question: Callable[[], T]) -> T:
        """Ask the host in its own thread; once it has stopped, in this one."""
        if self._loop is None:
            return question()

        async def ask() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    @property
    def url(self) -> str:
        """Return the URL of the gateway: POST /v1/identify and so on, with the write key as user name."""
        return self._core.url

    def send(self, calls: Iterable[Json], *, write_key: str | None = None) -> list[int]:
        """
        Take calls as the gateway does, without HTTP, and return the jobIds: one for each call and destination.

        *write_key* is that of the first source, if it is left out.

        Raises:
            Refused: the gateway would not take one of them; then none is taken.

        """
        source, taken = self._core.prepare(calls, write_key)
        jobs: list[int] = []
        for start in range(0, len(taken), _AT_ONCE):
            part = taken[start : start + _AT_ONCE]
            jobs += self._ask(lambda part=part: self._core.store(source, part))  # type: ignore[misc]
        return jobs

    def drain(self, timeout: float = 30.0) -> dict[str, int]:
        """
        Wait until every job is in a final state and return `counts`.

        Raises:
            NotDrained: they are not, after *timeout* seconds; says which, and what they wait for.

        """
        if self._loop is None:
            raise RuntimeError("the host does not run")
        return asyncio.run_coroutine_threadsafe(self._core.drain(timeout), self._loop).result()

    def configure(self, destination: str, config: Settings) -> None:
        """Give a destination other settings from now on. Raises WrongWorkspace: there is no such destination."""
        self._ask(lambda: self._core.configure(destination, config))

    @property
    def jobs(self) -> list[Job]:
        """Return all jobs as they are now, in the order of their ids."""
        return self._ask(lambda: self._core.jobs)

    @property
    def deliveries(self) -> list[Delivery]:
        """Return the requests that were sent, in the order in which their answers came."""
        return self._ask(lambda: self._core.deliveries)

    @property
    def breaches(self) -> list[SeenBreach]:
        """Return the breaches of the host's rules in the order of their discovery, the first 10,000."""
        return self._ask(lambda: self._core.breaches)

    @property
    def overtakings(self) -> list[Overtaking]:
        """Return which jobs of one person overtook others on the way to the destination."""
        return self._ask(lambda: self._core.overtakings)

    @property
    def failed(self) -> bool:
        """Tell whether a real server would have ended itself."""
        return self._ask(lambda: self._core.failed)

    def counts(self) -> dict[str, int]:
        """Return the numbers of jobs by state, of requests, breaches and panics."""
        return self._ask(self._core.counts)
