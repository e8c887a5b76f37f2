"""
A round over people whom the worker remembers: nearly all rounds.

When everybody's identifiers and record are remembered and agree, nothing has to be read, resolved or claimed: the calls
are folded into the records, and the compare-and-set of each record tells when the memory is wrong. The results are
those of `one_round.Round`, at half its price.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.identity.folding import fold
from emarsys_cdp.one_round import UNPACKABLE, Added, find_outdated, unwritable
from emarsys_cdp.store import Commit, Store
from emarsys_cdp.store.keys import Names
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.store.record import Record, pack, profile
from emarsys_cdp.worker_memory import Memory, Remembered


class _Person(Struct, gc=False, eq=False):
    """Somebody in the round: as remembered, with the calls so far, and the row names of the last of them."""

    known: Remembered
    record: Record
    names: Names
    added: Added | None = None


async def settle(
    entries: Sequence[Entry],
    memory: Memory,
    revisions: Iterator[int],
    store: Store,
    lifetimes: LifetimesOf = usual,
) -> list[Added | None] | None:
    """
    Return the result of each entry, None for those that have to be tried again.

    None instead of the results: somebody is not remembered, and nothing was done.
    """
    people = _recall(entries, memory)
    if people is None:
        return None
    persons = list(dict.fromkeys(people))
    unchanged = {one.known.pid: one.known.revision for one in persons if one.record == one.known.record}
    outdated = await find_outdated(store, unchanged)
    if outdated:
        memory.learn({}, outdated)
        return [None] * len(entries)
    for person in persons:
        person.added = Added(profile(person.known.pid, person.record))
    changed = persons if not unchanged else [one for one in persons if one.known.pid not in unchanged]
    await _write(changed, memory, revisions, store, lifetimes)
    return [person.added for person in people]


def _recall(entries: Sequence[Entry], memory: Memory) -> list[_Person] | None:
    """Return each call's person, with the calls added; None when somebody is not remembered."""
    persons: dict[str, _Person] = {}
    people: list[_Person] = []
    for entry in entries:
        known = memory.person_of(entry)
        if known is None:
            return None
        names = entry.names
        person = persons.get(known.pid)
        if person is None:
            person = persons[known.pid] = _Person(known, known.record, names)
        person.record = fold(person.record, entry, owns_anon=names[2] is not None, owns_key=names[1] is not None)
        person.names = names
        people.append(person)
    return people


async def _write(
    persons: Sequence[_Person], memory: Memory, revisions: Iterator[int], store: Store, lifetimes: LifetimesOf
) -> None:
    """Write the records by compare-and-set, and remember them; who was written by others has lost."""
    commits: list[Commit] = []
    writing: list[_Person] = []
    for person in persons:
        known, record, revision = person.known, person.record, next(revisions)
        try:
            packed = pack(record, revision)
        except UNPACKABLE as error:
            person.added = Added(None, failure=unwritable(error))
            continue
        times = lifetimes(record.space)
        seconds = times.reachable if record.key is not None else times.of(record)
        commits.append(Commit(known.pid, known.revision, packed, seconds=seconds))
        person.known = Remembered(known.pid, revision, record, person.names)
        writing.append(person)
    if not commits:
        return
    remember = memory.records
    for person, done in zip(writing, await store.commit(commits), strict=True):
        new = person.known
        if done:
            remember[new.pid] = new
        else:
            remember.pop(new.pid, None)
            person.added = None
