"""
The users table for everything but calls: looking people up, erasing and suppressing them, going through all of them.

It works on what is stored and forgets nothing that a worker remembers: a worker notices by the revision of a record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.changes import identifiers, perhaps
from emarsys_cdp.merging import MAX_TRIES, Known, Merger, tombstone
from emarsys_cdp.store import START, Claim, Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.store.record import Erasing, Record, UnreadableRecord, unpack
from emarsys_cdp.store.rows import OWNED, QUARANTINED, SHARED, SUPPRESS, TOMBSTONE, Row, read_row

KINDS = {"user": "u", "key": "k", "anon": "a"}
"""Kinds of identifiers as people name them, and as rows do."""

SAMPLE = 100
"""Keys among which people are looked for to try the secret."""

_STATES = {OWNED: "owned", SHARED: "shared", QUARANTINED: "quarantined"}
_NAMES = {letter: kind for kind, letter in KINDS.items()}


class Found(Struct, frozen=True):
    """A person: the profile's id and record."""

    pid: str
    record: Record


class Erased(Struct, frozen=True):
    """What an erasure has removed: (kind, value) of the identifiers, and those keys that were nobody else's."""

    identifiers: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()


class UsersTable:
    """
    The people of all spaces of a store. *kind* is user, key or anon everywhere.

    *revisions* counts from a random number, as a worker's do. *lifetimes* tells how long the people of a space stay.
    """

    def __init__(self, store: Store, namer: Namer, revisions: Iterator[int], lifetimes: LifetimesOf = usual) -> None:
        self._store = store
        self._namer = namer
        self._merger = Merger(store, namer, revisions, lifetimes)

    async def find(self, space: str, kind: str, value: str) -> Found | None:
        """
        Return the person who has an identifier; None: nobody, or it is shared, quarantined or erased.

        Raises:
            UnreadableRecord: the record is of a format that this version does not read.
            StoreUnavailable: the store is out of order.

        """
        name = self._namer(space, KINDS[kind], value)
        _, row = await self._row(name)
        if row is None or row.kind != OWNED or row.pid is None:
            return None
        known = await self._owner(name, row.pid)
        return None if known is None else Found(known.pid, known.record)

    async def state(self, space: str, kind: str, value: str) -> str:
        """Return what an identifier is: absent, owned, shared, quarantined, deleted or suppressed."""
        name = self._namer(space, KINDS[kind], value)
        _, row = await self._row(name)
        if row is None:
            return "absent"
        if row.kind == TOMBSTONE:
            return "suppressed" if row.mode == SUPPRESS else "deleted"
        if row.kind == OWNED and (row.pid is None or await self._owner(name, row.pid) is None):
            return "absent"
        return _STATES[row.kind]

    async def erase(self, space: str, kind: str, value: str, mode: str, now: int) -> Erased:
        """
        Erase the whole person behind an identifier; every identifier leaves a tombstone.

        With the mode `delete` calls of *now* (ms) and before are dropped from then on, with `suppress` all calls are.
        An identifier that nobody has leaves a tombstone too. One that was shared or quarantined is so no longer; who
        else has used it stays.

        Raises:
            UnreadableRecord: the record is of a format that this version does not read.
            StoreUnavailable: the store is out of order, or other workers were faster too often; erase again.

        """
        name = self._namer(space, KINDS[kind], value)
        for _ in range(MAX_TRIES):
            content, row = await self._row(name)
            known = None if row is None or row.pid is None else await self._owner(name, row.pid)
            if known is None or known.record.isolate:
                if await self._bury(name, content, row, mode, now):
                    if known is not None:
                        await self._merger.remove(known)
                    mine = kind == "key" and (row is None or row.kind != QUARANTINED)
                    return Erased(((kind, value),), (value,) if mine else ())
                continue
            marked = replace(known.record, values={}, released=(), erasing=Erasing(mode, now), stub=False)
            if await self._merger.write(known, marked):
                await self._merger.finish(known.pid)
                left = await self._merger.read(known.pid)
                if left is None or left.record.erasing is None:
                    return await self._erased(known.record)
        raise StoreUnavailable("other workers changed the person too often: erase again")

    async def unsuppress(self, space: str, kind: str, value: str) -> bool:
        """
        Take the calls of a suppressed person again, of all the person's identifiers; tell whether it was suppressed.

        What was deleted stays so: calls that a deletion covers are dropped still.
        """
        name = self._namer(space, KINDS[kind], value)
        _, row = await self._row(name)
        if row is None or row.mode != SUPPRESS:
            return False
        known = None if row.pid is None else await self._merger.read(row.pid)
        names = dict.fromkeys((*(known.record.tombstones if known is not None else ()), name))
        for each in names:
            await self._lift(each, row.pid)
        if known is not None and known.record.tombstones:
            await self._merger.remove(known)
        return True

    async def scan(self, space: str | None = None) -> AsyncIterator[Found]:
        """Yield everybody of a space (of all spaces: None), isolates as well; unreadable records are left out."""
        seen: set[str] = set()
        async for pid, stored in self._store.scan():
            try:
                record = unpack(stored)[1]
            except UnreadableRecord:
                continue
            gone = record.redirect or record.erasing or record.tombstones
            if not gone and pid not in seen and space in (None, record.space):
                seen.add(pid)
                yield Found(pid, record)

    async def knows_secret(self) -> bool:
        """Tell whether the identifiers of some of the people are found by the secret; True when there is nobody."""
        found, _ = await self._store.step(START, SAMPLE)
        names: list[str] = []
        for _, stored in found:
            with suppress(UnreadableRecord):
                names += self._merger.names(unpack(stored)[1])
        return not names or any(await self._store.read_rows(names))

    async def _row(self, name: str) -> tuple[bytes | None, Row | None]:
        (content,) = await self._store.read_rows([name])
        return content, read_row(content)

    async def _owner(self, name: str, pid: str) -> Known | None:
        """Return the profile that a row names, now that everything that was begun with it is finished."""
        known = await self._merger.read(pid)
        if known is None or known.record.tombstones:
            return None
        if known.record.unfinished:
            await self._merger.settle({name: pid})
            known = await self._merger.follow(pid)
        return known

    async def _bury(self, name: str, content: bytes | None, row: Row | None, mode: str, now: int) -> bool:
        """Make a tombstone of the row of an identifier that nobody has."""
        stone = tombstone(row, mode, now)
        return (await self._store.claim([Claim(name, content, stone.content())]))[0]

    async def _lift(self, name: str, suppression: str | None) -> None:
        """End the suppression of a row, if it is that one; a deletion before it or since then counts again."""
        for _ in range(MAX_TRIES):
            content, row = await self._row(name)
            if row is None or row.mode != SUPPRESS or row.pid != suppression:
                return
            if (await self._store.claim([Claim(name, content, row.without_owner())]))[0]:
                return

    async def _erased(self, record: Record) -> Erased:
        """Return what was erased: of the keys those that only this person had."""
        found = [*identifiers(record), *perhaps(record)]
        names = [self._namer(record.space, kind, value) for kind, value in found]
        rows = [read_row(content) for content in await self._store.read_rows(names)]
        gone = [one for one, row in zip(found, rows, strict=True) if row is not None and row.kind == TOMBSTONE]
        keys = [value for kind, value in gone if kind == "k"]
        return Erased(tuple((_NAMES[kind], value) for kind, value in gone), tuple(keys))
