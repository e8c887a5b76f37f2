"""Criteria: semantics.md 2.7. What they look at, how an operator decides, and the short text form of 3.1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from tests.model.reading import EPOCH, UNITS, DataMap, Json, time_of
from tests.model.rule_log import Entry, Log, last_value

DURATION = re.compile(r"(-?)(\d+(?:\.\d+)?)([smhdw])", re.ASCII)

WORDS = {
    "=": "equals", "!=": "not_equals", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "contains": "contains",
    "not contains": "not_contains", "starts": "starts_with", "ends": "ends_with", "matches": "matches", "in": "in",
    "not in": "not_in", "between": "between", "before": "before", "after": "after", "on": "on", "in last": "in_last",
    "in next": "in_next", "older than": "older_than", "is empty": "empty", "is not empty": "not_empty",
    "is true": "is_true", "is false": "is_false", "exists": "exists", "changed to": "changed_to",
}  # fmt: skip
"""Operators of the short text form."""

TEXT = re.compile(r"(\S+)\s+(" + "|".join(map(re.escape, sorted(WORDS, key=len, reverse=True))) + r")(?:\s+(.*))?")
WITH_LISTS = ("in", "not_in", "between")

ABOUT_NOTHING = frozenset(("exists", "empty", "is_true", "is_false", "changed"))
"""Operators without a value."""

ABOUT_TIME = frozenset(("in_last", "in_next", "older_than"))
"""Operators whose value is a duration."""

MANY = frozenset(("in", "between", "contains_any", "contains_all"))
"""Operators with several values."""


def milliseconds(value: Json) -> int:
    """Return the milliseconds of a duration: a number is hours, a text like `-7d`."""
    if isinstance(value, int | float):
        return int(Decimal(str(value)) * UNITS["h"])
    found = DURATION.fullmatch(value)
    if not found:
        raise ValueError(f"not a duration like 90s, 30m, 48h, 7d, 2w: {value!r}")
    span = int(Decimal(found[2]) * UNITS[found[3]])
    return -span if found[1] else span


def normal(match: Json) -> Json:
    """Return criteria in their long form; nothing to match is `{"all": []}`, which everything matches."""
    if match is None:
        return {"all": []}
    if isinstance(match, str):
        return _leaf(match)
    if isinstance(match, list):
        return {"all": [normal(one) for one in match]}
    for name in ("all", "any"):
        if name in match:
            return {name: [normal(one) for one in match[name]]}
    return {"not": normal(match["not"])} if "not" in match else match


def _leaf(text: str) -> Json:
    found = TEXT.fullmatch(text.strip())
    if not found:
        raise ValueError(f"not criteria like `ecom_event = Coupon Entered`: {text!r}")
    name, word, value = found.groups()
    op = WORDS[word]
    if op in WITH_LISTS:
        return {"map": name, "op": op, "value": [one.strip() for one in value.split(",")]}
    return {"map": name, "op": op} | ({"value": value.strip()} if value is not None else {})


@dataclass(frozen=True)
class Space:
    """What all criteria of a space share; `first_seen` has for each data map the time of its first value."""

    zone: str = "UTC"
    types: Mapping[str, str] = field(default_factory=dict)
    first_seen: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """
    What criteria look at: a call in the log of its person, or (onlyIf) a time and no call.

    `variables` are the captured ones by name, `variable_types` their types; `initial_sync` is in milliseconds.
    """

    space: Space
    log: Log
    time: int
    entry: Entry | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    variable_types: Mapping[str, str] = field(default_factory=dict)
    initial_sync: int | None = None

    def value(self, leaf: Mapping[str, Json]) -> Json:
        """Return the value that a leaf is about, as it is shown."""
        scope, name = leaf.get("scope", "event" if self.entry else "profile"), leaf["map"]
        if scope == "instance":
            return self.variables.get(name)
        if scope == "profile" or self.entry is None:
            return last_value(self.log, name, until=self.entry.version if self.entry else self.time)
        return self.entry.values.get(name)

    def type(self, leaf: Mapping[str, Json]) -> str:
        """Return the type of that value."""
        types = self.variable_types if leaf.get("scope") == "instance" else self.space.types
        return types.get(leaf["map"], "string")

    def has_changed(self, name: str, value: Json) -> bool:
        """
        Tell whether this call's value is another than the one before.

        A first value while data maps are synchronised is none. *Chosen*: the end of that time belongs to it.
        """
        if self.entry is None:
            return False
        previous = last_value(self.log, name, before=self.entry.version)
        if previous is not None or self.initial_sync is None:
            return bool(previous != value)
        return self.time > self.space.first_seen.get(name, self.time) + self.initial_sync


def holds(match: Json, moment: Moment) -> bool:
    """Tell whether criteria hold."""
    if "all" in match:
        return all(holds(one, moment) for one in match["all"])
    if "any" in match:
        return any(holds(one, moment) for one in match["any"])
    if "not" in match:
        return not holds(match["not"], moment)
    op = match["op"]
    if op.startswith("not_"):
        positive = {"true": "is_true", "false": "is_false"}.get(op[4:], op[4:])
        return not _holds(positive, match, moment)
    return _holds(op, match, moment)


def _holds(op: str, leaf: Mapping[str, Json], moment: Moment) -> bool:
    """Decide a positive operator: false on an absent value, except `empty`."""
    value, kind = moment.value(leaf), moment.type(leaf)
    if op == "empty":
        return value in (None, "", [])
    if value is None:
        return False
    if op == "changed":
        return moment.has_changed(leaf["map"], value)
    arguments = _arguments(op, leaf, kind, moment)
    if None in arguments:
        return False
    if op == "changed_to":
        return bool(value == arguments[0]) and moment.has_changed(leaf["map"], value)
    if leaf.get("ignoreCase"):
        value, arguments = _lower(value), [_lower(one) for one in arguments]
    if op == "matches":
        return re.search(arguments[0], value, re.IGNORECASE if leaf.get("ignoreCase") else 0) is not None
    typed = [_comparable(one, kind) for one in arguments] if op not in ABOUT_TIME else arguments
    return OPERATORS[op](_comparable(value, kind), typed, moment)


def _arguments(op: str, leaf: Mapping[str, Json], kind: str, moment: Moment) -> list[Json]:
    """Return what a value is compared with: read as the value's type, or a captured variable; None for none."""
    if op in ABOUT_NOTHING:
        return []
    if "var" in leaf:
        return [moment.variables.get(leaf["var"])]
    given = leaf.get("value")
    if op in ABOUT_TIME:
        return [milliseconds(given)]
    several = given if op in MANY and isinstance(given, list) else [given]
    # What is looked for in a list is a text.
    of_what = "string" if kind == "list" and op.startswith("contains") else kind
    return [DataMap("", ("it",), of_what).value({"it": one}, moment.space.zone) for one in several]


def _comparable(value: Json, kind: str) -> Json:
    if kind == "numeric":
        return Decimal(value)
    return time_of(value) if kind == "date" else value


def _lower(value: Json) -> Json:
    if isinstance(value, list):
        return [_lower(one) for one in value]
    return value.lower() if isinstance(value, str) else value


def _on(value: int, wanted: list[int], moment: Moment) -> bool:
    days = [_local(time, moment.space.zone).date() for time in (value, wanted[0])]
    return days[0] == days[1]


def _local(time: int, zone: str) -> datetime:
    return (EPOCH + timedelta(milliseconds=time)).astimezone(ZoneInfo(zone))


OPERATORS: Mapping[str, Callable[[Json, list[Json], Moment], bool]] = {
    "equals": lambda value, wanted, _: value == wanted[0],
    "in": lambda value, wanted, _: value in wanted,
    "exists": lambda *_: True,
    "contains": lambda value, wanted, _: wanted[0] in value,
    "contains_any": lambda value, wanted, _: any(one in value for one in wanted),
    "contains_all": lambda value, wanted, _: all(one in value for one in wanted),
    "starts_with": lambda value, wanted, _: value.startswith(wanted[0]),
    "ends_with": lambda value, wanted, _: value.endswith(wanted[0]),
    "gt": lambda value, wanted, _: value > wanted[0],
    "gte": lambda value, wanted, _: value >= wanted[0],
    "lt": lambda value, wanted, _: value < wanted[0],
    "lte": lambda value, wanted, _: value <= wanted[0],
    "between": lambda value, wanted, _: wanted[0] <= value <= wanted[1],
    "before": lambda value, wanted, _: value < wanted[0],
    "after": lambda value, wanted, _: value > wanted[0],
    "on": _on,
    "in_last": lambda value, wanted, moment: moment.time - wanted[0] <= value <= moment.time,
    "in_next": lambda value, wanted, moment: moment.time <= value <= moment.time + wanted[0],
    "older_than": lambda value, wanted, moment: value < moment.time - wanted[0],
    "is_true": lambda value, *_: value is True,
    "is_false": lambda value, *_: value is False,
}
"""The positive operators on a value that is there; times are relative to the event, never to the wall clock."""
