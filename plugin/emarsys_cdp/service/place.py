"""A place that always has a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from emarsys_cdp.backoff import Backoff
from emarsys_cdp.service.doors import Doors
from emarsys_cdp.service.worker_process import DidNotListen, Worker

_log = structlog.get_logger("emarsys_cdp.service")


class Place:
    """
    A place that always has a worker. *start* starts one that listens on sockets, until *stopping*.

    The sockets stay when a worker ends, so what has connected to them waits for the next one. Only when that does not
    come at once are they closed: then the kernel gives new connections to the other workers.
    """

    def __init__(
        self, number: int, doors: Doors, start: Callable[[int, list[int]], Awaitable[Worker]], stopping: asyncio.Event
    ) -> None:
        self._number = number
        self._doors = doors
        self._start = start
        self._stopping = stopping
        self._sockets: list[socket.socket] = []
        self._backoff = Backoff()
        self._turn = asyncio.Lock()
        self._worker: Worker | None = None

    async def open(self) -> bool:
        """Start the first worker; False when it does not start."""
        try:
            self._worker = await self._listening()
        except DidNotListen as error:
            if not self._stopping.is_set():
                _log.error("worker_not_started", worker=self._number, reason=str(error))
        return self._worker is not None

    def close(self) -> None:
        """Close the sockets: workers that have them answer what they have accepted."""
        for one in self._sockets:
            one.close()
        self._sockets = []

    async def _listening(self) -> Worker:
        try:
            self._sockets = self._sockets or self._doors.open()
            worker = await self._start(self._number, [one.fileno() for one in self._sockets])
        except OSError as error:
            raise DidNotListen(str(error)) from error
        await worker.wait_until_it_listens()
        return worker

    async def keep(self) -> None:
        """Start another worker whenever one dies."""
        while (worker := self._worker) is not None:
            code = await asyncio.shield(worker.end)
            async with self._turn:
                if self._stopping.is_set():
                    return
                if worker is self._worker:  # it was not replaced
                    await self._revive(worker, code)

    async def _revive(self, dead: Worker, code: int) -> None:
        wait = self._backoff.wait_after(dead.age())
        _log.error("worker_died", worker=self._number, pid=dead.pid, code=code, again_in_seconds=wait)
        while not await self._stops_within(wait):
            try:
                self._worker = await self._listening()
            except DidNotListen as error:
                wait = self._backoff.wait_after(0)
                if not self._stopping.is_set():
                    _log.error("worker_not_restarted", worker=self._number, reason=str(error), again_in_seconds=wait)
            else:
                _log.warning("worker_restarted", worker=self._number, pid=self._worker.pid)
                return

    async def _stops_within(self, seconds: float) -> bool:
        """Wait with closed sockets; True when no worker is wanted any more."""
        if seconds:
            self.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def renew(self) -> bool:
        """Put a new worker in the place of the old one, which ends when the new one listens; False when it does not."""
        async with self._turn:
            old = self._worker
            if self._stopping.is_set() or old is None:
                return False
            try:
                self._worker = await self._listening()
            except DidNotListen as error:
                if not self._stopping.is_set():
                    _log.error("worker_not_replaced", worker=self._number, reason=str(error))
                return False
        _log.info("worker_replaced", worker=self._number, pid=self._worker.pid)
        await old.stop()
        return True
