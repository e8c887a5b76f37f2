"""
A store in which time passes as a timeline says: what a server would let expire is removed when its time has come.

At the end everything that was written can be removed, so that a server that others use too is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from emarsys_cdp.store import UNCHANGED, Claim, Commit, Store
from emarsys_cdp.store.keys import shard
from emarsys_cdp.store.outbox import EffectRef
from emarsys_cdp.store.record import HEADER_BYTES


class TimedStore:
    """
    A `Store` over another one. *clock* gives the time of the timeline in ms.

    A timer goes with its record; effects stay until everything is removed. Whatever is written through it must be
    written through it alone.
    """

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._pids: dict[str, int | None] = {}
        self._names: dict[str, int | None] = {}
        self._effects: set[EffectRef] = set()
        self._wakes: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the other store does."""
        return getattr(self._store, name)

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records, and note when they expire, and the effects."""
        done = await self._store.commit(commits)
        for one, written in zip(commits, done, strict=True):
            if written:
                self._pids[one.pid] = self._end(one.lifetime)
                self._note_wake(one)
                self._effects.update(EffectRef(shard(one.pid), posting.id) for posting in one.postings)
        return done

    def _note_wake(self, commit: Commit) -> None:
        if commit.wake == 0 or not commit.record:
            self._wakes.pop(commit.pid, None)
        elif commit.wake is not None:
            self._wakes[commit.pid] = commit.wake

    def due(self, now: int) -> frozenset[str]:
        """Return who is to be looked at by a time (ms)."""
        return frozenset([pid for pid, wake in self._wakes.items() if wake <= now])

    def next_wake(self, until: int, but: frozenset[str] = frozenset()) -> tuple[int, list[str]] | None:
        """Return the earliest time (ms) at which somebody else is to be looked at, and whom; None: nobody till then."""
        wakes = {pid: wake for pid, wake in self._wakes.items() if pid not in but}
        first = min(wakes.values(), default=until + 1)
        return None if first > until else (first, [pid for pid, wake in wakes.items() if wake == first])

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set rows, and note when they expire."""
        done = await self._store.claim(claims)
        for one, written in zip(claims, done, strict=True):
            if written and (one.seconds != UNCHANGED or one.name not in self._names):
                self._names[one.name] = self._end(max(one.seconds, 0))
        return done

    def _end(self, seconds: int) -> int | None:
        return self._clock() + seconds * 1000 if seconds else None

    async def expire(self) -> list[bytes]:
        """Remove what has expired by now, and return the records of it."""
        now = self._clock()
        pids = _due(self._pids, now)
        records = [one for one in await self._store.read_records(pids) if one is not None] if pids else []
        await self._remove(pids, _due(self._names, now))
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
            del self._pids[pid]
        for name in names:
            del self._names[name]


def _due(ends: dict[str, int | None], now: int) -> list[str]:
    return [name for name, end in ends.items() if end is not None and end <= now]


def _revision(record: bytes) -> int:
    return int.from_bytes(record[1:HEADER_BYTES], "big")
