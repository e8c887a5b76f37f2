"""The parent of several workers: it owns the addresses and the embedded server, and keeps the workers running."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from emarsys_cdp.credentials import Secret
from emarsys_cdp.secrets import secret_of_directory
from emarsys_cdp.service.assembly import store_url
from emarsys_cdp.service.doors import Doors, spreads_connections
from emarsys_cdp.service.place import Place
from emarsys_cdp.service.worker import Launch
from emarsys_cdp.service.worker_process import Worker, start_worker
from emarsys_cdp.settings import PREFIX, VIRTUAL, Settings
from emarsys_cdp_hooks import StopAndFix

MAX_WORKERS = 64


class Parent:
    """Keeps *count* workers running on the doors until a signal ends it. *on_start* gets the URL when all listen."""

    def __init__(self, settings: Settings, doors: Doors, count: int, on_start: Callable[[str], None]) -> None:
        self._settings = settings
        self._doors = doors
        self._count = count
        self._on_start = on_start
        self._stopping, self._renewing = asyncio.Event(), asyncio.Event()
        self._alive: set[Worker] = set()
        self._places: list[Place] = []

    async def run(self) -> int:
        """
        Run to the end and return the exit code: 1 when the first workers do not start or one had to be killed.

        Raises:
            StopAndFix: the embedded server does not start, or the secret cannot be read.

        """
        loop = asyncio.get_running_loop()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(one, self._stop, one)
        loop.add_signal_handler(signal.SIGHUP, self._renewing.set)
        with ExitStack() as stack:
            settings = await asyncio.to_thread(_shared, self._settings, stack)
            metrics = Path(stack.enter_context(TemporaryDirectory(prefix="emarsys-cdp-")))

            async def start(number: int, listeners: list[int]) -> Worker:
                return await self._start(Launch(number, settings, listeners, metrics))

            numbers = range(1, self._count + 1)
            self._places = [Place(number, self._doors, start, self._stopping) for number in numbers]
            return await self._serve()

    async def _serve(self) -> int:
        try:
            if not await self._open():
                return 0 if self._stopping.is_set() else 1
            self._on_start(self._doors.url)
            async with asyncio.TaskGroup() as group:
                for work in (*(place.keep() for place in self._places), self._renew()):
                    group.create_task(work)
                return await self._end()
        finally:
            self._stop(signal.SIGTERM)
            await self._all_over()

    async def _open(self) -> bool:
        """Start the first worker alone: what keeps it from starting is said once."""
        first, *others = self._places
        if self._stopping.is_set() or not await first.open():
            return False
        return all(await asyncio.gather(*(place.open() for place in others)))

    async def _start(self, launch: Launch) -> Worker:
        worker = await start_worker(launch)
        self._alive.add(worker)
        worker.end.add_done_callback(lambda _: self._alive.discard(worker))
        if self._stopping.is_set():
            worker.send(signal.SIGTERM)
        return worker

    def _stop(self, number: int) -> None:
        """Take no new connections and pass a signal on; at a second SIGINT the workers leave everything as it is."""
        self._stopping.set()
        self._renewing.set()
        self._doors.close()
        for place in self._places:
            place.close()
        for worker in self._alive:
            worker.send(number)

    async def _end(self) -> int:
        """Wait until all have answered what they have accepted."""
        await self._stopping.wait()
        return 0 if await self._all_over() else 1

    async def _all_over(self) -> bool:
        return all(await asyncio.gather(*(worker.is_over() for worker in self._alive)))

    async def _renew(self) -> None:
        """At each SIGHUP replace the workers one after another; leave it at the first that cannot be replaced."""
        while not self._stopping.is_set():
            await self._renewing.wait()
            self._renewing.clear()
            for place in self._places:
                if not await place.renew():
                    break


def _shared(settings: Settings, stack: ExitStack) -> Settings:
    """Return the settings of all workers: with one store and one secret."""
    secret = settings.secret or Secret(secret_of_directory(settings.data_dir, secrets.token_bytes))
    return replace(settings, redis_url=Secret(store_url(settings, stack)), secret=secret)


def run_workers(settings: Settings, host: str, port: int, count: int, on_start: Callable[[str], None]) -> int:
    """
    Run *count* workers on one address until a signal, and return the exit code.

    Raises:
        StopAndFix: the address is taken, the embedded server does not start, the secret cannot be read, or the clock
            is virtual, which would be another one in each worker.

    """
    if settings.clock == VIRTUAL:
        raise StopAndFix(f"{PREFIX}CLOCK {VIRTUAL} is for one worker only: leave --workers out")
    with closing(Doors(host, port, spread=spreads_connections())) as doors:
        return asyncio.run(Parent(settings, doors, count, on_start).run())
