"""
The canonical run of one rule over one person (semantics 2.4 to 2.6). Pure.

Instances are folded from the log in the order of event times, with timers in between; what the gate has decided comes
in as facts. One more call at the end of the log is one more step of the same fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import is_
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules import history
from emarsys_cdp.rules.book import (
    ACTIVE,
    CANCELLED,
    COMPLETED,
    DUE,
    EXPIRED,
    NO_DATE,
    RECORDED,
    REPLACED,
    SENT,
    TIMEOUT,
    WAITS,
    Fact,
    Instance,
    Logged,
    Passage,
    RuleState,
)
from emarsys_cdp.rules.criteria import NOTHING, Facts
from emarsys_cdp.rules.ids import instance_id
from emarsys_cdp.rules.pattern import IGNORE, RESTART, Node, Row
from emarsys_cdp.rules.program import Program, armed, in_window
from emarsys_cdp.rules.ruleset import GOES_ON, STARTS
from emarsys_cdp_hooks import StoredValue, Value

Programs: TypeAlias = Callable[[str, int], "Program | None"]
"""The program of a rule (by its id) and version; None: nobody knows it any more."""

Trace: TypeAlias = Callable[[str, "Logged | None", "Instance | None", "Row | None"], None]
"""
Is told of every decision: its reason, the call, the instance and the row that it is about.

Without a call it is a timer's, or that of a newer version: the instance says when.
"""


def _silent(reason: str, call: Logged | None, instance: Instance | None = None, row: Row | None = None) -> None:
    """Trace nothing."""


class Person(Struct, frozen=True):
    """What a fold reads of a person: the space, the log in its order, and the values of before it."""

    space: str
    log: Sequence[Logged]
    base: Mapping[str, StoredValue] = {}


class Fold:
    """
    One rule over one person, from a state on.

    *doubts* are instances whose sent effects a stop would have prevented: they may be withdrawn still. *trace* is told
    of every decision.
    """

    def __init__(self, rule: str, programs: Programs, person: Person, state: RuleState, trace: Trace = _silent) -> None:
        self._rule = rule
        self._programs = programs
        self._person = person
        self._state = state
        self._facts = state.facts
        self._instances = list(state.instances)
        self._known: dict[int, Program | None] = {}
        self._horizon = state.horizon
        self._late_stops = state.late_stops
        self._trace = trace
        self._moved: dict[int, set[str]] = {}
        self.doubts: dict[str, None] = {}

    def result(self) -> RuleState:
        """Return the state after all that was added; when it is to be looked at next is not in it yet."""
        state = self._state
        if self._is_as_before():
            return state
        return RuleState(
            tuple(self._instances),
            self._facts,
            self._horizon,
            0,
            state.entries,
            state.last_fire,
            self._late_stops,
        )

    def _is_as_before(self) -> bool:
        before, instances = self._state.instances, self._instances
        if len(before) != len(instances) or self._late_stops != self._state.late_stops:
            return False
        return self._horizon == self._state.horizon and all(map(is_, before, instances))

    def add(self, call: Logged, what: int) -> None:
        """Add a call that is later than all others; *what* it may be is known (`ruleset.STARTS`, `GOES_ON`)."""
        if self._instances:
            if call.time >= self._state.wake:
                self.timers(call.time)
            self._replace_by(call.seen)
            if what & GOES_ON:
                self._go_on(call)
        if what & STARTS and self._rule in call.opens and not self._is_taken(call):
            self._start(call)

    def _is_taken(self, call: Logged) -> bool:
        """Tell that a start changes nothing, whether it matches or not: the one instance that there may be is alive."""
        if not self._instances or self._facts or not self._instances[-1].alive:
            return False
        program = self._programs(self._rule, call.opens[self._rule])
        if program is None:
            return True
        pattern = program.pattern
        return not pattern.multiple and pattern.on_repeat == IGNORE

    def _go_on(self, call: Logged) -> None:
        for index in range(len(self._instances)):
            self._stop(index, call)
        for index in range(len(self._instances)):
            self._advance(index, call)

    def all_calls(self) -> None:
        """Add the whole log."""
        for _, calls in groupby(self._person.log, lambda call: call.time):
            self.calls(list(calls))

    def calls(self, calls: list[Logged]) -> None:
        """Add the calls of one instant: an exclude beats everything else of the same instant (2.3)."""
        time = calls[0].time
        self.timers(time)
        if self._instances:
            for call in calls:
                self._replace_by(call.seen)
                for index in range(len(self._instances)):
                    self._stop(index, call)
        self._moved.clear()
        for call in calls:
            for index in range(len(self._instances)):
                self._advance(index, call)
            if self._rule in call.opens:
                self._start(call)
        for index, movers in self._moved.items() if len(calls) > 1 else ():
            for call in calls:
                if call.message_id not in movers:
                    self._stop(index, call)

    def timers(self, until: int, *, inclusive: bool = False) -> None:
        """Let time pass: up to *until* (ms), with what is due at that instant when it is *inclusive*."""
        for index, instance in enumerate(self._instances):
            if instance.status == ACTIVE:
                self._instances[index] = self._timed(instance, until, inclusive)

    def end(self, now: int) -> None:
        """Let time pass up to *now*, the time of the wall."""
        self.timers(now, inclusive=True)
        self._replace_by(now)

    def _timed(self, instance: Instance, until: int, inclusive: bool) -> Instance:
        program = self._program(instance)
        while program is not None and instance.status == ACTIVE:
            node = program.next_node(instance)
            if node is None:
                return settled(replace(instance, status=DUE))
            if node.acts:
                fire = program.fire_time(instance, node)
                if fire is None:
                    return self._expired(instance, NO_DATE, instance.since)
                if fire > until or (fire == until and not inclusive):
                    break
                instance = self._reached(instance, node, fire)
                self._horizon = max(self._horizon, fire)
            else:
                deadline = program.deadline(instance, node)
                if until <= deadline:
                    break
                self._horizon = max(self._horizon, deadline + 1)
                if not node.goes_on:
                    return self._expired(instance, TIMEOUT, deadline)
                instance = _entered(instance, instance.node + 1, deadline)
                self._trace("advanced", None, instance, None)
        return instance

    def _expired(self, instance: Instance, why: str, ended: int) -> Instance:
        expired = replace(instance, status=EXPIRED, why=why, ended=ended)
        self._trace("expired", None, expired, None)
        return expired

    def _reached(self, instance: Instance, node: Node, fire: int) -> Instance:
        """Return an instance that has reached an act node at F."""
        place = instance.node + 1
        variables = None if node.ends else instance.variables
        passage = Passage(place, fire, instance.since, self._outcome(instance.id, place), variables)
        passages = (*instance.passages, passage)
        if node.ends:
            reached = settled(replace(instance, status=DUE, fire=fire, passages=passages))
        else:
            reached = replace(_entered(instance, place, fire), passages=passages)
        self._trace("due", None, reached, None)
        return reached

    def _outcome(self, instance: str, node: int) -> str:
        fact = self._fact(instance, node)
        return WAITS if fact is None else fact.outcome

    def _fact(self, instance: str, node: int) -> Fact | None:
        for fact in self._facts.get(instance, ()):
            if fact.node == node:
                return fact
        return None

    def _replace_by(self, now: int) -> None:
        """End the instances of versions that a newer one has ended by now (onPublish: cancel)."""
        for index, instance in enumerate(self._instances):
            program = self._program(instance) if instance.alive else None
            if program is not None and program.replaced and program.replaced <= now:
                self._instances[index] = _cancelled(instance, REPLACED, now)
                self._trace("cancelled", None, self._instances[index], None)

    def _stop(self, index: int, call: Logged) -> None:
        """Try the exclude rows that are armed for an instance (E1, E2)."""
        instance = self._instances[index]
        if call.time < instance.began:
            return
        if self._is_over(instance, call):
            self._stop_late(instance, call)
            return
        if not self._blocks(instance, call):
            return
        program = self._program(instance)
        row = None if program is None else self._stopping_row(program, instance, call)
        if row is None:
            return
        stopped = _cancelled(self._captured(instance, row, call), call.message_id, call.time)
        if row.actions:
            outcome = self._outcome(instance.id, ~row.index)
            passage = Passage(~row.index, call.time, call.time, outcome, stopped.variables)
            stopped = replace(stopped, passages=(*stopped.passages, passage))
        self._doubt(instance)
        self._instances[index] = stopped
        self._trace("cancelled", call, stopped, row)

    def _stopping_row(self, program: Program, instance: Instance, call: Logged) -> Row | None:
        plan, time = program.pattern.plan, call.time
        if not self._fits(program, instance, call, stop=True):
            return None
        for row in program.guards_of(plan[instance.node].seq):
            if armed(row, instance.since, time) and self._matches(program, row, call, instance):
                return row
        for passage in instance.passages:
            if 0 < passage.node <= instance.node and self._is_unsent(instance, passage, call):
                for row in program.guards_of(plan[passage.node - 1].seq):
                    is_armed = row.within is None and armed(row, passage.left, time)
                    if is_armed and self._matches(program, row, call, instance):
                        return row
        for row in program.whole:
            if armed(row, instance.began, time) and self._matches(program, row, call, instance):
                return row
        return None

    def _is_unsent(self, instance: Instance, passage: Passage, call: Logged) -> bool:
        """Tell whether a passage was still at the gate when a call was seen."""
        fact = self._fact(instance.id, passage.node)
        return fact is None or fact.outcome == WAITS or call.seen <= fact.at

    def _is_over(self, instance: Instance, call: Logged) -> bool:
        """Tell whether a call was seen after the gate had decided an instance's last stage: facts stay facts (E1)."""
        fact = self._last_fact(instance)
        return fact is not None and fact.outcome != WAITS and call.seen > fact.at

    def _last_fact(self, instance: Instance) -> Fact | None:
        """Return what the gate knows of the last stage of an instance in which something is done."""
        program = self._program(instance) if instance.id in self._facts else None
        return None if program is None else self._fact(instance.id, program.last_act)

    def _stop_late(self, instance: Instance, call: Logged) -> None:
        """Note a stop that came after the sending (1k): nothing changes, unless it can be withdrawn still."""
        program, fact = self._program(instance), self._last_fact(instance)
        if fact is None or fact.outcome != SENT or program is None or instance.status not in (ACTIVE, DUE, COMPLETED):
            return
        before = instance.alive or call.time <= instance.fire
        if (fact.sure and not before) or self._stopping_row(program, instance, call) is None:
            return
        self._doubt(instance)
        if before:
            self._late_stops += 1
            self._trace("late_stop", call, instance, None)

    def _doubt(self, instance: Instance) -> None:
        if any(fact.outcome == SENT and not fact.sure for fact in self._facts.get(instance.id, ())):
            self.doubts[instance.id] = None

    def _advance(self, index: int, call: Logged) -> None:
        """Try the step rows that an instance waits for (E3)."""
        instance = self._instances[index]
        if instance.status != ACTIVE or call.time < instance.since or call.message_id == instance.moved:
            return
        if self._is_over(instance, call):
            return
        program = self._program(instance)
        node = None if program is None else program.next_node(instance)
        if program is None or node is None or node.acts or not self._fits(program, instance, call, stop=False):
            return
        for row in program.rows_of(node):
            if row.index in instance.done or not self._steps(program, row, call, instance):
                continue
            if row.count > 1:
                instance = replace(instance, found=(*instance.found, (row.index, call.time)))
                self._instances[index] = instance
                if _counted(instance, row, call.time) < row.count:
                    continue
            instance = self._captured(instance, row, call)
            done = (*instance.done, row.index)
            if node.join and len(done) < len(node.rows):
                self._instances[index] = replace(instance, done=done)
            else:
                self._instances[index] = _entered(instance, instance.node + 1, call.time, call.message_id)
                self._moved.setdefault(index, set()).add(call.message_id)
            self._trace("advanced", call, self._instances[index], row)
            return

    def _steps(self, program: Program, row: Row, call: Logged, instance: Instance) -> bool:
        is_armed = in_window(row, instance.since, call.time, program.pattern.lifetime)
        return is_armed and self._matches(program, row, call, instance)

    def _start(self, call: Logged) -> None:
        """Try the start rows (S1 to S7)."""
        program = self._programs(self._rule, call.opens[self._rule])
        if program is None:
            return
        row = next((row for row in program.starts if self._opens(program, row, call)), None)
        pattern = program.pattern
        value = _text(call, pattern.transaction)
        sent = bool(self._facts) and self._has_sent(call, value)
        if sent:
            row = row or program.starts[0]  # whatever has sent something has been
        if row is None or (not sent and not self._is_free(program, row, call, value)):
            return
        name = instance_id(self._person.space, self._rule, call.message_id, call.who, value)
        if any(one.id == name for one in self._instances):
            return
        new = Instance(
            name, pattern.version, call.message_id, call.time, 0, call.time, call.message_id, transaction=value
        )
        new = self._captured(new, row, call)
        self._moved.setdefault(len(self._instances), set()).add(call.message_id)
        self._instances.append(new)
        self._trace("started", call, new, row)

    def _has_sent(self, call: Logged, value: str | None) -> bool:
        name = instance_id(self._person.space, self._rule, call.message_id, call.who, value)
        return any(fact.outcome == SENT for fact in self._facts.get(name, ()))

    def _opens(self, program: Program, row: Row, call: Logged) -> bool:
        if not self._matches(program, row, call, None):
            return False
        if row.count == 1:
            return True
        within = program.pattern.lifetime if row.count_within is None else row.count_within
        return self._count(program, row, call, call.time - within) >= row.count

    def _is_free(self, program: Program, row: Row, call: Logged, value: str | None) -> bool:
        """Tell whether a new instance may begin (S2, S4 to S6)."""
        pattern = program.pattern
        if pattern.transaction is not None and value is None:
            self._trace("no_transaction", call, None, row)
            return False
        if self._is_late(call, pattern.multiple, value):
            self._trace("late_start", call, None, row)
            return False
        if self._is_repeated(program, row, call, value):
            return False
        entries = self._state.entries + len(self._instances)
        if pattern.max_entries is not None and entries >= pattern.max_entries:
            self._trace("max_entries", call, None, row)
            return False
        last = next((one.fire for one in reversed(self._instances) if one.fire), self._state.last_fire)
        if last and call.time < last + pattern.reentry_after:
            self._trace("cool_down", call, None, row)
            return False
        if self._looked_back(program, row, call, value):
            self._trace("lookback", call, None, row)
            return False
        return True

    def _is_late(self, call: Logged, multiple: bool, value: str | None) -> bool:
        """Tell whether a start was seen after a sending that it would have come before (S2)."""
        if multiple and value is None:
            return False  # nothing is in the way of anything
        return any(
            fact.outcome == SENT and call.seen > fact.at >= call.time and (not multiple or fact.transaction == value)
            for facts in self._facts.values()
            for fact in facts
        )

    def _is_repeated(self, program: Program, row: Row, call: Logged, value: str | None) -> bool:
        """Tell whether an instance is in the way (S4), and do to it what a repeated start does (2.5)."""
        pattern = program.pattern
        blocking = [index for index, one in enumerate(self._instances) if self._blocks(one, call)]
        same = [index for index in blocking if self._instances[index].transaction == value]
        if same and not (pattern.multiple and pattern.transaction is None):
            self._repeat(same[0], program, row, call)
            return True
        if blocking and not pattern.multiple:
            self._trace("already_active", call, self._instances[blocking[0]], row)
            return True
        if len(blocking) >= pattern.max_active:
            self._trace("max_active", call, None, row)
            return True
        return False

    def _blocks(self, instance: Instance, call: Logged) -> bool:
        """Tell whether an instance is alive at a call: it has not ended, or the gate decided only after that."""
        if instance.alive:
            return True
        if instance.status in (CANCELLED, EXPIRED):
            return False
        ends = [fact.at for fact in self._facts.get(instance.id, ()) if fact.outcome != WAITS]
        fact = self._last_fact(instance)
        last = fact.at if instance.fire and fact is not None else max(ends, default=call.time - 1)
        return call.time <= last

    def _repeat(self, index: int, program: Program, row: Row, call: Logged) -> None:
        instance, what = self._instances[index], program.pattern.on_repeat
        restarts = what == RESTART and instance.status == ACTIVE and instance.node == 0
        if what == IGNORE or (what == RESTART and not restarts) or self._is_over(instance, call):
            self._trace("already_active", call, instance, row)
            return
        if restarts:
            instance = _entered(instance, 0, call.time, call.message_id)
            self._moved.setdefault(index, set()).add(call.message_id)
        self._instances[index] = instance = self._captured(instance, row, call)
        self._trace("repeated", call, instance, row)

    def _looked_back(self, program: Program, row: Row, call: Logged, value: str | None) -> bool:
        """Tell whether an exclude row of the first stage has matched before the start (S6)."""
        seq = program.pattern.plan[0].seq
        new = self._captured(Instance("", program.pattern.version, call.message_id, call.time), row, call)
        for guard in (*program.guards_of(seq), *program.whole):
            if not guard.lookback:
                continue
            for earlier in self._person.log:
                if earlier.time >= call.time:
                    break
                if earlier.time < call.time - guard.lookback:
                    continue
                fits = value is None or _text(earlier, program.pattern.transaction) in (None, value)
                if fits and self._matches(program, guard, earlier, new):
                    return True
        return False

    def _count(self, program: Program, row: Row, call: Logged, first: int) -> int:
        """Return how many calls from *first* on, up to this one, match a start row."""
        until = (call.time, call.message_id)
        calls = [one for one in self._person.log if one.time >= first and (one.time, one.message_id) <= until]
        return sum(1 for one in calls if self._matches(program, row, one, None))

    def _matches(self, program: Program, row: Row, call: Logged, instance: Instance | None) -> bool:
        if row.on and call.type not in row.on:
            return False
        variables = NOTHING if instance is None else instance.variables
        if not program.pattern.needs_profile:
            return row.criterion.holds(Facts(call.values, call.time, instance=variables, sync=call.sync))
        person = self._person
        earlier = history.before(person.base, person.log, call)
        return row.criterion.holds(
            Facts(call.values, call.time, {**earlier, **call.values}, earlier, variables, call.sync)
        )

    def _fits(self, program: Program, instance: Instance, call: Logged, *, stop: bool) -> bool:
        """Tell whether the transaction fits: equal, or for a stop none at all."""
        name = program.pattern.transaction
        if name is None:
            return True
        value = _text(call, name)
        return value == instance.transaction or (stop and value is None)

    def _captured(self, instance: Instance, row: Row, call: Logged) -> Instance:
        """Return an instance with the variables of a row taken from a call; what it lacks is left as it is."""
        if not row.variables:
            return instance
        variables = dict[str, Value](instance.variables)
        for data_map, name in row.variables:
            if data_map in call.values:
                variables[name] = call.values[data_map]
        return replace(instance, variables=variables)

    def _program(self, instance: Instance) -> Program | None:
        version = instance.version
        if version not in self._known:
            self._known[version] = self._programs(self._rule, version)
        return self._known[version]


def _entered(instance: Instance, node: int, since: int, moved: str = "") -> Instance:
    """Return an instance that has come to a node of its plan; *moved*: by which call."""
    return replace(instance, node=node, since=since, moved=moved, done=(), found=())


def _counted(instance: Instance, row: Row, time: int) -> int:
    """Return how many calls have matched a row, within its time if it has one."""
    first = 0 if row.count_within is None else time - row.count_within
    return sum(1 for index, at in instance.found if index == row.index and at >= first)


def settled(instance: Instance) -> Instance:
    """Return an instance at the end of its plan with the status that the gate has given it."""
    if not instance.fire:  # a plan without an exit: it is over when nothing waits any more
        waits = any(one.outcome == WAITS for one in instance.passages)
        return instance if waits else replace(instance, status=COMPLETED, ended=instance.since)
    outcome = next(one.outcome for one in instance.passages if one.node == instance.node + 1)
    if outcome == WAITS:
        return instance
    status = COMPLETED if outcome in (SENT, RECORDED) else outcome
    return replace(instance, status=status, ended=instance.fire)


def decided(instance: Instance, node: int, outcome: str) -> Instance:
    """Return an instance with what the gate has decided of one of its passages."""
    passages = tuple([replace(one, outcome=outcome) if one.node == node else one for one in instance.passages])
    instance = replace(instance, passages=passages)
    return settled(instance) if instance.status == DUE else instance


def _cancelled(instance: Instance, why: str, time: int) -> Instance:
    """Return an instance that is over: what still waits at the gate is dropped."""
    passages = tuple([replace(one, outcome=CANCELLED) if one.outcome == WAITS else one for one in instance.passages])
    return replace(instance, status=CANCELLED, why=why, ended=time, passages=passages)


def _text(call: Logged, data_map: str | None) -> str | None:
    """Return the value of a transaction: text that is not empty."""
    value = None if data_map is None else call.values.get(data_map)
    return value if isinstance(value, str) and value else None


def folded(
    rule: str,
    programs: Programs,
    person: Person,
    state: RuleState,
    now: int | None = None,
    trace: Trace = _silent,
) -> tuple[RuleState, Iterable[str]]:
    """
    Return the state of a rule folded anew from the log, up to *now* (None: no timers after the last call).

    With it the instances whose sent effects may have to be withdrawn.
    """
    fold = Fold(rule, programs, person, replace(state, instances=(), horizon=0, late_stops=0), trace)
    fold.all_calls()
    if now is not None:
        fold.end(now)
    return fold.result(), fold.doubts
