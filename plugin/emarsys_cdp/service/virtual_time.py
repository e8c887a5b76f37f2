"""
A time that stands still until somebody moves it: for demonstrations and tests of rules, EMARSYS_CDP_CLOCK=virtual.

It is moved from timer to timer. At each of them everything that is due is done before time goes on, so a rule of 24 h
fires after 24 h, however far the clock is moved. What is tried again after an error has no stop of its own, because the
other side lives in real time, in which hardly any has passed: it is tried at the next stop that is late enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from emarsys_cdp.outbox.fates import Again
from emarsys_cdp.outbox.order import LISTED, read
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.outbox.transport import Leased, Transport, Tried
from emarsys_cdp.service.timers import Timers
from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import SHARDS, Namer
from emarsys_cdp.store.outbox import QUEUED, WAITING
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import RetryLater

HOST_SECONDS: Final = 5.0
"""
Effects that were posted to the host's ingestion may take this long (real time) to come back before time goes on.

Otherwise a host that is slower than the clock would ask for them a day later, when they are too old to be sent.
"""

POLL_SECONDS: Final = 0.02

_log = structlog.get_logger("emarsys_cdp.clock")


class Backwards(ValueError):
    """The time to move to is over already; *now* is the time (ms since 1970 UTC)."""

    def __init__(self, now: int) -> None:
        self.now = now
        super().__init__(f"time does not go backwards: it is {iso_time(now)}")


class VirtualClock:
    """A clock that stands still until it is moved; times are ms since 1970 UTC."""

    def __init__(self, now: int) -> None:
        self._now = now

    def __call__(self) -> int:
        """Return the time."""
        return self._now

    def move(self, to: int) -> None:
        """Set the time; one that is over leaves it as it is."""
        self._now = max(self._now, to)


class VirtualTime:
    """
    Moves a clock, and does what becomes due on the way. *waits*: there is a host that effects may be posted to.

    The service has one worker, so all shards are its own and nobody else sends.
    """

    def __init__(
        self, clock: VirtualClock, store: Store, namer: Namer, timers: Timers, outbox: OutboxSender, *, waits: bool
    ) -> None:
        self._clock = clock
        self._store = store
        self._cells: Cells[int] = Cells(store, int, 0)
        self._name = namer("", "clock", "")
        self._timers = timers
        self._outbox = outbox
        self._waits = waits
        self._patience = 0.0
        self._turn = asyncio.Lock()

    @property
    def now(self) -> int:
        """The time in ms since 1970 UTC."""
        return self._clock()

    async def resume(self) -> None:
        """
        Go on where an earlier run has stopped, so that nothing in the store is of the future; say that time is virtual.

        Raises:
            StoreUnavailable: the store is out of order.

        """
        self._clock.move(await self._cells.read(self._name))
        _log.warning("clock_is_virtual", now=iso_time(self.now), advice="POST /api/v1/clock moves it")

    async def advance(self, to: int) -> int:
        """
        Move time to *to* (ms since 1970 UTC) and return how many effects rules have had on the way.

        Raises:
            Backwards: it is later already.
            StoreUnavailable: the store is out of order; time has stopped somewhere on the way.

        """
        async with self._turn:
            if to < self.now:
                raise Backwards(self.now)
            before, self._patience = self._timers.emitted, HOST_SECONDS
            await self._work_off()
            while (first := await self._store.next_timer()) is not None and first <= to:
                await self._stop_at(first)
            await self._stop_at(to)
            return self._timers.emitted - before

    async def _stop_at(self, time: int) -> None:
        await self._cells.change(self._name, lambda known: (max(known, time), None))
        self._clock.move(time)
        await self._work_off()

    async def _work_off(self) -> None:
        """Do all that is due: look at people, send effects, wait until the host has asked for those that it has."""
        await self._timers.look()
        while True:
            await self._outbox.look()
            if not self._outbox.under_way:
                break
            await self._outbox.settled()
        await self._wait_for_host()

    async def _wait_for_host(self) -> None:
        """Wait for a host that has effects; once it did not come in time it is not waited for again on the same way."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while self._waits and self._patience and await self._are_at_host():
            if loop.time() >= deadline:
                _log.warning("host_is_slow", waited=HOST_SECONDS, advice="time goes on without it")
                self._patience = 0.0
            await asyncio.sleep(POLL_SECONDS)

    async def _are_at_host(self) -> bool:
        """Tell whether effects were given to the host that it has not asked for."""
        refs = await self._store.list_effects(QUEUED, range(SHARDS), LISTED)
        stored = await self._store.read_effects(refs) if refs else []
        effects = [read(one) for one in stored if one is not None and one.state == WAITING]
        return any(one.sending.posted for one in effects if one is not None)


class _Translated:
    """A transport whose other side lives in real time: times that it names are made times of a virtual clock."""

    def __init__(self, transport: Transport, real: Callable[[], int], virtual: Callable[[], int]) -> None:
        self._transport = transport
        self._real = real
        self._virtual = virtual

    @property
    def ordered(self) -> bool:
        """Whether it keeps the order."""
        return self._transport.ordered

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:
        """Send effects; when to try again is as far off as the transport says."""
        try:
            tried = await self._transport.send(space, leased)
        except RetryLater as error:
            raise RetryLater(str(error), self._time(error.at)) from error
        return [
            replace(one, fate=replace(one.fate, at=self._time(one.fate.at))) if isinstance(one.fate, Again) else one
            for one in tried
        ]

    def _time(self, at: int | None) -> int | None:
        return None if at is None else self._virtual() + max(0, at - self._real())


def translated(
    transport: Callable[[str], Transport], real: Callable[[], int], virtual: Callable[[], int]
) -> Callable[[str], Transport]:
    """Return the ways of effects for a service whose clock is *virtual*."""
    return lambda space: _Translated(transport(space), real, virtual)
