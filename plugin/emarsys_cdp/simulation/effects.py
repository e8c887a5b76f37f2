"""What rules have done in a simulation: effects in the order of sending, and instances, as they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from emarsys_cdp.effect import Effect
from emarsys_cdp.rules.book import CANCELLED, COMPLETED, EXPIRED, WAITS, Instance, RuleState
from emarsys_cdp.simulation.offsets import START, show_offset
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import SENT, EffectRef, Settlement
from emarsys_cdp.store.record import Record
from emarsys_cdp.waking import Woken

HOLDER = "simulation"
SECOND = 1000


class SentEffects:
    """Sends effects the moment they are in the outbox: nobody else takes them. *note* is told of each, and when."""

    def __init__(self, store: Store, clock: Callable[[], int], note: Callable[[Effect, int], None]) -> None:
        self._store = store
        self._clock = clock
        self._note = note

    async def send(self, woken: Sequence[Woken]) -> None:
        """Take the effects of people who were looked at out of the outbox."""
        effects = [effect for one in woken for effect in one.effects]
        if not effects:
            return
        now = self._clock()
        refs = [EffectRef(shard(effect.pid), effect.id) for effect in effects]
        leased = await self._store.lease_effects(refs, HOLDER, now, now + SECOND)
        await self._store.settle_effects([Settlement(one.ref, HOLDER, SENT) for one in leased if one is not None], now)
        for effect, one in zip(effects, leased, strict=True):
            if one is not None:
                self._note(effect, now)


def show_effect(effect: Effect, now: int) -> dict[str, Any]:
    """Return an effect as it is printed (semantics, amendment 3)."""
    options = effect.options
    found: dict[str, Any] = {
        "at": show_offset(now - START),
        "rule": effect.rule,
        "key": effect.key,
        "do": effect.do,
    }
    if effect.do == "trigger":
        found["event"] = options.get("event", options.get("eventId"))
        found["data"] = dict(effect.data)
    elif effect.do in ("update", "unset"):
        found["field"] = options.get("field")
        if effect.do == "update":
            found["value"] = effect.data.get(str(options["var"])) if "var" in options else options.get("value")
    elif effect.do in ("addToList", "removeFromList"):
        found["list"] = options.get("list")
    return found


def instances_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Return the instances of all rules and people, by rule and start."""
    found = [
        {
            "rule": name,
            "start": one.start,
            "status": _status(state, one),
            "why": one.why if one.status in (CANCELLED, EXPIRED) else None,
        }
        for record in records
        if record.book is not None
        for name, state in record.book.rules.items()
        for one in state.instances
    ]
    return sorted(found, key=lambda one: (str(one["rule"]), str(one["start"])))


def _status(state: RuleState, instance: Instance) -> str:
    """Return the status as people read it: held while something waits for a key."""
    waits = any(one.outcome == WAITS for one in instance.passages)
    if not instance.alive and not (instance.status == COMPLETED and waits):
        return instance.status
    held = any(fact.held and fact.outcome == WAITS for fact in state.facts.get(instance.id, ()))
    return "held" if held else "active"


def late_stops_of(records: Iterable[Record]) -> int:
    """Return how many stops came after the sending that they would have prevented."""
    return sum(
        state.late_stops for record in records if record.book is not None for state in record.book.rules.values()
    )
