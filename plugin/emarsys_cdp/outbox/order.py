"""
Which effects are next: those of one person leave in the order in which the gate let them pass.

An effect that is not over keeps the later ones of its person back. Two kinds keep back only what passed the gate with
them, or nothing: one that waits for somebody to mend a name, and one that the host has, which keeps the order itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from emarsys_cdp.effect import Effect, unpack_effect
from emarsys_cdp.store import Store
from emarsys_cdp.store.outbox import QUEUED, WAITING, EffectRef, StoredEffect
from emarsys_cdp.values.remembered import forget_oldest

LISTED: Final = 10_000
"""Effects of one shard that are looked at; of more, those that are to be sent last are passed over."""

REMEMBERED: Final = 100_000
"""Effects whose place in the order a worker remembers."""


class Place(Struct, frozen=True, gc=False):
    """Whose an effect is, and its place among the effects of its person."""

    ref: EffectRef
    space: str
    pid: str
    passage: str
    number: int
    emitted: int

    @property
    def key(self) -> tuple[int, str, int]:
        """What orders the effects of a person."""
        return self.emitted, self.passage, self.number


class Order:
    """Finds what is next among the queued effects. *ordered* tells of a space whether its transport keeps the order."""

    def __init__(self, store: Store, ordered: Callable[[str], bool]) -> None:
        self._store = store
        self._ordered = ordered
        self._known: dict[str, Place] = {}

    async def next(self, due: Sequence[EffectRef]) -> list[Place]:
        """
        Return those of the effects that are due that may be sent now, each person's in order.

        Raises:
            StoreUnavailable: the store is out of order.

        """
        waiting = {ref.id for ref in due}
        shards = sorted({ref.shard for ref in due})
        listed = await self._store.list_effects(QUEUED, shards, LISTED)
        people: dict[tuple[str, str], list[Place]] = {}
        for place in await self.places(dict.fromkeys([*listed, *due])):
            people.setdefault((place.space, place.pid), []).append(place)
        people = {who: sorted(places, key=lambda one: one.key) for who, places in people.items()}
        behind = [one.ref for places in people.values() for one in _before_due(places, waiting)]
        states = {ref.id: one for ref, one in zip(behind, await self._store.read_effects(behind), strict=True) if one}
        return [one for places in people.values() for one in self._free(places, waiting, states)]

    async def places(self, refs: Iterable[EffectRef]) -> list[Place]:
        """Return the places of effects; what is gone has none."""
        every = list(refs)
        unknown = [ref for ref in every if ref.id not in self._known]
        for stored in await self._store.read_effects(unknown) if unknown else ():
            if stored is not None:
                self.remember(stored)
        found = [self._known[ref.id] for ref in every if ref.id in self._known]
        forget_oldest(self._known, REMEMBERED)
        return found

    async def behind(self, ref: EffectRef, effect: Effect) -> list[EffectRef]:
        """Return the queued effects that passed the gate with one and come after it."""
        listed = await self._store.list_effects(QUEUED, [ref.shard], LISTED)
        return [
            place.ref
            for place in await self.places(listed)
            if (place.pid, place.passage) == (effect.pid, effect.passage) and place.number > effect.number
        ]

    def remember(self, stored: StoredEffect) -> None:
        """Remember the place of an effect; one that was withdrawn and came again may have another one."""
        self._known[stored.ref.id] = _place(stored)

    def _free(self, places: Sequence[Place], due: set[str], states: dict[str, StoredEffect]) -> list[Place]:
        """Return what may be sent of a person's effects."""
        free: list[Place] = []
        held: set[str] = set()
        for place in places:
            if place.passage in held:
                continue
            if place.ref.id in due:
                free.append(place)
                if not self._ordered(place.space):
                    return free
                continue
            keeps = _keeps_back(states.get(place.ref.id))
            if keeps == _ALL:
                return free
            if keeps == _PASSAGE:
                held.add(place.passage)
        return free


_NOTHING, _PASSAGE, _ALL = "nothing", "passage", "all"


def _before_due(places: Sequence[Place], due: set[str]) -> list[Place]:
    """Return effects of a person that are not due, and come before one that is."""
    last = max((index for index, one in enumerate(places) if one.ref.id in due), default=-1)
    return [one for one in places[: max(last, 0)] if one.ref.id not in due]


def _keeps_back(stored: StoredEffect | None) -> str:
    """Return what an effect that is not due keeps back."""
    effect = None if stored is None else read(stored)
    if stored is None or effect is None:
        return _NOTHING
    if stored.state == WAITING and effect.sending.held:
        return _PASSAGE
    return _NOTHING if stored.state == WAITING and effect.sending.posted else _ALL


def stopped_by(effect: Effect) -> str:
    """Return why effects behind one that failed for good are given up."""
    return f"{effect.do} {effect.id} before it failed for good"


def without_key(reason: str, effect: Effect) -> str:
    """Return a reason as logs may have it: errors of Emarsys and of extensions may name the contact's key."""
    return reason.replace(effect.key, "***")


def read(stored: StoredEffect) -> Effect | None:
    """Return the effect that is stored, None when nobody can read it."""
    try:
        return unpack_effect(stored.content)
    except msgspec.MsgspecError:
        return None


def _place(stored: StoredEffect) -> Place:
    """Return the place of an effect; what cannot be read is of nobody, and waits for nothing."""
    effect = read(stored)
    if effect is None:
        return Place(stored.ref, "", stored.ref.id, "", 0, 0)
    return Place(stored.ref, effect.space, effect.pid, effect.passage, effect.number, effect.emitted)
