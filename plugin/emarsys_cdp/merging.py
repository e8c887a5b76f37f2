"""
Merging two profiles of different shards, erasing one, and finishing what a crash has left half done.

A merge is five steps, each a compare-and-set or harmless when it is done twice:

1. the survivor notes the intent;
2. the loser becomes a redirect to the survivor, with its record inside: if it is still as it was before step 1;
3. the survivor takes the loser's record in, unless it has it already;
4. the rows of the loser's identifiers name the survivor;
5. the redirect lets go of the record, and disappears after `REDIRECT_SECONDS`.

Before step 2 nothing has happened but a note; from step 2 on whoever meets the redirect finishes. There is no cycle of
redirects: that A becomes a redirect to B needs that A is unchanged since before B noted it, so around a cycle every
profile would have noted its loser before the one before it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.changes import identifiers
from emarsys_cdp.identity.joining import join, survivor
from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.record import Record, pack, unpack
from emarsys_cdp.store.rows import OWNED, SUPPRESS, TOMBSTONE, Row, read_row

MAX_TRIES = 20
"""Tries against other workers; what is not finished then is finished by the next who meets it."""


def without_user(record: Record, value: str | None) -> Record:
    """Return a record without a userId that is another person's."""
    aliases = tuple([alias for alias in record.aliases if alias != value])
    return replace(record, user=None if record.user == value else record.user, aliases=aliases)


class Known(Struct, frozen=True, gc=False):
    """A profile as it was read: its record and the revision of it."""

    pid: str
    revision: int
    record: Record


class Merger:
    """Merges and erases profiles. *revisions* gives the next revision of whatever this worker writes."""

    def __init__(self, store: Store, namer: Namer, revisions: Iterator[int]) -> None:
        self._store = store
        self._revisions = revisions
        self.namer = namer

    async def merge(self, first: Known, second: Known) -> None:
        """
        Make one profile of two, if both are still as they were read: neither was unfinished then.

        Nothing is returned: the call that asked for it is resolved anew, and asks again if they are still two.
        """
        kept_pid, _ = survivor((first.pid, first.record), (second.pid, second.record))
        kept, lost = (first, second) if kept_pid == first.pid else (second, first)
        noted = await self._write(kept, replace(kept.record, intents=(lost.pid,), stub=False))
        if noted is None:
            return
        if await self._write(lost, replace(lost.record, redirect=kept.pid, stub=False)) is not None:
            await self.finish(lost.pid)  # otherwise whoever meets the survivor takes the note back

    async def read(self, pid: str) -> Known | None:
        """
        Return a profile, None when there is none.

        Raises:
            UnreadableRecord: it is of a format that this version does not read.

        """
        (stored,) = await self._store.read_records([pid])
        return None if stored is None else Known(pid, *unpack(stored))

    async def finish(self, pid: str) -> None:
        """Finish what was begun with a profile: its own merge, those into it, its erasure."""
        for _ in range(MAX_TRIES):
            known = await self.read(pid)
            if known is None or known.record.folded or known.record.tombstones or not known.record.unfinished:
                return
            if known.record.erasing is not None:
                await self._erase(known)
            elif known.record.redirect is not None:
                await self._fold(known, known.record.redirect)
            else:
                await self._close(known)

    async def follow(self, pid: str) -> Known | None:
        """Return the profile that a profile is part of now, itself if it is none; what is unfinished is finished."""
        for _ in range(MAX_TRIES):
            known = await self.read(pid)
            if known is None or known.record.tombstones:
                return None
            if known.record.folded and known.record.redirect is not None:
                pid = known.record.redirect
            elif known.record.unfinished:
                await self.finish(pid)
            else:
                return known
        return None

    async def settle(self, names: Mapping[str, str]) -> None:
        """
        Finish what was begun with the profiles that rows name.

        Rows that still name a profile that was merged name the one that it is part of from then on.
        """
        for pid in dict.fromkeys(names.values()):
            await self.finish(pid)
        for name, pid in names.items():
            known = await self.read(pid)
            if known is not None and known.record.folded:
                target = await self.follow(pid)
                if target is not None:
                    await self._repoint([name], pid, target.pid)
                else:
                    await self.remove(known)

    async def _target(self, pid: str) -> Known | None:
        """Return the profile at the end of a chain of redirects, None when it is gone."""
        while True:
            known = await self.read(pid)
            if known is None or known.record.tombstones:
                return None
            if known.record.folded and known.record.redirect is not None:
                pid = known.record.redirect
            elif known.record.redirect is not None or known.record.erasing is not None:
                await self.finish(pid)
            else:
                return known

    async def _fold(self, lost: Known, into: str) -> None:
        """Do steps 3 to 5; a loser whose survivor is gone is a profile of its own again."""
        target = await self._target(into)
        if target is None:
            await self._write(lost, replace(lost.record, redirect=None))
            return
        joined = join(target.record, lost.pid, lost.record)
        if joined is not target.record and await self._write(target, joined) is None:
            return
        await self._repoint(self.names(lost.record), lost.pid, target.pid)
        await self._write(lost, Record(lost.record.space, redirect=target.pid, folded=True))

    async def _close(self, kept: Known) -> None:
        """Finish the merges that a survivor has noted; those that have not gone past step 1 are forgotten."""
        noted = kept.record.intents
        for pid in noted:
            lost = await self.read(pid)
            if lost is not None and lost.record.redirect is not None and not lost.record.folded:
                await self.finish(pid)
        again = await self.read(kept.pid)
        if again is not None and again.record.redirect is None and again.record.erasing is None:
            left = tuple([pid for pid in again.record.intents if pid not in noted])
            if left != again.record.intents:
                await self._write(again, replace(again.record, intents=left))

    async def _repoint(self, names: Sequence[str], old: str, new: str) -> None:
        """Let rows that name one profile name another; one that was never claimed is claimed for it."""
        left = list(names)
        for _ in range(MAX_TRIES):
            claims = []
            for name, content in zip(left, await self._store.read_rows(left), strict=True):
                row = read_row(content)
                if row is None or (row.kind == OWNED and row.pid == old):
                    wanted = Row(OWNED, new) if row is None else replace(row, pid=new)
                    claims.append(Claim(name, content, wanted.content()))
            left = await self._claim(claims)
            if not left:
                return

    async def _claim(self, claims: Sequence[Claim]) -> list[str]:
        """Set rows; return the names of those that others have set meanwhile."""
        if not claims:
            return []
        done = await self._store.claim(claims)
        return [claim.name for claim, ok in zip(claims, done, strict=True) if not ok]

    async def _erase(self, known: Known) -> None:
        """Make tombstones of the rows of a person who is being erased, then remove the person's records."""
        record = known.record
        if record.erasing is None:
            return
        mode, time = record.erasing.mode, record.erasing.time
        names, mine = self.names(record), {known.pid, *record.merged_from}
        left = names
        for _ in range(MAX_TRIES):
            claims = []
            for name, content in zip(left, await self._store.read_rows(left), strict=True):
                row = read_row(content)
                if row is None or (row.kind == OWNED and row.pid in mine):
                    stone = Row(TOMBSTONE, known.pid, 0, max(time, row.erased if row is not None else 0), mode)
                    claims.append(Claim(name, content, stone.content()))
            left = await self._claim(claims)
            if not left:
                break
        else:
            return
        for pid in record.merged_from:
            part = await self.read(pid)
            if part is not None and part.record.redirect is not None:
                await self.remove(part)
        if mode == SUPPRESS:
            await self._write(known, Record(record.space, tombstones=tuple(names)))
        else:
            await self.remove(known)

    def names(self, record: Record) -> list[str]:
        """Return the names of the rows of all identifiers of a record."""
        return [self.namer(record.space, kind, value) for kind, value in identifiers(record)]

    async def write(self, known: Known, record: Record) -> bool:
        """Replace a profile's record if it is still as it was read."""
        return await self._write(known, record) is not None

    async def _write(self, known: Known, record: Record) -> Known | None:
        revision = next(self._revisions)
        commit = Commit(known.pid, known.revision, pack(record, revision), seconds=record.lifetime)
        (done,) = await self._store.commit([commit])
        return Known(known.pid, revision, record) if done else None

    async def remove(self, known: Known) -> None:
        """Remove a profile's record if it is still as it was read."""
        await self._store.commit([Commit(known.pid, known.revision, b"")])
