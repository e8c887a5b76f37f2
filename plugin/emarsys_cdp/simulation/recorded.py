"""Recorded calls, one JSON object a line: archives of RudderStack and Jitsu, dead-letter files, requests of hosts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from msgspec import Struct

from emarsys_cdp.values.times import parse_time

MAX_LINE: Final = 4 * 1024 * 1024
"""Longest line in bytes; hosts take no calls that are as large."""


class Recorded(Struct, frozen=True):
    """A call and when it arrived (ms)."""

    message: Mapping[str, Any]
    arrival: int


def read_calls(stream: IO[bytes], wrong: Callable[[int, str], None]) -> Iterator[Recorded]:
    """
    Yield the calls of a file, one after the other; *wrong* is told of lines that are none: number and reason.

    A line is a call, or {"message": a call}, with `metadata` as hosts send it. It arrived at `metadata.receivedAt`,
    else `receivedAt`, else when it happened.
    """
    for number, line in enumerate(_lines(stream), 1):
        if line is None:
            wrong(number, f"is longer than {MAX_LINE} bytes")
            continue
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            wrong(number, f"is no JSON: {error}")
            continue
        found = _call(raw)
        if isinstance(found, str):
            wrong(number, found)
        else:
            yield found


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines, None for one that is too long."""
    while line := stream.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE)
        yield None


def _call(raw: Any) -> Recorded | str:
    """Return the call of a line, or what is wrong with it."""
    if not isinstance(raw, dict):
        return "is no JSON object"
    inner = raw.get("message")
    message = inner if isinstance(inner, dict) and "type" not in raw else raw
    if not isinstance(message.get("type"), str):
        return 'has no type: a call is an object with type, messageId and so on, or {"message": such a one}'
    metadata = raw.get("metadata")
    given = [metadata.get("receivedAt")] if isinstance(metadata, dict) else []
    for text in (*given, message.get("receivedAt"), raw.get("receivedAt")):
        time = parse_time(text) if isinstance(text, str) else None
        if time is not None:
            return Recorded(message, time)
    for name in ("timestamp", "originalTimestamp"):
        time = parse_time(message[name]) if isinstance(message.get(name), str) else None
        if time is not None:
            return Recorded(message, time)
    return "has neither receivedAt nor timestamp"


def open_calls(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """Return the lines of a file that was opened as *raw*; one whose name ends with `.gz` is decompressed."""
    return gzip.open(raw) if path.suffix == ".gz" else raw  # type: ignore[return-value]
