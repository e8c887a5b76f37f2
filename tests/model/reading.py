"""What a call says: its time, its messageId, its values. The paths, types and times of a document."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

Json: TypeAlias = Any

STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[(\*)\]|\['([^']*)'\]")
"""A step of a path: a name, an index, all elements, a quoted name."""

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DURATION = re.compile(r"(\d+)([smhdw])", re.ASCII)
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
FUTURE = 5 * UNITS["m"]
"""What is more than this after its arrival is taken for a wrong clock."""

FIRST_MILLISECONDS = 100_000_000_000
"""An epoch time from here on is in milliseconds (1973 as such, the year 5138 in seconds)."""

NOT_CONTENT = ("sentAt", "receivedAt", "ip")
"""Parts that differ between deliveries of one call."""


def duration(text: str) -> int:
    """Return milliseconds for a duration like `30d`."""
    found = DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"not a duration like 90s, 30m, 48h, 7d, 2w: {text!r}")
    return int(found[1]) * UNITS[found[2]]


def time_of(value: Json, zone: str = "UTC") -> int | None:
    """Return milliseconds since 1970 for an ISO time, in *zone* if it names none; None for everything else."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value.strip())
        return ((time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def iso(time: int) -> str:
    """Return the ISO text of milliseconds since 1970, without a fraction that is zero."""
    moment = EPOCH + timedelta(milliseconds=time)
    return moment.isoformat(timespec="milliseconds" if time % 1_000 else "seconds").replace("+00:00", "Z")


def event_time(message: Mapping[str, Json], arrival: int) -> int:
    """Return the time of the event: `timestamp`, else `originalTimestamp`, else the arrival; no future."""
    times = (time_of(message.get("timestamp")), time_of(message.get("originalTimestamp")))
    time = next((time for time in times if time is not None), arrival)
    return arrival if time > arrival + FUTURE else time


def message_id(message: Mapping[str, Json]) -> str:
    """Return the messageId, else 128 bits of SHA-256 over what the call says."""
    if isinstance(message.get("messageId"), str) and message["messageId"]:
        return str(message["messageId"])
    content = {name: part for name, part in message.items() if name not in NOT_CONTENT}
    if isinstance(content.get("context"), dict):
        content["context"] = {name: part for name, part in content["context"].items() if name not in NOT_CONTENT}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def at(value: Json, path: str) -> Json:
    """Return what stands at a path, None if nothing does."""
    return _walk(value, list(STEP.finditer(path)))


def _walk(value: Json, steps: list[re.Match[str]]) -> Json:
    if not steps:
        return value
    name, index, every, quoted = steps[0].groups()
    if every:
        return [_walk(one, steps[1:]) for one in value] if isinstance(value, list) else None
    if index:
        inside = isinstance(value, list) and int(index) < len(value)
        return _walk(value[int(index)], steps[1:]) if inside else None
    return _walk(value.get(name or quoted), steps[1:]) if isinstance(value, dict) else None


def first(message: Mapping[str, Json], paths: Iterable[str]) -> Json:
    """Return the first value of the paths that is not null; traits are looked for in both their places."""
    for path in paths:
        for place in (path, _twin(path)):
            value = at(message, place)
            if value is not None:
                return value
    return None


def _twin(path: str) -> str:
    if path.startswith("context.traits."):
        return path.removeprefix("context.")
    return f"context.{path}" if path.startswith("traits.") else path


def plain(number: Decimal) -> str:
    """Return the shortest decimal text of a number."""
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def scalar_text(value: Json) -> str | None:
    """Return the text of a text (NFC), a number (shortest decimal) or a boolean; None for everything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return plain(Decimal(repr(value)))
    return None


def _number(value: Json) -> Json:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip() if isinstance(value, str) else scalar_text(value)
    return plain(Decimal(text)) if text and NUMBER.fullmatch(text) else None


def _boolean(value: Json) -> Json:
    text = (scalar_text(value) or "").strip().lower()
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text)


def _date(value: Json, zone: str) -> Json:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return iso(int(value if abs(value) >= FIRST_MILLISECONDS else value * 1_000))
    time = time_of(value, zone)
    return None if time is None else iso(time)


def _list(value: Json) -> Json:
    texts = [scalar_text(one) for one in value] if isinstance(value, list) else [scalar_text(value)]
    return None if None in texts else texts


@dataclass(frozen=True)
class DataMap:
    """A value to be kept: its name, where it stands in a call, what it is."""

    name: str
    paths: tuple[str, ...]
    type: str

    def value(self, message: Mapping[str, Json], zone: str) -> Json:
        """Return the value as it is shown (a number as text, a date as ISO text), None for none that fits."""
        value = first(message, self.paths)
        if value is None:
            return None
        if self.type == "date":
            return _date(value, zone)
        return {"string": scalar_text, "numeric": _number, "boolean": _boolean, "list": _list}[self.type](value)
