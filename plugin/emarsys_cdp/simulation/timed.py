"""
A store in which time passes as a timeline says: what a server would let expire is removed when its time has come.

At the end everything that was written can be removed, so that a server that others use too is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final

from emarsys_cdp.store import UNCHANGED, Claim, Commit, Store
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import EffectRef
from emarsys_cdp.store.record import HEADER_BYTES

MANY: Final = 1000
"""Times that mean nothing any more are cleared away when there are this many of them, and more than others."""


class _Agenda:
    """
    Names with their times (ms; None: never), found by the earliest without a look at all of them.

    A time that was set anew leaves its old one in the heap, where it means nothing.
    """

    def __init__(self) -> None:
        self._times: dict[str, int | None] = {}
        self._heap: list[tuple[int, str]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._times

    def __iter__(self) -> Iterator[str]:
        return iter(self._times)

    def set(self, name: str, time: int | None) -> None:
        if time is not None and self._times.get(name) != time:
            heappush(self._heap, (time, name))
            if len(self._heap) > 2 * len(self._times) + MANY:
                self._heap = [(at, one) for one, at in (self._times | {name: time}).items() if at is not None]
                heapify(self._heap)
        self._times[name] = time

    def drop(self, name: str) -> None:
        self._times.pop(name, None)

    def due(self, now: int) -> list[str]:
        """Return the names whose time has come; they stay."""
        found = dict[str, int]()
        while self._heap and self._heap[0][0] <= now:
            time, name = heappop(self._heap)
            if self._times.get(name) == time:
                found[name] = time
        for name, time in found.items():
            heappush(self._heap, (time, name))
        return list(found)

    def first(self, until: int) -> tuple[int, list[str]] | None:
        """Return the earliest time, and the names that have it; None: there is none until then."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        if not self._heap or self._heap[0][0] > until:
            return None
        first = self._heap[0][0]
        return first, self.due(first)


class TimedStore:
    """
    A `Store` over another one. *clock* gives the time of the timeline in ms.

    A timer goes with its record; effects stay until everything is removed. Whatever is written through it must be
    written through it alone.
    """

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._pids = _Agenda()
        self._names = _Agenda()
        self._effects: set[EffectRef] = set()
        self._wakes = _Agenda()

    def __getattr__(self, name: str) -> Any:
        """Return what the other store does."""
        return getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records, and note when they expire, and the effects."""
        done = await self._store.commit(commits)
        for one, written in zip(commits, done, strict=True):
            if written:
                self._pids.set(one.pid, self._end(one.lifetime))
                self._note_wake(one)
                self._effects.update(EffectRef(shard(one.pid), posting.id) for posting in one.postings)
        return done

    def _note_wake(self, commit: Commit) -> None:
        if commit.wake == 0 or not commit.record:
            self._wakes.drop(commit.pid)
        elif commit.wake is not None:
            self._wakes.set(commit.pid, commit.wake)

    def due(self, now: int) -> frozenset[str]:
        """Return who is to be looked at by a time (ms)."""
        return frozenset(self._wakes.due(now))

    def next_wake(self, until: int) -> tuple[int, list[str]] | None:
        """Return the earliest time (ms) at which somebody is to be looked at, and whom; None: nobody until then."""
        return self._wakes.first(until)

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set rows, and note when they expire."""
        done = await self._store.claim(claims)
        for one, written in zip(claims, done, strict=True):
            if written and (one.seconds != UNCHANGED or one.name not in self._names):
                self._names.set(one.name, self._end(max(one.seconds, 0)))
        return done

    def _end(self, seconds: int) -> int | None:
        return self._clock() + seconds * 1000 if seconds else None

    async def expire(self) -> list[bytes]:
        """Remove what has expired by now, and return the records of it."""
        now = self._clock()
        pids = self._pids.due(now)
        records = [one for one in await self._store.read_records(pids) if one is not None] if pids else []
        await self._remove(pids, self._names.due(now))
        return records

    async def remove_all(self) -> None:
        """Remove everything that was written."""
        await self._remove(self._pids, self._names)
        await self._store.remove_effects(list(self._effects))
        self._effects.clear()

    async def _remove(self, pids: Iterable[str], names: Iterable[str]) -> None:
        pids, names = list(pids), list(names)
        if pids:
            stored = zip(pids, await self._store.read_records(pids), strict=True)
            gone = [Commit(pid, _revision(record), b"") for pid, record in stored if record is not None]
            await self._store.commit(gone)
        if names:
            rows = zip(names, await self._store.read_rows(names), strict=True)
            await self._store.claim([Claim(name, row, b"") for name, row in rows if row is not None])
        for pid in pids:
            self._pids.drop(pid)
        for name in names:
            self._names.drop(name)


def _revision(record: bytes) -> int:
    return int.from_bytes(record[1:HEADER_BYTES], "big")
