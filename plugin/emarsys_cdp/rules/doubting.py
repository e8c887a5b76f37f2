"""Why a call did nothing for a rule: each row with its window and every comparison with the value read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules.book import Book, Instance, Logged
from emarsys_cdp.rules.criteria import NOTHING, Leaf
from emarsys_cdp.rules.explaining import Decision, Told, why_not_open
from emarsys_cdp.rules.passing import Sight
from emarsys_cdp.rules.pattern import EXCLUDE, START, STEP, WHOLE, Row
from emarsys_cdp.rules.program import Program
from emarsys_cdp.rules.ruleset import RuleSet

NO_MATCH, NOT_ARMED, NO_TRANSACTION, COUNT, NO_CALL = "no_match", "not_armed", "no_transaction", "count", "no_call"
"""Verdicts beside the kinds of decisions: what is missing; `no_call`: the row acts by itself."""


class Checked(Struct, frozen=True):
    """
    A row at a call, for one of the instances that there were (None: a start row, or there were none).

    *verdict* is what the row did, or why it did nothing; *why* says it in words. It was armed from *begin* to *end*
    (ms; None: not at all, or without an end). *leaves* are its comparisons with the values read.
    """

    row: str
    type: str
    version: int
    instance: str | None
    verdict: str
    why: str = ""
    begin: int | None = None
    end: int | None = None
    leaves: tuple[Leaf, ...] = ()


class Doubt(Struct, frozen=True):
    """What became of a call for a rule; no *call*: it is not in the log, which reaches back to *floor* (ms, 0: all)."""

    call: Logged | None
    decisions: tuple[Decision, ...]
    rows: tuple[Checked, ...]
    floor: int


def why_not(rules: RuleSet, rule: str, book: Book, sight: Sight, message_id: str) -> Doubt:
    """Return what each row of a rule made of a call."""
    call = next((one for one in book.log if one.message_id == message_id), None)
    if call is None:
        return Doubt(None, (), (), book.floor)
    told = Told(rules, rule, book, sight)
    alive: Sequence[Instance] = ()
    for time, calls in groupby(book.log, lambda one: one.time):
        told.fold.timers(time)
        if time == call.time:
            alive = [one for one in told.fold.result().instances if one.unfinished]
        told.fold.calls(list(calls))
        if time == call.time:
            break
    decisions = tuple([one for one in told.decisions if one.mid == message_id])
    return Doubt(call, decisions, tuple(_rows(told, call, alive, decisions)), book.floor)


def _rows(told: Told, call: Logged, alive: Sequence[Instance], decisions: Sequence[Decision]) -> Iterator[Checked]:
    current = told.rules.program(told.rule, call.opens.get(told.rule, told.rules.current.get(told.rule, 0)))
    pinned = {one.version: program for one in alive if (program := told.program(one)) is not None}
    programs = ([current] if current is not None else []) + [
        one for one in pinned.values() if current is None or one.pattern.version != current.pattern.version
    ]
    for program in programs:
        of_program = [one for one in alive if told.program(one) is program]
        for row in program.pattern.rows:
            yield from _row(_At(told, call, program, decisions), row, of_program)


class _At(Struct, frozen=True):
    """A call at the rows of a program."""

    told: Told
    call: Logged
    program: Program
    decisions: Sequence[Decision]


def _row(at: _At, row: Row, alive: Sequence[Instance]) -> Iterator[Checked]:
    version = at.program.pattern.version
    if row.type == START:
        yield _start(at, row)
    elif row.type not in (STEP, EXCLUDE):
        yield Checked(row.id, row.type, version, None, NO_CALL, "acts by itself when its time comes")
    elif not alive:
        failed = _mismatch(at, row, None)
        verdict, why = failed or (NOT_ARMED, "nothing of this rule was running for the person")
        yield Checked(row.id, row.type, version, None, verdict, why, leaves=_leaves(at, row, None))
    for instance in alive if row.type in (STEP, EXCLUDE) else ():
        yield _for(at, row, instance)


def _leaves(at: _At, row: Row, instance: Instance | None) -> tuple[Leaf, ...]:
    return row.criterion.leaves(at.told.facts(at.call, NOTHING if instance is None else instance.variables))


def _mismatch(at: _At, row: Row, instance: Instance | None) -> tuple[str, str] | None:
    """Return why a row does not match the call, None when it does."""
    if row.on and at.call.type not in row.on:
        return NO_MATCH, f"it is for {', '.join(sorted(row.on))}, and the call is a {at.call.type}"
    variables = NOTHING if instance is None else instance.variables
    if not row.criterion.holds(at.told.facts(at.call, variables)):
        return NO_MATCH, "its criteria do not hold"
    return None


def _start(at: _At, row: Row) -> Checked:
    """Return what a start row made of the call."""
    pattern, call = at.program.pattern, at.call
    found = Checked(row.id, row.type, pattern.version, None, "", leaves=_leaves(at, row, None))
    failed = _mismatch(at, row, None)
    if failed is None and pattern.rule not in call.opens:
        kind = why_not_open(at.told.rules, call)
        failed = kind, "decided when the call was seen"
    if failed is not None:
        return _with(found, *failed)
    done = next((one for one in at.decisions if one.row == row.id), None)
    if done is not None:
        return replace(found, verdict=done.kind, instance=done.instance)
    if row.count > 1:
        return _with(found, COUNT, f"fewer than {row.count} calls have matched in its time")
    return _with(found, "already_active", "another start row, or an instance that is there, was first")


def _for(at: _At, row: Row, instance: Instance) -> Checked:
    """Return what a step or exclude row made of the call for an instance."""
    begin, end = _window(at, row, instance)
    found = Checked(
        row.id, row.type, instance.version, instance.id, "", "", begin, end, leaves=_leaves(at, row, instance)
    )
    done = next((one for one in at.decisions if one.row == row.id and one.instance == instance.id), None)
    if done is not None:
        return _with(found, done.kind, "")
    failed = _mismatch(at, row, instance) or _unarmed(at, row, instance, begin, end)
    if failed is not None:
        return _with(found, *failed)
    late = next((one for one in at.decisions if one.kind == "late_stop" and one.instance == instance.id), None)
    if late is not None and row.type == EXCLUDE:
        return _with(found, late.kind, "it was seen after the sending: nothing changes")
    if row.count > 1:
        return _with(found, COUNT, f"fewer than {row.count} calls have matched in its time")
    return _with(found, NOT_ARMED, "another row, or another call of the same instant, was first")


def _window(at: _At, row: Row, instance: Instance) -> tuple[int | None, int | None]:
    """Return the window of a row for an instance where it stands: (None, None) when it is about another stage."""
    plan, lifetime = at.program.pattern.plan, at.program.pattern.lifetime
    step = row.type == STEP and instance.node + 1 < len(plan) and row.index in plan[instance.node + 1].rows
    if row.type == EXCLUDE and row.seq == WHOLE:
        since = instance.began
    elif step or (row.type == EXCLUDE and row.seq == plan[instance.node].seq):
        since = instance.since
    else:
        return None, None
    within = lifetime if row.within is None and row.type == STEP else row.within
    return since + (row.wait or 0), None if within is None else since + within


def _unarmed(at: _At, row: Row, instance: Instance, begin: int | None, end: int | None) -> tuple[str, str] | None:
    """Return why a row that matches was not armed, None when it was."""
    call, transaction = at.call, at.program.pattern.transaction
    if begin is None:
        return NOT_ARMED, "the instance stood in another stage"
    if call.time < begin:
        return NOT_ARMED, "the call was before its window"
    if end is not None and call.time > end:
        return NOT_ARMED, "the call was after its window"
    value = None if transaction is None else call.values.get(transaction)
    if transaction is not None and value != instance.transaction and not (row.type == EXCLUDE and not value):
        return NO_TRANSACTION, f"{transaction} is another one than that of the instance"
    return None


def _with(found: Checked, verdict: str, why: str) -> Checked:
    return replace(found, verdict=verdict, why=why)
