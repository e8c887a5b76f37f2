"""What a round reads of the users table: owners of identifiers, records, and what somebody has left half done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.identity.picture import NOBODY, has_device, has_user, owns_key
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import Record, UnreadableRecord, unpack
from emarsys_cdp.store.rows import OWNED, SHARED, Row, read_row
from emarsys_cdp.worker_memory import Memory

Has: TypeAlias = Callable[[Record, "str | None"], bool]
"""Tells whether an identifier is a record's."""


class Reading:
    """
    The rows and records of some calls, by the remembered owners where all of a call's are one, and read otherwise.

    *contents* are the rows as they were read, *owners* says whose they are, *rows* are those that say more.
    *unfinished* are profiles that no call may be added to before what was begun with them is finished.
    """

    def __init__(self, entries: Sequence[Entry], memory: Memory) -> None:
        self._entries = entries
        self._memory = memory
        self.remembered: list[str] = []
        self.contents: dict[str, bytes | None] = {}
        self.owners: dict[str, str | None] = {}
        self.rows: dict[str, Row] = {}
        self.records: dict[str, Record] = {}
        self.revisions: dict[str, int] = {}
        self.unfinished: set[str] = set()
        self.unreadable: dict[str, str] = {}
        self._doubted: set[str] = set()

    async def read(self, store: Store) -> None:
        """Read everything that the calls need."""
        await self._read_rows(store, self._recall())
        await self._read_records(store)
        stale, again = self._stale(), set[str]()
        while stale:
            again |= set(stale)
            await self._read_rows(store, stale)
            self._doubt(stale)
            await self._read_records(store)
            stale = [name for name in self._stale() if name not in again]
        self._forget_dead_isolates()

    def _recall(self) -> list[str]:
        """Take owners from the memory; return the rows to read: all of a call whose owners are not one person."""
        owners, known = self.owners, self._memory.owners.get
        wanted: dict[str, None] = {}
        for entry in self._entries:
            names = list(entry.all_names())
            found = {known(name) for name in names}
            if entry.previous is not None or len(found) != 1 or None in found:
                wanted |= dict.fromkeys(names)
            for name in names:
                owners[name] = known(name)
        return list(wanted)

    async def _read_rows(self, store: Store, names: Sequence[str]) -> None:
        if not names:
            return
        for name, content in zip(names, await store.read_rows(names), strict=True):
            row = read_row(content)
            self.contents[name] = content
            self.rows.pop(name, None)
            if row is None:
                self.owners[name] = None
            elif row.kind == SHARED:
                self.owners[name] = row.pid or NOBODY
            else:
                self.owners[name] = row.pid if row.kind == OWNED else None
            if row is not None and (row.users or row.erased or row.kind != OWNED):
                self.rows[name] = row

    async def _read_records(self, store: Store) -> None:
        known, missing = self._memory.records, list[str]()
        for pid in dict.fromkeys(self.owners.values()):
            if not pid or pid in self.records or pid in self.unreadable or pid in self.unfinished:
                continue
            remembered = known.get(pid)
            if remembered is None or remembered.record is None or pid in self._doubted:
                missing.append(pid)
            else:
                self.revisions[pid], self.records[pid] = remembered.revision, remembered.record
                self.remembered.append(pid)
        if missing:
            await self._fetch(store, missing)

    async def _fetch(self, store: Store, pids: list[str]) -> None:
        for pid, stored in zip(pids, await store.read_records(pids), strict=True):
            if stored is None:
                continue
            try:
                revision, record = unpack(stored)
            except UnreadableRecord as error:
                self.unreadable[pid] = f"profile {pid}: {error}"
                continue
            if record.tombstones:
                continue  # a row that was claimed while its person was suppressed: it names nobody
            if record.unfinished:
                self.unfinished.add(pid)
            else:
                self.revisions[pid], self.records[pid] = revision, record

    def _stale(self) -> list[str]:
        """
        Return identifiers whose owner, as remembered or as just read, does not have them.

        A record is read after the rows: in between another worker may have taken the identifier away. Rows that were
        not read count as stale as well where they may say that a call is from before an erasure.
        """
        stale: dict[str, None] = {}
        for entry in self._entries:
            ids, previous = entry.ids, entry.previous
            user, key, anon = entry.names
            self._check(stale, entry, user, has_user, ids.user)
            self._check(stale, entry, key, owns_key, ids.key)
            self._check(stale, entry, anon, has_device, ids.anon)
            if previous is not None:
                self._check(stale, entry, previous.user_name, has_user, previous.value)
                self._check(stale, entry, previous.anon_name, has_device, previous.value)
        return list(stale)

    def _doubt(self, stale: Sequence[str]) -> None:
        """Forget remembered records that lack what a row says is theirs: another worker may have given it to them."""
        self._doubted = {pid for name in stale if (pid := self.owners[name])}.intersection(self.remembered)
        for pid in self._doubted:
            self.remembered.remove(pid)
            del self.records[pid], self.revisions[pid]
            self._memory.forget(pid)

    def _check(self, stale: dict[str, None], entry: Entry, name: str | None, has: Has, value: str | None) -> None:
        pid = self.owners[name] if name is not None else None
        if name is None or not pid or pid in self.unfinished or pid in self.unreadable:
            return
        record = self.records.get(pid)
        before = record is not None and entry.event_time <= record.erased and name not in self.contents
        if record is None or before or not has(record, value):
            stale[name] = None

    def _forget_dead_isolates(self) -> None:
        """Take isolates that have expired from their anonymousIds."""
        for name, row in self.rows.items():
            pid = row.pid if row.kind == SHARED else None
            if pid and pid not in self.records and pid not in self.unfinished and pid not in self.unreadable:
                self.owners[name] = NOBODY
