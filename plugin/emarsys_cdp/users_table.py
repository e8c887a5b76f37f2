"""
The users table for everything but calls: looking people up, erasing and suppressing them, going through all of them.

It works on what is stored and forgets nothing that a worker remembers: a worker notices by the revision of a record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.changes import identifiers
from emarsys_cdp.merging import MAX_TRIES, Known, Merger, without_user
from emarsys_cdp.store import Claim, Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.record import Erasing, Record, UnreadableRecord, unpack
from emarsys_cdp.store.rows import DELETE, OWNED, QUARANTINED, SHARED, SUPPRESS, TOMBSTONE, Row, read_row

KINDS = {"user": "u", "key": "k", "anon": "a"}
"""Kinds of identifiers as people name them, and as rows do."""

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

    *revisions* counts from a random number, as a worker's do.
    """

    def __init__(self, store: Store, namer: Namer, revisions: Iterator[int]) -> None:
        self._store = store
        self._namer = namer
        self._merger = Merger(store, namer, revisions)

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
        An identifier that nobody has leaves a tombstone too. One that is shared or quarantined is nobody's and stays.

        Raises:
            UnreadableRecord: the record is of a format that this version does not read.
            StoreUnavailable: the store is out of order, or other workers were faster too often; erase again.

        """
        name = self._namer(space, KINDS[kind], value)
        for _ in range(MAX_TRIES):
            content, row = await self._row(name)
            if row is not None and row.kind in (SHARED, QUARANTINED):
                if row.pid is None or await self._forget_isolate(name, content, row):
                    return Erased()
                continue
            known = None if row is None or row.pid is None else await self._owner(name, row.pid)
            if known is None:
                if await self._bury(name, content, row, mode, now):
                    return Erased(((kind, value),), (value,) if kind == "key" else ())
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

        What was erased stays erased: calls from before the suppression are dropped still.
        """
        name = self._namer(space, KINDS[kind], value)
        _, row = await self._row(name)
        if row is None or row.mode != SUPPRESS:
            return False
        known = None if row.pid is None else await self._merger.read(row.pid)
        names = dict.fromkeys((*(known.record.tombstones if known is not None else ()), name))
        for each in names:
            await self._lift(each)
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

    async def sweep(self) -> int:
        """
        Finish what was left half done, and remove the rows of people who have expired; return how many rows.

        A userId that a dead process was about to claim for somebody, and that is another's by its row, is taken out.

        A row whose owner has no record counts as absent anyway: this only frees its memory.
        """
        async for pid, stored in self._store.scan():
            try:
                revision, record = unpack(stored)
            except UnreadableRecord:
                continue
            if not record.unfinished:
                await self._disown(Known(pid, revision, record))
            elif not record.folded and not record.tombstones:
                await self._merger.finish(pid)
        removed = 0
        async for name, content in self._store.scan_rows():
            row = read_row(content)
            if row is None or row.kind != OWNED or row.erased or row.pid is None:
                continue
            known = await self._merger.read(row.pid)
            if known is None or known.record.tombstones:
                removed += (await self._store.claim([Claim(name, content, b"")]))[0]
        return removed

    async def _disown(self, known: Known) -> None:
        """Take userIds out of a record that a dead process was about to claim for it, and that are somebody else's."""
        record = known.record
        users = [user for user in (record.user, *record.aliases) if user is not None]
        names = [self._namer(record.space, "u", user) for user in users]
        for user, content in zip(users, await self._store.read_rows(names) if names else [], strict=True):
            row = read_row(content)
            if row is not None and row.kind == OWNED and row.pid not in (None, known.pid):
                owner = await self._merger.follow(row.pid or "")
                if owner is not None and owner.pid != known.pid:
                    record = without_user(record, user)
        if record is not known.record:
            await self._merger.write(known, record)

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
        if row is not None and row.mode == SUPPRESS:
            return True
        stone = Row(TOMBSTONE, None, 0, max(now, row.erased if row is not None else 0), mode)
        return (await self._store.claim([Claim(name, content, stone.content())]))[0]

    async def _forget_isolate(self, name: str, content: bytes | None, row: Row) -> bool:
        """Remove what is known of the calls of a shared device; the device stays shared."""
        (done,) = await self._store.claim([Claim(name, content, replace(row, pid=None).content())])
        known = None if row.pid is None else await self._merger.read(row.pid)
        if done and known is not None:
            await self._merger.remove(known)
        return done

    async def _lift(self, name: str) -> None:
        """Turn the tombstone of a suppression into one of an erasure."""
        for _ in range(MAX_TRIES):
            content, row = await self._row(name)
            if row is None or row.mode != SUPPRESS:
                return
            lifted = replace(row, mode=DELETE, pid=None)
            if (await self._store.claim([Claim(name, content, lifted.content())]))[0]:
                return

    async def _erased(self, record: Record) -> Erased:
        """Return what was erased: of the keys those that only this person had."""
        found = identifiers(record)
        names = [self._namer(record.space, kind, value) for kind, value in found]
        rows = [read_row(content) for content in await self._store.read_rows(names)]
        gone = [one for one, row in zip(found, rows, strict=True) if row is not None and row.kind == TOMBSTONE]
        keys = [value for kind, value in gone if kind == "k"]
        return Erased(tuple((_NAMES[kind], value) for kind, value in gone), tuple(keys))
