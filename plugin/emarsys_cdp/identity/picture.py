"""What is known of the users table while calls are resolved, and questions about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from emarsys_cdp.store.record import Record
from emarsys_cdp.store.rows import Row

NOBODY = ""

Owners = Mapping[str, str | None]
"""Row name to the profile it names; None: there is no row; `NOBODY`: it is shared and has no isolate yet."""

Records = Mapping[str, Record]

Rows = Mapping[str, Row]
"""The rows that say more than who owns them: erased once, a tombstone, a key that several people use."""


class Picture(Struct, frozen=True, gc=False):
    """Owners, records and special rows of the identifiers of some calls."""

    owners: Owners
    records: Records
    rows: Rows

    def holder(self, name: str | None) -> str | None:
        """Return the profile that owns an identifier; a profile that has no record, or an isolate, owns nothing."""
        pid = self.owners.get(name) if name is not None else None
        record = self.records.get(pid) if pid else None
        return None if record is None or record.isolate else pid

    def is_shared(self, name: str | None) -> bool:
        """Tell whether an anonymousId is nobody's."""
        pid = self.owners.get(name) if name is not None else None
        if not pid:
            return pid == NOBODY
        record = self.records.get(pid)
        return record is not None and record.isolate

    def isolate(self, name: str) -> str | None:
        """Return the isolate of a shared anonymousId, if there is one."""
        return self.owners.get(name) or None


def compatible(record: Record, user: str | None, key: str | None) -> bool:
    """Tell that nothing says that the record and an identified caller are different people."""
    return (record.user is None or user is None or has_user(record, user)) and (
        record.key is None or key is None or record.key == key
    )


def has_user(record: Record, user: str | None) -> bool:
    """Tell whether a userId is the record's, or an alias of it."""
    return record.user == user or user in record.aliases


def owns_key(record: Record, key: str | None) -> bool:
    """
    Tell whether a key is the record's for certain: whoever takes it away, or makes it nobody's, writes the record.

    A former key may have become another's or nobody's, and the person used it again since: only its row tells.
    """
    return record.key == key and record.owns_key


def has_device(record: Record, anon: str | None) -> bool:
    """Tell whether an anonymousId is one of the record's."""
    devices = record.devices
    return bool(devices) and (devices[0].value == anon or any(device.value == anon for device in devices))
