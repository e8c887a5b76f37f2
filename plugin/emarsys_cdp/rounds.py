"""
Group commit: all calls that arrive while a round trip to the store is in flight form the next round.

A round reads the identifier rows and the records of everybody in it, computes the new records purely, writes them
by compare-and-set, and then claims missing identifiers in the order userId, key, anonymousId. What another worker
changed meanwhile, or claimed first, goes into the next round. So one busy person never starves the others, and two
workers never overwrite each other.

Order matters for a crash: the record is written before the rows that name it (a new one as a stub that disappears
by itself), and a request is answered only after both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    live_owner,
    resolve,
)
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import SHARED, owned_by, owner
from emarsys_cdp.store.record import HEADER_BYTES, Record, UnreadableRecord, header, pack, profile, unpack
from emarsys_cdp_hooks import Profile

MAX_CALLS = 2000
"""Calls of one round."""

MAX_TRIES = 200
"""Rounds that a call may lose against other workers before its request is refused for now."""

MAX_OWNERS = 200_000
"""Owners of identifiers that a worker remembers; about 200 bytes each."""

RANKS = (USER, KEY, ANON)

MAX_RECORDS = 10_000
"""Records that a worker remembers; about 1.5 KB each."""

Jitter = Callable[[int], float]
"""Number of lost tries to seconds to wait."""


class Added(Struct, frozen=True, gc=False):
    """
    A call in the users table: its person of now (None: nobody's), and warnings by their code.

    *failure* says why it could not be added; it costs this call only, and the host sends it again.
    """

    profile: Profile | None
    warnings: tuple[str, ...] = ()
    failure: str | None = None


class _Waiting(Struct):
    """A request in the queue: its entries, the results so far, and who waits for them."""

    entries: Sequence[Entry]
    done: asyncio.Future[list[Added]]


class Rounds:
    """
    The users table of all spaces, for one worker.

    *new_pid* makes profile ids, *jitter* spreads the tries of several workers. Without *memory* it has one of the
    usual size.
    """

    def __init__(self, store: Store, new_pid: Callable[[], str], jitter: Jitter, memory: Memory | None = None) -> None:
        self._store = store
        self._new_pid = new_pid
        self._jitter = jitter
        self._memory = memory or Memory()
        self._queue: deque[_Waiting] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def add(self, entries: Sequence[Entry]) -> list[Added]:
        """
        Add calls to the users table and return the person of each, after all of them.

        Raises:
            StoreUnavailable: the store cannot be read or written; some of the calls may have been added, which
                does no harm when they come again.

        """
        if not entries:
            return []
        waiting = _Waiting(entries, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await waiting.done

    async def _run(self) -> None:
        while self._queue:
            group = self._next_group()
            try:
                results = await self._settle([entry for waiting in group for entry in waiting.entries])
            except Exception as error:  # noqa: BLE001 - whoever waits has to learn of it, whatever it is
                for waiting in group:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
                continue
            position = 0
            for waiting in group:
                end = position + len(waiting.entries)
                if not waiting.done.done():
                    waiting.done.set_result(results[position:end])
                position = end

    def _next_group(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        size = len(group[0].entries)
        while self._queue and size + len(self._queue[0].entries) <= MAX_CALLS:
            group.append(self._queue.popleft())
            size += len(group[-1].entries)
        return group

    async def _settle(self, entries: list[Entry]) -> list[Added]:
        """Run rounds until every entry is in."""
        results: list[Added | None] = [None] * len(entries)
        todo = list(range(len(entries)))
        for attempt in range(MAX_TRIES):
            round_ = _Round([entries[index] for index in todo], self._new_pid, self._memory)
            for index, added in zip(todo, await round_.run(self._store), strict=True):
                results[index] = added
            todo = [index for index in todo if results[index] is None]
            if not todo:
                return [added for added in results if added is not None]
            await asyncio.sleep(self._jitter(attempt))
        raise StoreUnavailable(f"{len(todo)} calls lost {MAX_TRIES} times against other workers")


class Memory:
    """
    What this worker has seen last: owners of identifiers, and records with their revision.

    All of it is a hint. A remembered owner counts when the profile's own record still has the identifier; a
    remembered record counts when the store still has its revision, which a commit checks anyway.
    """

    def __init__(self, owners: int = MAX_OWNERS, records: int = MAX_RECORDS) -> None:
        self._limits = (owners, records)
        self.owners: dict[str, str] = {}
        self.records: dict[str, tuple[int, Record]] = {}

    def learn(self, owners: Mapping[str, str | None], lost: set[str]) -> None:
        """Remember owners that were read, and forget what another worker has changed."""
        for name, pid in owners.items():
            if pid and pid not in lost:
                self.owners[name] = pid
            else:
                self.owners.pop(name, None)
        for pid in lost:
            self.records.pop(pid, None)
        _trim(self.owners, self._limits[0])
        _trim(self.records, self._limits[1])


def _trim(known: dict[str, Any], limit: int) -> None:
    while len(known) > limit:
        del known[next(iter(known))]


class _Round:
    """One read, compute, write over the people of some entries."""

    def __init__(self, entries: list[Entry], new_pid: Callable[[], str], memory: Memory) -> None:
        self._entries = entries
        self._new_pid = new_pid
        self._memory = memory
        self._remembered: list[str] = []
        self._contents: dict[str, bytes | None] = {}
        self._owners: dict[str, str | None] = {}
        self._records: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._unreadable: dict[str, str] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._lost: set[str] = set()
        self._resolutions: list[Resolution | Added] = []
        self._profiles: dict[str, Profile] = {}

    async def run(self, store: Store) -> list[Added | None]:
        """Return the result of each entry, None for those that have to be tried again."""
        await self._read(store)
        self._resolutions = [self._apply(entry) for entry in self._entries]
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
                self._revisions[pid], self._records[pid] = remembered
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

    async def _verify(self, store: Store) -> None:
        """Look whether remembered records that nothing was written to are still those of the store."""
        pids = [pid for pid in self._remembered if pid not in self._changed]
        if not pids:
            return
        for pid, stored in zip(pids, await store.read_records(pids), strict=True):
            if stored is None or stored[:HEADER_BYTES] != header(self._revisions[pid]):
                self._lost.add(pid)

    def _stale(self) -> list[str]:
        """Return identifiers whose remembered owner does not have them any more."""
        stale: dict[str, None] = {}
        owners, records, contents = self._owners, self._records, self._contents
        for entry in self._entries:
            user, key, anon = entry.names
            ids = entry.ids
            if user is not None and user not in contents:
                record = records.get(owners[user] or NOBODY)
                if record is None or record.user != ids.user:
                    stale[user] = None
            if key is not None and key not in contents:
                record = records.get(owners[key] or NOBODY)
                if record is None or not (record.key == ids.key or ids.key in record.former_keys):
                    stale[key] = None
            if anon is not None and anon not in contents:
                record = records.get(owners[anon] or NOBODY)
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
        self._owners[name] = NOBODY
        self._claims[name] = (ANON, {holder, pid})
        record = self._records[holder]
        kept = tuple([device for device in record.devices if device.value != entry.ids.anon])
        self._records[holder] = replace(record, devices=kept)
        self._changed[holder] = None

    async def _write(self, store: Store) -> None:
        await self._verify(store)
        changed = list(self._changed)
        if changed:
            written = await store.commit([self._commit(pid) for pid in changed])
            self._lost |= {pid for pid, ok in zip(changed, written, strict=True) if not ok}
        if self._claims:
            await self._claim_all(store, changed)
        remember, records = self._memory.records, self._records
        for pid in changed:
            if pid not in self._lost:
                remember[pid] = (self._revisions.get(pid, 0) + 1, records[pid])

    async def _claim_all(self, store: Store, changed: list[str]) -> None:
        """Claim missing rows, strongest identifier first; what is named now is kept."""
        for rank in RANKS:
            await self._claim(store, rank)
        kept = [pid for pid in changed if pid not in self._revisions and pid not in self._lost]
        if kept:
            await store.keep(kept)

    def _commit(self, pid: str) -> Commit:
        revision = self._revisions.get(pid, 0)
        return Commit(pid, revision, pack(self._records[pid], revision + 1), revision == 0)

    async def _claim(self, store: Store, rank: int) -> None:
        names = [name for name, (of, pids) in self._claims.items() if of == rank and pids.isdisjoint(self._lost)]
        if not names:
            return
        claims = [Claim(name, self._contents[name], self._content(name)) for name in names]
        for name, ok in zip(names, await store.claim(claims), strict=True):
            if not ok:
                self._lost |= self._claims[name][1]

    def _content(self, name: str) -> bytes:
        pid = self._owners[name]
        return owned_by(pid) if pid else SHARED

    def _result(self, resolution: Resolution | Added) -> Added | None:
        if isinstance(resolution, Added):
            return resolution
        pid, warnings = resolution.pid, resolution.warnings
        if pid is None:
            return Added(None, warnings)
        if pid in self._lost:
            return None
        person = self._profiles.get(pid)
        if person is None:
            person = self._profiles[pid] = profile(pid, self._records[pid])
        return Added(person, warnings)
