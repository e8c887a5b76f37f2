"""Adding a call to the record of its person: last writer wins by (event time, messageId), never by arrival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.store.record import Device, Record, Released
from emarsys_cdp_hooks import StoredValue

MAX_FORMER_KEYS = 100
"""Former keys of a person, as many as devices; one that there is no room for may be anybody's again."""

MAX_RELEASED = 10
"""Calls that made a key known and are remembered for their retries; more than one needs merges."""


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
    if (key is not None and key != record.key) or record.pending:
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
        False,
        record.aliases,
        record.merged_from,
        (),
        record.released,
        record.isolate,
        record.erased,
        (),
        None,
        False,
        None,
        (),
        record.book,
    )


def _merged(record: Record | None, entry: Entry, owns_anon: bool, owns_key: bool) -> Record:
    """Return the record with a call that may be earlier than others."""
    ids, time = entry.ids, entry.event_time
    if record is None:
        record = Record(entry.space, first_seen=time, last_seen=time)
    key, key_time, key_message, owns, former = _key(record, entry, owns_key)
    last = (time, entry.message_id) >= (record.last_seen, record.last_message) or not record.last_type
    mine = ids.anon is not None and owns_anon
    devices = (
        _devices(record.devices, ids.anon or "", time, entry.policy.anon_limit)
        if mine
        else without_device(record.devices, ids.anon)
    )
    values = _values(record.values, entry.values)
    return Record(
        record.space,
        record.user or ids.user,
        key,
        key_time,
        key_message,
        owns,
        former,
        devices,
        min(record.first_seen, time),
        max(record.last_seen, time),
        entry.type if last else record.last_type,
        entry.message_id if last else record.last_message,
        values,
        False,
        record.aliases,
        record.merged_from,
        () if key is not None else record.pending,
        _released(record, entry, values) if key is not None else record.released,
        record.isolate,
        record.erased,
        book=record.book,
    )


def _released(record: Record, entry: Entry, values: Mapping[str, StoredValue]) -> tuple[Released, ...]:
    """
    Return the calls that send what has waited for a key, with this one if it makes the key known.

    It sends the values of other calls that have waited; its own are its own anyway.
    """
    names = record.values if record.key is None else record.pending
    waited = {
        name: (value.event_time, value.message_id)
        for name in names
        if (value := values[name]).message_id != entry.message_id or value.event_time != entry.event_time
    }
    if not waited:
        return record.released
    return (*record.released, Released(entry.message_id, waited))[-MAX_RELEASED:]


def _key(record: Record, entry: Entry, owns_key: bool) -> tuple[str | None, int, str, bool, tuple[str, ...]]:
    """Return the key of now with its version, whether it is owned, and the former keys."""
    key, version = entry.ids.key, (entry.event_time, entry.message_id)
    stored = (record.key_time, record.key_message)
    if key is None or (key == record.key and version <= stored and owns_key == record.owns_key):
        return record.key, *stored, record.owns_key, record.former_keys
    if key == record.key:
        return key, *max(version, stored), owns_key, record.former_keys
    if record.key is None:
        return key, *version, owns_key, tuple([former for former in record.former_keys if former != key])
    if version > stored:
        return key, *version, owns_key, _former(record.former_keys, record.key, key)
    return record.key, *stored, record.owns_key, _former(record.former_keys, key, record.key)


def _former(former: tuple[str, ...], add: str, current: str) -> tuple[str, ...]:
    kept = [key for key in former if key not in (add, current)]
    return (add, *kept)[:MAX_FORMER_KEYS]


def without_device(devices: tuple[Device, ...], anon: str | None) -> tuple[Device, ...]:
    """Return the devices without one that turned out to be somebody else's."""
    if anon is None or not any(device.value == anon for device in devices):
        return devices
    return tuple([device for device in devices if device.value != anon])


def _devices(devices: tuple[Device, ...], anon: str, time: int, limit: int) -> tuple[Device, ...]:
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
    return in_order((Device(anon, first, last), *rest))[:limit]


def in_order(devices: Iterable[Device]) -> tuple[Device, ...]:
    """Return devices by their last use, newest first; of two last used at one time the greater text is first."""
    return tuple(sorted(devices, key=lambda device: (device.last_seen, device.value), reverse=True))


def newest(known: StoredValue | None, value: StoredValue) -> StoredValue:
    """Return the value that is last by (event time, messageId); of two of one call the first stays."""
    if known is None or (value.event_time, value.message_id) > (known.event_time, known.message_id):
        return value
    return known


def _values(stored: dict[str, StoredValue], read: Mapping[str, StoredValue]) -> dict[str, StoredValue]:
    if not read:
        return stored
    merged = dict(stored)
    for name, value in read.items():
        merged[name] = newest(merged.get(name), value)
    return merged
