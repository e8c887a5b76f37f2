"""
A person is looked at: time has passed, and what has come due goes through the gate. Pure; times in ms since 1970 UTC.

What may be sent is a `Candidate`: whoever looks asks the caps, which are kept elsewhere, and says what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules import history
from emarsys_cdp.rules.book import ARCHIVED, AT_ONCE, SENT, WAITS, Book, Fact, Instance, Passage, RuleState
from emarsys_cdp.rules.criteria import Values
from emarsys_cdp.rules.fold import decided
from emarsys_cdp.rules.gate import Ends, Question, Waits, decide
from emarsys_cdp.rules.ids import effect_id
from emarsys_cdp.rules.pattern import ARCHIVED as ARCHIVED_RULE
from emarsys_cdp.rules.pattern import WHOLE, Action, Cap, Gate, Row
from emarsys_cdp.rules.program import Program
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.rules.taking import pass_time, wake_of

_NO_FACTS: Final = ()


class Candidate(Struct, frozen=True):
    """
    A passage that may be sent if the caps allow it: whose it is, and which of its rows.

    *fresh*: it has waited for a key, so the contact may not exist yet. *zone* is the person's own time
    zone as a call gave it, if any.
    """

    rule: str
    instance: Instance
    passage: Passage
    rows: tuple[Row, ...]
    gate: Gate
    fresh: bool
    zone: str

    @property
    def name(self) -> str:
        """Name the passage: instance and node."""
        return f"{self.instance.id}.{self.passage.node}"


class Planned(Struct, frozen=True):
    """An action of a candidate with the id of its effect, the row it is of, and its number in the passage."""

    id: str
    row: str
    number: int
    action: Action


class Look(Struct, frozen=True):
    """A book after it was looked at, and what may be sent."""

    book: Book
    candidates: tuple[Candidate, ...]


class Sight(Struct, frozen=True):
    """Who is looked at, and when: the space, the person's key of now (None: there is none), the time (ms)."""

    space: str
    key: str | None
    now: int


def look(rules: RuleSet, book: Book, sight: Sight) -> Look:
    """Let time pass for a person, and ask the gate about everything that waits there."""
    book = pass_time(rules, sight.space, book, sight.now)
    at = max(sight.now, book.seen)
    states: dict[str, RuleState] = dict(book.rules)
    candidates: list[Candidate] = []
    for name, before in book.rules.items():
        states[name] = _archived(rules.gates.get(name), before)
        for question in list(waiting(rules, name, states[name], book, sight)):
            states[name], candidate = _ask(name, states[name], question, sight, at)
            candidates += [] if candidate is None else [candidate]
    order = {name: number for number, name in enumerate(rules.gates)}
    candidates.sort(key=lambda one: (one.passage.fire, order[one.rule], one.instance.began, one.instance.start))
    return Look(_noted(rules, replace(book, rules=states)), tuple(candidates))


def waiting(rules: RuleSet, name: str, state: RuleState, book: Book, sight: Sight) -> Iterator[Question]:
    """Yield what has to be asked of a rule, in the order of fire times."""
    passages = [
        (passage, instance) for instance in state.instances for passage in instance.passages if passage.outcome == WAITS
    ]
    for passage, instance in sorted(passages, key=lambda one: (one[0].fire, one[0].node)):
        program = rules.program(name, instance.version)
        if program is None:
            continue
        rows = rows_of(program, passage.node)
        facts = state.facts.get(instance.id, _NO_FACTS)
        fact = next((one for one in facts if one.node == passage.node), None)
        at_fire = _known(book, passage.fire) if any(row.only_if is not None for row in rows) else {}
        gate = rules.gates.get(name)
        yield Question(gate, instance, passage, rows, fact, sight.key, at_fire, _zone(gate, book, sight.now))


def _known(book: Book, time: int) -> Values:
    return history.known(book.base, book.log, (time, history.AT_THE_END))


def _zone(gate: Gate | None, book: Book, now: int) -> str | None:
    name = gate.quiet.zone_map if gate is not None and gate.quiet is not None else None
    last = max([now, *[call.time for call in book.log[-1:]]])  # a clock that is ahead knows it all the same
    value = None if name is None else _known(book, last).get(name)
    return value if isinstance(value, str) else None


def rows_of(program: Program, node: int) -> tuple[Row, ...]:
    """Return the rows of a passage: those of the act node, or the exclude row whose actions they are."""
    if node < 0:
        return (program.pattern.rows[~node],)
    return tuple(program.rows_of(program.pattern.plan[node]))


def _ask(name: str, state: RuleState, question: Question, sight: Sight, at: int) -> tuple[RuleState, Candidate | None]:
    """Ask the gate about one passage; return the state with what it said."""
    verdict = decide(question, sight.now)
    instance, passage = question.instance, question.passage
    before = question.fact or Fact(passage.node, transaction=instance.transaction)
    if isinstance(verdict, Ends):
        fact = replace(before, outcome=verdict.outcome, at=at, sight=before.sight or sight.now, held=False)
        return _with_fact(state, instance, fact), None
    due = passage.fire + (0 if question.gate is None else question.gate.settle)
    first = before.sight or (sight.now if sight.now >= due else 0)
    if isinstance(verdict, Waits):
        held = replace(before, sight=first, until=verdict.until, held=verdict.held)
        return _with_fact(state, instance, held) if held != before else state, None
    assert question.gate is not None  # noqa: S101 - nothing passes without a gate
    rows = tuple([row for row in question.rows if row.index in verdict.rows])
    candidate = Candidate(name, instance, passage, rows, question.gate, before.held, question.own_zone or "")
    return _with_fact(state, instance, replace(before, sight=first, until=sight.now, held=before.held)), candidate


def _with_fact(state: RuleState, instance: Instance, fact: Fact) -> RuleState:
    """Return a state with a fact of the gate, and the instance as it is by it."""
    others = [one for one in state.facts.get(instance.id, _NO_FACTS) if one.node != fact.node]
    facts = {**state.facts, instance.id: (*others, fact)}
    if fact.outcome == WAITS:
        return replace(state, facts=facts)
    instances = [decided(one, fact.node, fact.outcome) if one.id == instance.id else one for one in state.instances]
    return replace(state, facts=facts, instances=tuple(instances))


def _archived(gate: Gate | None, state: RuleState) -> RuleState:
    """Return a state whose instances have ended with their rule, when it is archived or gone."""
    if gate is not None and gate.status != ARCHIVED_RULE:
        return state
    instances = [
        replace(
            one,
            status=ARCHIVED if one.alive else one.status,
            passages=tuple(
                [replace(each, outcome=ARCHIVED) if each.outcome == WAITS else each for each in one.passages]
            ),
        )
        if one.unfinished
        else one
        for one in state.instances
    ]
    return replace(state, instances=tuple(instances))


def _noted(rules: RuleSet, book: Book) -> Book:
    """Return a book with its next look and whether something waits for a key."""
    states = {name: replace(state, wake=wake_of(rules, name, state)) for name, state in book.rules.items()}
    wakes = [state.wake for state in states.values() if state.wake]
    held = any(
        fact.held and fact.outcome == WAITS
        for state in states.values()
        for facts in state.facts.values()
        for fact in facts
    )
    decided = max([fact.at for state in states.values() for facts in state.facts.values() for fact in facts], default=0)
    # Calls of a clock that is ahead were folded before this was decided: they may mean something else now.
    ahead = decided > book.decided and bool(book.log) and book.log[-1].time > decided
    wake = AT_ONCE if book.doubts or book.stale or ahead else min(wakes, default=0)
    decided = max(book.decided, decided)
    return replace(book, rules=states, wake=wake, held=held, decided=decided, stale=book.stale or ahead)


def passed(rules: RuleSet, book: Book, candidate: Candidate, pid: str, now: int) -> Book:
    """Return a book with a candidate sent: its effects go to the outbox in the shard of profile *pid*."""
    rows = tuple([row.index for row in candidate.rows])
    at = max(now, book.seen)
    return _with_decision(rules, book, candidate, outcome=SENT, at=at, rows=rows, pid=pid)


def refused(rules: RuleSet, book: Book, candidate: Candidate, outcome: str, now: int) -> Book:
    """Return a book with a candidate ended by a cap."""
    return _with_decision(rules, book, candidate, outcome=outcome, at=max(now, book.seen))


def deferred(rules: RuleSet, book: Book, candidate: Candidate, until: int) -> Book:
    """Return a book with a candidate that waits for a cap."""
    return _with_decision(rules, book, candidate, until=until)


def _with_decision(rules: RuleSet, book: Book, candidate: Candidate, **changes: object) -> Book:
    state = book.rules[candidate.rule]
    facts = state.facts.get(candidate.instance.id, _NO_FACTS)
    fact = next(one for one in facts if one.node == candidate.passage.node)
    state = _with_fact(state, candidate.instance, replace(fact, held=False, **changes))
    return _noted(rules, replace(book, rules={**book.rules, candidate.rule: state}))


def planned(candidate: Candidate) -> list[Planned]:
    """Return the actions of a candidate in their order."""
    return planned_of(candidate.instance.id, candidate.rows)


def planned_of(instance: str, rows: Iterable[Row]) -> list[Planned]:
    """Return the actions of rows of an instance in their order."""
    found: list[Planned] = []
    for row in rows:
        seq = "*" if row.seq == WHOLE else str(row.seq)
        first = len(found)
        found += [
            Planned(effect_id(instance, seq, row.id, number), row.id, first + number, action)
            for number, action in enumerate(row.actions)
        ]
    return found


def doubted(rules: RuleSet, book: Book) -> list[tuple[str, str, Fact, list[str]]]:
    """Return what may be withdrawn still: rule, instance id, fact, and the ids of its effects."""
    found: list[tuple[str, str, Fact, list[str]]] = []
    for name, instance in book.doubts:
        state = book.rules.get(name)
        found += [
            (name, instance, fact, _effects_of(rules, name, state, instance, fact))
            for fact in (() if state is None else state.facts.get(instance, _NO_FACTS))
            if fact.outcome == SENT and not fact.sure
        ]
    return found


def _effects_of(rules: RuleSet, name: str, state: RuleState | None, instance: str, fact: Fact) -> list[str]:
    known = next((one for one in (() if state is None else state.instances) if one.id == instance), None)
    program = None if known is None else rules.program(name, known.version)
    if program is None:
        return []
    return [one.id for one in planned_of(instance, [program.pattern.rows[index] for index in fact.rows])]


def resolved(book: Book, withdrawn: Sequence[tuple[str, str, Fact, bool]]) -> Book:
    """
    Return a book with its doubts settled: (rule, instance id, fact, whether all its effects were withdrawn).

    What was withdrawn is as if it had never been sent; the book has to be folded anew.
    """
    states = dict(book.rules)
    for name, instance, fact, gone in withdrawn:
        state = states[name]
        facts = [one for one in state.facts[instance] if one.node != fact.node]
        if not gone:
            facts.append(replace(fact, sure=True))
        states[name] = replace(state, facts={**state.facts, instance: tuple(facts)})
    return replace(book, rules=states, doubts=(), stale=True)


def caps_of(gate: Gate, space: tuple[Cap, ...]) -> list[tuple[str, Cap]]:
    """Return the caps that a passage has to meet: those of its rule, and those of the space (an empty rule)."""
    return [*[(gate.rule, cap) for cap in gate.caps], *[("", cap) for cap in space]]
