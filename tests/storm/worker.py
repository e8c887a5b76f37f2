"""A worker of a storm: the process that `emarsys-cdp serve --workers` starts, but on a quick clock and from a fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.assembly import Service, World, running
from emarsys_cdp.service.server import tune_collector
from emarsys_cdp.service.worker import LISTENS, Child, Launch, unpack
from emarsys_cdp.settings import Settings

_PRELOADED: Final = ["emarsys_cdp.service.worker", "tests.storm.worker"]


class Tempo(Struct, frozen=True):
    """A clock (ms since 1970 UTC) that was right at *start* and has gone *factor* times as quick since then."""

    start: int
    factor: int

    def __call__(self) -> int:
        """Return the time of now."""
        return self.start + (time.time_ns() // 1_000_000 - self.start) * self.factor


class _QuickChild(Child):
    """A worker on a quick clock."""

    def __init__(self, launch: Launch, parent: socket.socket, clock: Tempo) -> None:
        super().__init__(launch, parent)
        self._clock = clock

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Service]:
        async with running(self._launch.settings, World(clock=self._clock)) as service:
            yield service


def work(listener: socket.socket, parent: socket.socket, packed: bytes, clock: Tempo, log: Path) -> None:
    """Be a worker until killed, told to stop, or alone."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    launch = unpack(packed)
    configure_logging(launch.settings.log_level, launch.number)
    tune_collector()
    child = Launch(launch.number, launch.settings, [listener.detach()], launch.metrics)
    _QuickChild(child, parent, clock).run()


class Worker:
    """A worker as the storm sees it."""

    def __init__(self, number: int, listener: socket.socket, settings: Settings, clock: Tempo, log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        self._listens = False
        packed = Launch(number, settings, [], log.parent).pack()
        self._process = context.Process(target=work, args=(listener, theirs, packed, clock, log), daemon=True)
        self._process.start()
        theirs.close()

    def listens(self) -> bool:
        """Tell whether it takes requests."""
        if not self._listens:
            with suppress(BlockingIOError):
                self._listens = self._line.recv(len(LISTENS)) == LISTENS
        return self._listens

    def kill(self) -> None:
        """Kill it, and see that it was alive."""
        self._process.kill()
        self._process.join()
        self._line.close()
        if self._process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"a worker ended by itself: {self._process.exitcode}")

    def stop(self) -> None:
        """Let it end in peace."""
        self._process.terminate()
        self._process.join(20)
        self._process.kill()
        self._process.join()
        self._line.close()
