"""Two profiles become one: which of them stays, and what its record is then (semantics 1.4). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from emarsys_cdp.identity.folding import in_order, newest
from emarsys_cdp.rules.taking import join_books
from emarsys_cdp.store.record import Device, Record
from emarsys_cdp_hooks import StoredValue


def survivor(first: tuple[str, Record], second: tuple[str, Record]) -> tuple[str, str]:
    """Return the ids of the profile that stays and of the one that becomes part of it."""
    ranked = sorted((first, second), key=lambda one: _rank(*one))
    return ranked[0][0], ranked[1][0]


def _rank(pid: str, record: Record) -> tuple[bool, bool, int, str]:
    """With a user, else with a key, else the older, else the lower id."""
    return record.user is None, record.key is None, record.first_seen, pid


def join(kept: Record, pid: str, lost: Record) -> Record:
    """
    Return the record of a person with that of profile *pid* added.

    The result is the one that all calls would have made of one profile. Adding a profile twice changes nothing.
    """
    if pid in kept.merged_from:
        return kept
    newer = max((kept, lost), key=lambda record: (record.last_seen, record.last_message))
    key = _newer_key(kept, lost)
    values = dict(kept.values)
    for name, value in lost.values.items():
        values[name] = newest(values.get(name), value)
    return replace(
        kept,
        user=kept.user or lost.user,
        aliases=_aliases(kept, lost),
        key=key.key,
        key_time=key.key_time,
        key_message=key.key_message,
        owns_key=key.owns_key or any(one.owns_key and one.key == key.key for one in (kept, lost)),
        former_keys=_former(kept, lost, key.key),
        devices=_devices(kept, lost),
        first_seen=min(kept.first_seen, lost.first_seen),
        last_seen=newer.last_seen,
        last_type=newer.last_type,
        last_message=newer.last_message,
        values=values,
        stub=False,
        merged_from=(*kept.merged_from, *lost.merged_from, pid),
        pending=_pending(kept, lost, key.key, values),
        released=(*kept.released, *lost.released),
        erased=max(kept.erased, lost.erased),
        intents=tuple([one for one in kept.intents if one != pid]),
        book=join_books(kept.book, lost.book),
    )


def _newer_key(kept: Record, lost: Record) -> Record:
    """Return the record whose key is the claim that is last by (event time, messageId)."""
    if lost.key is None or kept.key is None:
        return lost if kept.key is None else kept
    return max((kept, lost), key=lambda record: (record.key_time, record.key_message))


def _aliases(kept: Record, lost: Record) -> tuple[str, ...]:
    user = kept.user or lost.user
    every = (*kept.aliases, *lost.aliases, *([lost.user] if lost.user is not None else []))
    return tuple([alias for alias in dict.fromkeys(every) if alias != user])


def _former(kept: Record, lost: Record, key: str | None) -> tuple[str, ...]:
    every = (kept.key, lost.key, *kept.former_keys, *lost.former_keys)
    return tuple([one for one in dict.fromkeys(every) if one is not None and one != key])


def _devices(kept: Record, lost: Record) -> tuple[Device, ...]:
    merged = {device.value: device for device in kept.devices}
    for device in lost.devices:
        known = merged.get(device.value, device)
        first, last = min(known.first_seen, device.first_seen), max(known.last_seen, device.last_seen)
        merged[device.value] = Device(device.value, first, last)
    return in_order(merged.values())


def _pending(kept: Record, lost: Record, key: str | None, values: dict[str, StoredValue]) -> tuple[str, ...]:
    """Return the names of values that have waited for a key and could not be sent yet."""
    if key is None:
        return ()
    waiting: dict[str, None] = {}
    for record in (kept, lost):
        for name in record.values if record.key is None else record.pending:
            if record.values[name] == values[name]:
                waiting[name] = None
    return tuple(waiting)
