"""
The record of a person in the users table, and how it is packed.

Stored form: one byte for the format, eight for the revision (the compare-and-set counter, big-endian), then the
fields as a MessagePack array. New fields go to the end with a default, so older records stay readable.
"""

from __future__ import annotations

from struct import Struct as StructFormat

import msgspec
from msgspec import Struct

from emarsys_cdp_hooks import Profile, StoredValue

FORMAT = 1
HEADER_BYTES = 9


class Device(Struct, frozen=True, array_like=True, gc=False):
    """An anonymousId of a person, with the first and last event time (ms) it was seen."""

    value: str
    first_seen: int
    last_seen: int


class Record(Struct, frozen=True, array_like=True, gc=False):
    """
    A person: identifiers, times in milliseconds since 1970, and the last value of every data map.

    The key of now is the claim that is last by (*key_time*, *key_message*); losing ones are in *former_keys*.
    *owns_key* is False when another person claimed the same key first. *devices* is ordered by last use, newest
    first. *stub*: no row may name this record yet, and it disappears by itself; adding any call ends that.
    """

    space: str
    user: str | None = None
    key: str | None = None
    key_time: int = 0
    key_message: str = ""
    owns_key: bool = False
    former_keys: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    first_seen: int = 0
    last_seen: int = 0
    last_type: str = ""
    last_message: str = ""
    values: dict[str, StoredValue] = {}
    stub: bool = False


class UnreadableRecord(ValueError):
    """A stored record is not of a format that this version reads."""


_decoder = msgspec.msgpack.Decoder(Record)
_encode = msgspec.msgpack.Encoder().encode


_header = StructFormat(">BQ").pack


def header(revision: int) -> bytes:
    """Return the first bytes of a stored record."""
    return _header(FORMAT, revision)


def pack(record: Record, revision: int) -> bytes:
    """Return the stored form of a record."""
    return _header(FORMAT, revision) + _encode(record)


def unpack(stored: bytes) -> tuple[int, Record]:
    """
    Return the revision and the record of a stored form.

    Raises:
        UnreadableRecord: the format byte or the fields are not ours.

    """
    if stored[:1] != b"\x01":
        raise UnreadableRecord(f"record format {stored[:1]!r} is unknown, this version reads {FORMAT}")
    try:
        return int.from_bytes(stored[1:HEADER_BYTES], "big"), _decoder.decode(stored[HEADER_BYTES:])
    except msgspec.MsgspecError as error:
        raise UnreadableRecord(f"record cannot be read: {error}") from error


def profile(pid: str, record: Record) -> Profile:
    """Return what hooks see of a record."""
    devices = record.devices
    return Profile(
        pid,
        record.user,
        record.key,
        (devices[0].value,) if len(devices) == 1 else tuple([device.value for device in devices]),
        record.first_seen,
        record.last_seen,
        record.values,
    )
