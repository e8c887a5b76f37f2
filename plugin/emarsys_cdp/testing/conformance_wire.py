"""Reading what crosses the wire: the request as lenient as can be, the answer as strict as can be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import NoReturn

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.testing.conformance_types import Breach, Json, Rule, is_integer, shown


class Job(Struct, frozen=True):
    """
    One input of the host's request.

    *raw* holds the bytes of its metadata, or None where the request is no strict JSON. *destination* is null
    where the request names none.
    """

    metadata: dict[str, Json]
    destination: Json
    raw: bytes | None


def read_jobs(request: bytes, *, bare: bool) -> tuple[Job, ...] | None:
    """
    Return the inputs of a request, plain or compacted; None where it is unreadable or of the wrong shape.

    *bare*: the plain form is the array of inputs itself (processor); otherwise every input has a destination.
    """
    try:
        value = json.loads(request.decode())
        if bare and isinstance(value, list):
            value = {"input": value}
        raws = _raw_metadata(request, len(value["input"]))
        jobs = [_job(given, value, raw) for given, raw in zip(value["input"], raws, strict=True)]
        return tuple(jobs) if bare or all(isinstance(job.destination, dict) for job in jobs) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _job(given: Json, request: Json, raw: bytes | None) -> Job:
    metadata = given["metadata"]
    if not is_integer(metadata.get("jobId")):
        raise ValueError("an input without an integer jobId")
    shared = request.get("destinations") or {}
    return Job(metadata, given.get("destination", shared.get(metadata.get("destinationId"))), raw)


class _Input(Struct):
    metadata: Raw


class _Request(Struct):
    input: list[_Input]


def _raw_metadata(request: bytes, count: int) -> list[bytes | None]:
    try:
        read = msgspec.json.decode(request, type=list[_Input] | _Request)
    except (msgspec.MsgspecError, RecursionError):
        return [None] * count
    return [bytes(given.metadata) for given in (read if isinstance(read, list) else read.input)]


def read_outputs(body: bytes, name: str) -> list[dict[str, Json]] | Breach:
    """Return the outputs of an answer: the array under *name*, or the answer itself where that is empty."""
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


def _read_strict(body: bytes) -> Json:
    value = json.loads(
        body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
    )
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
