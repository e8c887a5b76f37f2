"""
Sending effects: those that are due are given to the transport of their space, and what became of them is noted.

Any number of senders may share a queue: who leases an effect has it for a time. Effects of one space are sent one batch
after another, so that a space whose Emarsys is slow holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from emarsys_cdp.effect import Effect
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.outbox.fates import Again, Done, Fate, Held, Never, Posted, final, settlement
from emarsys_cdp.outbox.order import LISTED, Order, Place, read, stopped_by, without_key
from emarsys_cdp.outbox.transport import Allowed, Leased, Transport, Tried, always
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.outbox import DEAD, QUEUED, EffectRef, Settlement, StoredEffect
from emarsys_cdp_hooks import RetryLater

LOOK_SECONDS: Final = 1.0
"""The queue is looked at this often, and at once when somebody says that there is something."""

LEASE_SECONDS: Final = 60.0
"""An effect of a sender that died is sent by another one after this long; its trigger_id makes that harmless."""

STOP_SECONDS: Final = 15.0
"""At the end what is under way is waited for this long: longer than a request may take."""

MEASURE_SECONDS: Final = 30.0
"""The length of the queue is measured this often."""

GLANCE: Final = 100
"""Effects that are due in a shard and seen at a glance."""

CROWDED: Final = 1000
"""A shard in which more are due counts as so many: only a few such are looked through at a time, in turn."""

A_BATCH: Final = 5000
"""Effects of one space that are under way at most, and about as many as one look goes through."""

OLDEST: Final = 100
"""So many effects that were to be sent first are looked at for the age of the oldest."""

_log = structlog.get_logger("emarsys_cdp.outbox")


class OutboxSender:
    """
    Sends the effects of some shards.

    *holder* is a name that no other sender has, *shards* gives the shards that are ours at this moment, *transport*
    the way of a space, *clock* ms since 1970 UTC, *chance* numbers from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        holder: str,
        shards: Callable[[], Sequence[int]],
        transport: Callable[[str], Transport],
        metrics: Metrics,
        clock: Callable[[], int],
        chance: Callable[[], float],
        allowed: Allowed = always,
        look_seconds: float = LOOK_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._holder = holder
        self._shards = shards
        self._transport = transport
        self._metrics = metrics
        self._clock = clock
        self._chance = chance
        self._allowed = allowed
        self._look_seconds = look_seconds
        self._lease = int(lease_seconds * 1000)
        self._order = Order(store, self._ordered)
        self._noticed = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._down = False
        self._measured = 0.0
        self._next_shard = 0

    def notice(self) -> None:
        """Look at the queue at once: something was put into it."""
        self._noticed.set()

    async def run(self) -> None:
        """Send until cancelled; then wait for what is under way."""
        try:
            while True:
                self._noticed.clear()
                await self._look_safely()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._look_seconds):
                        await self._noticed.wait()
        finally:
            await self._finish()

    async def _look_safely(self) -> None:
        try:
            await self.look()
            await self._measure()
            self._down = False
        except StoreUnavailable as error:
            if not self._down:
                _log.warning("outbox_unreachable", reason=str(error))
            self._down = True
        except Exception:  # noqa: BLE001 - the next look has to come all the same
            _log.exception("outbox_failed")

    async def _finish(self) -> None:
        tasks = list(self._busy.values())
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> int:
        """
        Begin to send what is due and may be sent now, and tell for how many spaces; `settled` waits for the end.

        Raises:
            StoreUnavailable: the store is out of order.

        """
        due = await self._due()
        by_space: dict[str, list[Place]] = {}
        for place in await self._order.next(due) if due else ():
            by_space.setdefault(place.space, []).append(place)
        free = [space for space in by_space if space not in self._busy]
        for space in free:
            self._busy[space] = asyncio.create_task(self._send(space, by_space[space][:A_BATCH]))
        return len(free)

    async def _due(self) -> list[EffectRef]:
        """Return effects that are due, all of a shard or none: where many are, it is the turn of some shards."""
        now = self._clock()
        by_shard: dict[int, list[EffectRef]] = {}
        for ref in await self._store.queued(self._shards(), now, GLANCE):
            by_shard.setdefault(ref.shard, []).append(ref)
        chosen = self._turn_of({shard: len(refs) for shard, refs in by_shard.items()})
        crowded = [shard for shard in chosen if len(by_shard[shard]) == GLANCE]
        more = await self._store.queued(crowded, now, LISTED) if crowded else []
        return [*more, *(ref for shard in chosen if shard not in crowded for ref in by_shard[shard])]

    def _turn_of(self, due: dict[int, int]) -> list[int]:
        """Return shards whose turn it is, by the numbers of effects that are due in each."""
        order = sorted(due, key=lambda shard: (shard < self._next_shard, shard))
        chosen: list[int] = []
        weight = 0
        for shard in order:
            if weight >= A_BATCH:
                break
            chosen.append(shard)
            weight += due[shard] if due[shard] < GLANCE else CROWDED
        self._next_shard = chosen[-1] + 1 if len(chosen) < len(order) else 0
        return chosen

    @property
    def under_way(self) -> bool:
        """Whether something is being sent."""
        return bool(self._busy)

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._busy:
            await asyncio.wait(list(self._busy.values()))

    async def _send(self, space: str, places: Sequence[Place]) -> None:
        """Send effects of a space; look again at once when some are over, since others may have waited for them."""
        over = False
        try:
            over = await self._batch(space, places)
        except StoreUnavailable as error:  # the effects are sent again when their leases are over
            _log.warning("outbox_unreachable", reason=str(error))
        except Exception:  # noqa: BLE001 - the next look has to come all the same
            _log.exception("outbox_failed", space=space)
        finally:
            del self._busy[space]
            if over:
                self.notice()

    async def _batch(self, space: str, places: Sequence[Place]) -> bool:
        now = self._clock()
        stored = await self._store.lease_effects([one.ref for one in places], self._holder, now, now + self._lease)
        taken = [one for one in stored if one is not None]
        fates: list[tuple[Leased, Tried]] = []
        leased: list[Leased] = []
        settlements: list[Settlement] = []
        behind = {(one.space, one.pid) for one, got in zip(places, stored, strict=True) if got is None}
        for one in taken:
            self._order.remember(one)
            effect = read(one)
            if effect is None:
                settlements.append(Settlement(one.ref, self._holder, DEAD, note="the effect cannot be read"))
                continue
            fate = self._before(effect, now, behind)
            if fate is None:
                leased.append(Leased(one, effect))
            else:
                fates.append((Leased(one, effect), Tried(effect, fate)))
        fates += zip(leased, await self._tried(space, leased), strict=True)
        return await self._settle(space, fates, settlements)

    def _before(self, effect: Effect, now: int, behind: set[tuple[str, str]]) -> Fate | None:
        """Return what becomes of an effect that is not sent now."""
        if (effect.space, effect.pid) in behind:
            return Again("an earlier effect of the same person is under way", now)
        try:
            objection = self._allowed(effect, now)
        except Exception as error:  # noqa: BLE001 - a fault of ours must cost this effect only
            _log.exception("effects_failed", space=effect.space, effects=1)
            return Again(f"a fault of emarsys-cdp ({type(error).__name__}); its log says more")
        if objection is None:
            return None
        return Never(objection.reason) if objection.until is None else Again(objection.reason, objection.until)

    async def _tried(self, space: str, leased: Sequence[Leased]) -> list[Tried]:
        """Give effects to their transport."""
        if not leased:
            return []
        try:
            return await self._transport(space).send(space, leased)
        except RetryLater as error:  # before anything was sent
            return [Tried(one.effect, Again(str(error), error.at)) for one in leased]
        except Exception as error:  # noqa: BLE001 - a fault of ours must not cost effects
            _log.exception("effects_failed", space=space, effects=len(leased))
            reason = f"a fault of emarsys-cdp ({type(error).__name__}); its log says more"
            return [Tried(one.effect, Again(reason, unclear=True)) for one in leased]

    async def _settle(self, space: str, tried: Sequence[tuple[Leased, Tried]], settlements: list[Settlement]) -> bool:
        """Note what became of effects; tell whether some are over."""
        now = self._clock()
        outcomes: list[tuple[Effect, Fate]] = []
        for one, found in tried:
            fate = final(one.effect, found.fate)
            outcomes.append((one.effect, fate))
            if isinstance(fate, Never) and one.effect.stops:
                await self._stop(one.stored, one.effect, now)
            sure = isinstance(fate, (Done, Posted)) or (isinstance(fate, Again) and fate.unclear)
            effect = found.effect if sure else one.effect  # names are looked up anew, unless Emarsys may have it so
            settlements.append(
                settlement(one.stored.ref, self._holder, effect, fate, one.stored.tries, now, self._chance())
            )
        if settlements:
            await self._store.settle_effects(settlements, now)
        self._tell(space, outcomes)
        return any(isinstance(fate, (Done, Never)) for _, fate in outcomes)

    async def _stop(self, stored: StoredEffect, effect: Effect, now: int) -> None:
        """Give up what was to follow an effect that failed for good; before itself, so that a crash lets none pass."""
        rest = await self._order.behind(stored.ref, effect)
        await self._store.drop_effects(rest, stopped_by(effect), now)

    def _tell(self, space: str, outcomes: Iterable[tuple[Effect, Fate]]) -> None:
        """Count what became of effects, and log what did not go well; keys are not shown."""
        bad: dict[str, list[tuple[Effect, str]]] = {}
        for effect, fate in outcomes:
            outcome = _OUTCOMES[type(fate)]
            self._metrics.count_effect(effect.do, outcome)
            if isinstance(fate, (Again, Held, Never)):
                bad.setdefault(outcome, []).append((effect, fate.reason))
        for outcome, found in bad.items():
            effect, reason = found[0]
            _log.warning(
                "effects_not_sent",
                outcome=outcome,
                space=space,
                effects=len(found),
                rule=effect.rule,
                effect=effect.id,
                reason=without_key(reason, effect),
            )

    async def _measure(self) -> None:
        """Show how long the queue is, and how old what is first in it."""
        loop = asyncio.get_running_loop()
        if self._measured and loop.time() < self._measured + MEASURE_SECONDS:
            return
        self._measured = loop.time()
        refs = await self._store.list_effects(QUEUED, self._shards(), LISTED)
        first = await self._store.read_effects(refs[:OLDEST]) if refs else []
        emitted = [effect.emitted for one in first if one is not None and (effect := read(one)) is not None]
        self._metrics.show_outbox(len(refs), max(0, self._clock() - min(emitted)) / 1000 if emitted else 0.0)

    def _ordered(self, space: str) -> bool:
        try:
            return self._transport(space).ordered
        except RetryLater:  # nothing of the space is sent then
            return False


_OUTCOMES: Final = {Done: "sent", Posted: "posted", Again: "postponed", Held: "held", Never: "dead"}
