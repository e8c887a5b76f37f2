"""
Which person a call is of, and what it claims: the algorithm of the users table, without merging.

Two people are never joined here: where an identifier would join two profiles, the profile that had it keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from emarsys_cdp.store.keys import Names
from emarsys_cdp.store.record import Record
from emarsys_cdp_hooks import Identifiers, StoredValue

USER, KEY, ANON = 0, 1, 2
"""Ranks of the kinds of identifiers: missing rows are claimed in this order."""


class Entry(Struct, frozen=True, gc=False):
    """
    One call to add to the users table.

    *names* are the row names of userId, primary key and anonymousId, None where the call has none. *values* holds
    what the data maps read.
    """

    space: str
    type: str
    message_id: str
    event_time: int
    ids: Identifiers
    names: Names
    values: Mapping[str, StoredValue]


class Resolution(Struct, frozen=True, gc=False):
    """
    The person of a call: *pid* is None when the call belongs to nobody.

    *claims* are (rank, row name) of identifiers without an owner, *shared* tells that the anonymousId turned out
    to be used by two people.
    """

    pid: str | None
    claims: tuple[tuple[int, str], ...] = ()
    shared: bool = False
    warnings: tuple[str, ...] = ()


Owners = Mapping[str, str | None]
"""Row name to the profile it names; None: there is no row; `NOBODY`: it is shared."""

Records = Mapping[str, Record]

NOBODY = ""


def live_owner(name: str | None, owners: Owners, records: Records) -> str | None:
    """Return the profile that owns an identifier; one that has no record counts as none."""
    pid = owners.get(name) if name is not None else None
    return pid if pid is not None and pid in records else None


def compatible(record: Record, user: str | None, key: str | None) -> bool:
    """Tell that nothing says that the record and an identified caller are different people."""
    return (record.user is None or user is None or record.user == user) and (
        record.key is None or key is None or record.key == key
    )


def has_key(record: Record, key: str | None) -> bool:
    """Tell whether a key is the record's of now, or was."""
    return record.key == key or key in record.former_keys


def has_device(record: Record, anon: str | None) -> bool:
    """Tell whether an anonymousId is one of the record's."""
    devices = record.devices
    return bool(devices) and (devices[0].value == anon or any(device.value == anon for device in devices))


def resolve(entry: Entry, owners: Owners, records: Records, new_pid: Callable[[], str]) -> Resolution:
    """Return the person of a call, given the owners of its identifiers and their records."""
    user_name, key_name, anon_name = entry.names
    if user_name is None and key_name is None and anon_name is None:
        return Resolution(None, warnings=("unidentifiable",))
    pid = live_owner(user_name, owners, records)
    if (
        pid is not None
        and (key_name is None or owners.get(key_name) == pid)
        and (anon_name is None or owners.get(anon_name) == pid)
    ):
        return Resolution(pid)
    pid = pid or _find(entry, owners, records)
    anon_shared = anon_name is not None and owners.get(anon_name) == NOBODY
    if pid is None and anon_shared and user_name is None and key_name is None:
        return Resolution(None)
    found = pid or new_pid()
    claims: list[tuple[int, str]] = []
    warnings: list[str] = []
    if user_name is not None and live_owner(user_name, owners, records) is None:
        claims.append((USER, user_name))
    if key_name is not None:
        holder = live_owner(key_name, owners, records)
        if holder is None:
            claims.append((KEY, key_name))
        elif holder != found:
            warnings.append("key_shared")
    shared = False
    if anon_name is not None and not anon_shared:
        holder = live_owner(anon_name, owners, records)
        if holder is None:
            claims.append((ANON, anon_name))
        elif holder != found and not compatible(records[holder], entry.ids.user, entry.ids.key):
            shared = True
            warnings.append("anon_shared")
    return Resolution(found, tuple(claims), shared, tuple(warnings))


def _find(entry: Entry, owners: Owners, records: Records) -> str | None:
    """Return the profile of the key, else of the anonymousId, unless it is of another person."""
    ids, (_, key_name, anon_name) = entry.ids, entry.names
    pid = live_owner(key_name, owners, records)
    if pid is not None and (ids.user is None or records[pid].user in (None, ids.user)):
        return pid
    pid = live_owner(anon_name, owners, records)
    return pid if pid is not None and compatible(records[pid], ids.user, ids.key) else None
