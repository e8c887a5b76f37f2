"""What a round changes in the users table, and how it is written: records, then the rows that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.changes import without
from emarsys_cdp.identity.entries import ANON, KEY, USER, Entry
from emarsys_cdp.identity.folding import fold
from emarsys_cdp.identity.picture import NOBODY, has_key
from emarsys_cdp.identity.resolution import COUNT, QUARANTINE, SHARE, TAKE, Change, Resolution
from emarsys_cdp.merging import Merger, without_user
from emarsys_cdp.reading import Reading
from emarsys_cdp.store import SHARED_SECONDS, Claim, Commit, Store
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.record import Record, UnreadableRecord, pack, unpack
from emarsys_cdp.store.rows import OWNED, QUARANTINED, SHARED, Row, read_row
from emarsys_cdp.worker_memory import Memory, Remembered

MAX_DETACHES = 20
"""Tries to take an identifier from a person whom other workers keep writing."""

RANKS = (USER, KEY, ANON)

Taken: TypeAlias = dict[str, Callable[[Record], Record]]
"""Row names of identifiers that somebody does not have, with what takes them out of the record."""

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What packing a record raises when a value cannot be stored."""


def unwritable(error: Exception) -> str:
    """Return why the calls of a person cannot be added."""
    return f"a value cannot be stored: {error}"


class Packed(Struct, frozen=True, gc=False):
    """A record as it is stored, its revision, whether it is a stub, and how long it stays (seconds)."""

    revision: int
    stored: bytes
    stub: bool
    seconds: int


def reserved(base: Record, new: Record) -> Record:
    """Return a record with the user and the key that a new one of the person has, not owned yet."""
    owns_key = base.owns_key and base.key == new.key
    return replace(_key_of(base, new), user=new.user, aliases=new.aliases, owns_key=owns_key)


def unreserved(record: Record, rank: int, base: Record, new: Record) -> Record:
    """Return a record without a user or key that was reserved and not got: *base* has those of before."""
    if rank == USER:
        aliases = tuple([one for one in record.aliases if one in base.aliases or one not in new.aliases])
        return replace(record, user=base.user if record.user == new.user else record.user, aliases=aliases)
    mine = (record.key, record.key_time, record.key_message) == (new.key, new.key_time, new.key_message)
    return _key_of(record, base) if mine else record


def _key_of(record: Record, of: Record) -> Record:
    return replace(
        record,
        key=of.key,
        key_time=of.key_time,
        key_message=of.key_message,
        owns_key=of.owns_key,
        former_keys=of.former_keys,
        pending=of.pending,
        released=of.released,
    )


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
        self._released: dict[str, Record] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._taken: list[tuple[str, str, Callable[[Record], Record]]] = []
        self._evicted: dict[str, tuple[str, str]] = {}
        self._claimed: set[str] = set()
        self._reserved: dict[str, Record] = {}
        self._detached: set[str] = set()
        self.changed: dict[str, None] = {}
        self.lost: set[str] = set()
        self.unwritable: dict[str, str] = {}

    def add(self, entry: Entry, resolution: Resolution, pid: str) -> None:
        """Add a call to its person."""
        owners, records = self._reading.owners, self._reading.records
        for rank, name in resolution.claims:
            holder, owners[name] = owners[name], pid
            self._claim_row(rank, name, {pid, *self._touched(entry, name, holder, pid)})
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

    def _touched(self, entry: Entry, name: str, holder: str | None, pid: str) -> tuple[str, ...]:
        """
        Return who has a row that is claimed for another, because the record does not have the userId: written too.

        It may be about to get it. Whoever is writing that loses then, and looks again.
        """
        record = self._reading.records.get(holder) if holder and holder != pid else None
        if holder is None or record is None:
            return ()
        self._set(holder, record)
        if holder in self._before:
            self._released.setdefault(holder, self._before[holder])
        previous = entry.previous
        value = previous.value if previous is not None and name == previous.user_name else entry.ids.user
        self._taken.append((name, holder, partial(without_user, value=value)))
        return (holder,)

    def _set(self, pid: str, record: Record) -> None:
        """Change a record in the picture; the one before is kept for who has to let go of something first."""
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
        if previous is not None:
            aliases = [alias for alias in record.aliases if alias != previous.value]  # a dead process may have left it
            if owners[previous.user_name] == pid and previous.value != record.user:
                aliases.append(previous.value)
            if set(aliases) != set(record.aliases):
                record = replace(record, aliases=tuple(aliases))
        if resolution.isolate and not record.isolate:
            record = replace(record, isolate=True)
        if rows:
            times = [rows[name].erased for name in entry.all_names() if name in rows and owners[name] == pid]
            erased = max(times, default=0)
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
        take = partial(without, rank=rank, value=value or NOBODY, what=change.what)
        self._taken.append((name, holder, take))
        self._set(holder, take(reading.records[holder]))
        if holder in self._before:
            released = self._released.get(holder, self._before[holder])
            self._released[holder] = take(released)

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
        """
        Write what has changed: what people no longer have, then the rows, then the records with the calls.

        A row is claimed before the record lists the identifier. So a record never has to be corrected after a lost
        claim; and a row whose person does not list it yet is right already, since rows say who has an identifier.
        """
        packed = self._pack({pid: self._reading.records[pid] for pid in self.changed})
        await self._release(store, packed)
        for rank in RANKS:
            await self._claim(store, rank)
        written = await self._commit(store, {pid: packed[pid] for pid in packed if self._is_due(pid)})
        if self._evicted:
            await self._remove_evicted(store)
        await self._detach(store)
        for pid, revision in written.items():
            if not self._reading.records[pid].isolate:
                memory.records[pid] = Remembered(pid, revision, self._reading.records[pid])
        for pid in self._detached:
            memory.records.pop(pid, None)

    def _is_due(self, pid: str) -> bool:
        """Tell whether a record is to be written after the claims: it has lost nothing, and was not written before."""
        return pid not in self.lost and self._released.get(pid) != self._reading.records[pid]

    async def _release(self, store: Store, packed: Mapping[str, Packed]) -> None:
        """
        Write what makes way for claims, without the calls: who loses an identifier, and who is about to claim one.

        The user and the key that somebody is about to claim are in the record first: who finds it by a row that is
        claimed already must see that it is of another person. A new record is a stub and disappears by itself.
        """
        first = {pid: record for pid, record in self._released.items() if pid in packed}
        claiming = {pid for rank, pids in self._claims.values() if rank != ANON for pid in pids}
        for pid in packed:
            new, base = self._reading.records[pid], first.get(pid) or self._before.get(pid)
            if base is None:
                seen = new.first_seen
                base = Record(new.space, first_seen=seen, last_seen=seen, stub=True, isolate=new.isolate)
                first[pid], self._reserved[pid] = reserved(base, new), base
            elif pid in claiming and (base.user, base.aliases, base.key) != (new.user, new.aliases, new.key):
                first[pid], self._reserved[pid] = reserved(base, new), base
        written = await self._commit(store, self._pack(first))
        self._reserved = {pid: base for pid, base in self._reserved.items() if pid in written}

    def _pack(self, records: Mapping[str, Record]) -> dict[str, Packed]:
        """Return records as they are stored, with the next revisions; those that cannot be stored are left out."""
        packed: dict[str, Packed] = {}
        for pid, record in records.items():
            revision = next(self._new_revisions)
            try:
                packed[pid] = Packed(revision, pack(record, revision), record.stub, record.lifetime)
            except UNPACKABLE as error:
                self.unwritable[pid] = unwritable(error)
        return packed

    async def _commit(self, store: Store, packed: Mapping[str, Packed]) -> dict[str, int]:
        """
        Write records by compare-and-set on the revisions known; return the new revision of those written.

        The calls of the others have to be tried again.
        """
        if not packed:
            return {}
        known = self._reading.revisions
        commits = [Commit(pid, known.get(pid, 0), one.stored, one.stub, one.seconds) for pid, one in packed.items()]
        done = zip(commits, await store.commit(commits), strict=True)
        written = {commit.pid: packed[commit.pid].revision for commit, ok in done if ok}
        self.lost |= packed.keys() - written.keys()
        known |= written
        return written

    async def _claim(self, store: Store, rank: int) -> None:
        """Claim the missing rows of one rank; who does not get one has lost."""
        names = []
        for name, (of, pids) in self._claims.items():
            if of != rank:
                continue
            if pids.isdisjoint(self.lost | self.unwritable.keys()):
                names.append(name)
            else:
                self.lost |= pids - self.unwritable.keys()
        claims = [self._claim_of(name) for name in names]
        for name, ok in zip(names, await store.claim(claims) if claims else [], strict=True):
            if ok:
                self._claimed.add(name)
            else:
                self.lost |= self._claims[name][1]

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

    async def _remove_evicted(self, store: Store) -> None:
        """Remove the rows of devices that a record has no room for; they may come again as anybody's."""
        lost = self.lost | self.unwritable.keys()
        gone = {name: one for name, one in self._evicted.items() if one[0] not in lost}
        claims = [Claim(name, owned_by(pid), b"") for name, (pid, _) in gone.items()]
        for claim, ok in zip(claims, await store.claim(claims) if claims else [], strict=True):
            if ok:
                pid, value = gone[claim.name]
                self._reading.owners[claim.name], self._reading.contents[claim.name] = None, None
                self._taken.append((claim.name, pid, partial(without, rank=ANON, value=value, what=SHARE)))
                self._claimed.add(claim.name)

    async def _detach(self, store: Store) -> None:
        """
        Take identifiers from their former owners once more, now that the rows say so.

        Another worker may have read the row before and be about to write the identifier back: writing the record,
        changed or not, makes it lose and look again. One that was merged meanwhile has taken it along: it is taken
        from whom it is part of now.
        """
        todo: dict[str, Taken] = {}
        for name, holder, take in self._taken:
            if name in self._claimed:
                todo.setdefault(holder, {})[name] = take
        for name, (rank, pids) in self._claims.items():
            for pid in pids & self._reserved.keys() if rank != ANON and name not in self._claimed else ():
                base, new = self._reserved[pid], self._reading.records[pid]
                todo.setdefault(pid, {})[name] = partial(unreserved, rank=rank, base=base, new=new)
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

    async def _not_back(self, store: Store, todo: Mapping[str, Taken]) -> dict[str, Taken]:
        """Return what still is to be taken from people: not what their rows give them again, by a merge."""
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
        return Commit(pid, revision, pack(record, next(self._new_revisions)), record.stub, record.lifetime)
