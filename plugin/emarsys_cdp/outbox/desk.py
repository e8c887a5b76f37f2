"""Looking into the outbox, and setting right by hand what did not go well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
from msgspec import Struct

from emarsys_cdp.effect import Effect
from emarsys_cdp.outbox.order import LISTED, read
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import SHARDS
from emarsys_cdp.store.outbox import DEAD, HANDED, LEASED, QUEUED, SENT, WAITING, WITHDRAWN, EffectRef, StoredEffect
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import DropCall, Json

BY_HAND: Final = "dropped by hand"

SHORT: Final = 12
"""Characters of an id that are shown in tables."""

SHORTEST: Final = 6
"""Characters of an id that are enough to name an effect among those that are queued or dead."""

_EVERY: Final = tuple(range(SHARDS))
_PAGE: Final = 1000


class NoEffect(DropCall):
    """There is no such effect, or there are several."""


class Seen(Struct, frozen=True):
    """An effect as it is stored, and read; None: nobody can read it."""

    stored: StoredEffect
    effect: Effect | None

    @property
    def state(self) -> str:
        """
        How it stands: that of the store, or closer.

        `held`: it waits for somebody to mend a name; `at the host`: the host was given it; `unclear`: nobody knows
        whether Emarsys has taken it, and it is sent again.
        """
        sending = None if self.effect is None else self.effect.sending
        if sending is not None and self.stored.state == WAITING:
            return "held" if sending.held else "at the host" if sending.posted else WAITING
        if sending is not None and self.stored.state == LEASED and not self.stored.holder:
            return "unclear"
        return {LEASED: "being sent"}.get(self.stored.state, self.stored.state)


class Changed(Struct, frozen=True):
    """Effects that were changed, and those that were not, each with its state now."""

    done: tuple[str, ...]
    left: dict[str, str]


class OutboxDesk:
    """Answers questions about the outbox of a store, and changes it by hand."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, dead: bool, space: str | None, limit: int) -> tuple[list[Seen], bool]:
        """Return effects that are queued, or dead, the oldest first; and whether there are more than *limit*."""
        refs = await self._store.list_effects(DEAD if dead else QUEUED, _EVERY, LISTED)
        found: list[Seen] = []
        for page in _pages(refs):
            for stored in await self._store.read_effects(page):
                seen = None if stored is None else Seen(stored, read(stored))
                if seen is None or (space is not None and (seen.effect is None or seen.effect.space != space)):
                    continue
                if len(found) == limit:
                    return found, True
                found.append(seen)
        return found, False

    async def find(self, name: str) -> Seen:
        """
        Return the effect with an id; of one that is queued or dead the beginning is enough.

        Raises:
            NoEffect: there is none, or there are several.

        """
        stored = [
            one for one in await self._store.read_effects([EffectRef(n, name) for n in _EVERY]) if one is not None
        ]
        if not stored and len(name) >= SHORTEST:
            listed = [ref for state in (QUEUED, DEAD) for ref in await self._store.list_effects(state, _EVERY, LISTED)]
            alike = [ref for ref in listed if ref.id.startswith(name)]
            if len(alike) > 1:
                raise NoEffect(f"several effects begin with {name!r}: write more of the id")
            stored = [one for one in await self._store.read_effects(alike) if one is not None] if alike else []
        if not stored:
            raise NoEffect(f"there is no effect {name!r}; those that are over are kept for 30 days, by their whole id")
        return Seen(stored[0], read(stored[0]))

    async def retry(self, effects: Sequence[Seen], now: int) -> Changed:
        """Let dead effects wait again."""
        refs = [one.stored.ref for one in effects]
        return await self._changed(refs, await self._store.requeue_effects(refs, now))

    async def drop(self, effects: Sequence[Seen], now: int) -> Changed:
        """Give up effects that wait; `retry` takes that back."""
        refs = [one.stored.ref for one in effects]
        return await self._changed(refs, await self._store.drop_effects(refs, BY_HAND, now))

    async def _changed(self, refs: Sequence[EffectRef], done: Sequence[bool]) -> Changed:
        left = [ref for ref, ok in zip(refs, done, strict=True) if not ok]
        found = await self._store.read_effects(left) if left else []
        states = {
            ref.id: "gone" if one is None else Seen(one, read(one)).state for ref, one in zip(left, found, strict=True)
        }
        return Changed(tuple([ref.id for ref, ok in zip(refs, done, strict=True) if ok]), states)


def _pages(refs: Iterable[EffectRef]) -> Iterable[list[EffectRef]]:
    left = iter(refs)
    while page := list(islice(left, _PAGE)):
        yield page


def shown(seen: Seen, now: int) -> dict[str, Json]:
    """Return an effect as JSON has it; times as ISO 8601 text, ages in seconds."""
    stored, effect = seen.stored, seen.effect
    over = stored.state in (SENT, DEAD, HANDED, WITHDRAWN)
    state = {
        "id": stored.ref.id,
        "state": seen.state,
        "reason": stored.note or None,
        "tries": stored.tries,
        "next": iso_time(stored.until) if stored.until and not over else None,
        "changed": iso_time(stored.changed) if stored.changed else None,
        "job": stored.holder if stored.state == HANDED else None,
    }
    if effect is None:
        return state
    sending = effect.sending
    return state | {
        "space": effect.space,
        "rule": effect.rule,
        "version": effect.version,
        "instance": effect.instance,
        "row": effect.row,
        "do": effect.do,
        "options": effect.options,
        "data": msgspec.to_builtins(effect.data),
        "keyField": effect.key_field,
        "key": effect.key,
        "profile": effect.pid,
        "due": iso_time(effect.due),
        "emitted": iso_time(effect.emitted),
        "age": max(0, now - effect.emitted) // 1000,
        "passage": effect.passage,
        "number": effect.number,
        "stops": effect.stops,
        "fresh": effect.fresh,
        "pinned": sending.pinned,
        "posted": iso_time(sending.posted) if sending.posted else None,
        "unclearTries": sending.unclear,
    }
