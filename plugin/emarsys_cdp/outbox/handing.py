"""
Handing effects out: the call by which the host hands one back is answered with the effect's requests.

It is recognised before anybody looks at whose it is, never stored, and no rule sees it. The first job that comes has
the effect, and gets the same answer whenever it comes again; any other job gets nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from msgspec import Struct

from emarsys_cdp.effect import Effect
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.outbox.ingestion import ANONYMOUS, EVENT
from emarsys_cdp.outbox.order import Order, read, stopped_by, without_key
from emarsys_cdp.outbox.requests import Builds, Unsendable, actions_of
from emarsys_cdp.outbox.transport import Allowed, always
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import DEAD, HANDED, LEASED, SENT, WITHDRAWN, EffectRef, StoredEffect
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Decision, Filtered, Postponed, Refused

_PROFILE: Final = re.compile(r"[A-Za-z0-9_-]{12}\Z", re.ASCII)
_EFFECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)

ANOTHER_JOB: Final = Filtered("the effect was handed to another job of the host")
ANOTHER_SPACE: Final = Filtered("the effect is of another destination")
NOT_YET: Final = Postponed("the effect is just being given to the host")

_OVER: Final[Mapping[str, Filtered]] = {
    WITHDRAWN: Filtered("the effect was withdrawn: what stops its rule came before it was sent"),
    SENT: Filtered("the effect was sent directly"),
    DEAD: Filtered("the effect was given up; `emarsys-cdp outbox show` says why"),
}

_log = structlog.get_logger("emarsys_cdp.outbox")


class Ask(Struct, frozen=True):
    """A job of the host that hands an effect back: which one, for which space; *pid* is that of its anonymousId."""

    job: str
    space: str
    pid: str
    effect: str


def is_ask(message: Mapping[str, Any]) -> bool:
    """Tell whether a call may hand an effect back, as far as its anonymousId says."""
    anonymous = message.get("anonymousId")
    return type(anonymous) is str and anonymous.startswith(ANONYMOUS) and message.get("event") == EVENT


def read_ask(message: Mapping[str, Any], job: str) -> Ask | Refused:
    """Return what a call of `is_ask` hands back, or what is wrong with it."""
    pid, properties = message["anonymousId"].removeprefix(ANONYMOUS), message.get("properties")
    space, effect = (
        (properties.get("space"), properties.get("effect")) if isinstance(properties, dict) else (None, None)
    )
    if (
        not _PROFILE.match(pid)
        or not isinstance(effect, str)
        or not _EFFECT.match(effect)
        or not isinstance(space, str)
    ):
        return Refused(
            f"the call {EVENT!r} names no effect: properties.effect is {shorten(effect)}, properties.space "
            f"{shorten(space)}; only emarsys-cdp itself sends such calls"
        )
    return Ask(job, space, pid, effect)


class Handing:
    """Hands effects out. *clock* gives ms since 1970 UTC, *allowed* looks at the gate once more."""

    def __init__(
        self, store: Store, metrics: Metrics, clock: Callable[[], int], builds: Builds, allowed: Allowed = always
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._builds = builds
        self._allowed = allowed
        self._order = Order(store, lambda _: True)

    async def hand(self, space: str, create: bool, asks: Sequence[Ask]) -> list[Decision]:
        """
        Return for each job what is sent for its effect, or why nothing is.

        *space* is the destination that the jobs are for; *create*: contacts that Emarsys does not have are made.

        Raises:
            StoreUnavailable: the store is out of order.

        """
        refs = [EffectRef(shard(ask.pid), ask.effect) for ask in asks]
        stored = await self._store.read_effects(refs)
        return await asyncio.gather(
            *[self._one(space, create, ask, one) for ask, one in zip(asks, stored, strict=True)]
        )

    async def _one(self, space: str, create: bool, ask: Ask, stored: StoredEffect | None) -> Decision:
        if ask.space != space:
            return ANOTHER_SPACE
        effect = None if stored is None else read(stored)
        if stored is None or effect is None:
            return Refused(f"there is no effect {shorten(ask.effect)}; only emarsys-cdp itself sends such calls")
        if effect.space != space:
            return ANOTHER_SPACE
        if stored.state == HANDED:
            return self._answer(effect, create) if stored.holder == ask.job else ANOTHER_JOB
        if stored.state in _OVER:
            return _OVER[stored.state]
        if not effect.sending.pinned:
            return NOT_YET if stored.state == LEASED else Filtered("the effect was not given to the host")
        objected = await self._objection(stored, effect)
        return objected or await self._hand_out(stored.ref, ask.job, create)

    async def _objection(self, stored: StoredEffect, effect: Effect) -> Filtered | None:
        """Ask the gate once more; an effect that may never be sent is given up."""
        now = self._clock()
        objection = self._allowed(effect, now)
        if objection is None:
            return None
        if objection.until is None:
            rest = await self._order.behind(stored.ref, effect) if effect.stops else []
            await self._store.drop_effects(rest, stopped_by(effect), now)
            await self._store.drop_effects([stored.ref], objection.reason, now)
        return Filtered(objection.reason)

    async def _hand_out(self, ref: EffectRef, job: str, create: bool) -> Decision:
        handed = await self._store.hand_out(ref, job, self._clock())
        effect = None if handed is None else read(handed)
        if handed is None or effect is None:
            return Refused(f"there is no effect {shorten(ref.id)} any more")
        if handed.state != HANDED:
            return _OVER[handed.state]
        if handed.holder != job:
            return ANOTHER_JOB
        self._metrics.count_effect(effect.do, "handed")
        return self._answer(effect, create)

    def _answer(self, effect: Effect, create: bool) -> Decision:
        try:
            return actions_of(effect, create, self._builds)
        except Unsendable as error:  # an extension that is gone since
            reason = without_key(str(error), effect)
            _log.warning("effects_not_sent", outcome="refused", space=effect.space, effects=1, reason=reason)
            return Refused(str(error))
