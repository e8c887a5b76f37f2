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

from emarsys_cdp.identity.changes import identifiers, perhaps
from emarsys_cdp.identity.joining import join, survivor
from emarsys_cdp.identity.ruling import wake_change
from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.store.outbox import EffectRef
from emarsys_cdp.store.record import Record, pack, unpack
from emarsys_cdp.store.rows import DELETE, OWNED, SUPPRESS, TAG_CHARACTERS, TOMBSTONE, Row, read_row

MAX_TRIES = 20
"""Tries against other workers; what is not finished then is finished by the next who meets it."""


class Known(Struct, frozen=True, gc=False):
    """A profile as it was read: its record and the revision of it."""

    pid: str
    revision: int
    record: Record


class _Burial(Struct, frozen=True, gc=False):
    """The erasure of a person, who has had *tags* in the rows of keys."""

    pid: str
    record: Record
    mode: str
    time: int
    tags: set[str]

    def row(self, row: Row | None) -> Row | None:
        """Return what becomes of the row of one of the person's identifiers; None: it stays."""
        if row is None or (row.kind == OWNED and row.pid in (self.pid, *self.record.merged_from)):
            return tombstone(row, self.mode, self.time, self.pid)
        if row.kind == TOMBSTONE:
            # It was erased for itself: as before, and as late.
            return tombstone(row, DELETE, self.time) if self.mode == DELETE else None
        users = tuple([tag for tag in row.users if tag not in self.tags])
        return replace(row, users=users) if users != row.users else None


def tombstone(row: Row | None, mode: str, time: int, pid: str | None = None) -> Row:
    """
    Return the row of an identifier that is erased now; *pid* is the record that lists those erased with it.

    A suppression stays one, and begins with its first.
    """
    erased = row.erased if row is not None else 0
    if row is not None and row.mode == SUPPRESS:
        return row if mode == SUPPRESS else replace(row, erased=max(erased, time))
    if mode == SUPPRESS:
        return Row(TOMBSTONE, pid, (), erased, SUPPRESS, time)
    return Row(TOMBSTONE, None, (), max(erased, time), DELETE)


def effects_of(record: Record) -> list[EffectRef]:
    """Return the effects of a person that may be in the outbox, waiting, leased, sent or dead."""
    return [] if record.book is None else [EffectRef(one.shard, one.id) for one in record.book.posted]


class Merger:
    """
    Merges and erases profiles. *revisions* gives the next revision of whatever this worker writes.

    *lifetimes* tells how long the people of a space stay.
    """

    def __init__(self, store: Store, namer: Namer, revisions: Iterator[int], lifetimes: LifetimesOf = usual) -> None:
        self._store = store
        self._revisions = revisions
        self.namer = namer
        self.lifetimes = lifetimes

    async def merge(self, first: Known, second: Known) -> bool:
        """
        Make one profile of two, if both are still as they were read (neither was unfinished); tell whether they were.

        The call that asked for it is resolved anew, and asks again if they are still two.
        """
        kept_pid, _ = survivor((first.pid, first.record), (second.pid, second.record))
        kept, lost = (first, second) if kept_pid == first.pid else (second, first)
        noted = await self._write(kept, replace(kept.record, intents=(lost.pid,), stub=False))
        if noted is None:
            return False
        if await self._write(lost, replace(lost.record, redirect=kept.pid, stub=False)) is None:
            return False  # whoever meets the survivor takes the note back
        await self.finish(lost.pid)
        return True

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
        await self._repoint(self.names(lost.record), lost.pid, target.pid, self.perhaps(lost.record))
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

    async def _repoint(self, names: Sequence[str], old: str, new: str, perhaps: Sequence[str] = ()) -> None:
        """
        Let rows that name one profile name another; one that was never claimed is claimed for it.

        *perhaps* are rows that are left alone when there are none.
        """
        left = [*names, *perhaps]
        for _ in range(MAX_TRIES):
            claims = []
            for name, content in zip(left, await self._store.read_rows(left), strict=True):
                row = read_row(content)
                if (row is None and name not in perhaps) or (row is not None and row.kind == OWNED and row.pid == old):
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
        """
        Make tombstones of the rows of a person who is being erased, then remove the person's effects and records.

        Nothing is added to the outbox meanwhile: who is being erased is not looked at.
        """
        record = known.record
        if record.erasing is None:
            return
        mode, time = record.erasing.mode, record.erasing.time
        certain, possible = self.names(record), self.perhaps(record)
        burial = _Burial(known.pid, record, mode, time, self._tags(record))
        left = [*certain, *possible]
        for _ in range(MAX_TRIES):
            rows = zip(left, await self._store.read_rows(left), strict=True)
            wanted = [
                (name, content, burial.row(read_row(content)))
                for name, content in rows
                if content is not None or name not in possible
            ]
            left = await self._claim([Claim(name, old, row.content()) for name, old, row in wanted if row is not None])
            if not left:
                break
        else:
            return
        effects = effects_of(record)
        if effects:
            await self._store.remove_effects(effects)
        for pid in record.merged_from:
            part = await self.read(pid)
            if part is not None and part.record.redirect is not None:
                await self.remove(part)
        if mode == SUPPRESS:
            await self._write(known, Record(record.space, tombstones=(*certain, *possible)))
        else:
            await self.remove(known)

    def names(self, record: Record) -> list[str]:
        """Return the names of the rows of all identifiers of a record."""
        return [self.namer(record.space, kind, value) for kind, value in identifiers(record)]

    def perhaps(self, record: Record) -> list[str]:
        """Return the names of the rows that may be a record's."""
        return [self.namer(record.space, kind, value) for kind, value in perhaps(record)]

    def tag(self, space: str, user: str) -> str:
        """Return what the rows of keys note of a user."""
        return self.namer(space, "u", user)[:TAG_CHARACTERS]

    def _tags(self, record: Record) -> set[str]:
        return {self.tag(record.space, user) for user in (record.user, *record.aliases) if user is not None}

    async def write(self, known: Known, record: Record) -> bool:
        """Replace a profile's record if it is still as it was read."""
        return await self._write(known, record) is not None

    async def _write(self, known: Known, record: Record) -> Known | None:
        revision = next(self._revisions)
        seconds = self.lifetimes(record.space).of(record)
        wake = wake_change(known.record, record)
        commit = Commit(known.pid, known.revision, pack(record, revision), seconds=seconds, wake=wake)
        (done,) = await self._store.commit([commit])
        return Known(known.pid, revision, record) if done else None

    async def remove(self, known: Known) -> None:
        """Remove a profile's record if it is still as it was read."""
        await self._store.commit([Commit(known.pid, known.revision, b"")])
