"""
From the bytes of a host request to jobs: plain and compacted, router and processor.

Metadata and destination stay as the bytes that came, so they go back byte for byte. What is wrong with one job is
kept in it; only a request that cannot be taken apart at all is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.hosts.rudderstack.split import Unreadable, array_elements, object_members
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import DropCall

MAX_CALL_BYTES = 1_048_576
"""Largest call; what is larger is refused alone."""

MAX_JOBS = 20_000
"""Most jobs of one request."""

Decoder: TypeAlias = msgspec.json.Decoder[dict[str, Any]]

_NO_RAW = Raw(b"")
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Metadata(Struct):
    """What we use of a job's metadata."""

    jobId: int  # noqa: N815 - names as the host sends them
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
        return _has_template(self.Config)


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, dict):
        return any(_has_template(child) for child in value.values())
    return isinstance(value, list) and any(_has_template(child) for child in value)


class Job(Struct, gc=False):
    """
    One input of a request: a call, who gets the answer, and the destination it is for.

    *raw_metadata* and *raw_destination* are the bytes to echo, *raw_message* the call as it came. *error* says why
    the job cannot be processed.
    """

    index: int
    raw_message: Raw
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
whole_message: Decoder = msgspec.json.Decoder(dict[str, Any])
"""Reads every part of a message."""

_type = msgspec.json.Decoder(_DestinationType)


def destination_type(body: bytes) -> str | None:
    """Return the `destType` of a router request in lower case, None when it cannot be read."""
    try:
        return _type.decode(body).destType.lower()
    except _UNREADABLE:
        return None


def decode(body: bytes) -> list[Job]:
    """
    Return the jobs of a request of any of the four forms.

    Raises:
        DropCall: the request cannot be read, or is of another shape; says what was expected.

    """
    try:
        plain_processor = body.lstrip()[:1] == b"["
        envelope = _Envelope(_items.decode(body)) if plain_processor else _envelope.decode(body)
    except _UNREADABLE as error:
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
        try:
            metadata = _metadata.decode(item.metadata)
        except _UNREADABLE as error:
            return self._broken(index, item, _metadata_problem(item.metadata, error))
        raw = item.destination
        if self._destinations is not None:
            raw = self._destinations.get(metadata.destinationId or "", _NO_RAW)
        data = bytes(raw)
        destination = self._read.get(data)
        if destination is None:
            destination = self._read[data] = _read_destination(data)
        if isinstance(destination, Destination):
            return Job(index, item.message, item.metadata, raw, metadata, destination)
        problem = f"destination {shorten(metadata.destinationId)}: {destination}"
        return Job(index, item.message, item.metadata, _echo(raw), metadata, None, problem)

    def _broken(self, index: int, item: _Item, problem: str) -> Job:
        """Return a job whose metadata cannot be read; what is an object is echoed all the same."""
        raw = item.destination
        if self._destinations is not None and len(self._destinations) == 1:
            (raw,) = self._destinations.values()
        return Job(index, item.message, _echo(item.metadata), _echo(raw), None, None, problem)


def _echo(raw: Raw) -> Raw:
    """Return the bytes when they are a JSON object that can stand in an answer, else an empty object."""
    return raw if _is_object(raw) else Raw(b"{}")


def _is_object(raw: Raw) -> bool:
    """Tell whether the bytes are a JSON object that can be echoed."""
    try:
        whole_message.decode(raw)
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


def read_message(raw: Raw, decoder: Decoder) -> dict[str, Any] | str:
    """
    Return a call's message, or what is wrong with it; *decoder* may pass over parts that nobody reads.

    How deep a part is nested that nobody reads does not matter; what is kept of a call has bounds of its own
    (steps/mapping.py), and the decoder gives up at a depth of about a thousand.
    """
    size = memoryview(raw).nbytes
    if size == 0:
        return "message is missing: each input needs a call"
    if size > MAX_CALL_BYTES:
        return f"the call has {size} bytes: at most {MAX_CALL_BYTES} are read"
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return _read_whole(raw)
    except RecursionError:
        return "the call is nested too deep: at most some hundred levels are read"
    except _UNREADABLE as error:
        return f"the call is no JSON: {error}"


def _read_whole(raw: Raw) -> dict[str, Any] | str:
    """Read a message whose parts are not of the expected kind, without expectations."""
    try:
        return whole_message.decode(raw)
    except _UNREADABLE as error:
        return f"the call cannot be read: {error}"


def is_request(raw: Raw) -> bool:
    """Tell whether a message is a request of the processor stage and not a call."""
    try:
        request = _request.decode(raw)
    except _UNREADABLE:
        return False
    return request.type == "REST" and bool(request.endpoint)
