"""
One round over the users table: read, compute, write.

A round reads the identifier rows and the records of everybody in it, computes the new records purely, claims missing
identifiers in the order userId, key, anonymousId, and writes the records by compare-and-set. What cannot be done within
a round - a merge, or something that a crash has left half done - is done after it, and the calls that need it are
tried again.

Order matters for a crash, and for others who come in between. Before the rows there is a record that they can name (a
new one as a stub that disappears by itself), with the userId and key that are about to be claimed. The calls are in it
after the rows, so nobody has a call of whose identifiers a claim was lost. A request is answered only after both.
Revisions are counted from a random start by each worker, so a record that the store lost in a fail-over, and that
another worker has written since, never looks like the lost one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.entries import USER, Entry
from emarsys_cdp.identity.picture import NOBODY
from emarsys_cdp.identity.resolution import TAKE, WARNINGS, Resolution, resolve
from emarsys_cdp.merging import Known, Merger
from emarsys_cdp.reading import Reading
from emarsys_cdp.round_changes import Changes
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import HEADER_BYTES, UnreadableRecord, header, profile
from emarsys_cdp.worker_memory import Memory
from emarsys_cdp.writing import UNPACKABLE, Notice, Writing, nobody_asks, unwritable
from emarsys_cdp_hooks import Profile

__all__ = ["UNPACKABLE", "Added", "Round", "find_outdated", "unwritable"]

SHARED_DEVICE = "the device is used by several people, and the call says nothing else of who it is"


class Added(Struct, frozen=True, gc=False):
    """
    A call in the users table: its person of now (None: nobody's), and warnings by their code.

    *failure* says why it could not be added; it costs this call only, and the host sends it again. *filtered* says why
    nothing may be sent for it: the person was erased, or only a shared device is known.
    """

    profile: Profile | None
    warnings: tuple[str, ...] = ()
    failure: str | None = None
    filtered: str | None = None


async def find_outdated(store: Store, revisions: Mapping[str, int]) -> set[str]:
    """Return remembered people who are no longer as remembered; those that are written are checked then."""
    if not revisions:
        return set()
    pids = list(revisions)
    stored = zip(pids, await store.read_records(pids), strict=True)
    return {pid for pid, record in stored if (record or b"")[:HEADER_BYTES] != header(revisions[pid])}


class Round:
    """
    One read, compute, write over the people of some entries.

    *entries* are these, with what was noted of those that have to be tried again.
    """

    def __init__(
        self,
        entries: list[Entry],
        new_pid: Callable[[], str],
        revisions: Iterator[int],
        memory: Memory,
        merger: Merger,
        notice: Notice = nobody_asks,
    ) -> None:
        self.entries = entries
        self._new_pid = new_pid
        self._memory = memory
        self._merger = merger
        self._reading = Reading(entries, memory)
        self._changes = Changes(self._reading, merger.namer)
        self._writing = Writing(self._reading, self._changes, revisions, merger, notice)
        self._held: set[str] = set()
        self._merges: dict[tuple[str, str], list[tuple[int, tuple[str, ...]]]] = {}
        self._resolutions: list[Resolution | Added | None] = []
        self._profiles: dict[str, Profile] = {}

    async def run(self, store: Store) -> list[Added | None]:
        """Return the result of each entry, None for those that have to be tried again."""
        reading, writing, memory = self._reading, self._writing, self._memory
        await reading.read(store)
        self._held |= reading.unfinished
        self._resolutions = [self._apply(index, entry) for index, entry in enumerate(self.entries)]
        relied = {pid for _, pids in self._changes.claims.values() for pid in pids}
        written = self._changes.changed.keys() - relied
        unchanged = {pid: reading.revisions[pid] for pid in reading.remembered if pid not in written}
        outdated = await find_outdated(store, unchanged)
        if outdated:
            memory.learn({}, outdated)
            return [None] * len(self.entries)
        await writing.write(store, memory)
        forget = writing.lost | reading.unfinished | {pid for pair in self._merges for pid in pair}
        forget |= {pid for pid, record in reading.records.items() if record.isolate}
        owners = {name: pid for name, pid in reading.owners.items() if name in reading.contents or pid in forget}
        memory.learn(owners, forget)
        with suppress(UnreadableRecord):  # it costs those who wait for it: their calls are refused for now in the end
            await self._finish()
        return [self._result(index, resolution) for index, resolution in enumerate(self._resolutions)]

    async def _finish(self) -> None:
        """Do what the held calls wait for: finish what was begun by others, then the merges of this round."""
        reading, unwritten = self._reading, self._writing.lost | self._writing.unwritable.keys()
        if reading.unfinished:
            named = [(name, pid) for name, pid in reading.owners.items() if pid in reading.unfinished]
            await self._merger.settle({name: pid for name, pid in named if pid})
        for pair, asked in self._merges.items():
            if unwritten.isdisjoint(pair):
                one, other = (Known(pid, reading.revisions[pid], reading.records[pid]) for pid in pair)
                if await self._merger.merge(one, other):
                    joined = tuple([(known.pid, known.record.user) for known in (one, other)])
                    for index, warnings in asked:
                        self._note(index, warnings, joined)

    def _apply(self, index: int, entry: Entry) -> Resolution | Added | None:
        """
        Fold one entry into the round's picture of the users table; None: it waits for the next round.

        What a call that waits for a merge was warned of is noted in the list of entries.
        """
        reading = self._reading
        owners = reading.owners
        if reading.unreadable:
            for name in entry.all_names():
                pid = owners[name]
                if pid in reading.unreadable:
                    return Added(None, failure=reading.unreadable[pid or NOBODY])
        if self._held and self._waits(entry):
            self._hold(entry)
            return None
        resolution = resolve(entry, owners, reading.records, self._new_pid, self._tag, reading.rows)
        if resolution.merge is not None:
            self._merges.setdefault(resolution.merge, []).append((index, resolution.warnings))
            self._held |= set(resolution.merge)
            self._hold(entry)
            return None
        if resolution.pid is not None:
            self._changes.add(entry, resolution, resolution.pid)
        if entry.previous is not None and entry.previous.warning is not None:
            resolution = replace(resolution, warnings=(entry.previous.warning, *resolution.warnings))
        return resolution

    def _note(self, index: int, warnings: tuple[str, ...], joined: tuple[tuple[str, str | None], ...] = ()) -> None:
        """Note for a call that is tried again what it has done already and what it was warned of then."""
        entry = self.entries[index]
        warned = tuple(dict.fromkeys((*entry.warned, *warnings)))
        self.entries[index] = replace(entry, warned=warned, joined=(*entry.joined, *joined))

    def _done(self, index: int, resolution: Resolution) -> tuple[str, ...]:
        """Return those warnings of a call that has lost whose cause is gone, since that part of it was written."""
        claimed, released = self._writing.claimed, self._writing.released
        done = {
            WARNINGS.get(one.what)
            for one in resolution.changes
            if one.name in claimed or (one.what == TAKE and one.holder in released)
        }
        merges = self.entries[index].policy.on_key_shared == "merge"
        if merges and any(rank == USER and name in claimed for rank, name in resolution.claims):
            done.add("key_shared")  # the new user of the key is another's name from now on
        return tuple([code for code in resolution.warnings if code in done])

    def _tag(self, space: str, user: str) -> str:
        return self._merger.tag(space, user)

    def _waits(self, entry: Entry) -> bool:
        """Tell whether a call is about people or identifiers of one that waits: it must not overtake."""
        owners = self._reading.owners
        return any(name in self._held or owners[name] in self._held for name in entry.all_names())

    def _hold(self, entry: Entry) -> None:
        for name in entry.all_names():
            self._held.add(name)
            pid = self._reading.owners[name]
            if pid:
                self._held.add(pid)

    def _result(self, index: int, resolution: Resolution | Added | None) -> Added | None:
        if resolution is None or isinstance(resolution, Added):
            return resolution
        pid, warnings, writing = resolution.pid, resolution.warnings, self._writing
        if pid is None:
            return Added(None, warnings, filtered=resolution.dropped)
        if pid in writing.unwritable:
            return Added(None, warnings, writing.unwritable[pid])
        if pid in writing.lost:
            self._note(index, self._done(index, resolution))
            return None
        person = self._profiles.get(pid)
        if person is None:
            person = self._profiles[pid] = profile(pid, self._reading.records[pid])
        return Added(person, warnings, filtered=SHARED_DEVICE if resolution.isolate else None)
