"""Reading what crosses the wire: the request as lenient as can be, the answer as strict as can be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.hosts.rudderstack.split import Unreadable, array_elements, object_members
from emarsys_cdp.testing.conformance_types import Breach, Json, Rule, is_integer, shown

_SURROGATE = re.compile("[\ud800-\udfff]")


class Job(Struct, frozen=True):
    """
    One input of the host's request that names a job.

    *index* is its position, *raw* the bytes of its metadata. *destination* is null where the request names none
    that can be read.
    """

    index: int
    metadata: dict[str, Json]
    destination: Json
    raw: bytes


class Asked(Struct, frozen=True):
    """
    What can be read of a request of the host.

    *nameless* is the metadata of every input that names no job, empty where it cannot be read; *strict* tells
    whether the request is JSON of the right shape. *loose* are the metadata and destinations that are no strict
    JSON (a name twice, a lone surrogate, no UTF-8) and yet echoed, with the same value written strictly: who cannot
    read them refuses them instead.
    """

    jobs: tuple[Job, ...]
    nameless: tuple[dict[str, Json], ...]
    strict: bool
    loose: Mapping[bytes, bytes]


class _Input(Struct):
    metadata: Raw = Raw(b"")
    destination: Raw = Raw(b"")


class _Request(Struct):
    input: list[_Input]
    destinations: dict[str, Raw] | None = None


def read_request(request: bytes, answer: bytes, *, bare: bool) -> Asked | None:
    """
    Return what can be read of a request, plain or compacted; None where it cannot be taken apart into inputs.

    *bare*: the plain form is the array of inputs itself (processor).
    """
    try:
        whole = request.lstrip()[:1] == b"["
        if whole and not bare:
            return None
        parts, strict = _parts(request, whole=whole)
    except Unreadable:
        return None
    return _Reader(parts.destinations or {}, answer).asked(parts.input, strict=strict)


def _parts(request: bytes, *, whole: bool) -> tuple[_Request, bool]:
    """Return the inputs, and whether the request is strict JSON; what is not is cut at its brackets."""
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        if whole:
            return _Request(msgspec.json.decode(request, type=list[_Input])), True
        return msgspec.json.decode(request, type=_Request), True
    members = {"input": request} if whole else object_members(request)
    shared = object_members(members["destinations"]) if "destinations" in members else {}
    inputs = [_cut(element) for element in array_elements(members.get("input", b""))]
    return _Request(inputs, {name: Raw(raw) for name, raw in shared.items()}), False


def _cut(element: bytes) -> _Input:
    with suppress(Unreadable):
        members = object_members(element)
        return _Input(Raw(members.get("metadata", b"")), Raw(members.get("destination", b"")))
    return _Input()


class _Reader:
    """Reads the inputs of one request; *shared* are the destinations of the compacted form."""

    def __init__(self, shared: Mapping[str, Raw], answer: bytes) -> None:
        self._shared = shared
        self._answer = answer
        self._loose: dict[bytes, bytes] = {}

    def asked(self, inputs: Sequence[_Input], *, strict: bool) -> Asked:
        """Return the jobs of the inputs, and those that name none."""
        read = [self._object(given.metadata) for given in inputs]
        jobs = [
            Job(index, metadata, self._destination(given, metadata), bytes(given.metadata))
            for index, (given, metadata) in enumerate(zip(inputs, read, strict=True))
            if is_integer(metadata.get("jobId"))
        ]
        nameless = [metadata for metadata in read if not is_integer(metadata.get("jobId"))]
        return Asked(tuple(jobs), tuple(nameless), strict, self._loose)

    def _destination(self, given: _Input, metadata: Mapping[str, Json]) -> Json:
        raw, name = bytes(given.destination), metadata.get("destinationId")
        if not raw and isinstance(name, str):
            raw = bytes(self._shared.get(name, raw))
        return self._object(raw) or None

    def _object(self, raw: Raw | bytes) -> dict[str, Json]:
        """Return the object that some bytes are, an empty one where they are none."""
        data = bytes(raw)
        try:
            value = _read_strict(data)
        except (ValueError, RecursionError):
            value = _read_loose(data) if data in self._answer else None
            if value is not None:
                self._loose[data] = json.dumps(value).encode()
        return value if isinstance(value, dict) else {}


def _read_loose(data: bytes) -> Json:
    """Read as the host does: the last of equal names counts, and U+FFFD stands for what is no character."""
    try:
        value = json.loads(data.decode("utf-8", "replace"), parse_constant=_no_constant, parse_float=_finite)
        return json.loads(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None


def read_outputs(body: bytes, name: str, asked: Asked | None) -> list[dict[str, Json]] | Breach:
    """
    Return the outputs of an answer: the array under *name*, or the answer itself where that is empty.

    What was *asked* loosely may be echoed so.
    """
    for given, written in () if asked is None else asked.loose.items():
        body = body.replace(given, written)
    try:
        value = _read_strict(body)
    except (ValueError, RecursionError) as error:
        return Breach(Rule.STRICT_JSON, f"the body cannot be read: {error}")
    outputs = value.get(name) if name and isinstance(value, dict) else None if name else value
    if not isinstance(outputs, list):
        return Breach(Rule.SHAPE, f"{name or 'the body'} must be an array, is {shown(outputs, name)}")
    for index, output in enumerate(outputs):
        if not isinstance(output, dict):
            place = f"{name}[{index}]"
            return Breach(Rule.SHAPE, f"{place} must be an object, is {shown(output, place)}")
    return outputs


def _read_strict(data: bytes) -> Json:
    value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} stands twice in one object")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header whose name is matched in any case; None where it is absent."""
    return next((value.strip() for key, value in headers.items() if key.lower() == name.lower()), None)


def version_breaches(headers: Mapping[str, str]) -> Iterator[Breach]:
    """Yield a breach unless the answer says apiVersion 2; the host ends its own process over another."""
    version = header(headers, "apiVersion")
    if version != "2":
        yield Breach(Rule.API_VERSION, f"header apiVersion must be 2, is {version or 'absent'}")
