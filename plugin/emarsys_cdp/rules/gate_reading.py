"""The settings of a rule that the gate goes by, and caps: read from the document and checked (semantics 2.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from emarsys_cdp.rules.criteria_reading import Surroundings
from emarsys_cdp.rules.findings import Findings, unknown
from emarsys_cdp.rules.operators import STRING
from emarsys_cdp.rules.pattern import ACTIVE, Cap, Gate, Quiet
from emarsys_cdp.rules.spans import DAY, HOUR, read_span
from emarsys_cdp.values.text import shorten
from emarsys_cdp.values.times import zone
from emarsys_cdp_hooks import Json

LIFETIME: Final = 48 * HOUR
"""Default lifetime of a rule (ms)."""

MAX_CAPS: Final = 10
"""Most caps of a rule, and of a space."""

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z", re.ASCII)


class Defaults(Struct, frozen=True):
    """What a space has set for its rules: *settle* and *late_max* (ms) count where a rule says nothing."""

    timezone: str = "UTC"
    settle: int = 0
    late_max: int = DAY


def gate_of(raw: Mapping[str, Json], place: str, defaults: Defaults, around: Surroundings, findings: Findings) -> Gate:
    """Return the gate of a raw rule; problems are noted with their places."""
    lifetime = _span(raw, "lifetime", place, findings, LIFETIME)
    return Gate(
        rule=raw["id"],
        name=raw.get("name", raw["id"]),
        status=raw.get("status", ACTIVE),
        settle=_span(raw, "settle", place, findings, defaults.settle),
        late_max=_span(raw, "lateFireMax", place, findings, defaults.late_max),
        hold=_span(raw, "holdForKey", place, findings, lifetime),
        quiet=_quiet(raw.get("quietHours"), f"{place}.quietHours", defaults, around, findings),
        caps=read_caps(raw.get("caps", []), f"{place}.caps", findings),
    )


def _span(raw: Mapping[str, Json], name: str, place: str, findings: Findings, default: int) -> int:
    if name not in raw:
        return default
    found = findings.attempt(f"{place}.{name}", lambda: read_span(raw[name]))
    return default if found is None else found


def read_caps(raw: Sequence[Mapping[str, Json]], place: str, findings: Findings) -> tuple[Cap, ...]:
    """Return caps; problems are noted with their places."""
    if len(raw) > MAX_CAPS:
        findings.add(place, f"has {len(raw)} caps: at most {MAX_CAPS}")
    caps = []
    for index, one in enumerate(raw):
        per = _span(one, "per", f"{place}[{index}]", findings, DAY)
        if per == 0:
            findings.add(f"{place}[{index}].per", f"{shorten(one['per'])} is no time: give one such as 1d")
        caps.append(Cap(int(one["count"]), per, one.get("defer", False)))
    return tuple(caps)


def _quiet(
    raw: Mapping[str, Json] | None, place: str, defaults: Defaults, around: Surroundings, findings: Findings
) -> Quiet | None:
    if raw is None:
        return None
    begin, end = _minute(raw, "from", place, findings), _minute(raw, "to", place, findings)
    if begin == end:
        findings.add(
            f"{place}.to", f"{shorten(raw['to'])} is when they begin: give another time; no quiet hours: leave out"
        )
    name = raw.get("zone", defaults.timezone)
    findings.attempt(f"{place}.zone", lambda: zone(name))
    zone_map = raw.get("zoneMap")
    if zone_map is not None:
        data_type = around.maps.get(zone_map)
        if data_type is None:
            findings.add(f"{place}.zoneMap", unknown(zone_map, "data map", around.maps))
        elif around.kinds.family(data_type) != STRING:
            findings.add(
                f"{place}.zoneMap", f"{zone_map!r} is {data_type}: a time zone is a string such as Europe/Berlin"
            )
    return Quiet(begin, end, name, zone_map)


def _minute(raw: Mapping[str, Json], name: str, place: str, findings: Findings) -> int:
    """Return the minute of the day of `HH:MM`; one below any other for what is none."""
    match = _TIME.match(raw[name])
    if match is None:
        findings.add(f"{place}.{name}", f"{shorten(raw[name])} is no time of day: write for instance 08:00")
        return -1 if name == "from" else -2
    return int(match[1]) * 60 + int(match[2])
