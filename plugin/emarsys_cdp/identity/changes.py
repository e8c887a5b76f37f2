"""Identifiers of a record: which they are, and the record without one that somebody else has now. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from emarsys_cdp.identity.entries import ANON
from emarsys_cdp.identity.folding import without_device
from emarsys_cdp.identity.resolution import QUARANTINE
from emarsys_cdp.store.record import Record


def identifiers(record: Record) -> list[tuple[str, str]]:
    """Return (kind, value) of all identifiers of a person: `u` userId, `k` key, `a` anonymousId."""
    users = [("u", user) for user in (record.user, *record.aliases) if user is not None]
    keys = [("k", key) for key in (record.key, *record.former_keys) if key is not None]
    return [*users, *keys, *[("a", device.value) for device in record.devices]]


def perhaps(record: Record) -> list[tuple[str, str]]:
    """Return (kind, value) of identifiers that a person may have, which only their rows tell: aliased devices."""
    return [("a", alias) for alias in record.aliases]


def without(record: Record, rank: int, value: str, what: str) -> Record:
    """Return a record without an identifier: its row names somebody else, or nobody by *what*."""
    if rank == ANON:
        return replace(record, devices=without_device(record.devices, value))
    if what == QUARANTINE:
        return replace(record, owns_key=record.owns_key and record.key != value)
    former = tuple([key for key in record.former_keys if key != value])
    if record.key == value:
        return replace(record, key=None, key_time=0, key_message="", owns_key=False, former_keys=former)
    return replace(record, former_keys=former)
