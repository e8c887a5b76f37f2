"""What a round changes in the users table, and how it is written: records, then the rows that name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias

from msgspec.structs import replace

from emarsys_cdp.identity.changes import without
from emarsys_cdp.identity.entries import ANON, KEY, USER, Entry
from emarsys_cdp.identity.folding import fold
from emarsys_cdp.identity.picture import NOBODY, has_key
from emarsys_cdp.identity.resolution import COUNT, QUARANTINE, SHARE, TAKE, Change, Resolution
from emarsys_cdp.merging import Merger
from emarsys_cdp.reading import Reading
from emarsys_cdp.store import SHARED_SECONDS, Claim, Commit, Store
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.record import Record, UnreadableRecord, pack, unpack
from emarsys_cdp.store.rows import OWNED, QUARANTINED, SHARED, Row, read_row
from emarsys_cdp.worker_memory import Memory, Remembered

MAX_DETACHES = 20
"""Tries to take an identifier from a person whom other workers keep writing."""

RANKS = (USER, KEY, ANON)

Taken: TypeAlias = dict[str, tuple[int, str, str]]
"""Row names of identifiers that somebody does not have any more, with rank, value, and what has become of them."""

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What packing a record raises when a value cannot be stored."""


def unwritable(error: Exception) -> str:
    """Return why the calls of a person cannot be added."""
    return f"a value cannot be stored: {error}"


class Writing:
    """
    The changes of one round over what it has read.

    *changed* are the profiles to write, *lost* those whose calls have to be tried again since another worker was
    faster, *unwritable* says why a profile cannot be stored.
    """

    def __init__(self, reading: Reading, revisions: Iterator[int], merger: Merger) -> None:
        self._reading = reading
        self._new_revisions = revisions
        self._merger = merger
        self._namer = merger.namer
        self._before: dict[str, Record] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._taken: list[tuple[str, str, int, str, str]] = []
        self._evicted: dict[str, tuple[str, str]] = {}
        self._missed: dict[str, set[int]] = {}
        self._detached: set[str] = set()
        self.changed: dict[str, None] = {}
        self.lost: set[str] = set()
        self.unwritable: dict[str, str] = {}

    def add(self, entry: Entry, resolution: Resolution, pid: str) -> None:
        """Add a call to its person."""
        owners, records = self._reading.owners, self._reading.records
        for rank, name in resolution.claims:
            owners[name] = pid
            self._claim_row(rank, name, {pid})
        for change in resolution.changes:
            self._change(entry, change, pid)
        before = records.get(pid)
        _, key_name, anon_name = entry.names
        if not resolution.takes_key:
            entry = replace(entry, ids=replace(entry.ids, key=None))
        after = fold(
            before,
            entry,
            owns_anon=anon_name is not None and owners[anon_name] == pid,
            owns_key=key_name is not None and owners[key_name] == pid,
        )
        after = self._special(after, entry, resolution, pid)
        if before is not None:
            self._evict(before, after, entry, pid)
        if after != before:
            self._set(pid, after)

    def _set(self, pid: str, record: Record) -> None:
        """Change a record in the picture; the one before is kept for what a lost claim makes wrong."""
        before = self._reading.records.get(pid)
        if before is not None and pid not in self.changed:
            self._before[pid] = before
        self._reading.records[pid] = record
        self.changed[pid] = None

    def _special(self, record: Record, entry: Entry, resolution: Resolution, pid: str) -> Record:
        """Return the record with what only few calls bring: an alias, another userId, an isolate, an erasure before."""
        owners, rows, previous = self._reading.owners, self._reading.rows, entry.previous
        if resolution.rename and entry.ids.user is not None:
            record = replace(record, user=entry.ids.user)
        if previous is not None and owners[previous.user_name] == pid and previous.value != record.user:
            record = replace(record, aliases=tuple(dict.fromkeys((*record.aliases, previous.value))))
        if resolution.isolate and not record.isolate:
            record = replace(record, isolate=True)
        if rows:
            mine = [rows[name].erased for name in entry.all_names() if name in rows and owners[name] == pid]
            erased = max(mine, default=0)
            if erased > record.erased:
                record = replace(record, erased=erased)
        return record

    def _claim_row(self, rank: int, name: str, pids: set[str]) -> None:
        known = self._claims.get(name)
        self._claims[name] = (rank, pids if known is None else known[1] | pids)
        row, owner = self._reading.rows.get(name), self._reading.owners[name]
        if row is not None and row.kind != QUARANTINED and owner:
            self._reading.rows[name] = Row(OWNED, owner, row.users, row.erased)

    def _change(self, entry: Entry, change: Change, pid: str) -> None:
        """Change the row of an identifier that somebody else has, and that person's record."""
        reading, name, holder = self._reading, change.name, change.holder
        rank, value = (ANON, entry.ids.anon) if change.what == SHARE else (KEY, entry.ids.key)
        reading.contents.setdefault(name, owned_by(holder))
        row = reading.rows.get(name) or Row(OWNED, holder)
        if change.what == COUNT:
            reading.rows[name] = replace(row, users=row.users + 1)
            self._claim_row(rank, name, {pid})
            return
        if change.what == TAKE and row.users and has_key(reading.records.get(pid) or Record(entry.space), value):
            reading.rows[name] = replace(row, users=row.users - 1)  # it has used the key, and owns it now
        if change.what == QUARANTINE:
            reading.rows[name] = Row(QUARANTINED, None, 0, row.erased)
        reading.owners[name] = {SHARE: NOBODY, QUARANTINE: None}.get(change.what, pid)
        self._claim_row(rank, name, {holder, pid})
        self._taken.append((name, holder, rank, value or NOBODY, change.what))
        self._set(holder, without(reading.records[holder], rank, value or NOBODY, change.what))

    def _evict(self, before: Record, after: Record, entry: Entry, pid: str) -> None:
        """Note devices that the record has no room for, the call's own as well: their rows are removed."""
        if len(before.devices) + 1 <= len(after.devices) or before.devices is after.devices:
            return
        mine, anon_name = [device.value for device in before.devices], entry.names[ANON]
        if entry.ids.anon is not None and anon_name is not None and self._reading.owners[anon_name] == pid:
            mine.append(entry.ids.anon)
        kept = {device.value for device in after.devices}
        for value in mine:
            name = self._namer(entry.space, "a", value)
            if value not in kept:
                self._evicted[name] = (pid, value)
            else:
                self._evicted.pop(name, None)

    async def write(self, store: Store, memory: Memory) -> None:
        """Write the records, claim the rows that name them, and put right what a lost claim has made wrong."""
        records = self._reading.records
        written = await self._commit(store, {pid: records[pid] for pid in self.changed})
        self.lost = self.changed.keys() - written.keys() - self.unwritable.keys()
        if self._claims:
            named: set[str] = set()
            for rank in RANKS:
                named |= await self._claim(store, rank)
            written |= await self._commit(store, self._corrections(written, named))
        if self._evicted:
            await self._remove_evicted(store)
        if self._taken:
            await self._detach(store)
        for pid, revision in written.items():
            if pid not in self.lost and not records[pid].isolate:
                memory.records[pid] = Remembered(pid, revision, records[pid])
        for pid in self._detached:
            memory.records.pop(pid, None)

    async def _commit(self, store: Store, records: Mapping[str, Record]) -> dict[str, int]:
        """Write records by compare-and-set on the revisions known; return the new revision of those written."""
        commits, revisions = list[Commit](), dict[str, int]()
        for pid, record in records.items():
            expected, revision = self._reading.revisions.get(pid, 0), next(self._new_revisions)
            stub = expected == 0
            try:
                packed = pack(replace(record, stub=True) if stub else record, revision)
            except UNPACKABLE as error:
                self.unwritable[pid] = unwritable(error)
                continue
            commits.append(Commit(pid, expected, packed, stub, record.lifetime))
            revisions[pid] = revision
        if not commits:
            return {}
        done = zip(commits, await store.commit(commits), strict=True)
        written = {commit.pid: revisions[commit.pid] for commit, ok in done if ok}
        self._reading.revisions |= written
        return written

    async def _claim(self, store: Store, rank: int) -> set[str]:
        """Claim the missing rows of one rank; return the profiles that got one."""
        names = []
        for name, (of, pids) in self._claims.items():
            if of != rank:
                continue
            if pids.isdisjoint(self.lost | self.unwritable.keys()):
                names.append(name)
            else:
                self._miss(rank, pids)
        if not names:
            return set()
        named: set[str] = set()
        claims = [self._claim_of(name) for name in names]
        for name, ok in zip(names, await store.claim(claims), strict=True):
            pids = self._claims[name][1]
            if ok:
                named |= pids
            else:
                self._miss(rank, pids)
        return named

    def _claim_of(self, name: str) -> Claim:
        """Return the claim of a row: for its owner of now, or as nobody's."""
        reading = self._reading
        row, pid = reading.rows.get(name), reading.owners[name]
        users, erased = (row.users, row.erased) if row is not None else (0, 0)
        if row is not None and row.kind == QUARANTINED:
            wanted = row
        elif not pid or reading.records[pid].isolate:
            wanted = Row(SHARED, pid or None, 0, erased)
        else:
            wanted = Row(OWNED, pid, users, erased)
        seconds = SHARED_SECONDS if wanted.kind == SHARED else 0
        return Claim(name, reading.contents[name], wanted.content(), seconds)

    def _miss(self, rank: int, pids: set[str]) -> None:
        """Note that profiles did not get a row of this rank: their calls are tried again."""
        for pid in pids - self.unwritable.keys():
            self.lost.add(pid)
            self._missed.setdefault(pid, set()).add(rank)

    def _corrections(self, written: Mapping[str, int], named: set[str]) -> dict[str, Record]:
        """
        Return records to write once more: new ones that some row names, and those that lost a claim.

        A new record was a stub until now. A record that lost a claim holds an identifier of somebody else, which is
        taken out; what it has won stays. Its calls are added again.
        """
        records: dict[str, Record] = {}
        for pid in written:
            if pid in self._before:
                if pid in self._missed:
                    records[pid] = self._corrected(pid, self._before[pid])
            elif pid in named:
                records[pid] = self._corrected(pid, Record(self._reading.records[pid].space))
        return records

    def _corrected(self, pid: str, before: Record) -> Record:
        """Return a record without the identifiers whose rows it did not get, and without calls that come again."""
        missed, record = self._missed.get(pid), self._reading.records[pid]
        if missed is None:
            return record
        if USER in missed:
            return before  # the first rank: it has won nothing
        record = replace(record, values=before.values)
        if before.last_type:
            record = replace(
                record,
                first_seen=before.first_seen,
                last_seen=before.last_seen,
                last_type=before.last_type,
                last_message=before.last_message,
            )
        if KEY in missed:
            record = replace(
                record,
                key=before.key,
                key_time=before.key_time,
                key_message=before.key_message,
                owns_key=before.owns_key,
                former_keys=before.former_keys,
                pending=before.pending,
                released=before.released,
            )
        return replace(record, devices=before.devices) if ANON in missed else record

    async def _remove_evicted(self, store: Store) -> None:
        """Remove the rows of devices that a record has no room for; they may come again as anybody's."""
        gone = {name: one for name, one in self._evicted.items() if one[0] not in self.lost | self.unwritable.keys()}
        claims = [Claim(name, owned_by(pid), b"") for name, (pid, _) in gone.items()]
        for claim, ok in zip(claims, await store.claim(claims) if claims else [], strict=True):
            if ok:
                pid, value = gone[claim.name]
                self._reading.owners[claim.name], self._reading.contents[claim.name] = None, None
                self._taken.append((claim.name, pid, ANON, value, SHARE))
                self._claims[claim.name] = (ANON, {pid})

    async def _detach(self, store: Store) -> None:
        """
        Take identifiers from their former owners once more, now that the rows say so.

        Another worker may have read the row before and be about to write the identifier back: writing the record,
        changed or not, makes it lose and look again. One that was merged meanwhile has taken it along: it is taken
        from whom it is part of now.
        """
        todo: dict[str, Taken] = {}
        for name, holder, rank, value, what in self._taken:
            if self._claims[name][1].isdisjoint(self.lost):
                todo.setdefault(holder, {})[name] = (rank, value, what)
        self._detached = set(todo)
        for _ in range(MAX_DETACHES):
            if not todo:
                return
            commits: list[Commit] = []
            moved: dict[str, Taken] = {}
            for pid, stored in zip(todo, await store.read_records(list(todo)), strict=True):
                with suppress(UnreadableRecord):
                    revision, record = unpack(stored) if stored is not None else (0, None)
                    if record is not None and record.redirect is not None:
                        moved[pid] = todo[pid]
                    elif record is not None:
                        commits.append(self._without(pid, revision, record, todo[pid]))
            done = await store.commit(commits) if commits else []
            failed = {commit.pid for commit, ok in zip(commits, done, strict=True) if not ok}
            todo = {pid: values for pid, values in todo.items() if pid in failed}
            for pid, values in moved.items():
                await self._follow(store, pid, values, todo)

    def _without(self, pid: str, revision: int, record: Record, values: Taken) -> Commit:
        for rank, value, what in values.values():
            record = without(record, rank, value, what)
        record = replace(record, stub=False)
        return Commit(pid, revision, pack(record, next(self._new_revisions)), seconds=record.lifetime)

    async def _follow(self, store: Store, pid: str, values: Taken, todo: dict[str, Taken]) -> None:
        """Note in *todo* what a profile that was merged has taken along to another, unless that owns it now."""
        with suppress(UnreadableRecord):
            target = await self._merger.follow(pid)
            if target is None:
                return
            for name, content in zip(values, await store.read_rows(list(values)), strict=True):
                row = read_row(content)
                if row is None or row.pid != target.pid:
                    todo.setdefault(target.pid, {})[name] = values[name]
                    self._detached.add(target.pid)
