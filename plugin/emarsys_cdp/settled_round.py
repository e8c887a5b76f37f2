"""
A round over people whom the worker remembers: nearly all rounds.

When everybody's identifiers and record are remembered and agree, nothing has to be read, resolved or claimed: the calls
are folded into the records, and the compare-and-set of each record tells when the memory is wrong. The results are
those of `one_round.Round`, at a fraction of its price.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.identity.folding import fold
from emarsys_cdp.identity.ruling import wake_change, with_rules
from emarsys_cdp.one_round import UNPACKABLE, Added, find_outdated, unwritable
from emarsys_cdp.store import Commit, Store
from emarsys_cdp.store.lifetimes import LifetimesOf
from emarsys_cdp.store.record import Record, pack, profile
from emarsys_cdp.worker_memory import Memory, Remembered
from emarsys_cdp.writing import Notice


class _Person(Struct, gc=False, eq=False):
    """Somebody in the round: as remembered, the record with the calls so far, and the result."""

    known: Remembered
    before: Record
    record: Record
    added: Added | None = None


class Settler:
    """Runs such rounds. *revisions* are the numbers of the records it writes, *lifetimes* says how long they stay."""

    def __init__(
        self, store: Store, memory: Memory, revisions: Iterator[int], lifetimes: LifetimesOf, notice: Notice
    ) -> None:
        self._store = store
        self._memory = memory
        self._revisions = revisions
        self._lifetimes = lifetimes
        self._notice = notice

    async def settle(self, entries: Sequence[Entry], people: Sequence[Remembered]) -> list[Added | None]:
        """Return the result of each entry, None for those to be tried again. *people*: whose each entry is."""
        of_entries = _folded(entries, people)
        persons = list(dict.fromkeys(of_entries))
        unchanged = {one.known.pid: one.known.revision for one in persons if one.record == one.before}
        outdated = await find_outdated(self._store, unchanged)
        if outdated:
            self._memory.learn({}, outdated)
            return [None] * len(entries)
        for person in persons:
            person.added = Added(profile(person.known.pid, person.record))
        await self._write(persons if not unchanged else [one for one in persons if one.known.pid not in unchanged])
        return [person.added for person in of_entries]

    async def _write(self, persons: Sequence[_Person]) -> None:
        """Write the records by compare-and-set, and remember them; who was written by others has lost."""
        commits: list[Commit] = []
        writing: list[tuple[_Person, int]] = []
        for person in persons:
            known, record, revision = person.known, person.record, next(self._revisions)
            try:
                packed = pack(record, revision)
            except UNPACKABLE as error:
                person.added = Added(None, failure=unwritable(error))
                continue
            times = self._lifetimes(record.space)
            seconds = times.reachable if record.key is not None else times.of(record)
            wake = wake_change(person.before, record)
            if record.book is not None and record.book.wake:
                seconds = 0
            commits.append(Commit(known.pid, known.revision, packed, seconds=seconds, wake=wake))
            writing.append((person, revision))
        if not commits:
            return
        for (person, revision), done in zip(writing, await self._store.commit(commits), strict=True):
            if done:
                person.known.revision, person.known.record = revision, person.record
                if person.record.book is not None:
                    self._notice(person.known.pid, person.record.book.wake)
            else:
                self._memory.forget(person.known.pid)
                person.added = None


def tell_apart(entries: Sequence[Entry], memory: Memory) -> tuple[dict[int, Remembered], list[int]]:
    """
    Return whose those entries are that can be settled, by their positions, and the positions of all others.

    An entry about a person or an identifier that one of the others is about as well is one of them: within a round,
    calls of the same people are taken in their order.
    """
    people = [memory.person_of(entry) for entry in entries]
    pairs = list(zip(entries, people, strict=True))
    names = {name for entry, person in pairs if person is None for name in entry.all_names()}
    pids = {memory.owners.get(name) for name in names}
    known: dict[int, Remembered] = {}
    others: list[int] = []
    for position, (entry, person) in enumerate(pairs):
        if person is None or person.pid in pids or not names.isdisjoint(entry.all_names()):
            others.append(position)
        else:
            known[position] = person
    return known, others


def _folded(entries: Sequence[Entry], people: Sequence[Remembered]) -> list[_Person]:
    """Return each entry's person, with the calls added."""
    persons: dict[str, _Person] = {}
    of_entries: list[_Person] = []
    for entry, known in zip(entries, people, strict=True):
        person, ids = persons.get(known.pid), entry.ids
        if person is None:
            before = known.record
            assert before is not None  # noqa: S101 - else it would not be remembered
            person = persons[known.pid] = _Person(known, before, before)
        record = fold(person.record, entry, owns_anon=ids.anon is not None, owns_key=ids.key is not None)
        if entry.ruled is not None or record.book is not None:
            record = with_rules(person.record, record, entry.space, entry.ruled)
        person.record = record
        of_entries.append(person)
    return of_entries
