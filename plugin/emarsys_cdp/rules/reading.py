"""From the rules of a document to patterns and gates; every problem is reported with its place. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules.criteria_compiling import compile_criteria
from emarsys_cdp.rules.criteria_reading import Surroundings
from emarsys_cdp.rules.findings import Findings, TooMany, unknown
from emarsys_cdp.rules.gate_reading import LIFETIME, Defaults, gate_of
from emarsys_cdp.rules.kinds import BUILT_IN, Kinds
from emarsys_cdp.rules.operators import LIST
from emarsys_cdp.rules.pattern import IGNORE, START, Gate, Node, Pattern, Row
from emarsys_cdp.rules.planning import check_plan, plan_of, span_of
from emarsys_cdp.rules.rows_reading import MAX_ROWS, ReadRow, read_rows, read_variables, surroundings_of
from emarsys_cdp.rules.spans import read_span
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import InvalidDocument, Json, Problem

MAX_RULES: Final = 1000
"""Most rules of a document."""

MAX_PROBLEMS: Final = 1000
"""Most problems of the rules of a document that are told: a document of 10 MB could have a million."""

MAX_ACTIVE: Final = 25
"""Instances of a rule that a person may have at a time where the rule says nothing (semantics 1.7)."""


class ReadRule(Struct, frozen=True):
    """A rule that was read and has no problems, before its criteria are compiled."""

    raw: Mapping[str, Json]
    place: str
    around: Surroundings
    rows: tuple[ReadRow, ...]
    plan: tuple[Node, ...]
    lifetime: int
    reentry_after: int
    gate: Gate


def read_pattern(
    raw: Mapping[str, Json], maps: Mapping[str, str], defaults: Defaults, version: int, kinds: Kinds = BUILT_IN
) -> Pattern:
    """
    Return one version of a rule's pattern; *maps* are the data types of the data maps by their names.

    Raises:
        InvalidDocument: it has problems.

    """
    findings = Findings()
    rule = read_rule(raw, "rule", Surroundings(maps, zone=defaults.timezone, kinds=kinds), defaults, findings)
    if rule is None:
        raise InvalidDocument(str(raw["id"]), tuple(findings.problems))
    return compile_rule(rule, version)


def read_rules(
    raw: Sequence[Mapping[str, Json]], maps: Mapping[str, str], defaults: Defaults, kinds: Kinds = BUILT_IN
) -> tuple[tuple[ReadRule, ...], tuple[Problem, ...]]:
    """
    Return the rules of a document that are right, and the problems of the others: the first `MAX_PROBLEMS`.

    The places are those of the document: `rules[3].conditions[2].match.all[0].op`.
    """
    findings = Findings(MAX_PROBLEMS)
    try:
        rules = _read_each(raw, maps, defaults, kinds, findings)
    except TooMany:
        rest = Problem("rules", f"has more problems than these {MAX_PROBLEMS}: mend them first")
        return (), (*findings.problems, rest)
    return rules, tuple(findings.problems)


def _read_each(
    raw: Sequence[Mapping[str, Json]],
    maps: Mapping[str, str],
    defaults: Defaults,
    kinds: Kinds,
    findings: Findings,
) -> tuple[ReadRule, ...]:
    """Return the rules that are right; *findings* gets the problems of the others."""
    around = Surroundings(maps, zone=defaults.timezone, kinds=kinds)
    if len(raw) > MAX_RULES:
        findings.add("rules", f"has {len(raw)} rules: at most {MAX_RULES}")
    first: dict[str, int] = {}
    rules = []
    for index, one in enumerate(raw):
        place = f"rules[{index}]"
        other = first.setdefault(one["id"], index)
        if other != index:
            findings.add(f"{place}.id", f"{shorten(one['id'])} is the id of rules[{other}] too: ids must differ")
        rules.append(read_rule(one, place, around, defaults, findings))
    return tuple([rule for rule in rules if rule is not None])


def read_rule(
    raw: Mapping[str, Json], place: str, around: Surroundings, defaults: Defaults, findings: Findings
) -> ReadRule | None:
    """Return a rule of the shape that the schema checks; None when it has problems, which are noted."""
    before = len(findings.problems)
    conditions, below = raw["conditions"], f"{place}.conditions"
    if len(conditions) > MAX_ROWS:
        findings.add(below, f"has {len(conditions)} conditions: at most {MAX_ROWS}")
        return None
    gate = gate_of(raw, place, defaults, around, findings)
    _check_transaction(raw.get("transaction"), f"{place}.transaction", around, findings)
    after = _reentry_after(raw, place, findings)
    variables = read_variables(conditions, below, around, findings)
    around = replace(around, variables=variables)
    rows = read_rows(conditions, below, around, findings)
    check_plan(rows, below, findings)
    if len(findings.problems) != before:
        return None
    lifetime = read_span(raw["lifetime"]) if "lifetime" in raw else LIFETIME
    return ReadRule(raw, place, around, rows, plan_of(rows), lifetime, after, gate)


def _check_transaction(name: str | None, place: str, around: Surroundings, findings: Findings) -> None:
    if name is None:
        return
    data_type = around.maps.get(name)
    if data_type is None:
        findings.add(place, unknown(name, "data map", around.maps))
    elif around.kinds.family(data_type) in (LIST, "boolean"):
        findings.add(place, f"{name!r} is {data_type}: what tells transactions apart is a string, a number or a date")


def _reentry_after(raw: Mapping[str, Json], place: str, findings: Findings) -> int:
    after = raw.get("reentry", {}).get("after", 0)
    return findings.attempt(f"{place}.reentry.after", lambda: read_span(after)) or 0


def compile_rule(rule: ReadRule, version: int) -> Pattern:
    """Return the pattern of a rule that was read."""
    raw, around = rule.raw, rule.around
    rows = tuple([_compiled(one, around) for one in rule.rows])
    criteria = [one for row in rows for one in (row.criterion, row.only_if) if one is not None]
    reentry = raw.get("reentry", {})
    max_entries = reentry.get("maxEntries")
    return Pattern(
        rule=raw["id"],
        version=version,
        lifetime=rule.lifetime,
        rows=rows,
        plan=rule.plan,
        multiple=raw.get("multiple", False),
        transaction=raw.get("transaction"),
        on_repeat=raw.get("onRepeatStart", IGNORE),
        reentry_after=rule.reentry_after,
        max_entries=None if max_entries is None else int(max_entries),
        max_active=int(raw.get("maxActive", MAX_ACTIVE)),
        span=span_of(rows, rule.plan, rule.lifetime),
        looks_back=max([_looks_back(row, rule.lifetime) for row in rows]),
        needs_profile=any(one.profile_maps for one in criteria),
    )


def _looks_back(row: Row, lifetime: int) -> int:
    """Return how far (ms) before a start the row looks; a count without a time counts within the lifetime (2.3)."""
    counts = row.type == START and row.count > 1
    counted = (lifetime if row.count_within is None else row.count_within) if counts else 0
    return max(row.lookback, counted)


def _compiled(read: ReadRow, around: Surroundings) -> Row:
    row = read.row
    inside = surroundings_of(around, row.type)
    only_if = None if read.only_if is None else compile_criteria(read.only_if, inside)
    return replace(row, criterion=compile_criteria(read.match, inside), only_if=only_if)
