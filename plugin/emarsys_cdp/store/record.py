"""
The record of a person in the users table, and how it is packed.

Stored form: one byte for the format, eight for the revision (the compare-and-set counter, big-endian), then the
fields as a MessagePack array. New fields go to the end with a default, so older records stay readable.
"""

from __future__ import annotations

from struct import Struct as StructFormat

import msgspec
from msgspec import Struct

from emarsys_cdp.rules.book import Book
from emarsys_cdp_hooks import Profile, StoredValue

FORMAT = 1
HEADER_BYTES = 9


class Device(Struct, frozen=True, array_like=True, gc=False):
    """An anonymousId of a person, with the first and last event time (ms) it was seen."""

    value: str
    first_seen: int
    last_seen: int


class Released(Struct, frozen=True, array_like=True, gc=False):
    """The call that made a key known, and the values that had waited for it: version by the data map's name."""

    message_id: str
    versions: dict[str, tuple[int, str]]


class Erasing(Struct, frozen=True, array_like=True, gc=False):
    """How (delete or suppress) a person is being erased, and when (ms)."""

    mode: str
    time: int


class Record(Struct, frozen=True, array_like=True, gc=False):
    """
    A person: identifiers, times in milliseconds since 1970, and the last value of every data map.

    The key of now is the claim that is last by (*key_time*, *key_message*); losing ones are in *former_keys*.
    *owns_key* is False when another person claimed the same key first. *devices* is ordered by last use, newest
    first. *stub*: no row may name this record yet, and it disappears by itself; adding any call ends that.

    *aliases* are further userIds that name this person. *merged_from* are the profiles that became part of this one.
    *pending* names values that could not be sent while there was no key (without a key: all), *released* what the
    call that made the key known sends of them. *isolate*: it is of calls that have nothing but a shared anonymousId.
    *erased*: one of its identifiers was erased at this time (ms) or before.

    Marks of something unfinished, which whoever meets them finishes (`merging.py`): *intents* are profiles about to
    be merged into this one, *redirect* is the profile that this one was merged into - with all of the record still
    here until *folded* -, *erasing* says that the person is being erased, and when. *tombstones* is all that is left
    of one that is suppressed: the names of its rows.

    *book* is what rules need of the person (`rules/book.py`), None where no rule has looked at a call yet.
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
    aliases: tuple[str, ...] = ()
    merged_from: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    released: tuple[Released, ...] = ()
    isolate: bool = False
    erased: int = 0
    intents: tuple[str, ...] = ()
    redirect: str | None = None
    folded: bool = False
    erasing: Erasing | None = None
    tombstones: tuple[str, ...] = ()
    book: Book | None = None

    @property
    def unfinished(self) -> bool:
        """Tell that no call may be added before somebody has finished what was begun."""
        return bool(self.intents or self.redirect or self.erasing or self.tombstones)


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


_NOTHING: dict[str, dict[str, tuple[int, str]]] = {}


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
        {one.message_id: one.versions for one in record.released} if record.released else _NOTHING,
    )
