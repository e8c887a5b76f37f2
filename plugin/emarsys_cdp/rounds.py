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
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.folding import fold
from emarsys_cdp.identity.resolution import ANON, KEY, USER, Entry, Resolution, live_owner, resolve
from emarsys_cdp.store import Claim, Commit, Store, StoreUnavailable
from emarsys_cdp.store.keys import SHARED, owned_by, owner
from emarsys_cdp.store.record import Record, UnreadableRecord, pack, profile, unpack
from emarsys_cdp_hooks import Profile

MAX_CALLS = 2000
"""Calls of one round."""

MAX_TRIES = 200
"""Rounds that a call may lose against other workers before its request is refused for now."""

Jitter = Callable[[int], float]
"""Number of lost tries to seconds to wait."""


class Added(Struct, frozen=True):
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

    *new_pid* makes profile ids, *jitter* spreads the tries of several workers.
    """

    def __init__(self, store: Store, new_pid: Callable[[], str], jitter: Jitter) -> None:
        self._store = store
        self._new_pid = new_pid
        self._jitter = jitter
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
            round_ = _Round([entries[index] for index in todo], self._new_pid)
            for index, added in zip(todo, await round_.run(self._store), strict=True):
                results[index] = added
            todo = [index for index in todo if results[index] is None]
            if not todo:
                return [added for added in results if added is not None]
            await asyncio.sleep(self._jitter(attempt))
        raise StoreUnavailable(f"{len(todo)} calls lost {MAX_TRIES} times against other workers")


class _Round:
    """One read, compute, write over the people of some entries."""

    def __init__(self, entries: list[Entry], new_pid: Callable[[], str]) -> None:
        self._entries = entries
        self._new_pid = new_pid
        self._rows: dict[str, bytes | None] = {}
        self._read_rows: dict[str, bytes | None] = {}
        self._records: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._changed: set[str] = set()
        self._unreadable: dict[str, str] = {}
        self._claims: dict[str, tuple[int, set[str]]] = {}
        self._lost: set[str] = set()
        self._resolutions: list[Resolution | Added] = []

    async def run(self, store: Store) -> list[Added | None]:
        """Return the result of each entry, None for those that have to be tried again."""
        await self._read(store)
        self._resolutions = [self._apply(entry) for entry in self._entries]
        await self._write(store)
        return [self._result(resolution) for resolution in self._resolutions]

    async def _read(self, store: Store) -> None:
        names = list({name: None for entry in self._entries for name in entry.names if name is not None})
        if names:
            self._rows = dict(zip(names, await store.read_rows(names), strict=True))
            self._read_rows = dict(self._rows)
        pids = list({pid: None for row in self._rows.values() if (pid := owner(row)) is not None})
        if not pids:
            return
        for pid, stored in zip(pids, await store.read_records(pids), strict=True):
            if stored is not None:
                try:
                    self._revisions[pid], self._records[pid] = unpack(stored)
                except UnreadableRecord as error:
                    self._unreadable[pid] = f"profile {pid}: {error}"

    def _apply(self, entry: Entry) -> Resolution | Added:
        """Fold one entry into the round's picture of the users table."""
        if self._unreadable:
            for name in entry.names:
                pid = owner(self._rows[name]) if name is not None else None
                if pid in self._unreadable:
                    return Added(None, failure=self._unreadable[pid])
        resolution = resolve(entry, self._rows, self._records, self._new_pid)
        pid = resolution.pid
        if pid is None:
            return resolution
        for rank, name in resolution.claims:
            self._rows[name] = owned_by(pid)
            self._claims[name] = (rank, {pid})
        if resolution.shared:
            self._share(entry, pid)
        before = self._records.get(pid)
        rows, (_, key_name, anon_name) = self._rows, entry.names
        after = fold(
            before,
            entry,
            owns_anon=anon_name is not None and owner(rows[anon_name]) == pid,
            owns_key=key_name is not None and owner(rows[key_name]) == pid,
        )
        if after != before:
            self._records[pid] = after
            self._changed.add(pid)
        return resolution

    def _share(self, entry: Entry, pid: str) -> None:
        """Take an anonymousId away from the person who had it: from now on it is nobody's."""
        name = entry.names[ANON]
        holder = live_owner(name, self._rows, self._records)
        if name is None or holder is None:
            return
        self._rows[name] = SHARED
        self._claims[name] = (ANON, {holder, pid})
        record = self._records[holder]
        kept = tuple([device for device in record.devices if device.value != entry.ids.anon])
        self._records[holder] = replace(record, devices=kept)
        self._changed.add(holder)

    async def _write(self, store: Store) -> None:
        changed = sorted(self._changed)
        new = [pid for pid in changed if pid not in self._revisions]
        if changed:
            written = await store.commit([self._commit(pid) for pid in changed])
            self._lost = {pid for pid, ok in zip(changed, written, strict=True) if not ok}
        for rank in (USER, KEY, ANON):
            await self._claim(store, rank)
        kept = [pid for pid in new if pid not in self._lost]
        if kept:
            await store.keep(kept)

    def _commit(self, pid: str) -> Commit:
        revision = self._revisions.get(pid, 0)
        return Commit(pid, revision, pack(self._records[pid], revision + 1), stub=revision == 0)

    async def _claim(self, store: Store, rank: int) -> None:
        names = [
            name
            for name, (of, pids) in self._claims.items()
            if of == rank and pids.isdisjoint(self._lost)
        ]
        if not names:
            return
        claims = [Claim(name, self._read_rows[name], self._rows[name] or b"") for name in names]
        for name, ok in zip(names, await store.claim(claims), strict=True):
            if not ok:
                self._lost |= self._claims[name][1]

    def _result(self, resolution: Resolution | Added) -> Added | None:
        if isinstance(resolution, Added):
            return resolution
        if resolution.pid is None:
            return Added(None, resolution.warnings)
        if resolution.pid in self._lost:
            return None
        return Added(profile(resolution.pid, self._records[resolution.pid]), resolution.warnings)

