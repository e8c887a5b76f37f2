"""
From the bytes of a host request to jobs: plain and compacted, router and processor.

Metadata and destination stay as the bytes that came, so they go back byte for byte. What is wrong with one job is
kept in it; only a request that cannot be taken apart at all is refused as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from emarsys_cdp.document.parts import Parts, message_type
from emarsys_cdp.hosts.rudderstack.split import Unreadable, array_elements, depth_of, object_members
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import DropCall

MAX_CALL_BYTES = 1_048_576
"""Largest call; what is larger is refused alone."""

MAX_DEPTH = 64
"""Deepest nesting of a call."""

_DEEP = (b"]" * 64, b"}" * 64, b"}]" * 32)
"""Text of calls that are nested deep. Looking for it is far cheaper than measuring; what escapes it does no harm:
the decoder gives up at about a thousand levels, and what is kept of a call has a bound (steps/mapping.py)."""

MAX_JOBS = 20_000
"""Most jobs of one request."""

_NO_RAW = Raw(b"")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Metadata(Struct):
    """What we use of a job's metadata."""

    jobId: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # noqa: N815 - names as the host sends them
    destinationId: str | None = None  # noqa: N815
    workspaceId: str | None = None  # noqa: N815
    receivedAt: str | None = None  # noqa: N815
    dontBatch: bool = False  # noqa: N815


class Destination(Struct):
    """What we use of a destination."""

    ID: str = ""
    Config: dict[str, Any] = {}
    hasDynamicConfig: bool | None = None  # noqa: N815

    def dynamic(self) -> bool:
        """Tell whether a setting takes its value from each call."""
        return has_template(self.Config)


def has_template(value: Any) -> bool:
    """Tell whether a setting, or a part of it, takes its value from each call."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, dict):
        return any(has_template(child) for child in value.values())
    return isinstance(value, list) and any(has_template(child) for child in value)


class Job(Struct, gc=False):
    """
    One input of a request: a call, who gets the answer, and the destination it is for.

    *raw_metadata* and *raw_destination* are the bytes to echo. *message* is the call as it came, or decoded in
    part. *error* says why the job cannot be processed.
    """

    index: int
    message: Raw | dict[str, Any]
    raw_metadata: Raw
    raw_destination: Raw
    metadata: Metadata | None
    destination: Destination | None
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


class _Request(Struct):
    type: str = ""
    endpoint: str = ""


class _DestinationType(Struct):
    destType: str = ""  # noqa: N815


_envelope = msgspec.json.Decoder(_Envelope)
_items = msgspec.json.Decoder(list[_Item])
_metadata = msgspec.json.Decoder(Metadata)
_destination = msgspec.json.Decoder(Destination)
_request = msgspec.json.Decoder(_Request)
_message = msgspec.json.Decoder(dict[str, Any])
_type = msgspec.json.Decoder(_DestinationType)
_name = msgspec.json.Decoder(str)


def destination_type(body: bytes) -> str | None:
    """Return the `destType` of a router request in lower case, None when it cannot be read."""
    try:
        return _type.decode(body).destType.lower()
    except _UNREADABLE:
        pass
    try:
        return _name.decode(object_members(body).get("destType", b"")).lower()
    except (Unreadable, *_UNREADABLE):
        return None


class PartialReader:
    """Decodes whole requests in one pass, keeping of each call only *parts*."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        item = msgspec.defstruct(
            "PartialItem",
            [("message", message_type(parts)), ("metadata", Raw), ("destination", Raw, _NO_RAW)],
        )
        envelope = msgspec.defstruct(
            "PartialEnvelope",
            [("input", list[item]), ("destinations", dict[str, Raw] | None, None)],  # type: ignore[valid-type]
        )
        self._items = msgspec.json.Decoder(list[item])  # type: ignore[valid-type]  # made at run time
        self._envelope = msgspec.json.Decoder(envelope)

    def jobs(self, body: bytes, *, array: bool) -> list[Job] | None:
        """Return the jobs of a request; None when something in it has to be looked at more closely."""
        if len(body) > MAX_CALL_BYTES or _looks_deep(body):
            return None
        try:
            if not body.isascii():
                body.decode()  # the decoder passes over what it does not keep; read whole, such a call is refused
            if array and body[:1] == b"[":
                items, destinations = self._items.decode(body), None
            else:
                envelope: Any = self._envelope.decode(body)
                items, destinations = envelope.input, envelope.destinations
        except _UNREADABLE:
            return None
        reader = _JobReader(destinations)
        jobs = [reader.job(index, item) for index, item in enumerate(items)]
        return jobs if len(jobs) <= MAX_JOBS else None


def decode(body: bytes, *, array: bool) -> list[Job]:
    """
    Return the jobs of a request, plain or compacted, with their calls as they came.

    *array*: it may be an array of inputs, as at the processor stage; otherwise it is an object with input.

    Raises:
        DropCall: the request cannot be read, or is of another shape; says what was expected.

    """
    try:
        is_array = array and body[:100].lstrip()[:1] == b"["
        envelope = _Envelope(_items.decode(body)) if is_array else _envelope.decode(body)
    except _UNREADABLE as error:
        envelope = _take_apart(body, error, array=array)
    if len(envelope.input) > MAX_JOBS:
        raise DropCall(f"the request has {len(envelope.input)} jobs: at most {MAX_JOBS} are read")
    reader = _JobReader(envelope.destinations)
    return [reader.job(index, item) for index, item in enumerate(envelope.input)]


def _take_apart(body: bytes, error: Exception, *, array: bool) -> _Envelope:
    """Return the envelope of a request in which something is no JSON, or say what the request lacks."""
    try:
        if array and body[:100].lstrip()[:1] == b"[":
            return _Envelope(_objects(body))
        members = object_members(body)
        if "input" not in members:
            raise Unreadable("there is no input")
        destinations = members.get("destinations")
        by_id = None if destinations is None else object_members(destinations)
        return _Envelope(
            _objects(members["input"]),
            destinations=None if by_id is None else {name: Raw(value) for name, value in by_id.items()},
        )
    except Unreadable as cause:
        shape = "a JSON array of inputs, or an object with input" if array else "a JSON object with input, an array"
        raise DropCall(
            f"the request cannot be read ({cause}; {error}): send {shape}; each input has message, metadata and "
            "destination"
        ) from error


def _objects(data: bytes) -> list[_Item]:
    """Return the inputs in an array of which at least one is an object."""
    elements = array_elements(data)
    if elements and not any(element[:1] == b"{" for element in elements):
        raise Unreadable("no input is an object")
    return [_item(element) for element in elements]


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
        self._last = b""
        self._last_read: Destination | str = _read_destination(b"")

    def job(self, index: int, item: Any) -> Job:
        """Return the job of an item, with its first error if it has one."""
        try:
            metadata = _metadata.decode(item.metadata)
        except _UNREADABLE as error:
            return self._broken(index, item, _metadata_problem(item.metadata, error))
        raw = item.destination
        if self._destinations is not None:
            raw = self._destinations.get(metadata.destinationId or "", _NO_RAW)
        destination = self._destination(bytes(raw))
        if isinstance(destination, Destination):
            return Job(index, item.message, item.metadata, raw, metadata, destination)
        problem = f"destination {shorten(metadata.destinationId)}: {destination}"
        return Job(index, item.message, item.metadata, _echo(raw), metadata, None, problem)

    def _destination(self, data: bytes) -> Destination | str:
        """Return what the bytes of a destination say; the host repeats the same bytes with every job."""
        if data != self._last:
            self._last = data
            known = self._read.get(data)
            if known is None:
                known = self._read[data] = _read_destination(data)
            self._last_read = known
        return self._last_read

    def _broken(self, index: int, item: Any, problem: str) -> Job:
        """Return a job whose metadata cannot be read; what is an object is echoed all the same."""
        raw = item.destination
        if self._destinations is not None:
            raw = self._destinations.get(_destination_id(item.metadata), _NO_RAW)
        return Job(index, item.message, _echo(item.metadata), _echo(raw), None, None, problem)


class _Named(Struct):
    destinationId: Any = None  # noqa: N815


_named = msgspec.json.Decoder(_Named)


def _destination_id(raw: Raw) -> str:
    """Return the destination that metadata name in which something else is wrong."""
    try:
        name = _named.decode(raw).destinationId
    except _UNREADABLE:
        return ""
    return name if isinstance(name, str) else ""


def _echo(raw: Raw) -> Raw:
    """Return the bytes when they are a JSON object that can stand in an answer, else an empty object."""
    return raw if _is_object(raw) else Raw(b"{}")


def _is_object(raw: Raw) -> bool:
    """Tell whether the bytes are a JSON object that can be echoed."""
    try:
        _message.decode(raw)
    except _UNREADABLE:
        return False
    return True


def _metadata_problem(raw: Raw, error: Exception) -> str:
    if not bytes(raw):
        return "metadata is missing: each input needs its metadata with a jobId"
    return f"metadata cannot be read: {error}; it needs a jobId that is a whole number"


def _read_destination(raw: bytes) -> Destination | str:
    if not raw:
        return "is missing: each input needs its destination"
    try:
        return _destination.decode(raw)
    except _UNREADABLE:
        return "cannot be read: it must be an object with ID and Config"


def _looks_deep(data: bytes) -> bool:
    return any(text in data for text in _DEEP)


def read_message(raw: Raw) -> dict[str, Any] | str:
    """Return a call's message, or what is wrong with it."""
    data = bytes(raw)
    if not data:
        return "message is missing: each input needs a call"
    if len(data) > MAX_CALL_BYTES:
        return f"the call has {len(data)} bytes: at most {MAX_CALL_BYTES} are read"
    try:
        if _looks_deep(data) and (depth := depth_of(data)) > MAX_DEPTH:
            return f"the call is nested {depth} deep: at most {MAX_DEPTH} levels are read"
        return _message.decode(data)
    except msgspec.ValidationError as error:
        return f"the call cannot be read: {error}"
    except RecursionError:
        return f"the call is nested too deep: at most {MAX_DEPTH} levels are read"
    except (*_UNREADABLE, Unreadable) as error:
        hint = "; a lone surrogate such as \\ud800?" if _SURROGATE.search(data) else ""
        return f"the call is no JSON: {error}{hint}"


def is_request(raw: Raw | dict[str, Any]) -> bool:
    """Tell whether a message is a request of the processor stage and not a call."""
    if isinstance(raw, dict):
        return False
    try:
        request = _request.decode(raw)
    except _UNREADABLE:
        return False
    return request.type == "REST" and bool(request.endpoint)
