"""
From the bytes of a host request to jobs: plain and compacted, router and processor.

Metadata and destination stay as the bytes that came, so they go back byte for byte. What is wrong with one job is
kept in it; only a request that cannot be taken apart at all is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.hosts.rudderstack.split import Unreadable, array_elements, depth_of, object_members
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import DropCall

MAX_CALL_BYTES = 1_048_576
"""Largest call; what is larger is refused alone."""

MAX_DEPTH = 64
"""Deepest nesting of a call."""

MAX_JOBS = 20_000
"""Most jobs of one request."""

_NO_RAW = Raw(b"")


class Metadata(Struct):
    """What we use of a job's metadata; types are checked by `_read_metadata`."""

    jobId: Any = None  # noqa: N815 - names as the host sends them
    destinationId: Any = ""  # noqa: N815
    workspaceId: Any = ""  # noqa: N815
    receivedAt: Any = None  # noqa: N815
    dontBatch: Any = False  # noqa: N815


class Destination(Struct):
    """What we use of a destination."""

    ID: str = ""
    Config: dict[str, Any] = {}
    hasDynamicConfig: bool | None = None  # noqa: N815

    def dynamic(self) -> bool:
        """Tell whether a setting takes its value from each call."""
        return _has_template(self.Config)


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, dict):
        return any(_has_template(child) for child in value.values())
    return isinstance(value, list) and any(_has_template(child) for child in value)


class Job(Struct):
    """
    One input of a request: a call, who gets the answer, and the destination it is for.

    *raw_metadata* and *raw_destination* are the bytes to echo. *error* says why the job cannot be processed; then
    *message* is None.
    """

    index: int
    raw_metadata: bytes | Raw
    raw_destination: bytes | Raw
    metadata: Metadata
    destination: Destination | None = None
    message: dict[str, Any] | None = None
    error: str | None = None


class _Item(Struct):
    message: Raw = _NO_RAW
    metadata: Raw = _NO_RAW
    destination: Raw = _NO_RAW


class _Envelope(Struct):
    """A router request, or a compacted processor request."""

    input: list[_Item]
    destType: str = ""  # noqa: N815
    destinations: dict[str, Raw] | None = None


class _DestinationType(Struct):
    destType: str = ""  # noqa: N815


_envelope = msgspec.json.Decoder(_Envelope)
_items = msgspec.json.Decoder(list[_Item])
_metadata = msgspec.json.Decoder(Metadata)
_destination = msgspec.json.Decoder(Destination)
_message = msgspec.json.Decoder(dict[str, Any])
_type = msgspec.json.Decoder(_DestinationType)


def destination_type(body: bytes) -> str | None:
    """Return the `destType` of a router request in lower case, None when it cannot be read."""
    try:
        return _type.decode(body).destType.lower()
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def decode(body: bytes) -> list[Job]:
    """
    Return the jobs of a request of any of the four forms.

    Raises:
        DropCall: the request cannot be read, or is of another shape; says what was expected.

    """
    try:
        if body.lstrip()[:1] == b"[":
            envelope = _Envelope(_items.decode(body))
        else:
            envelope = _envelope.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        envelope = _take_apart(body, error)
    if len(envelope.input) > MAX_JOBS:
        raise DropCall(f"the request has {len(envelope.input)} jobs: at most {MAX_JOBS} are read")
    reader = _JobReader(envelope.destinations)
    return [reader.job(index, item) for index, item in enumerate(envelope.input)]


def _take_apart(body: bytes, error: Exception) -> _Envelope:
    """Return the envelope of a request in which something is no JSON, or say what the request lacks."""
    try:
        if body.lstrip()[:1] == b"[":
            return _Envelope([_item(element) for element in array_elements(body)])
        members = object_members(body)
        if "input" not in members:
            raise Unreadable("there is no input")
        destinations = members.get("destinations")
        return _Envelope(
            [_item(element) for element in array_elements(members["input"])],
            destinations=None
            if destinations is None
            else {name: Raw(value) for name, value in object_members(destinations).items()},
        )
    except Unreadable as cause:
        raise DropCall(
            f"the request cannot be read ({cause}; {error}): send a JSON array of inputs, or an object with input, "
            "each with message, metadata and destination"
        ) from error


def _item(element: bytes) -> _Item:
    try:
        members = object_members(element)
    except Unreadable:
        return _Item(message=Raw(element))
    return _Item(**{name: Raw(members[name]) for name in ("message", "metadata", "destination") if members.get(name)})


class _JobReader:
    """Reads the jobs of one request; equal destinations are read once."""

    def __init__(self, destinations: Mapping[str, Raw] | None) -> None:
        self._destinations = destinations
        self._read: dict[bytes, Destination | str] = {}

    def job(self, index: int, item: _Item) -> Job:
        """Return the job of an item, with its first error if it has one."""
        metadata, error = _read_metadata(item.metadata)
        raw = item.destination
        if self._destinations is not None and isinstance(metadata.destinationId, str):
            raw = self._destinations.get(metadata.destinationId, _NO_RAW)
        echo = raw if self._valid_destination(raw) else b"{}"
        job = Job(index, item.metadata if _is_object(item.metadata) else b"{}", echo, metadata)
        destination = self._destination(raw, metadata)
        if isinstance(destination, Destination):
            job.destination = destination
        else:
            error = error or destination
        if error is None:
            job.message, error = read_message(item.message)
        job.error = error
        return job

    def _valid_destination(self, raw: Raw) -> bool:
        return isinstance(self._read_destination(bytes(raw)), Destination) or _is_object(raw)

    def _destination(self, raw: Raw, metadata: Metadata) -> Destination | str:
        destination = self._read_destination(bytes(raw))
        if isinstance(destination, str):
            return f"destination {shorten(metadata.destinationId)}: {destination}"
        return destination

    def _read_destination(self, raw: bytes) -> Destination | str:
        known = self._read.get(raw)
        if known is None:
            known = self._read[raw] = _read_destination(raw)
        return known


def _is_object(raw: Raw) -> bool:
    """Tell whether the bytes are a JSON object that can be echoed."""
    try:
        _message.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _read_metadata(raw: Raw) -> tuple[Metadata, str | None]:
    if not bytes(raw):
        return Metadata(), "metadata is missing: each input needs its metadata with a jobId"
    try:
        metadata = _metadata.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return Metadata(), f"metadata cannot be read: {error}"
    if isinstance(metadata.jobId, bool) or not isinstance(metadata.jobId, int):
        return metadata, f"metadata.jobId is {shorten(metadata.jobId)}: it must be a whole number"
    return metadata, None


def _read_destination(raw: bytes) -> Destination | str:
    if not raw:
        return "is missing: each input needs its destination"
    try:
        return _destination.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return "cannot be read: it must be an object with ID and Config"


def read_message(raw: Raw | bytes) -> tuple[dict[str, Any] | None, str | None]:
    """Return a call's message, or what is wrong with it."""
    data = bytes(raw)
    if not data:
        return None, "message is missing: each input needs a call"
    if len(data) > MAX_CALL_BYTES:
        return None, f"the call has {len(data)} bytes: at most {MAX_CALL_BYTES} are read"
    try:
        if data.count(b"{") + data.count(b"[") > MAX_DEPTH and (depth := depth_of(data)) > MAX_DEPTH:
            return None, f"the call is nested {depth} deep: at most {MAX_DEPTH} levels are read"
        return _message.decode(data), None
    except msgspec.ValidationError as error:
        return None, f"the call cannot be read: {error}"
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, Unreadable) as error:
        return None, f"the call is no JSON: {error}"
