"""The rows of the users table as JSON: people, and rows that are none (semantics.md 3.2). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from emarsys_cdp.document.model import DEFAULT, Document
from emarsys_cdp.identity.resolution import MAX_USERS_OF_KEY
from emarsys_cdp.store.record import Record
from emarsys_cdp.store.rows import QUARANTINED, SHARED, SUPPRESS, TOMBSTONE, Row
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Json

STOCK_PREFIX: Final = "stock:"
"""A value of a space with RudderStack's stock settings is named by its Emarsys field."""


USERS_OF_SHARED: Final = 2
USERS_OF_QUARANTINED: Final = MAX_USERS_OF_KEY + 1
"""People who make an identifier nobody's; who comes later is not counted (semantics 1.7)."""


def is_person(record: Record) -> bool:
    """Tell that a record is a person's: no redirect, no half-made profile, nobody that is being erased."""
    return not (record.stub or record.redirect or record.erasing or record.tombstones)


def fields_of(document: Document | None) -> dict[str, str]:
    """Return the Emarsys field that each data map of a space updates, as its document names it."""
    maps = (document or DEFAULT).data_maps
    return {one.name: str(one.field) for one in maps if one.field is not None}


def show_time(milliseconds: int) -> str:
    """Return a time in ISO 8601, with milliseconds where there are some."""
    return iso_time(milliseconds).replace(".000Z", "Z")


def show_record(pid: str, record: Record, fields: Mapping[str, str]) -> dict[str, Json]:
    """Return a record: a person, or where a merged one has gone. *fields* are those of `fields_of`."""
    if record.redirect:
        return {"redirect": pid, "to": record.redirect}
    devices = [
        {"value": one.value, "firstSeen": show_time(one.first_seen), "lastSeen": show_time(one.last_seen)}
        for one in record.devices
    ]
    version = {"te": show_time(record.key_time), "mid": record.key_message}
    return {
        "pid": pid,
        "anonymousId": devices[0]["value"] if devices else None,
        "userId": record.user,
        "primaryKey": record.key,
        "anonymousIds": devices,
        "userIdAliases": list(record.aliases),
        "keyVersion": None if record.key is None else version,
        "formerKeys": list(record.former_keys),
        "ownsKey": record.owns_key,
        "firstSeen": show_time(record.first_seen),
        "lastSeen": show_time(record.last_seen),
        "lastCall": {"type": record.last_type, "mid": record.last_message} if record.last_type else None,
        "timezone": None,
        "values": {
            name: {"v": one.value, "te": show_time(one.event_time), "mid": one.message_id}
            for name, one in record.values.items()
        },
        "pendingFields": _pending(record, fields),
        "merges": len(record.merged_from),
        "mergedFrom": list(record.merged_from),
        "running": _running(record),
        "flags": _flags(record),
    }


def _pending(record: Record, fields: Mapping[str, str]) -> dict[str, Json]:
    """Return the values that wait for a key by their field; an isolate's wait for nothing."""
    if record.isolate:
        return {}
    names = record.pending if record.key is not None else tuple(record.values)
    waiting: dict[str, Json] = {}
    for name in names:
        field = name.removeprefix(STOCK_PREFIX) if name.startswith(STOCK_PREFIX) else fields.get(name)
        if field is not None and name in record.values:
            stored = record.values[name]
            waiting[field] = {"v": stored.value, "te": show_time(stored.event_time)}
    return waiting


def _running(record: Record) -> dict[str, Json]:
    """Return how many instances of each rule are running, those of which something waits at the gate included."""
    states = {} if record.book is None else record.book.rules
    counted = {rule: sum(one.unfinished for one in state.instances) for rule, state in sorted(states.items())}
    return {rule: number for rule, number in counted.items() if number}


def _flags(record: Record) -> list[str]:
    flags = {
        "isolate": record.isolate,
        "merging": bool(record.intents),
        "erasing": record.erasing is not None,
        "suppressed": bool(record.tombstones),
    }
    return [flag for flag, is_set in flags.items() if is_set]


def show_row(name: str, kind: str, value: str, row: Row, ends: int | None = None) -> dict[str, Any] | None:
    """
    Return an identifier's row that names no person: shared, quarantined, a tombstone; None for one that does.

    *kind* is user, key or anon; *name* is the row's, a keyed hash of the identifier. *ends* is the time (ms) when the
    row disappears, None for never.
    """
    if row.kind in (SHARED, QUARANTINED):
        state, users = ("shared", USERS_OF_SHARED) if row.kind == SHARED else ("quarantined", USERS_OF_QUARANTINED)
        until = {} if ends is None else {"until": show_time(ends)[: len("2025-04-06")]}
        return {kind: value, "state": state, "users": users, **until, **({"isolate": row.pid} if row.pid else {})}
    if row.kind == TOMBSTONE:
        at = row.since if row.mode == SUPPRESS else row.erased
        return {"tombstone": f"hmac:{name}", "mode": row.mode, "at": show_time(at)}
    return None
