"""What a round changes in the users table, and how it is written: records, then the rows that name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from emarsys_cdp.identity.changes import without
from emarsys_cdp.identity.entries import ANON, KEY, USER, Entry
from emarsys_cdp.identity.folding import MAX_FORMER_KEYS, fold
from emarsys_cdp.identity.picture import NOBODY
from emarsys_cdp.identity.resolution import COUNT, QUARANTINE, RENEW, SHARE, TAKE, Change, Resolution
from emarsys_cdp.reading import Reading
from emarsys_cdp.store import UNCHANGED, Claim, Commit, Store
from emarsys_cdp.store.keys import Namer, owned_by
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.store.record import Record, header, pack, unpack
from emarsys_cdp.store.rows import DAY, OWNED, QUARANTINED, SHARED, Row, read_row
from emarsys_cdp.worker_memory import Memory

MAX_DETACHES = 20
"""Tries to take an identifier from a person whom other workers keep writing."""

RANKS = (USER, KEY, ANON)

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What packing a record raises when a value cannot be stored."""


def unwritable(error: Exception) -> str:
    """Return why the calls of a person cannot be added."""
    return f"a value cannot be stored: {error}"


class Writing:
    """
    The changes of one round over what it has read.

    *changed* are the profiles to write, *claimed* the rows that were set, *lost* the profiles whose calls have to be
    tried again since another worker was faster; *unwritable* says why a profile cannot be stored.
    """

    def __init__(
        self, reading: Reading, revisions: Iterator[int], namer: Namer, lifetimes: LifetimesOf = usual
    ) -> None:
        self._reading = reading
        self._new_revisions = revisions
        self._namer = namer
        self._lifetimes = lifetimes
        self._before: dict[str, Record] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._taken: list[tuple[str, str, int, str, str]] = []
        self._evicted: dict[str, tuple[str, int, str]] = {}
        self._missed: dict[str, set[int]] = {}
        self._renewed: set[str] = set()
        self._detached: set[str] = set()
        self.changed: dict[str, None] = {}
        self.claimed: set[str] = set()
        self.lost: set[str] = set()
        self.unwritable: dict[str, str] = {}

    def add(self, entry: Entry, resolution: Resolution, pid: str) -> None:
        """Add a call to its person."""
        owners, records = self._reading.owners, self._reading.records
        for rank, name in resolution.claims:
            owners[name] = pid
            self._evicted.pop(name, None)
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
        after = self._special(_fitting(after, entry.policy.anon_limit), entry, resolution, pid)
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
        user, user_name = entry.ids.user, entry.names[USER]
        if resolution.rename and user is not None:
            record = replace(record, user=user)
        if user is not None and user != record.user and user_name is not None and owners[user_name] == pid:
            record = _with_alias(record, user)
        if previous is not None and owners[previous.user_name] == pid and previous.value != record.user:
            record = _with_alias(record, previous.value)
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
        if row is not None and row.kind not in (QUARANTINED, SHARED) and owner:
            self._reading.rows[name] = Row(OWNED, owner, row.users, row.erased)

    def _change(self, entry: Entry, change: Change, pid: str) -> None:
        """Change the row of an identifier that somebody else has, and that person's record."""
        reading, name, holder = self._reading, change.name, change.holder
        rank, value = (ANON, entry.ids.anon) if change.what == SHARE else (KEY, entry.ids.key)
        if change.what == RENEW:
            self._renew(entry, name, pid)
            return
        reading.contents.setdefault(name, owned_by(holder))
        row = reading.rows.get(name) or Row(OWNED, holder)
        reading.rows[name] = replace(row, users=change.users)
        if change.what == COUNT:
            self._claim_row(rank, name, {holder, pid})
            return
        if change.what == SHARE:
            reading.rows[name] = Row(SHARED, None, (), row.erased, None, _day(entry))
            self._renewed.add(name)
        if change.what == QUARANTINE:
            reading.rows[name] = Row(QUARANTINED, None, (), row.erased)
        reading.owners[name] = {SHARE: NOBODY, QUARANTINE: None}.get(change.what, pid)
        self._claim_row(rank, name, {holder, pid})
        self._taken.append((name, holder, rank, value or NOBODY, change.what))
        self._set(holder, without(reading.records[holder], rank, value or NOBODY, change.what))

    def _renew(self, entry: Entry, name: str, pid: str) -> None:
        """Let a device be shared for longer: its row is set once more, whether the day is another or not."""
        row = self._reading.rows[name]
        self._reading.rows[name] = replace(row, since=max(row.since, _day(entry)))
        self._renewed.add(name)
        self._claim_row(ANON, name, {pid})

    def _evict(self, before: Record, after: Record, entry: Entry, pid: str) -> None:
        """Note identifiers that the record has no room for: their rows are removed. The call's own may be one."""
        if before.devices is not after.devices:
            left = {device.value for device in before.devices} | {entry.ids.anon}
            for anon in left - {device.value for device in after.devices} - {None}:
                self._leave(entry.space, ANON, anon, pid)
        if before.former_keys is not after.former_keys:
            for key in set(before.former_keys) - {after.key, *after.former_keys}:
                self._leave(entry.space, KEY, key, pid)

    def _leave(self, space: str, rank: int, value: str | None, pid: str) -> None:
        name = self._namer(space, "ka"[rank == ANON], value or NOBODY)
        owners = self._reading.owners
        if owners.get(name, pid) == pid:
            owners[name] = None
            self._reading.contents.setdefault(name, owned_by(pid))
            self._evicted[name] = (pid, rank, value or NOBODY)

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
                memory.remember(pid, revision, records[pid])
        for pid in self._detached:
            memory.forget(pid)

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
            commits.append(Commit(pid, expected, packed, stub, self._lifetimes(record.space).of(record)))
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
                self.claimed.add(name)
            else:
                self._miss(rank, pids)
        return named

    def _claim_of(self, name: str) -> Claim:
        """Return the claim of a row: for its owner of now, or as nobody's."""
        reading = self._reading
        row = reading.rows.get(name)
        pid = self._evicted[name][0] if name in self._evicted else reading.owners[name]
        users, erased = (row.users, row.erased) if row is not None else ((), 0)
        if row is not None and row.kind == QUARANTINED:
            wanted = row
        elif not pid or reading.records[pid].isolate:
            wanted = Row(SHARED, pid or None, (), erased, None, row.since if row is not None else 0)
        else:
            wanted = Row(OWNED, pid, users, erased)
        seconds = 0
        if wanted.kind == SHARED:
            space = reading.records[next(iter(self._claims[name][1]))].space
            seconds = self._lifetimes(space).shared if name in self._renewed else UNCHANGED
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
        """Return a record without the identifiers whose rows it did not get."""
        missed, record = self._missed.get(pid, set()), self._reading.records[pid]
        if USER in missed:
            return before  # the first rank: it has won nothing
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
        """Remove the rows of identifiers that a record has no room for; they may come again as anybody's."""
        gone = {name: one for name, one in self._evicted.items() if one[0] not in self.lost | self.unwritable.keys()}
        names, claims = list(gone), list[Claim]()
        for name, content in zip(names, await store.read_rows(names) if names else [], strict=True):
            row = read_row(content)
            if row is not None and row.kind == OWNED and row.pid == gone[name][0]:
                claims.append(Claim(name, content, row.without_owner()))
        for claim, ok in zip(claims, await store.claim(claims) if claims else [], strict=True):
            if ok:
                pid, rank, value = gone[claim.name]
                self._taken.append((claim.name, pid, rank, value, TAKE))
                self._claims[claim.name] = (rank, {pid})

    async def _detach(self, store: Store) -> None:
        """
        Take identifiers from their former owners once more, now that the rows say so.

        Another worker may have read the row before and be about to write the identifier back: writing the record,
        changed or not, makes it lose and look again.
        """
        todo: dict[str, list[tuple[int, str, str]]] = {}
        for name, holder, rank, value, what in self._taken:
            is_back = self._reading.owners[name] == holder  # a later call of this round has brought it back
            if not is_back and self._claims[name][1].isdisjoint(self.lost):
                todo.setdefault(holder, []).append((rank, value, what))
        self._detached = set(todo)
        for _ in range(MAX_DETACHES):
            if not todo:
                return
            stored = zip(todo, await store.read_records(list(todo)), strict=True)
            commits = [
                self._without(pid, packed, todo[pid])
                for pid, packed in stored
                if packed is not None and packed[:1] == header(0)[:1]
            ]
            done = await store.commit(commits) if commits else []
            failed = {commit.pid for commit, ok in zip(commits, done, strict=True) if not ok}
            todo = {pid: values for pid, values in todo.items() if pid in failed}

    def _without(self, pid: str, stored: bytes, values: list[tuple[int, str, str]]) -> Commit:
        revision, record = unpack(stored)
        for rank, value, what in values:
            record = without(record, rank, value, what)
        record = replace(record, stub=False)
        seconds = self._lifetimes(record.space).of(record)
        return Commit(pid, revision, pack(record, next(self._new_revisions)), seconds=seconds)


def _fitting(record: Record, anon_limit: int) -> Record:
    """Return a record that has grown by a merge with as much as there is room for."""
    if len(record.devices) <= anon_limit and len(record.former_keys) <= MAX_FORMER_KEYS:
        return record
    return replace(record, devices=record.devices[:anon_limit], former_keys=record.former_keys[:MAX_FORMER_KEYS])


def _with_alias(record: Record, user: str) -> Record:
    """Return a record with a further userId."""
    return replace(record, aliases=tuple(dict.fromkeys((*record.aliases, user))))


def _day(entry: Entry) -> int:
    """Return the beginning of the day (ms) of a call."""
    return max(entry.event_time, 0) // DAY * DAY
