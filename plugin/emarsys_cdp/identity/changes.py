"""Identifiers of a record: which they are, and the record without one that somebody else has now. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from emarsys_cdp.identity.entries import ANON, USER
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


def without_user(record: Record, value: str | None) -> Record:
    """Return a record without a userId that is another person's."""
    aliases = tuple([alias for alias in record.aliases if alias != value])
    return replace(record, user=None if record.user == value else record.user, aliases=aliases)


def reserved(base: Record, new: Record) -> Record:
    """Return a record with the user and the key that a new one of the person has, not owned yet."""
    owns_key = base.owns_key and base.key == new.key
    return replace(_key_of(base, new), user=new.user, aliases=new.aliases, owns_key=owns_key)


def unreserved(record: Record, rank: int, base: Record, new: Record) -> Record:
    """Return a record without a user or key that was reserved and not got: *base* has those of before."""
    if rank == USER:
        aliases = tuple([one for one in record.aliases if one in base.aliases or one not in new.aliases])
        return replace(record, user=base.user if record.user == new.user else record.user, aliases=aliases)
    mine = (record.key, record.key_time, record.key_message) == (new.key, new.key_time, new.key_message)
    return _key_of(record, base) if mine else record


def _key_of(record: Record, of: Record) -> Record:
    return replace(
        record,
        key=of.key,
        key_time=of.key_time,
        key_message=of.key_message,
        owns_key=of.owns_key,
        former_keys=of.former_keys,
        pending=of.pending,
        released=of.released,
    )
