"""What the calls of a round change in the users table: records, rows, and identifiers that others lose. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from emarsys_cdp.identity.changes import without, without_user
from emarsys_cdp.identity.entries import ANON, KEY, USER, Entry
from emarsys_cdp.identity.folding import MAX_FORMER_KEYS, fold
from emarsys_cdp.identity.picture import NOBODY
from emarsys_cdp.identity.resolution import COUNT, QUARANTINE, RENEW, SHARE, Change, Resolution
from emarsys_cdp.identity.ruling import with_rules
from emarsys_cdp.reading import Reading
from emarsys_cdp.store.keys import Namer, owned_by
from emarsys_cdp.store.record import Record
from emarsys_cdp.store.rows import DAY, OWNED, QUARANTINED, SHARED, Row


class Changes:
    """
    The changes of one round over what it has read.

    *changed* are the profiles to write, *before* their records as they were read, *released* those that others have
    without what they lose. *claims* are rows to set: by name the rank and the profiles whose calls need it. *taken* are
    (row name, profile, what takes the identifier out of its record). *evicted* are rows to remove, for which a record
    has no room: (profile, rank, value). *renewed* are rows whose lifetime begins anew.
    """

    def __init__(self, reading: Reading, namer: Namer) -> None:
        self._reading = reading
        self._namer = namer
        self.changed: dict[str, None] = {}
        self.before: dict[str, Record] = {}
        self.released: dict[str, Record] = {}
        self.claims: dict[str, tuple[int, set[str]]] = {}
        self.taken: list[tuple[str, str, Callable[[Record], Record]]] = []
        self.evicted: dict[str, tuple[str, int, str]] = {}
        self.renewed: set[str] = set()

    def add(self, entry: Entry, resolution: Resolution, pid: str) -> None:
        """Add a call to its person."""
        owners, records = self._reading.owners, self._reading.records
        for rank, name in resolution.claims:
            holder, owners[name] = owners[name], pid
            self.evicted.pop(name, None)
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
        after = self._special(_fitting(after, entry.policy.anon_limit), entry, resolution, pid)
        if entry.ruled is not None or after.book is not None:
            after = with_rules(before, after, entry.space, entry.ruled)
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
        if holder in self.before:
            self.released.setdefault(holder, self.before[holder])
        previous = entry.previous
        value = previous.value if previous is not None and name == previous.user_name else entry.ids.user
        self.taken.append((name, holder, partial(without_user, value=value)))
        return (holder,)

    def _set(self, pid: str, record: Record) -> None:
        """Change a record in the picture; the one before is kept for who has to let go of something first."""
        before = self._reading.records.get(pid)
        if before is not None and pid not in self.changed:
            self.before[pid] = before
        self._reading.records[pid] = record
        self.changed[pid] = None

    def _special(self, record: Record, entry: Entry, resolution: Resolution, pid: str) -> Record:
        """Return the record with what only few calls bring: an alias, another userId, an isolate, an erasure before."""
        rows, owners = self._reading.rows, self._reading.owners
        if resolution.rename and entry.ids.user is not None:
            record = replace(record, user=entry.ids.user)
        record = self._with_aliases(record, entry, pid)
        if resolution.isolate and not record.isolate:
            record = replace(record, isolate=True)
        if rows:
            times = [rows[name].erased for name in entry.all_names() if name in rows and owners[name] == pid]
            erased = max(times, default=0)
            if erased > record.erased:
                record = replace(record, erased=erased)
        return record

    def _with_aliases(self, record: Record, entry: Entry, pid: str) -> Record:
        """Return the record with those userIds as aliases that the call says are this person's, and whose rows are."""
        owners, previous = self._reading.owners, entry.previous
        user, user_name = entry.ids.user, entry.names[USER]
        aliases = dict.fromkeys(record.aliases)
        if user is not None and user != record.user and user_name is not None and owners[user_name] == pid:
            aliases[user] = None
        if previous is not None and owners[previous.user_name] != pid:
            aliases.pop(previous.value, None)  # a dead process may have left it
        elif previous is not None and previous.value != record.user:
            aliases[previous.value] = None
        return record if tuple(aliases) == record.aliases else replace(record, aliases=tuple(aliases))

    def _claim_row(self, rank: int, name: str, pids: set[str]) -> None:
        known = self.claims.get(name)
        self.claims[name] = (rank, pids if known is None else known[1] | pids)
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
            self.renewed.add(name)
        if change.what == QUARANTINE:
            reading.rows[name] = Row(QUARANTINED, None, (), row.erased)
        reading.owners[name] = {SHARE: NOBODY, QUARANTINE: None}.get(change.what, pid)
        self._claim_row(rank, name, {holder, pid})
        self._take(name, holder, partial(without, rank=rank, value=value or NOBODY, what=change.what))

    def _take(self, name: str, holder: str, take: Callable[[Record], Record]) -> None:
        """Take an identifier from who has had it."""
        self.taken.append((name, holder, take))
        self._set(holder, take(self._reading.records[holder]))
        if holder in self.before:
            self.released[holder] = take(self.released.get(holder, self.before[holder]))

    def _renew(self, entry: Entry, name: str, pid: str) -> None:
        """Let a device be shared for longer: its row is set once more, whether the day is another or not."""
        row = self._reading.rows[name]
        self._reading.rows[name] = replace(row, since=max(row.since, _day(entry)))
        self.renewed.add(name)
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
            self.evicted[name] = (pid, rank, value or NOBODY)


def _fitting(record: Record, anon_limit: int) -> Record:
    """Return a record that has grown by a merge with as much as there is room for."""
    if len(record.devices) <= anon_limit and len(record.former_keys) <= MAX_FORMER_KEYS:
        return record
    return replace(record, devices=record.devices[:anon_limit], former_keys=record.former_keys[:MAX_FORMER_KEYS])


def _day(entry: Entry) -> int:
    """Return the beginning of the day (ms) of a call."""
    return max(entry.event_time, 0) // DAY * DAY
