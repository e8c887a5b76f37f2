"""
Whether criteria can hold at all, as far as that shows in the text: `a = 1` and `a = 2` cannot.

A conjunction is looked at map by map. Where the values that come into question can be listed - those named by equals,
the ends of intervals and what is between them, true and false - each is tried with the operators themselves. What
cannot be listed is taken as possible, so "cannot hold" is always right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from itertools import pairwise, product
from typing import Final, TypeAlias

from emarsys_cdp.rules import tree
from emarsys_cdp.rules.criteria_compiling import show_test
from emarsys_cdp.rules.criteria_reading import Surroundings
from emarsys_cdp.rules.operators import BOOLEAN, BUILT_INS, CHANGES, DATE, LIST, NUMERIC, SPAN, Way, day_of
from emarsys_cdp.values.text import MAX_DIGITS, decimal_text
from emarsys_cdp.values.times import FIRST, LAST, iso_time, parse_time
from emarsys_cdp_hooks import Value

MAX_CASES: Final = 64
"""Most combinations of the parts of any that are looked at; more are taken as possible."""

MAX_LITERALS: Final = 2_000
"""Most comparisons of all combinations together."""

MAX_TRIES: Final = 20_000
"""Most values times comparisons that are tried for one value; more are taken as possible."""

Literal: TypeAlias = tuple[tree.Test, bool]
"""A comparison, and whether it is negated."""

_ABSENT: Final[tuple[Value, ...]] = (None,)
_NOW: Final = 1_736_157_600_000
"""A time of the call to try spans with: 2025-01-06T10:00:00Z."""

_ORDER = ("equals", "in", "gt", "gte", "lt", "lte", "between", "before", "after", "on")


def contradiction(node: tree.Node, around: Surroundings) -> str | None:
    """Return comparisons of a criterion that contradict each other, as short texts; None when it may hold."""
    cases = _cases(node, negated=False)
    if cases is None or sum(len(case) for case in cases) > MAX_LITERALS:
        return None
    found = None
    for case in cases:
        found = _conflict(case, around)
        if found is None:
            return None
    return found


def _cases(node: tree.Node, *, negated: bool) -> list[tuple[Literal, ...]] | None:
    """Return the ways in which a node can hold: comparisons that hold together; None when there are too many."""
    if isinstance(node, tree.Test):
        return [((node, negated),)]
    if isinstance(node, tree.Not):
        return _cases(node.part, negated=not negated)
    parts = []
    for part in node.parts:
        cases = _cases(part, negated=negated)
        if cases is None:
            return None
        parts.append(cases)
    if isinstance(node, tree.All) == negated:  # one of the parts is enough
        joined = [case for cases in parts for case in cases]
        return joined if len(joined) <= MAX_CASES else None
    number = 1
    for cases in parts:
        number *= len(cases)
    if number > MAX_CASES:
        return None
    return [tuple([literal for case in cases for literal in case]) for cases in product(*parts)]


def _conflict(case: Sequence[Literal], around: Surroundings) -> str | None:
    """Return the comparisons of one value that cannot hold together."""
    by_value: dict[tuple[str, str], list[Literal]] = {}
    for literal in case:
        by_value.setdefault((literal[0].scope, literal[0].map), []).append(literal)
    for literals in by_value.values():
        if not _possible(literals, around):
            return " and ".join(dict.fromkeys(show_test(test, negated, around) for test, negated in literals))
    return None


def _possible(literals: Sequence[Literal], around: Surroundings) -> bool:
    if len(literals) <= MAX_CASES and any((test, not negated) in literals for test, negated in literals):
        return False
    way = _way(literals[0][0], around)
    fixed = [one for one in literals if one[0].var is None and one[0].op in BUILT_INS]
    values = _candidates(fixed, way)
    if values is None or len(values) * len(fixed) > MAX_TRIES:
        return True
    relative = all(BUILT_INS[test.op].argument == SPAN for test, _ in fixed)
    tests = [_tried(one, way) for one in fixed if _can_be_tried(one, relative=relative)]
    return any(all(holds(value) for holds in tests) for value in values)


def _way(test: tree.Test, around: Surroundings) -> Way:
    types: Mapping[str, str] = around.variables if test.scope == tree.INSTANCE else around.maps
    return Way(around.kinds.family(types[test.map]), zone=around.zone)


def _candidates(literals: Sequence[Literal], way: Way) -> Sequence[Value] | None:
    """Return values of which one has to hold if any does; None when they cannot be listed."""
    for test, negated in literals:
        listed = _listed(test, negated, way)
        if listed is not None:
            return listed
    if way.type == BOOLEAN:
        return (None, True, False)
    if way.type not in (NUMERIC, DATE) or not literals:
        return None
    spans = [test for test, _ in literals if BUILT_INS[test.op].argument == SPAN]
    order = [test for test, _ in literals if test.op in _ORDER]
    if len(spans) == len(literals):
        moments = [_NOW + sign * test.value for test in spans for sign in (-1, 1)]
        return [None, *_around_moments([_NOW, *moments])]
    if len(order) != len(literals):
        return None
    if way.type == NUMERIC:
        return [None, *_around_numbers([Decimal(one) for test in order for one in _arguments(test)])]
    return [None, *_around_moments([end for test in order for end in _moments(test, way)])]


def _listed(test: tree.Test, negated: bool, way: Way) -> Sequence[Value] | None:
    """Return the values for which one comparison holds, where they are few."""
    if test.ignore_case:
        return None
    if test.op == "exists" and negated:
        return _ABSENT
    if test.op == "empty" and not negated:
        return (None, [] if way.type == LIST else "")
    if negated:
        return None
    if test.op in ("equals", "changed_to"):
        return (test.value,)
    return tuple(test.value) if test.op == "in" else None


def _arguments(test: tree.Test) -> list[str]:
    return test.value if isinstance(test.value, list) else [test.value]


def _moments(test: tree.Test, way: Way) -> list[int]:
    moments = [moment for one in _arguments(test) if (moment := parse_time(one)) is not None]
    if test.op != "on":
        return moments
    try:
        return [end for moment in moments for end in day_of(moment, way.zone)]
    except (OverflowError, ValueError, OSError):
        return moments


def _around_numbers(ends: Iterable[Decimal]) -> list[str]:
    """Return numbers at, between and beyond the ends."""
    numbers = sorted(set(ends))
    with localcontext(prec=4 * MAX_DIGITS):
        between = [(low + high) / 2 for low, high in pairwise(numbers)]
        every = [*numbers, *between, numbers[0] - 1, numbers[-1] + 1]
    return [text for number in every if (text := decimal_text(number)) is not None]


def _around_moments(ends: Iterable[int]) -> list[str]:
    """Return moments at, right before and right after the ends."""
    every = sorted({end + step for end in ends for step in (-1, 0, 1)})
    return [iso_time(moment) for moment in every if FIRST <= moment <= LAST]


def _can_be_tried(literal: Literal, *, relative: bool) -> bool:
    """Tell whether one value decides a comparison: what was before does not show, and dates are relative to a call."""
    test, negated = literal
    if test.op in CHANGES:
        return not negated
    return relative or BUILT_INS[test.op].argument != SPAN


def _tried(literal: Literal, way: Way) -> Callable[[Value], bool]:
    """Return the test of one value by a comparison."""
    test, negated = literal
    operator = BUILT_INS[test.op]
    holds = operator.prepare(test.value, Way(way.type, test.ignore_case, way.zone))

    def tried(value: Value) -> bool:
        found = operator.holds_absent if value is None else holds(value, _NOW)
        return found != negated

    return tried
