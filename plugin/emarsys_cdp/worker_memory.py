"""What a worker remembers of the users table, so that a person seen before costs one command and one round trip."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.identity.picture import has_device, has_key
from emarsys_cdp.store.keys import Names
from emarsys_cdp.store.record import Record
from emarsys_cdp.values.remembered import forget_oldest

MAX_OWNERS = 200_000
"""Owners of identifiers that a worker remembers; about 200 bytes each."""

MAX_RECORDS = 10_000
"""Records that a worker remembers; about 1.5 KB each."""


class Remembered(Struct, frozen=True, gc=False):
    """
    A person's record as it was stored last.

    *names* are the row names of a call whose identifiers were all this person's when that was looked at last. They
    still are: whoever takes an identifier away writes the record, which then has another revision.
    """

    pid: str
    revision: int
    record: Record
    names: Names | None = None


class Memory:
    """
    What this worker has seen last: owners of identifiers, and records with their revision.

    All of it is a hint. A remembered owner counts when the profile's own record still has the identifier; a
    remembered record counts when the store still has its revision, which a commit checks anyway.
    """

    def __init__(self, owners: int = MAX_OWNERS, records: int = MAX_RECORDS) -> None:
        self._limits = (owners, records)
        self.owners: dict[str, str] = {}
        self.records: dict[str, Remembered] = {}

    def person_of(self, entry: Entry) -> Remembered | None:
        """
        Return whose a call is, when all its identifiers are remembered as one person's who has them.

        Whatever makes a person special is not remembered, or asks for a look at the rows.
        """
        names = user, key, anon = entry.names
        pid = self.owners.get(user or key or anon or "")
        remembered = None if pid is None else self.records.get(pid)
        if remembered is None or entry.previous is not None or entry.event_time <= remembered.record.erased:
            return None
        if remembered.names is names:  # the namer gives the same tuple for the same identifiers
            return remembered
        owner, record, ids = self.owners.get, remembered.record, entry.ids
        agrees = (
            (user is None or record.user == ids.user)
            and (key is None or (owner(key) == pid and has_key(record, ids.key)))
            and (anon is None or (owner(anon) == pid and has_device(record, ids.anon)))
        )
        return remembered if agrees else None

    def learn(self, owners: Mapping[str, str | None], lost: set[str]) -> None:
        """Remember owners that were read, and forget what another worker has changed."""
        for name, pid in owners.items():
            if pid and pid not in lost:
                self.owners[name] = pid
            else:
                self.owners.pop(name, None)
        for pid in lost:
            self.records.pop(pid, None)
        forget_oldest(self.owners, self._limits[0])
        forget_oldest(self.records, self._limits[1])
