"""What is valid in a rule and surely not meant: rows that never match, times that never come, settings without use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from emarsys_cdp.rules.contradictions import contradiction
from emarsys_cdp.rules.pattern import (
    ACTION,
    EXCLUDE,
    EXIT,
    IGNORE,
    START,
    STEP,
    WHOLE,
    Node,
    Row,
)
from emarsys_cdp.rules.planning import guarded
from emarsys_cdp.rules.reading import ReadRule
from emarsys_cdp.rules.rows_reading import ReadRow, surroundings_of
from emarsys_cdp.rules.spans import show_span
from emarsys_cdp.rules.tree import INSTANCE, tests_of
from emarsys_cdp_hooks import Problem

_SO = {
    START: "the rule never starts by it",
    STEP: "nobody gets beyond it",
    EXCLUDE: "it stops nobody",
    ACTION: "nothing is ever done",
    EXIT: "nothing is ever done",
}


def lint_rules(rules: Iterable[ReadRule]) -> tuple[Problem, ...]:
    """Return what is surely not meant in rules that are right, with its places."""
    return tuple([problem for rule in rules for problem in lint_rule(rule)])


def lint_rule(rule: ReadRule) -> Iterator[Problem]:
    """Yield what is surely not meant in one rule."""
    yield from _contradictions(rule)
    yield from _windows(rule)
    yield from _same_calls(rule)
    yield from _captured_late(rule)
    yield from _without_use(rule)


def _place(rule: ReadRule, row: Row, member: str) -> str:
    return f"{rule.place}.conditions[{row.index}].{member}"


def _contradictions(rule: ReadRule) -> Iterator[Problem]:
    for one in rule.rows:
        around = surroundings_of(rule.around, one.row.type)
        for member, node in (("match", one.match), ("onlyIf", one.only_if)):
            found = None if node is None else contradiction(node, around)
            if found is not None:
                yield Problem(_place(rule, one.row, member), f"can never hold: {found}; {_SO[one.row.type]}")


def _windows(rule: ReadRule) -> Iterator[Problem]:
    """Yield times that do not fit together."""
    rows = [one.row for one in rule.rows]
    for row in rows:
        if row.type == STEP and row.within is None and (row.wait or 0) > rule.lifetime:
            yield Problem(
                _place(rule, row, "wait"),
                f"{_shown(row.wait)} is longer than the lifetime {show_span(rule.lifetime)}, in which a step without "
                "within has to come: give it a within",
            )
    for index, node in enumerate(rule.plan):
        following = rule.plan[index + 1] if index + 1 < len(rule.plan) else None
        longest = _longest(rule, node, following)
        if longest is None or following is None:
            continue
        for row in rows:
            if row.type == EXCLUDE and row.seq == node.seq:
                yield from _guard(rule, row, longest, acts=following.acts)


def _longest(rule: ReadRule, node: Node, following: Node | None) -> int | None:
    """Return how long an instance stands at a node at the most; None: nobody knows."""
    if following is None:
        return None
    own = [rule.rows[index].row for index in following.rows]
    if not following.acts:
        return max(rule.lifetime if row.within is None else row.within for row in own)
    if own[0].at is not None:
        return None
    return guarded([one.row for one in rule.rows], node, rule.lifetime) if own[0].wait is None else own[0].wait


def _guard(rule: ReadRule, row: Row, longest: int, *, acts: bool) -> Iterator[Problem]:
    """Yield what is odd about the window of an exclude row in a stage of this length."""
    if row.wait is not None and row.wait > longest:
        held = ", except while a message waits for a key" if acts else ""
        yield Problem(
            _place(rule, row, "wait"),
            f"{_shown(row.wait)} is after the stage, which is over after {show_span(longest)}: it stops nobody{held}",
        )
    if acts and row.within is not None and row.within < longest:
        yield Problem(
            _place(rule, row, "within"),
            f"{_shown(row.within)} is less than what follows waits, {show_span(longest)}: calls in between stop nobody",
        )


def _shown(span: int | None) -> str:
    return show_span(span or 0)


def _same_calls(rule: ReadRule) -> Iterator[Problem]:
    """Yield rows that take away each other's calls: an exclude wins over everything else of the same call."""
    excludes = [one for one in rule.rows if one.row.type == EXCLUDE]
    for start in [one for one in rule.rows if one.row.type == START]:
        for guard in excludes:
            if guard.row.seq in (0, WHOLE) and not guard.row.lookback and _covers(guard, start):
                yield Problem(
                    _place(rule, guard.row, "match"),
                    f"is what starts the rule (conditions[{start.row.index}]): the second such call stops the first",
                )
    for index, node in enumerate(rule.plan[1:]):
        for step in [rule.rows[number] for number in node.rows if not node.acts]:
            for guard in excludes:
                if guard.row.seq in (rule.plan[index].seq, WHOLE) and _covers(guard, step) and _is_armed(guard, step):
                    yield Problem(
                        _place(rule, step.row, "match"),
                        f"is what conditions[{guard.row.index}] stops by, and a stop wins: nobody gets beyond it",
                    )
    for guard in excludes:
        if guard.match is None and not guard.row.on:
            yield Problem(
                f"{rule.place}.conditions[{guard.row.index}]", "stops at any call whatever: give it match, on, or both"
            )


def _covers(guard: ReadRow, other: ReadRow) -> bool:
    """Tell whether every call of one row is one of the guard's, as far as that shows."""
    kinds = not guard.row.on or (other.row.on and other.row.on <= guard.row.on)
    return bool(kinds) and guard.match is not None and guard.match == other.match


def _is_armed(guard: ReadRow, step: ReadRow) -> bool:
    return guard.row.within is None and (guard.row.wait or 0) <= (step.row.wait or 0)


def _captured_late(rule: ReadRule) -> Iterator[Problem]:
    """Yield variables that are read before any row captures them."""
    captured: dict[str, int] = {}
    for one in rule.rows:
        for _, name in one.row.variables:
            captured[name] = min(captured.get(name, one.row.seq), one.row.seq)
    for one in rule.rows:
        row = one.row
        last = max(node.seq for node in rule.plan) if row.seq == WHOLE else row.seq
        for member, names in _read_variables(one):
            for name in dict.fromkeys(names):
                if captured[name] > last or (row.type == STEP and captured[name] == last and not _joined(rule, row)):
                    yield Problem(
                        _place(rule, row, member),
                        f"{name!r} is captured with seq {captured[name]}, and read before that",
                    )


def _joined(rule: ReadRule, row: Row) -> bool:
    return any(node.join for node in rule.plan if node.seq == row.seq)


def _read_variables(read: ReadRow) -> Iterator[tuple[str, list[str]]]:
    for member, node in (("match", read.match), ("onlyIf", read.only_if)):
        tests = () if node is None else tests_of(node)
        names = [test.var for test in tests if test.var is not None]
        yield member, [*names, *[test.map for test in tests if test.scope == INSTANCE]]
    if read.row.at is not None:
        yield "at.var", [read.row.at.var]
    if read.row.type != EXCLUDE:  # an exclude row captures before it acts
        yield "actions", [one.options["var"] for one in read.row.actions if one.do == "update" and "var" in one.options]


def _without_use(rule: ReadRule) -> Iterator[Problem]:
    """Yield what has no effect."""
    rows = [one.row for one in rule.rows]
    if not any(row.actions for row in rows):
        yield Problem(f"{rule.place}.conditions", "do nothing in Emarsys: give an action or exit row actions")
    else:
        for row in rows:
            if row.type == ACTION and not row.actions:
                yield Problem(f"{rule.place}.conditions[{row.index}]", "does nothing: give it actions")
    yield from _idle_starts(rule, rows)
    multiple, transaction = rule.raw.get("multiple", False), rule.raw.get("transaction")
    unbound = multiple and transaction is None
    if unbound and rule.raw.get("onRepeatStart", IGNORE) != IGNORE:
        yield Problem(
            f"{rule.place}.onRepeatStart",
            "has no effect: with multiple and no transaction every start is a new instance",
        )
    if not unbound and "maxActive" in rule.raw:
        yield Problem(f"{rule.place}.maxActive", "has no effect: it is for rules with multiple and no transaction")


def _idle_starts(rule: ReadRule, rows: Sequence[Row]) -> Iterator[Problem]:
    for row in rows:
        if row.type == START and not row.on and rule.rows[row.index].match is None:
            yield Problem(f"{rule.place}.conditions[{row.index}]", "starts at any call of anybody: give it match or on")
