"""Timers and effects in this process's memory: the part of `memory.MemoryStore` for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from msgspec.structs import replace

from emarsys_cdp.store import Commit
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import (
    DEAD,
    HANDED,
    LEASED,
    QUEUED,
    WAITING,
    WITHDRAWN,
    EffectRef,
    Settlement,
    StoredEffect,
)


class MemoryOutbox:
    """What a `Store` does with timers and effects, in dictionaries. What ends elsewhere after 30 days stays."""

    def __init__(self) -> None:
        self.timers: dict[int, dict[str, int]] = {}
        self.effects: dict[int, dict[str, StoredEffect]] = {}

    def _note(self, commit: Commit) -> None:
        """Set the timer and add the effects of a commit that was written."""
        if commit.wake is not None or not commit.record:
            timers = self.timers.setdefault(shard(commit.pid), {})
            if commit.wake and commit.record:
                timers[commit.pid] = commit.wake
            else:
                timers.pop(commit.pid, None)
        for posting in commit.postings:
            ref = EffectRef(shard(commit.pid), posting.id)
            stored = self._effect(ref)
            if stored is None or stored.state == WITHDRAWN:
                self._put(StoredEffect(ref, WAITING, posting.content, until=posting.due))

    def _effect(self, ref: EffectRef) -> StoredEffect | None:
        return self.effects.get(ref.shard, {}).get(ref.id)

    def _put(self, effect: StoredEffect) -> StoredEffect:
        self.effects.setdefault(effect.ref.shard, {})[effect.ref.id] = effect
        return effect

    async def due_timers(self, shards: Sequence[int], now: int, limit: int, again: int) -> list[str]:
        """Return profiles whose timers are due, and set these to *again*."""
        found = []
        for timers in filter(None, map(self.timers.get, shards)):
            due = sorted((wake, pid) for pid, wake in timers.items() if wake <= now)[:limit]
            timers |= {pid: again for _, pid in due}
            found += [pid for _, pid in due]
        return found

    async def drop_timers(self, pids: Sequence[str], again: int) -> None:
        """Remove timers that still are at *again*."""
        for pid in pids:
            timers = self.timers.get(shard(pid), {})
            if timers.get(pid) == again:
                del timers[pid]

    async def timers_of(self, number: int) -> list[str]:
        """Return all profiles of a shard that have a timer."""
        return list(self.timers.get(number, ()))

    async def count_timers(self) -> int:
        """Return how many timers there are."""
        return sum(map(len, self.timers.values()))

    async def next_timer(self) -> int | None:
        """Return the time of the first timer."""
        return min(chain.from_iterable(timers.values() for timers in self.timers.values()), default=None)

    async def queued(self, shards: Sequence[int], now: int, limit: int) -> list[EffectRef]:
        """Return effects that are to be sent by *now*."""
        due = [_first(((e.until, e) for e in self._queue(number) if e.until <= now), limit) for number in shards]
        return _refs(due)

    def _queue(self, number: int) -> list[StoredEffect]:
        return [effect for effect in self.effects.get(number, {}).values() if effect.state in (WAITING, LEASED)]

    async def lease_effects(
        self, refs: Sequence[EffectRef], holder: str, now: int, until: int
    ) -> list[StoredEffect | None]:
        """Lease effects that are to be sent."""
        return [self._lease_effect(ref, holder, now, until) for ref in refs]

    def _lease_effect(self, ref: EffectRef, holder: str, now: int, until: int) -> StoredEffect | None:
        effect = self._effect(ref)
        if effect is None or effect.state not in (WAITING, LEASED) or effect.until > now:
            return None
        return self._put(replace(effect, state=LEASED, holder=holder, until=until, tries=effect.tries + 1))

    async def settle_effects(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        """Note what became of leased effects."""
        return [self._settle(settlement, now) for settlement in settlements]

    def _settle(self, settlement: Settlement, now: int) -> bool:
        effect = self._effect(settlement.ref)
        if effect is None or effect.state != LEASED or not settlement.holder or effect.holder != settlement.holder:
            return False
        content = effect.content if settlement.content is None else settlement.content
        until = settlement.due if settlement.state in (WAITING, LEASED) else 0
        state, note = settlement.state, settlement.note
        self._put(replace(effect, state=state, content=content, holder="", until=until, note=note, changed=now))
        return True

    async def withdraw_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Withdraw effects that wait."""
        return [self._turn(ref, WAITING, WITHDRAWN, until=0, changed=now) for ref in refs]

    async def requeue_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Let dead effects wait again."""
        return [self._turn(ref, DEAD, WAITING, until=now, tries=0, changed=now) for ref in refs]

    async def drop_effects(self, refs: Sequence[EffectRef], note: str, now: int) -> list[bool]:
        """Make waiting effects dead."""
        return [self._turn(ref, WAITING, DEAD, until=0, note=note, changed=now) for ref in refs]

    def _turn(self, ref: EffectRef, old: str, new: str, **changes: Any) -> bool:
        """Change an effect from one state to another; tell whether it has the new state now."""
        effect = self._effect(ref)
        if effect is not None and effect.state == old:
            effect = self._put(replace(effect, state=new, **changes))
        return effect is not None and effect.state == new

    async def hand_out(self, ref: EffectRef, job: str, now: int) -> StoredEffect | None:
        """Give an effect to the first job that comes, and to no other."""
        effect = self._effect(ref)
        if effect is None or effect.state not in (WAITING, LEASED):
            return effect
        return self._put(replace(effect, state=HANDED, holder=job, until=0, changed=now))

    async def read_effects(self, refs: Sequence[EffectRef]) -> list[StoredEffect | None]:
        """Return effects as they are stored."""
        return [self._effect(ref) for ref in refs]

    async def list_effects(self, state: str, shards: Sequence[int], limit: int) -> list[EffectRef]:
        """Return effects that are queued or dead."""
        if state == QUEUED:
            return _refs([_first(((e.until, e) for e in self._queue(number)), limit) for number in shards])
        if state != DEAD:
            raise ValueError(f"effects that are {state!r} are not listed: ask for {QUEUED!r} or {DEAD!r}")
        every = [self.effects.get(number, {}).values() for number in shards]
        return _refs([_first(((e.changed, e) for e in each if e.state == DEAD), limit) for each in every])

    async def remove_effects(self, refs: Sequence[EffectRef]) -> None:
        """Remove all that is known of effects."""
        for ref in refs:
            self.effects.get(ref.shard, {}).pop(ref.id, None)


def _first(timed: Iterable[tuple[int, StoredEffect]], limit: int) -> list[tuple[int, str, EffectRef]]:
    """Return the first effects of a shard by their times and ids."""
    return sorted(((time, effect.ref.id, effect.ref) for time, effect in timed), key=lambda one: one[:2])[:limit]


def _refs(found: Iterable[list[tuple[int, str, EffectRef]]]) -> list[EffectRef]:
    """Return the effects of several shards in the order of their times."""
    return [ref for _, _, ref in sorted(chain.from_iterable(found), key=lambda one: one[:2])]
