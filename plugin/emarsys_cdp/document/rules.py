"""The rules of a document: read, checked, and compiled with what the space has set for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from emarsys_cdp.document.model import Document, Settings
from emarsys_cdp.document.rule_parts import pattern_part
from emarsys_cdp.document.versions import CANCEL, RuleVersion, Versions
from emarsys_cdp.emarsys.fields import EMAIL_FIELD
from emarsys_cdp.rules.findings import Findings
from emarsys_cdp.rules.gate_reading import Defaults, read_caps
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.lint import lint_rules
from emarsys_cdp.rules.operators import STRING, TYPES
from emarsys_cdp.rules.pattern import MIGRATE, Pattern
from emarsys_cdp.rules.reading import ReadRule, compile_rule, read_pattern, read_rules
from emarsys_cdp.rules.ruleset import INITIAL_SYNC, MAX_LATENESS, RuleSet
from emarsys_cdp.rules.spans import DAY, read_span
from emarsys_cdp_hooks import InvalidDocument, Problem

FIRST_VERSION: Final = 1
"""The version of a rule that has none: the service gives numbers when it publishes."""


def rules_problems(document: Document, kinds: Kinds) -> list[Problem]:
    """
    Return every problem of the rules of a document, and of what is set for all of them.

    The time zone must be right; a data map of an unknown type is taken as one of texts.
    """
    findings = Findings()
    settings = document.settings
    for name, raw in _written(settings).items():
        findings.attempt(f"settings.{name}", partial(read_span, raw))
    read_caps(settings.caps, "settings.caps", findings)
    defaults = Defaults(settings.timezone) if findings.problems else defaults_of(settings)
    types = {name: kind if kinds.family(kind) in TYPES else STRING for name, kind in types_of(document).items()}
    return [*findings.problems, *read_rules(document.rules, types, defaults, kinds)[1]]


def read_all(document: Document, kinds: Kinds) -> tuple[ReadRule, ...]:
    """Return the rules of a document that was checked."""
    return read_rules(document.rules, types_of(document), defaults_of(document.settings), kinds)[0]


def rules_lint(document: Document, kinds: Kinds) -> tuple[Problem, ...]:
    """Return what is surely not meant in the rules of a document that was checked."""
    return lint_rules(read_all(document, kinds))


def build_rules(
    document: Document, kinds: Kinds, key_field: str = EMAIL_FIELD, versions: Versions | None = None
) -> RuleSet | None:
    """
    Return the rules of a document that was checked, None when it has none and had none.

    *key_field* is that of the contacts. *versions* has the old versions that instances may be pinned to.
    """
    rules = read_all(document, kinds)
    if not rules and (versions is None or not versions.kept):
        return None
    numbers = {} if versions is None else versions.current
    current = [compile_rule(one, numbers.get(one.raw["id"]) or one.raw.get("version", FIRST_VERSION)) for one in rules]
    patterns = {(one.rule, one.version): one for one in current}
    kept = () if versions is None else versions.kept
    settings = document.settings
    return RuleSet(
        gates={rule.gate.rule: rule.gate for rule in rules},
        patterns={**_old(kept, patterns, defaults_of(settings), kinds), **patterns},
        current={one.rule: one.version for one in current},
        max_lateness=_span(settings.max_lateness, MAX_LATENESS),
        initial_sync=max([_span(settings.initial_sync, INITIAL_SYNC), *map(_initial_sync, rules)]),
        caps=read_caps(settings.caps, "settings.caps", Findings()),
        replaced={(one.rule, one.version): one.until for one in kept if one.mode == CANCEL},
        key_field=key_field,
    )


Patterns: TypeAlias = dict[tuple[str, int], Pattern]


def _old(kept: Sequence[RuleVersion], current: Patterns, defaults: Defaults, kinds: Kinds) -> Patterns:
    """
    Return the patterns of old versions; one that an extension's leaving has made unreadable is left out.

    Where the version that came after migrates the instances, and has all of their rows, they go by that one.
    """
    patterns = dict(current)
    for one in sorted(kept, key=lambda one: one.version, reverse=True):
        with suppress(InvalidDocument):
            pattern = read_pattern(pattern_part(one.raw), one.maps, defaults, one.version, kinds)
            following = patterns.get((one.rule, one.version + 1))
            migrates = one.mode == MIGRATE and following is not None and _ids(pattern) <= _ids(following)
            patterns[one.rule, one.version] = following if migrates and following is not None else pattern
    return patterns


def _ids(pattern: Pattern) -> frozenset[str]:
    return frozenset([row.id for row in pattern.rows])


def _initial_sync(rule: ReadRule) -> int:
    return _span(rule.raw.get("initialSync"), INITIAL_SYNC)


def types_of(document: Document) -> dict[str, str]:
    """Return the data types of the data maps by their names."""
    return {one.name: one.type for one in document.data_maps}


def defaults_of(settings: Settings) -> Defaults:
    """Return what a space has set for the gates of its rules."""
    return Defaults(settings.timezone, _span(settings.settle, 0), _span(settings.late_fire_max, DAY))


def _span(raw: float | str | None, default: int) -> int:
    return default if raw is None else read_span(raw)


def _written(settings: Settings) -> Mapping[str, float | str]:
    """Return the durations for rules that settings have, by the names that documents use."""
    every = {
        "settle": settings.settle,
        "lateFireMax": settings.late_fire_max,
        "maxLateness": settings.max_lateness,
        "initialSync": settings.initial_sync,
    }
    return {name: raw for name, raw in every.items() if raw is not None}
