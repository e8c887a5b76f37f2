"""
The canonical run of one rule over one person (semantics 2.4 to 2.6). Pure.

Instances are folded from the log in the order of event times, with timers in between; what the gate has decided comes
in as facts. One more call at the end of the log is one more step of the same fold.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import is_

from msgspec.structs import replace

from emarsys_cdp.rules.book import (
    ACTIVE,
    COMPLETED,
    DUE,
    EXPIRED,
    NO_DATE,
    RECORDED,
    SENT,
    TIMEOUT,
    WAITS,
    Instance,
    Logged,
    Passage,
    RuleState,
)
from emarsys_cdp.rules.fold_state import Person, Programs, Trace, entered, silent
from emarsys_cdp.rules.pattern import Node, Row
from emarsys_cdp.rules.program import Program, in_window
from emarsys_cdp.rules.ruleset import GOES_ON, STARTS
from emarsys_cdp.rules.starting import Starting
from emarsys_cdp.rules.stopping import Stopping

__all__ = ["Fold", "Person", "decided", "folded"]


class Fold(Starting, Stopping):
    """One rule over one person, from a state on."""

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
        if what & STARTS and self._rule in call.opens:
            self._start(call)

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
                instance = entered(instance, instance.node + 1, deadline)
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
            reached = replace(entered(instance, place, fire), passages=passages)
        self._trace("due", None, reached, None)
        return reached

    def _advance(self, index: int, call: Logged) -> None:
        """Try the step rows that an instance waits for (E3)."""
        instance = self._instances[index]
        if instance.status != ACTIVE or call.time < instance.since:
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
                self._instances[index] = entered(instance, instance.node + 1, call.time)
                self._moved.setdefault(index, set()).add(call.message_id)
            self._trace("advanced", call, self._instances[index], row)
            return

    def _steps(self, program: Program, row: Row, call: Logged, instance: Instance) -> bool:
        is_armed = in_window(row, instance.since, call.time, program.pattern.lifetime)
        return is_armed and self._matches(program, row, call, instance)


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


def folded(
    rule: str,
    programs: Programs,
    person: Person,
    state: RuleState,
    now: int | None = None,
    trace: Trace = silent,
) -> tuple[RuleState, Iterable[str]]:
    """
    Return the state of a rule folded anew from the log, up to *now* (None: no timers after the last call).

    With it the instances whose sent effects may have to be withdrawn.
    """
    fold = Fold(rule, programs, person, replace(state, instances=(), horizon=0, late_stops=0), trace)
    fold.all_calls()
    if now is not None:
        fold.end(now)
    after = fold.result()
    # What was told once stays told, also when the facts that it was told by are another's now.
    return replace(after, late_stops=max(state.late_stops, after.late_stops)), fold.doubts
