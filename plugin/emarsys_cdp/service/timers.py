"""Timers beside a running service: people whose time has come are looked at, once a second and at once when known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import structlog

from emarsys_cdp.document.versions import Versions
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.rules.pattern import FINISH
from emarsys_cdp.shares import Shares
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.waking import AGAIN, Waker, Woken

LOOK_SECONDS: Final = 1.0
"""Timers are looked for this often."""

MANY: Final = 500
"""People who are looked at together."""

PER_SHARD: Final = 100
"""Most timers of a shard that are taken at once; the rest is taken right after them."""

RECENT: Final = 24 * 3_600_000
"""At the start, publications of this long ago (ms) are taken as new."""

_log = structlog.get_logger("emarsys_cdp.timers")


class Timers:
    """
    Looks at people whose time has come.

    *posted* is told when effects went to the outbox. *clock* gives ms since 1970 UTC. *emitted* counts the effects.
    """

    def __init__(
        self,
        store: Store,
        waker: Waker,
        shares: Shares,
        metrics: Metrics,
        clock: Callable[[], int],
        posted: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._waker = waker
        self._shares = shares
        self._metrics = metrics
        self._clock = clock
        self._posted = posted
        self._soon: dict[str, None] = {}
        self._since = clock() - RECENT
        self._moved: set[tuple[str, int, int]] = set()
        self._everybody = False
        self._noticed = asyncio.Event()
        self._turn = asyncio.Lock()
        self.emitted = 0

    def notice(self, pid: str, wake: int) -> None:
        """Note a person that a call of this worker has changed: if something is due it is looked at without delay."""
        if wake and wake <= self._clock():
            self._soon[pid] = None
            self._noticed.set()

    def renew(self, everything: Iterable[Versions]) -> None:
        """
        Have everybody looked at when a publication moves or ends running instances: they are due at other times now.

        What was published long before the start is over.
        """
        moved = {
            (one.rule, one.version, one.until)
            for versions in everything
            for one in versions.kept
            if one.mode != FINISH and one.until > self._since
        }
        if moved - self._moved:
            self._everybody = True
            self._noticed.set()
        self._moved = moved

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        following = loop.time()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._noticed.wait(), max(0.0, following - loop.time()))
            is_time = loop.time() >= following
            following = loop.time() + LOOK_SECONDS if is_time else following
            try:
                await self.look(all_shards=is_time)
            except StoreUnavailable as error:
                _log.warning("timers_wait", reason=str(error))
                await asyncio.sleep(LOOK_SECONDS)
            except Exception:  # noqa: BLE001 - the next timers have to fire all the same
                _log.exception("timers_failed")
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self, *, all_shards: bool = True) -> int:
        """
        Look at everybody who is due; return how many there were. Nobody is being looked at when it returns.

        Raises:
            StoreUnavailable: the store is out of order; whoever was not looked at comes again.

        """
        async with self._turn:
            return await self._look(all_shards)

    async def _look(self, all_shards: bool) -> int:
        found = 0
        self._noticed.clear()
        while self._soon:
            soon, self._soon = list(self._soon), {}
            found += await self._wake(soon, 0)
        if self._everybody:
            self._everybody = False
            for shard in self._shares.shards:
                found += await self._wake(await self._store.timers_of(shard), 0)
        if not all_shards:
            return found
        await self._shares.beat()
        while True:
            now = self._clock()
            due = await self._store.due_timers(self._shares.shards, now, PER_SHARD, now + AGAIN)
            if not due:
                return found
            found += await self._wake(due, now + AGAIN)

    async def _wake(self, pids: list[str], again: int) -> int:
        for start in range(0, len(pids), MANY):
            woken = await self._waker.wake(pids[start : start + MANY], again)
            self._count(woken)
            for one in woken:
                self.notice(one.pid, one.wake)
        return len(pids)

    def _count(self, woken: Iterable[Woken]) -> None:
        effects = [effect for one in woken for effect in one.effects]
        self.emitted += len(effects)
        for effect in effects:
            self._metrics.count_effect(effect.do, "emitted")
        if effects:
            self._posted()
