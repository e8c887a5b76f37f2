"""Adding a call to the record of its person: last writer wins by (event time, messageId), never by arrival."""

from __future__ import annotations

from collections.abc import Mapping

from emarsys_cdp.identity.resolution import Entry
from emarsys_cdp.store.record import Device, Record
from emarsys_cdp_hooks import StoredValue

MAX_DEVICES = 100
"""anonymousIds per person; the least recently seen one leaves (semantics 1.7)."""

MAX_FORMER_KEYS = 20


def fold(record: Record | None, entry: Entry, *, owns_anon: bool, owns_key: bool) -> Record:
    """
    Return the record of a person with a call added; None starts a new one.

    *owns_anon* and *owns_key* tell whether the profile owns the call's anonymousId and key. Adding a call twice
    gives the same record as adding it once.
    """
    ids, time = entry.ids, entry.event_time
    if record is None or time <= record.last_seen:
        return _merged(record, entry, owns_anon, owns_key)
    key, anon, devices, message_id = ids.key, ids.anon, record.devices, entry.message_id
    if anon is not None:
        if not owns_anon or not devices or devices[0].value != anon:
            return _merged(record, entry, owns_anon, owns_key)
        devices = (Device(anon, devices[0].first_seen, time), *devices[1:])
    if key is not None and key != record.key:
        return _merged(record, entry, owns_anon, owns_key)
    # Most calls: later than all that the record has, of its key and from its last device. Nothing has to be compared
    # then, which is three times as fast.
    return Record(
        record.space,
        record.user or ids.user,
        record.key,
        record.key_time if key is None else time,
        record.key_message if key is None else message_id,
        record.owns_key if key is None else owns_key,
        record.former_keys,
        devices,
        record.first_seen,
        time,
        entry.type,
        message_id,
        {**record.values, **entry.values},
    )


def _merged(record: Record | None, entry: Entry, owns_anon: bool, owns_key: bool) -> Record:
    """Return the record with a call that may be earlier than others."""
    ids, time = entry.ids, entry.event_time
    if record is None:
        record = Record(entry.space, first_seen=time, last_seen=time)
    key, key_time, key_message, owns, former = _key(record, entry, owns_key)
    newest = (time, entry.message_id) >= (record.last_seen, record.last_message) or not record.last_type
    return Record(
        record.space,
        record.user or ids.user,
        key,
        key_time,
        key_message,
        owns,
        former,
        _devices(record.devices, ids.anon, time) if ids.anon and owns_anon else _without(record.devices, ids.anon),
        min(record.first_seen, time),
        max(record.last_seen, time),
        entry.type if newest else record.last_type,
        entry.message_id if newest else record.last_message,
        _values(record.values, entry.values),
    )


def _key(record: Record, entry: Entry, owns_key: bool) -> tuple[str | None, int, str, bool, tuple[str, ...]]:
    """Return the key of now with its version, whether it is owned, and the former keys."""
    key, version = entry.ids.key, (entry.event_time, entry.message_id)
    stored = (record.key_time, record.key_message)
    if key is None or (key == record.key and version <= stored and owns_key == record.owns_key):
        return record.key, *stored, record.owns_key, record.former_keys
    if record.key is None or key == record.key:
        return key, *max(version, stored), owns_key, record.former_keys
    if version > stored:
        return key, *version, owns_key, _former(record.former_keys, record.key, key)
    return record.key, *stored, record.owns_key, _former(record.former_keys, key, record.key)


def _former(former: tuple[str, ...], add: str, current: str) -> tuple[str, ...]:
    kept = [key for key in former if key not in (add, current)]
    return (add, *kept)[:MAX_FORMER_KEYS]


def _without(devices: tuple[Device, ...], anon: str | None) -> tuple[Device, ...]:
    """Return the devices without one that turned out to be somebody else's."""
    if anon is None or not any(device.value == anon for device in devices):
        return devices
    return tuple([device for device in devices if device.value != anon])


def _devices(devices: tuple[Device, ...], anon: str, time: int) -> tuple[Device, ...]:
    if devices and devices[0].value == anon:
        head = devices[0]
        if head.first_seen <= time <= head.last_seen:
            return devices
        merged = Device(anon, min(head.first_seen, time), max(head.last_seen, time))
        return (merged, *devices[1:])
    known = next((device for device in devices if device.value == anon), None)
    first = min(known.first_seen, time) if known else time
    last = max(known.last_seen, time) if known else time
    rest = [device for device in devices if device is not known]
    ordered = sorted((Device(anon, first, last), *rest), key=lambda device: -device.last_seen)
    return tuple(ordered[:MAX_DEVICES])


def _values(stored: dict[str, StoredValue], read: Mapping[str, StoredValue]) -> dict[str, StoredValue]:
    if not read:
        return stored
    merged = dict(stored)
    for name, value in read.items():
        known = merged.get(name)
        if (
            known is None
            or value.event_time > known.event_time
            or (value.event_time == known.event_time and value.message_id >= known.message_id)
        ):
            merged[name] = value
    return merged
