"""From the criteria of a document - short texts, comparisons, all, any, not - to the tree that is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Raw
from typing import Final

from msgspec import Struct

from emarsys_cdp.rules.arguments import read_argument
from emarsys_cdp.rules.findings import Findings, unknown
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.operators import (
    BUILT_INS,
    CHANGES,
    LIST,
    NEGATED,
    NEGATION,
    NUMERIC,
    ONE,
    STRING,
    BuiltIn,
)
from emarsys_cdp.rules.short_text import operator_names, parse_short
from emarsys_cdp.rules.tree import EVENT, INSTANCE, SCOPES, All, Any, Node, Not, Test
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Json, Operator

MAX_TESTS: Final = 500
"""Most comparisons of one condition."""

MAX_PATTERNS: Final = 2000
"""Most regular expressions of a document: that many take at most a gigabyte and 40 seconds to prepare."""

MAX_DEPTH: Final = 20
"""Deepest nesting of all, any and not."""

MAX_SHORT: Final = 10_000
"""Longest short text, in characters."""

MATCHES: Final = "matches"
_GROUPS = ("all", "any", "not")
_MEMBERS = ("map", "op", "value", "var", "scope", "ignoreCase")
_NO_TESTS: Final = "says nothing: leave it out for every call, or give a comparison"


class Surroundings(Struct, frozen=True):
    """
    What criteria may name: *maps* and captured *variables* with their data types; *zone* is the space's.

    *scope* is where values are read when a comparison does not say; *scopes* are those that are possible here.
    """

    maps: Mapping[str, str]
    variables: Mapping[str, str] = {}
    zone: str = "UTC"
    kinds: Kinds = Kinds()
    scope: str = EVENT
    scopes: tuple[str, ...] = SCOPES


def read_criteria(raw: Json, place: str, around: Surroundings, findings: Findings) -> Node | None:
    """Return the tree of raw criteria; None when they have problems, which are noted with their places."""
    before = len(findings.problems)
    reading = _Reading(around, findings)
    node = reading.node(raw, place, MAX_DEPTH)
    if reading.tests > MAX_TESTS:
        findings.add(place, f"has {reading.tests} comparisons: at most {MAX_TESTS}; `in` takes a list of values")
    return node if len(findings.problems) == before else None


class _Reading:
    """Reads one criterion and counts its comparisons."""

    def __init__(self, around: Surroundings, findings: Findings) -> None:
        self._around = around
        self._findings = findings
        self.tests = 0

    def node(self, raw: Json, place: str, depth: int) -> Node | None:
        """Return the node of a text, an array of texts, or an object."""
        if depth == 0:
            self._findings.add(place, f"is nested too deep: at most {MAX_DEPTH} levels of all, any and not")
            return None
        if isinstance(raw, str):
            return self._short(raw, place)
        if isinstance(raw, list):
            return self._parts(raw, place, depth, All)
        if not isinstance(raw, dict):
            self._findings.add(place, f"{shorten(raw)} is no criterion: write for instance event = Coupon Entered")
            return None
        groups = [name for name in _GROUPS if name in raw]
        return self._group(groups, raw, place, depth) if groups else self._test(raw, place)

    def _group(self, groups: list[str], raw: Mapping[str, Json], place: str, depth: int) -> Node | None:
        if len(raw) != 1:
            self._findings.add(place, f"has {', '.join(raw)}: {groups[0]} stands alone; put it into an all with others")
            return None
        name, inner = groups[0], raw[groups[0]]
        below = f"{place}.{name}"
        if name == "not":
            part = self.node(inner, below, depth - 1)
            return None if part is None else Not(part)
        if not isinstance(inner, list):
            self._findings.add(below, f"{shorten(inner)} is no list of criteria")
            return None
        return self._parts(inner, below, depth, All if name == "all" else Any)

    def _parts(self, raw: list[Json], place: str, depth: int, kind: type[All] | type[Any]) -> Node | None:
        if not raw:
            self._findings.add(place, _NO_TESTS)
            return None
        parts = [self.node(one, f"{place}[{index}]", depth - 1) for index, one in enumerate(raw)]
        found = tuple([part for part in parts if part is not None])
        return found[0] if len(found) == 1 == len(raw) else kind(found)

    def _short(self, text: str, place: str) -> Node | None:
        if not text.strip():
            self._findings.add(place, _NO_TESTS)
            return None
        if len(text) > MAX_SHORT:
            self._findings.add(place, f"a text of {len(text)} characters is too long: at most {MAX_SHORT}")
            return None
        around = self._around
        names = around.variables if around.scope == INSTANCE else around.maps
        raw = self._findings.attempt(place, lambda: parse_short(text, names, around.kinds))
        return None if raw is None else self._test(raw, place, short=True)

    def _test(self, raw: Mapping[str, Json], place: str, short: bool = False) -> Node | None:
        """Return the node of a comparison; a short text has no inner places."""
        self.tests += 1
        before = len(self._findings.problems)
        reading = _TestReading(raw, place, short, self._around, self._findings)
        node = reading.node()
        return node if len(self._findings.problems) == before else None


class _TestReading:
    """Reads one comparison, and notes everything that is wrong with it."""

    def __init__(
        self, raw: Mapping[str, Json], place: str, short: bool, around: Surroundings, findings: Findings
    ) -> None:
        self._raw = raw
        self._place = place
        self._short = short
        self._around = around
        self._findings = findings

    def _add(self, member: str, message: str) -> None:
        self._findings.add(self._place if self._short else f"{self._place}.{member}", message)

    def node(self) -> Node | None:
        """Return the node of the comparison, None when it has problems."""
        raw = self._raw
        for name in raw:
            if name not in _MEMBERS:
                self._add(name, unknown(name, "part of a comparison", _MEMBERS))
        for name in ("map", "op"):
            if name not in raw:
                self._findings.add(self._place, f"has no {name}: a comparison is {{map, op, value}}")
        scope = raw.get("scope", self._around.scope)
        op = raw.get("op")
        if scope not in self._around.scopes:
            self._add("scope", unknown(scope, "scope here", self._around.scopes))
            return None
        data_type = self._type(raw.get("map"), scope) if "map" in raw else None
        operator, negated = self._operator(op)
        if data_type is None or operator is None:
            return None
        self._check(operator, data_type, scope)
        value = self._value(operator, data_type)
        if operator.name in CHANGES:
            scope = EVENT  # what the person's value is now is what the call brings
        test = Test(raw["map"], operator.name, value, raw.get("var"), scope, raw.get("ignoreCase") is True)
        return Not(test) if negated else test

    def _type(self, name: Raw, scope: str) -> str | None:
        """Return the data type of what is compared."""
        if scope != INSTANCE:
            found = self._around.maps.get(name) if isinstance(name, str) else None
            if found is None:
                self._add("map", unknown(name, "data map", self._around.maps))
            return found
        found = self._around.variables.get(name) if isinstance(name, str) else None
        if found is None:
            self._add("map", self._never_captured(name))
        return found

    def _never_captured(self, name: Raw) -> str:
        return f"{unknown(name, 'captured variable', self._around.variables)}; rows capture with `variables`"

    def _operator(self, op: Raw) -> tuple[BuiltIn | Operator | None, bool]:
        """Return the operator of a name, and whether it is negated."""
        if not isinstance(op, str):
            if op is not None:
                self._add("op", f"{shorten(op)} is no operator: give its name, such as equals")
            return None, False
        added = self._around.kinds.operators
        positive = NEGATED.get(op) or op
        found = BUILT_INS.get(positive) or added.get(positive)
        if found is None and op.startswith(NEGATION):
            positive = op.removeprefix(NEGATION)
            found = BUILT_INS.get(positive) or added.get(positive)
        if found is None:
            self._add("op", unknown(op, "operator", operator_names(self._around.kinds)))
        return found, positive != op

    def _check(self, operator: BuiltIn | Operator, data_type: str, scope: str) -> None:
        """Note what does not go together."""
        raw, name = self._raw, operator.name
        family = self._around.kinds.family(data_type)
        if family not in operator.types and data_type not in operator.types:
            types = ", ".join(operator.types)
            fitting = ", ".join(self._fitting(family))
            self._add("op", f"{name} is for {types}, and {raw['map']!r} is {data_type}: use one of {fitting}")
        if name in CHANGES and (scope == INSTANCE or EVENT not in self._around.scopes):
            self._add("op", f"{name} compares what a call brings with what was known before: there is no call here")
        fold = raw.get("ignoreCase", False)
        if not isinstance(fold, bool):
            self._add("ignoreCase", f"{shorten(fold)} is not true or false")
        folds = isinstance(operator, BuiltIn) and operator.folds and family in (STRING, LIST)
        if fold is True and not folds:
            self._add("ignoreCase", f"{name} of {data_type} has no regard to case: leave it out")
        if "var" in raw:
            self._check_var(operator, family)

    def _fitting(self, family: str) -> list[str]:
        return [one.name for one in BUILT_INS.values() if family in one.types]

    def _check_var(self, operator: BuiltIn | Operator, family: str) -> None:
        raw, name = self._raw, self._raw["var"]
        if "value" in raw:
            self._add("var", "there is a value, too: compare with one of the two")
        if isinstance(operator, BuiltIn) and operator.argument != ONE:
            self._add("var", f"{operator.name} does not compare with a variable: give a value, or use equals")
        if INSTANCE not in self._around.scopes:
            self._add("var", "nothing is captured yet when a rule starts: give a value")
            return
        found = self._around.variables.get(name) if isinstance(name, str) else None
        if found is None:
            self._add("var", self._never_captured(name))
            return
        captured = self._around.kinds.family(found)
        alike = captured == family or (family in (STRING, LIST) and captured in (STRING, NUMERIC))
        if not alike and isinstance(operator, BuiltIn):
            self._add("var", f"{name!r} is {found}, and {raw['map']!r} is {family}: compare values of one type")

    def _value(self, operator: BuiltIn | Operator, data_type: str) -> Json:
        """Return what is compared with; None for a variable."""
        if "var" in self._raw:
            return None
        raw = self._raw.get("value")
        family = self._around.kinds.family(data_type)
        place = self._place if self._short else f"{self._place}.value"
        if isinstance(operator, BuiltIn):
            if family not in operator.types or (operator.name == MATCHES and not self._admits_pattern(place)):
                return None
            return self._findings.attempt(place, lambda: read_argument(operator, raw, family, self._around.zone))
        check = operator.check
        if check is not None:
            self._findings.attempt(place, lambda: check(raw))
        return raw

    def _admits_pattern(self, place: str) -> bool:
        self._findings.patterns += 1
        if self._findings.patterns <= MAX_PATTERNS:
            return True
        self._findings.add(
            place, f"is one regular expression too many: a document has at most {MAX_PATTERNS}; `in` takes a list"
        )
        return False
