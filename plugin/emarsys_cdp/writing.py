"""How the changes of a round are written: what others let go of, the rows, then the records with the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp.identity.changes import reserved, unreserved, without
from emarsys_cdp.identity.entries import ANON, KEY, USER
from emarsys_cdp.identity.resolution import TAKE
from emarsys_cdp.identity.ruling import wake_change
from emarsys_cdp.merging import Merger
from emarsys_cdp.reading import Reading
from emarsys_cdp.round_changes import Changes
from emarsys_cdp.store import UNCHANGED, Claim, Commit, Store
from emarsys_cdp.store.record import Record, UnreadableRecord, pack, unpack
from emarsys_cdp.store.rows import OWNED, QUARANTINED, SHARED, Row, read_row
from emarsys_cdp.worker_memory import Memory

MAX_DETACHES = 20
"""Tries to take an identifier from a person whom other workers keep writing."""

RANKS = (USER, KEY, ANON)

Notice: TypeAlias = Callable[[str, int], None]
"""Is told of a profile that was written, and when it is to be looked at (ms, 0 never)."""


def nobody_asks(pid: str, wake: int) -> None:
    """Do nothing with a notice: timers are found by the store too."""


Taken: TypeAlias = dict[str, Callable[[Record], Record]]
"""Row names of identifiers that somebody does not have, with what takes them out of the record."""

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What packing a record raises when a value cannot be stored."""


def unwritable(error: Exception) -> str:
    """Return why the calls of a person cannot be added."""
    return f"a value cannot be stored: {error}"


def _as_it_is(record: Record) -> Record:
    """Return the record: it is only written again, so that others look again."""
    return record


class Packed(Struct, frozen=True, gc=False):
    """
    A record as it is stored, its revision, whether it is a stub, and how long it stays (seconds).

    *wake* is when the person is to be looked at (ms), None as before.
    """

    revision: int
    stored: bytes
    stub: bool
    seconds: int
    wake: int | None = None


class Writing:
    """
    Writes the changes of one round.

    *claimed* are the rows that were set, *released* the profiles that were written without what they lose, *lost*
    those whose calls have to be tried again since another worker was faster; *unwritable* says why a profile cannot
    be stored.
    """

    def __init__(
        self, reading: Reading, changes: Changes, revisions: Iterator[int], merger: Merger, notice: Notice
    ) -> None:
        self._reading = reading
        self._changes = changes
        self._new_revisions = revisions
        self._merger = merger
        self._notice = notice
        self._reserved: dict[str, Record] = {}
        self._detached: set[str] = set()
        self.claimed: set[str] = set()
        self.released: set[str] = set()
        self.lost: set[str] = set()
        self.unwritable: dict[str, str] = {}

    async def write(self, store: Store, memory: Memory) -> None:
        """
        Write what has changed: what people no longer have, then the rows, then the records with the calls.

        A row is claimed before the record lists the identifier. So a record never has to be corrected after a lost
        claim; and a row whose person does not list it yet is right already, since rows say who has an identifier.
        """
        records = self._reading.records
        packed = self._pack({pid: records[pid] for pid in self._changes.changed})
        await self._release(store, packed)
        for rank in RANKS:
            await self._claim(store, rank)
        written = await self._commit(store, {pid: packed[pid] for pid in packed if self._is_due(pid)})
        if self._changes.evicted:
            await self._remove_evicted(store)
        await self._detach(store)
        for pid, revision in written.items():
            book = records[pid].book
            if book is not None:
                self._notice(pid, book.wake)
            if not records[pid].isolate:
                memory.remember(pid, revision, records[pid])
        for pid in self._detached:
            memory.forget(pid)

    def _is_due(self, pid: str) -> bool:
        """Tell whether a record is to be written after the claims: it has lost nothing, and was not written before."""
        return pid not in self.lost and self._changes.released.get(pid) != self._reading.records[pid]

    async def _release(self, store: Store, packed: Mapping[str, Packed]) -> None:
        """
        Write what makes way for claims, without the calls: who loses an identifier, and who is about to claim one.

        The user and the key that somebody is about to claim are in the record first: who finds it by a row that is
        claimed already must see that it is of another person. A new record is a stub and disappears by itself.
        """
        changes = self._changes
        first = {pid: record for pid, record in changes.released.items() if pid in packed}
        claiming = {pid for rank, pids in changes.claims.values() if rank != ANON for pid in pids}
        for pid in packed:
            new, base = self._reading.records[pid], first.get(pid) or changes.before.get(pid)
            if base is None:
                seen = new.first_seen
                base = Record(new.space, first_seen=seen, last_seen=seen, stub=True, isolate=new.isolate)
                first[pid], self._reserved[pid] = reserved(base, new), base
            elif pid in claiming and (base.user, base.aliases, base.key) != (new.user, new.aliases, new.key):
                first[pid], self._reserved[pid] = reserved(base, new), base
        written = await self._commit(store, self._pack(first))
        self.released = changes.released.keys() & written.keys()
        self._reserved = {pid: base for pid, base in self._reserved.items() if pid in written}

    def _pack(self, records: Mapping[str, Record]) -> dict[str, Packed]:
        """Return records as they are stored, with the next revisions; those that cannot be stored are left out."""
        packed: dict[str, Packed] = {}
        for pid, record in records.items():
            revision = next(self._new_revisions)
            try:
                stored = pack(record, revision)
                wake = wake_change(self._changes.before.get(pid), record)
                packed[pid] = Packed(revision, stored, record.stub, self._seconds(record), wake)
            except UNPACKABLE as error:
                self.unwritable[pid] = unwritable(error)
        return packed

    def _seconds(self, record: Record) -> int:
        return self._merger.lifetimes(record.space).of(record)

    async def _commit(self, store: Store, packed: Mapping[str, Packed]) -> dict[str, int]:
        """
        Write records by compare-and-set on the revisions known; return the new revision of those written.

        The calls of the others have to be tried again.
        """
        if not packed:
            return {}
        known = self._reading.revisions
        commits = [
            Commit(pid, known.get(pid, 0), one.stored, one.stub, one.seconds, one.wake) for pid, one in packed.items()
        ]
        done = zip(commits, await store.commit(commits), strict=True)
        written = {commit.pid: packed[commit.pid].revision for commit, ok in done if ok}
        self.lost |= packed.keys() - written.keys()
        known |= written
        return written

    async def _claim(self, store: Store, rank: int) -> None:
        """Claim the missing rows of one rank; who does not get one has lost."""
        names, all_claims = list[str](), self._changes.claims
        for name, (of, pids) in all_claims.items():
            if of != rank:
                continue
            if pids.isdisjoint(self.lost | self.unwritable.keys()):
                names.append(name)
            else:
                self.lost |= pids - self.unwritable.keys()
        claims = [self._claim_of(name) for name in names]
        for name, ok in zip(names, await store.claim(claims) if claims else [], strict=True):
            if ok:
                self.claimed.add(name)
            else:
                self.lost |= all_claims[name][1]

    def _claim_of(self, name: str) -> Claim:
        """Return the claim of a row: for its owner of now, or as nobody's."""
        reading, changes = self._reading, self._changes
        row = reading.rows.get(name)
        pid = changes.evicted[name][0] if name in changes.evicted else reading.owners[name]
        users, erased = (row.users, row.erased) if row is not None else ((), 0)
        seconds = 0
        if row is not None and row.kind == QUARANTINED:
            wanted = row
        elif not pid or reading.records[pid].isolate:
            wanted = Row(SHARED, pid or None, (), erased, None, row.since if row is not None else 0)
            space = reading.records[next(iter(changes.claims[name][1]))].space
            seconds = self._merger.lifetimes(space).shared if name in changes.renewed else UNCHANGED
        else:
            wanted = Row(OWNED, pid, users, erased)
        return Claim(name, reading.contents[name], wanted.content(), seconds)

    async def _remove_evicted(self, store: Store) -> None:
        """Remove the rows of identifiers that a record has no room for; they may come again as anybody's."""
        lost = self.lost | self.unwritable.keys()
        gone = {name: one for name, one in self._changes.evicted.items() if one[0] not in lost}
        names, claims = list(gone), list[Claim]()
        for name, content in zip(names, await store.read_rows(names) if names else [], strict=True):
            row = read_row(content)
            if row is not None and row.kind == OWNED and row.pid == gone[name][0]:
                claims.append(Claim(name, content, row.without_owner()))
        for claim, ok in zip(claims, await store.claim(claims) if claims else [], strict=True):
            if ok:
                pid, rank, value = gone[claim.name]
                self._changes.taken.append((claim.name, pid, partial(without, rank=rank, value=value, what=TAKE)))
                self.claimed.add(claim.name)

    async def _detach(self, store: Store) -> None:
        """
        Take identifiers from their former owners once more, now that the rows say so.

        Another worker may have read the row before and be about to write the identifier back: writing the record,
        changed or not, makes it lose and look again. One that was merged meanwhile has taken it along: it is taken
        from whom it is part of now.
        """
        todo = self._to_take()
        self._detached = set(todo)
        for _ in range(MAX_DETACHES):
            if not todo:
                return
            stored = dict(zip(todo, await store.read_records(list(todo)), strict=True))
            todo = await self._not_back(store, todo)
            commits: list[Commit] = []
            moved: dict[str, Taken] = {}
            for pid, values in todo.items():
                with suppress(UnreadableRecord):
                    revision, record = unpack(stored[pid] or b"")
                    if record.redirect is not None:
                        moved[pid] = values
                    else:
                        commits.append(self._without(pid, revision, record, values))
            done = await store.commit(commits) if commits else []
            failed = {commit.pid for commit, ok in zip(commits, done, strict=True) if not ok}
            todo = {pid: values for pid, values in todo.items() if pid in failed}
            for pid, values in moved.items():
                with suppress(UnreadableRecord):
                    target = await self._merger.follow(pid)
                    if target is not None:
                        todo.setdefault(target.pid, {}).update(values)
                        self._detached.add(target.pid)

    def _to_take(self) -> dict[str, Taken]:
        """Return what others no longer have by rows that were set, and what was reserved for rows that were not."""
        todo: dict[str, Taken] = {}
        for name, holder, take in self._changes.taken:
            if name in self.claimed:
                record = self._reading.records.get(holder)
                is_back = record is not None and take(record) != record  # by a later call of this round
                todo.setdefault(holder, {})[name] = _as_it_is if is_back else take
        for name, (rank, pids) in self._changes.claims.items():
            for pid in pids & self._reserved.keys() if rank != ANON and name not in self.claimed else ():
                base, new = self._reserved[pid], self._reading.records[pid]
                todo.setdefault(pid, {})[name] = partial(unreserved, rank=rank, base=base, new=new)
        return todo

    async def _not_back(self, store: Store, todo: Mapping[str, Taken]) -> dict[str, Taken]:
        """Return what still is to be taken from people: not what their rows give them again, by a merge or a call."""
        names = [name for values in todo.values() for name in values]
        rows = {name: read_row(content) for name, content in zip(names, await store.read_rows(names), strict=True)}
        left: dict[str, Taken] = {}
        for pid, values in todo.items():
            taken = {name: take for name, take in values.items() if (row := rows[name]) is None or row.pid != pid}
            if taken:
                left[pid] = taken
        return left

    def _without(self, pid: str, revision: int, record: Record, values: Taken) -> Commit:
        for take in values.values():
            record = take(record)
        return Commit(pid, revision, pack(record, next(self._new_revisions)), record.stub, self._seconds(record))
