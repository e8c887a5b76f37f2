"""What a worker remembers of the users table, so that a person seen before costs one command and one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.identity.picture import has_device, owns_key
from emarsys_cdp.store.record import Record
from emarsys_cdp.values.remembered import forget_oldest
from emarsys_cdp_hooks import Identifiers

MAX_OWNERS = 200_000
"""Owners of identifiers that a worker remembers; about 200 bytes each."""

MAX_RECORDS = 10_000
"""Records that a worker remembers; about 1.5 KB each."""

MAX_CALLERS = 65_536
"""Combinations of identifiers whose person a worker remembers; about 150 bytes each."""


class Remembered(Struct, gc=False, eq=False):
    """A person's record as this worker has read or written it last; None when that counts no longer."""

    pid: str
    revision: int
    record: Record | None


class _Caller(Struct, frozen=True, gc=False, eq=False):
    """
    Identifiers that were all one person's when that was looked at.

    They still are as long as *person* has its record: whoever takes an identifier away writes the record.
    """

    space: str
    ids: Identifiers
    person: Remembered


class Memory:
    """
    What this worker has seen last: owners of identifiers, and records with their revision.

    All of it is a hint. A remembered owner counts when the profile's own record still has the identifier; a
    remembered record counts when the store still has its revision, which a commit checks anyway.
    """

    def __init__(self, owners: int = MAX_OWNERS, records: int = MAX_RECORDS) -> None:
        self._limits = (owners, records)
        self._callers: dict[int, _Caller] = {}
        self.owners: dict[str, str] = {}
        self.records: dict[str, Remembered] = {}

    def callers(self, entries: Sequence[Entry]) -> list[Remembered] | None:
        """
        Return whose each call is, when all of them came with identifiers that came before; None otherwise.

        Equal identifiers are the same object most of the time, so they are looked up by that: their names in the
        store are not needed then, and not made.
        """
        people: list[Remembered] = []
        known = self._callers.get
        for entry in entries:
            caller = known(id(entry.ids))
            if caller is None or caller.space != entry.space or not _is_usual(entry, caller.person.record):
                return None
            people.append(caller.person)
        return people

    def person_of(self, entry: Entry) -> Remembered | None:
        """Return whose a call is, when all its identifiers are remembered as one person's who has them."""
        user, key, anon = entry.names
        owner, ids = self.owners.get, entry.ids
        person = self.records.get(owner(user or key or anon or "") or "")
        record = None if person is None else person.record
        if person is None or record is None or not _is_usual(entry, record):
            return None
        pid = person.pid
        agrees = (
            (user is None or record.user == ids.user)
            and (key is None or (owner(key) == pid and owns_key(record, ids.key)))
            and (anon is None or (owner(anon) == pid and has_device(record, ids.anon)))
        )
        if not agrees:
            return None
        self._callers[id(ids)] = _Caller(entry.space, ids, person)
        forget_oldest(self._callers, MAX_CALLERS)
        return person

    def remember(self, pid: str, revision: int, record: Record) -> None:
        """Remember a record that was written; which calls are this person's has to be looked at anew."""
        self.forget(pid)
        self.records[pid] = Remembered(pid, revision, record)

    def forget(self, pid: str) -> None:
        """Forget a record, whoever holds it."""
        person = self.records.pop(pid, None)
        if person is not None:
            person.record = None

    def learn(self, owners: Mapping[str, str | None], lost: set[str]) -> None:
        """Remember owners that were read, and forget what another worker has changed."""
        for name, pid in owners.items():
            if pid and pid not in lost:
                self.owners[name] = pid
            else:
                self.owners.pop(name, None)
        for pid in lost:
            self.forget(pid)
        forget_oldest(self.owners, self._limits[0])
        for person in forget_oldest(self.records, self._limits[1]):
            person.record = None


def _is_usual(entry: Entry, record: Record | None) -> bool:
    """Tell that a call is no alias, not from before an erasure, and was not warned of anything: all is said then."""
    return record is not None and entry.previous is None and entry.event_time > record.erased and not entry.warned
