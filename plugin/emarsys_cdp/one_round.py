"""
One round over the users table: read, compute, write.

A round reads the identifier rows and the records of everybody in it, computes the new records purely, writes them
by compare-and-set, and then claims missing identifiers in the order userId, key, anonymousId.

Order matters for a crash: a record is written before the rows that name it (a new one as a stub that disappears by
itself), and a request is answered only after both. Revisions are counted from a random start by each worker, so a
record that the store lost in a fail-over, and that another worker has written since, never looks like the lost one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.folding import fold
from emarsys_cdp.identity.resolution import (
    ANON,
    KEY,
    NOBODY,
    USER,
    Entry,
    Resolution,
    has_device,
    has_key,
    live_owner,
    resolve,
)
from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import SHARED, owned_by, owner
from emarsys_cdp.store.record import HEADER_BYTES, Record, UnreadableRecord, header, pack, profile, unpack
from emarsys_cdp.worker_memory import Memory, Remembered
from emarsys_cdp_hooks import Profile

MAX_DETACHES = 20
"""Tries to take a shared device from a person whom other workers keep writing."""

RANKS = (USER, KEY, ANON)

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What packing a record raises when a value cannot be stored."""


class Added(Struct, frozen=True, gc=False):
    """
    A call in the users table: its person of now (None: nobody's), and warnings by their code.

    *failure* says why it could not be added; it costs this call only, and the host sends it again.
    """

    profile: Profile | None
    warnings: tuple[str, ...] = ()
    failure: str | None = None


async def find_outdated(store: Store, revisions: Mapping[str, int]) -> set[str]:
    """Return remembered people who are no longer as remembered; those that are written are checked then."""
    if not revisions:
        return set()
    pids = list(revisions)
    stored = zip(pids, await store.read_records(pids), strict=True)
    return {pid for pid, record in stored if (record or b"")[:HEADER_BYTES] != header(revisions[pid])}


def unwritable(error: Exception) -> str:
    """Return why the calls of a person cannot be added."""
    return f"a value cannot be stored: {error}"


class Round:
    """One read, compute, write over the people of some entries."""

    def __init__(
        self, entries: list[Entry], new_pid: Callable[[], str], revisions: Iterator[int], memory: Memory
    ) -> None:
        self._entries = entries
        self._new_pid = new_pid
        self._new_revisions = revisions
        self._memory = memory
        self._remembered: list[str] = []
        self._contents: dict[str, bytes | None] = {}
        self._owners: dict[str, str | None] = {}
        self._records: dict[str, Record] = {}
        self._before: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._unreadable: dict[str, str] = {}
        self._unwritable: dict[str, str] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._shared: list[tuple[str, str, str]] = []
        self._detached: set[str] = set()
        self._lost: set[str] = set()
        self._missed: dict[str, set[int]] = {}
        self._resolutions: list[Resolution | Added] = []
        self._profiles: dict[str, Profile] = {}

    async def run(self, store: Store) -> list[Added | None]:
        """Return the result of each entry, None for those that have to be tried again."""
        await self._read(store)
        self._resolutions = [self._apply(entry) for entry in self._entries]
        unchanged = {pid: self._revisions[pid] for pid in self._remembered if pid not in self._changed}
        outdated = await find_outdated(store, unchanged)
        if outdated:
            self._memory.learn({}, outdated)
            return [None] * len(self._entries)
        await self._write(store)
        self._memory.learn({name: self._owners[name] for name in self._contents}, self._lost)
        return [self._result(resolution) for resolution in self._resolutions]

    async def _read(self, store: Store) -> None:
        """Read everybody's record, by the remembered owners where there are some and the rows otherwise."""
        owners, known = self._owners, self._memory.owners.get
        for entry in self._entries:
            for name in entry.names:
                if name is not None:
                    owners[name] = known(name)
        await self._read_rows(store, [name for name, pid in owners.items() if pid is None])
        await self._read_records(store)
        stale = self._stale()
        if stale:
            await self._read_rows(store, stale)
            await self._read_records(store)

    async def _read_rows(self, store: Store, names: list[str]) -> None:
        if names:
            for name, content in zip(names, await store.read_rows(names), strict=True):
                self._contents[name] = content
                self._owners[name] = NOBODY if content == SHARED else owner(content)

    async def _read_records(self, store: Store) -> None:
        known, missing = self._memory.records, list[str]()
        for pid in dict.fromkeys(self._owners.values()):
            if not pid or pid in self._records or pid in self._unreadable:
                continue
            remembered = known.get(pid)
            if remembered is None:
                missing.append(pid)
            else:
                self._revisions[pid], self._records[pid] = remembered.revision, remembered.record
                self._remembered.append(pid)
        if missing:
            await self._fetch(store, missing)

    async def _fetch(self, store: Store, pids: list[str]) -> None:
        for pid, stored in zip(pids, await store.read_records(pids), strict=True):
            if stored is not None:
                try:
                    self._revisions[pid], self._records[pid] = unpack(stored)
                except UnreadableRecord as error:
                    self._unreadable[pid] = f"profile {pid}: {error}"

    def _stale(self) -> list[str]:
        """
        Return identifiers whose owner, as remembered or as just read, does not have them.

        A record is read after the rows: in between another worker may have taken the identifier away.
        """
        stale: dict[str, None] = {}
        owners, records = self._owners, self._records
        for entry in self._entries:
            user, key, anon = entry.names
            ids = entry.ids
            if user is not None and (pid := owners[user]):
                record = records.get(pid)
                if record is None or record.user != ids.user:
                    stale[user] = None
            if key is not None and (pid := owners[key]):
                record = records.get(pid)
                if record is None or not has_key(record, ids.key):
                    stale[key] = None
            if anon is not None and (pid := owners[anon]):
                record = records.get(pid)
                if record is None or not has_device(record, ids.anon):
                    stale[anon] = None
        return list(stale)

    def _apply(self, entry: Entry) -> Resolution | Added:
        """Fold one entry into the round's picture of the users table."""
        owners = self._owners
        if self._unreadable:
            for name in entry.names:
                pid = owners[name] if name is not None else None
                if pid in self._unreadable:
                    return Added(None, failure=self._unreadable[pid or NOBODY])
        resolution = resolve(entry, owners, self._records, self._new_pid)
        pid = resolution.pid
        if pid is None:
            return resolution
        for rank, name in resolution.claims:
            owners[name] = pid
            self._claims[name] = (rank, {pid})
        if resolution.shared:
            self._share(entry, pid)
        before = self._records.get(pid)
        _, key_name, anon_name = entry.names
        after = fold(
            before,
            entry,
            owns_anon=anon_name is not None and owners[anon_name] == pid,
            owns_key=key_name is not None and owners[key_name] == pid,
        )
        if after != before:
            if before is not None and pid not in self._changed:
                self._before[pid] = before
            self._records[pid] = after
            self._changed[pid] = None
        return resolution

    def _share(self, entry: Entry, pid: str) -> None:
        """Take an anonymousId away from the person who had it: from now on it is nobody's."""
        name = entry.names[ANON]
        holder = live_owner(name, self._owners, self._records)
        if name is None or holder is None:
            return
        self._contents.setdefault(name, owned_by(holder))
        self._shared.append((name, holder, entry.ids.anon or NOBODY))
        self._owners[name] = NOBODY
        self._claims[name] = (ANON, {holder, pid})
        record = self._records[holder]
        self._before.setdefault(holder, record)
        kept = tuple([device for device in record.devices if device.value != entry.ids.anon])
        self._records[holder] = replace(record, devices=kept)
        self._changed[holder] = None

    async def _write(self, store: Store) -> None:
        """Write the records, claim the rows that name them, and put right what a lost claim has made wrong."""
        written = await self._commit(store, {pid: self._records[pid] for pid in self._changed})
        self._lost = self._changed.keys() - written.keys() - self._unwritable.keys()
        if self._claims:
            named: set[str] = set()
            for rank in RANKS:
                named |= await self._claim(store, rank)
            written |= await self._commit(store, self._corrections(written, named))
            await self._detach(store)
        remember, records = self._memory.records, self._records
        for pid, revision in written.items():
            if pid not in self._lost:
                remember[pid] = Remembered(pid, revision, records[pid])
        for pid in self._detached:
            remember.pop(pid, None)

    async def _commit(self, store: Store, records: Mapping[str, Record]) -> dict[str, int]:
        """Write records by compare-and-set on the revisions known; return the new revision of those written."""
        commits, revisions = list[Commit](), dict[str, int]()
        for pid, record in records.items():
            expected, revision = self._revisions.get(pid, 0), next(self._new_revisions)
            stub = expected == 0
            try:
                packed = pack(replace(record, stub=True) if stub else record, revision)
            except UNPACKABLE as error:
                self._unwritable[pid] = unwritable(error)
                continue
            commits.append(Commit(pid, expected, packed, stub))
            revisions[pid] = revision
        if not commits:
            return {}
        done = zip(commits, await store.commit(commits), strict=True)
        written = {commit.pid: revisions[commit.pid] for commit, ok in done if ok}
        self._revisions |= written
        return written

    async def _detach(self, store: Store) -> None:
        """
        Take shared devices from their former owners once more, now that the rows say so.

        Another worker may have read the row before and be about to write the device back: writing the record, changed
        or not, makes it lose and look again.
        """
        todo: dict[str, set[str]] = {}
        for name, holder, anon in self._shared:
            if self._claims[name][1].isdisjoint(self._lost):
                todo.setdefault(holder, set()).add(anon)
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
            todo = {pid: anons for pid, anons in todo.items() if pid in failed}

    def _without(self, pid: str, stored: bytes, anons: set[str]) -> Commit:
        revision, record = unpack(stored)
        kept = tuple([device for device in record.devices if device.value not in anons])
        return Commit(pid, revision, pack(replace(record, devices=kept, stub=False), next(self._new_revisions)))

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
                records[pid] = self._corrected(pid, Record(self._records[pid].space))
        return records

    def _corrected(self, pid: str, before: Record) -> Record:
        """Return a record without the identifiers whose rows it did not get."""
        missed, record = self._missed.get(pid, set()), self._records[pid]
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
            )
        return replace(record, devices=before.devices) if ANON in missed else record

    async def _claim(self, store: Store, rank: int) -> set[str]:
        """Claim the missing rows of one rank; return the profiles that got one."""
        names = []
        for name, (of, pids) in self._claims.items():
            if of != rank:
                continue
            if pids.isdisjoint(self._lost | self._unwritable.keys()):
                names.append(name)
            else:
                self._miss(rank, pids)
        if not names:
            return set()
        named: set[str] = set()
        claims = [Claim(name, self._contents[name], self._content(name)) for name in names]
        for name, ok in zip(names, await store.claim(claims), strict=True):
            pids = self._claims[name][1]
            if ok:
                named |= pids
            else:
                self._miss(rank, pids)
        return named

    def _miss(self, rank: int, pids: set[str]) -> None:
        """Note that profiles did not get a row of this rank: their calls are tried again."""
        for pid in pids - self._unwritable.keys():
            self._lost.add(pid)
            self._missed.setdefault(pid, set()).add(rank)

    def _content(self, name: str) -> bytes:
        pid = self._owners[name]
        return owned_by(pid) if pid else SHARED

    def _result(self, resolution: Resolution | Added) -> Added | None:
        if isinstance(resolution, Added):
            return resolution
        pid, warnings = resolution.pid, resolution.warnings
        if pid is None:
            return Added(None, warnings)
        if pid in self._unwritable:
            return Added(None, warnings, self._unwritable[pid])
        if pid in self._lost:
            return None
        person = self._profiles.get(pid)
        if person is None:
            person = self._profiles[pid] = profile(pid, self._records[pid])
        return Added(person, warnings)
