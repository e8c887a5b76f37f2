"""What is told of a rule as people wrote it, before it is compiled: its data maps, its pattern part, its span."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from emarsys_cdp.rules.pattern import ACTION, ACTIVE, EXCLUDE, EXIT, IGNORE, PAUSED, SHADOW, STEP
from emarsys_cdp.rules.reading import MAX_ACTIVE
from emarsys_cdp.rules.rows_reading import INCLUDE
from emarsys_cdp.values.durations import read_duration

RawRule = Mapping[str, Any]
"""A rule as in a document that was checked."""

LIFETIME_HOURS: Final = 48.0
"""Default lifetime of a rule (semantics 2.1)."""

LATE_HOURS: Final = 24.0
"""Default of lateFireMax (semantics 2.8)."""

QUIET_SECONDS: Final = 86_400.0
"""Quiet hours hold an effect back for less than a day."""

DATED_SECONDS: Final = 2 * 366 * 86_400.0
"""How far away the date of a row with `at` is taken to be: nobody knows before a call brings it."""

RUNS: Final = (ACTIVE, PAUSED, SHADOW)
"""Statuses of a rule whose instances go on (semantics 2.9)."""

_PATTERN: Final = ("lifetime", "transaction", "multiple", "onRepeatStart", "reentry", "maxActive", "conditions")
_DEFAULTS: Final[Mapping[str, Any]] = {
    "lifetime": LIFETIME_HOURS,
    "multiple": False,
    "onRepeatStart": IGNORE,
    "maxActive": MAX_ACTIVE,
}
_DURATIONS: Final = ("lifetime", "wait", "within", "countWithin", "lookback", "after", "offset")
_CRITERIA: Final = ("match", "onlyIf")
_ACTS: Final = (ACTION, EXIT)


def status_of(rule: RawRule) -> str:
    """Return the status of a rule (semantics, amendment 2)."""
    return str(rule.get("status", ACTIVE))


def pattern_part(rule: RawRule) -> dict[str, Any]:
    """Return a rule without the settings of its gate, which may name data maps that an old version has no more."""
    return {name: part for name, part in rule.items() if name in ("id", *_PATTERN)}


def maps_of(rule: RawRule, names: Collection[str]) -> frozenset[str]:
    """Return which of the data maps called *names* a rule's pattern part reads."""
    transaction = rule.get("transaction")
    used = {transaction} if isinstance(transaction, str) else set[str]()
    for row in rule["conditions"]:
        used.update(one for one in row.get("variables", ()) if isinstance(one, str))
        used.update(_mapped(row))
        for name in _CRITERIA:
            used.update(_first_word(text, names) for text in _texts(row.get(name)))
    return frozenset(used & set(names))


def _mapped(raw: Any) -> Iterator[str]:
    """Yield what stands under `map`, at any depth."""
    if isinstance(raw, list):
        for one in raw:
            yield from _mapped(one)
    elif isinstance(raw, Mapping):
        for name, one in raw.items():
            if name == "map" and isinstance(one, str):
                yield one
            else:
                yield from _mapped(one)


def _texts(criteria: Any) -> Iterator[str]:
    """Yield criteria in the short text form."""
    if isinstance(criteria, str):
        yield criteria
    elif isinstance(criteria, list):
        for one in criteria:
            yield from _texts(one)
    elif isinstance(criteria, Mapping):
        for name in ("all", "any", "not"):
            yield from _texts(criteria.get(name))


def _first_word(text: str, names: Collection[str]) -> str:
    """Return the longest name that a text begins with; names may have spaces."""
    text = text.strip()
    ends = [place for place, sign in enumerate(text) if not (sign.isalnum() or sign in "_-.")]
    return next((text[:end] for end in reversed([*ends, len(text)]) if text[:end] in names), "")


def pattern_of(rule: RawRule, data_maps: Mapping[str, Mapping[str, Any]]) -> str:
    """
    Return a text that is the same for two rules exactly when instances need not tell them apart (semantics 2.9).

    *data_maps* are those of the rule's document by their names: of those that the rule reads, path and type count.
    """
    parts = {name: rule.get(name, _DEFAULTS.get(name)) for name in _PATTERN}
    maps = {name: [_listed(data_maps[name]["path"]), data_maps[name]["type"]] for name in maps_of(rule, data_maps)}
    return json.dumps([_plain(parts), maps], sort_keys=True)


def _listed(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def _plain(raw: Any, name: str = "") -> Any:
    """Return the one form of a part: durations in seconds, `include` as step, without what is absent."""
    if isinstance(raw, Mapping):
        return {key: _plain(one, key) for key, one in raw.items() if one is not None}
    if isinstance(raw, list):
        return [_plain(one) for one in raw]
    if name in _DURATIONS:
        return _seconds(raw)
    return STEP if name == "type" and raw == INCLUDE else raw


def _seconds(raw: Any) -> Any:
    """Return the seconds of a duration; one before a captured date may be negative."""
    try:
        if isinstance(raw, str) and raw.startswith("-"):
            return -read_duration(raw[1:])
        return float(read_duration(raw))
    except (ValueError, TypeError):
        return raw


def span_of(rule: RawRule) -> int:
    """
    Return a time in ms within which every instance of a rule ends, if no start restarts it.

    It is never too short: the longest window of the events of each sequence, the longest wait before what each does,
    then everything that the gate may wait for.
    """
    lifetime = _hours(rule.get("lifetime"), LIFETIME_HOURS)
    rows: Sequence[RawRule] = rule["conditions"]
    guards = max([_hours(row.get("within"), lifetime / 3600) for row in rows if row["type"] == EXCLUDE], default=0.0)
    stages: dict[tuple[Any, bool], float] = {}
    for row in rows:
        acts = row["type"] in _ACTS
        longest = _acts_after(row, guards) if acts else _hours(row.get("within"), lifetime / 3600)
        stages[row["seq"], acts] = max(stages.get((row["seq"], acts), 0.0), longest)
    gate = (
        _hours(rule.get("holdForKey"), lifetime / 3600)
        + _hours(rule.get("settle"), 1.0)
        + _hours(rule.get("lateFireMax"), LATE_HOURS)
        + QUIET_SECONDS
    )
    return round((sum(stages.values()) + gate) * 1000)


def _acts_after(row: RawRule, guards: float) -> float:
    """Return how long after its stage was reached a row acts; *guards* is the longest that anything guards a stage."""
    if isinstance(row.get("at"), Mapping):
        return DATED_SECONDS
    return guards if row.get("wait") is None else _hours(row["wait"], 0.0)


def _hours(raw: Any, default: float) -> float:
    """Return the seconds of a duration, or of *default* hours."""
    found = _seconds(default if raw is None else raw)
    return found if isinstance(found, float) else default * 3600
