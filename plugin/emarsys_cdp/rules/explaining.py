"""
Why a rule did what it did for a person: the log folded once more, with every decision noted. Pure; times in ms.

It is the same fold as that of the service, over the same log and the same facts of the gate, so it cannot tell another
story than what has happened (semantics 2.10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules import history
from emarsys_cdp.rules.book import ACTIVE, SENT, WAITS, Book, Fact, Instance, Logged, RuleState
from emarsys_cdp.rules.criteria import NOTHING, Facts, Values
from emarsys_cdp.rules.fold import Fold, Person
from emarsys_cdp.rules.gate import Ends, Question, Waits, decide
from emarsys_cdp.rules.passing import Planned, Sight, planned_of, rows_of, waiting
from emarsys_cdp.rules.pattern import Row
from emarsys_cdp.rules.program import Program
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp_hooks import Value

EMITTED, TOO_LATE, INACTIVE = "emitted", "too_late", "rule_inactive"
"""Kinds of decisions beside those of the fold and the outcomes of the gate."""

FIRES, WAITS_FOR, SETTLES, HELD, QUIET, CAPPED, DUE = "fires", "waits_for", "settles", "held", "quiet", "capped", "due"
"""What comes next: a fire time; a call that is waited for; why something waits at the gate; a look that is due now."""


class Decision(Struct, frozen=True):
    """
    Something that was decided: when (*t*, by the wall), and when it happened by the time of the calls (*te*).

    *kind* is one of semantics 2.10, *reason* says more where there is more. *mid* is the call, None for a timer or the
    gate. *values* are those that the row reads of the call.
    """

    t: int
    te: int
    kind: str
    reason: str | None = None
    version: int | None = None
    instance: str | None = None
    mid: str | None = None
    row: str | None = None
    values: Mapping[str, Value] = {}


class Next(Struct, frozen=True):
    """What comes next of an instance: *what*, until or at when, and the rows that it is about."""

    what: str
    at: int
    rows: tuple[str, ...] = ()


class Standing(Struct, frozen=True):
    """An instance as it is now, and what comes next of it."""

    instance: Instance
    nexts: tuple[Next, ...]


class Sent(Struct, frozen=True):
    """An effect that was let pass, and the profile in whose shard it is."""

    planned: Planned
    instance: str
    pid: str


class Chain(Struct, frozen=True):
    """
    All that is known of a rule for a person.

    Calls before *floor* (0: there are none) are no longer known: *earlier* instances began with them, the last of which
    fired at *last_fire*.
    """

    decisions: tuple[Decision, ...]
    standings: tuple[Standing, ...]
    effects: tuple[Sent, ...]
    floor: int
    earlier: int
    last_fire: int
    late_stops: int


def explain(rules: RuleSet, rule: str, book: Book, sight: Sight) -> Chain:
    """Return the chain of decisions of a rule, up to the time of the look."""
    told = Told(rules, rule, book, sight)
    told.fold.all_calls()
    told.fold.end(sight.now)
    state = told.fold.result()
    decisions = [*told.decisions, *_not_opened(told), *_of_gate(told, state)]
    decisions.sort(key=lambda one: one.te)
    standings = tuple([Standing(one, tuple(_nexts(told, state, one))) for one in state.instances])
    return Chain(
        tuple(decisions),
        standings,
        tuple(_effects(told, state)),
        book.floor,
        state.entries,
        state.last_fire,
        state.late_stops,
    )


class Told:
    """A fold of one rule that notes every decision in *decisions*."""

    def __init__(self, rules: RuleSet, rule: str, book: Book, sight: Sight) -> None:
        self.rules = rules
        self.rule = rule
        self.book = book
        self.sight = sight
        self.decisions: list[Decision] = []
        self.person = Person(sight.space, book.log, book.base)
        self.before = book.rules.get(rule, RuleState())
        state = replace(self.before, instances=(), horizon=0, late_stops=0)
        self.fold = Fold(rule, rules.program, self.person, state, self._note)

    def _note(self, kind: str, call: Logged | None, instance: Instance | None, row: Row | None) -> None:
        version = None if instance is None else instance.version
        name = None if instance is None else instance.id
        if call is None:
            assert instance is not None  # noqa: S101 - a timer is always an instance's
            time = max(instance.since, instance.fire, instance.ended)
            self.decisions.append(Decision(time, time, kind, instance.why, version, name))
            return
        version = call.opens.get(self.rule) if version is None else version
        row_name, values = (None, {}) if row is None else (row.id, _read(row, call))
        made = Decision(call.seen, call.time, kind, None, version, name, call.message_id, row_name, values)
        self.decisions.append(made)

    def program(self, instance: Instance) -> Program | None:
        """Return the program that an instance is pinned to."""
        return self.rules.program(self.rule, instance.version)

    def facts(self, call: Logged, variables: Values = NOTHING) -> Facts:
        """Return what a criterion may read at a call."""
        earlier = history.before(self.person.base, self.person.log, call)
        return Facts(call.values, call.time, {**earlier, **call.values}, earlier, variables, call.sync)


def _read(row: Row, call: Logged) -> dict[str, Value]:
    """Return what a row reads of a call: for its criterion, and into variables."""
    names = (*sorted(row.criterion.maps), *[name for name, _ in row.variables])
    return {name: call.values[name] for name in names if name in call.values}


def _not_opened(told: Told) -> Iterator[Decision]:
    """Yield starts that could open nothing, whatever else was the case: decided once, when the call was seen."""
    program = told.rules.program(told.rule, told.rules.current.get(told.rule, 0))
    for call in () if program is None else told.person.log:
        if told.rule in call.opens:
            continue
        for row in program.starts if program is not None else ():
            if (not row.on or call.type in row.on) and row.criterion.holds(told.facts(call)):
                kind = why_not_open(told.rules, call)
                values = _read(row, call)
                yield Decision(call.seen, call.time, kind, mid=call.message_id, row=row.id, values=values)
                break


def why_not_open(rules: RuleSet, call: Logged) -> str:
    """Return why a call could start nothing when it was seen: it was too late, or the rule was not active."""
    return TOO_LATE if call.time < call.seen - rules.max_lateness else INACTIVE


def _of_gate(told: Told, state: RuleState) -> Iterator[Decision]:
    """Yield what the gate has decided."""
    for instance in state.instances:
        program = told.program(instance)
        for fact in state.facts.get(instance.id, ()):
            if fact.outcome != WAITS:
                kind = EMITTED if fact.outcome == SENT else fact.outcome
                row = ", ".join(_row_names(program, fact))
                yield Decision(fact.at, fact.at, kind, None, instance.version, instance.id, None, row or None)


def _row_names(program: Program | None, fact: Fact) -> tuple[str, ...]:
    """Return the rows of a passage: those that were let pass, else all that it has."""
    if program is None:
        return ()
    if fact.rows:
        return tuple([program.pattern.rows[index].id for index in fact.rows])
    return tuple([row.id for row in rows_of(program, fact.node)])


def _nexts(told: Told, state: RuleState, instance: Instance) -> Iterator[Next]:
    """Yield what comes next of an instance."""
    program = told.program(instance)
    node = None if program is None or instance.status != ACTIVE else program.next_node(instance)
    if program is not None and node is not None:
        names = tuple([row.id for row in program.rows_of(node)])
        fire = program.fire_time(instance, node) if node.acts else None
        if fire is not None:
            yield Next(FIRES, fire, names)
        elif not node.acts:
            yield Next(WAITS_FOR, program.deadline(instance, node), names)
    only = replace(state, instances=(instance,))
    for question in waiting(told.rules, told.rule, only, told.book, told.sight):
        yield _at_gate(question, told.sight.now)


def _at_gate(question: Question, now: int) -> Next:
    """Return why something waits at the gate, and until when."""
    names = tuple([row.id for row in question.rows])
    verdict = decide(question, now)
    due = question.passage.fire + (0 if question.gate is None else question.gate.settle)
    if isinstance(verdict, Waits):
        what = HELD if verdict.held else SETTLES if verdict.until == due else QUIET
        return Next(what, verdict.until, names)
    deferred = 0 if question.fact is None else question.fact.until
    if not isinstance(verdict, Ends) and deferred > now:
        return Next(CAPPED, deferred, names)
    return Next(DUE, due, names)


def _effects(told: Told, state: RuleState) -> Iterator[Sent]:
    """Yield the effects that were let pass, in the order of that."""
    passed = [
        (fact, instance) for instance in state.instances for fact in state.facts.get(instance.id, ()) if fact.rows
    ]
    for fact, instance in sorted(passed, key=lambda one: one[0].at):
        program = told.program(instance)
        if program is not None and fact.outcome == SENT:
            rows = [program.pattern.rows[index] for index in fact.rows]
            for planned in planned_of(instance.id, rows):
                yield Sent(planned, instance.id, fact.pid)
