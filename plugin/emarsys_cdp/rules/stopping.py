"""What stops an instance: exclude rows while they are armed, and newer versions (semantics 2.4, E1 and E2). Pure."""

from __future__ import annotations

from msgspec.structs import replace

from emarsys_cdp.rules.book import (
    ACTIVE,
    COMPLETED,
    DUE,
    EXPIRED,
    REPLACED,
    SENT,
    WAITS,
    Instance,
    Logged,
    Passage,
)
from emarsys_cdp.rules.fold_state import FoldState, cancelled
from emarsys_cdp.rules.pattern import Row
from emarsys_cdp.rules.program import Program, armed


class Stopping(FoldState):
    """Stops instances."""

    def _stop(self, index: int, call: Logged) -> None:
        """Try the exclude rows that are armed for an instance (E1, E2)."""
        instance = self._instances[index]
        if call.time < instance.began:
            return
        if self._is_over(instance, call):
            self._stop_late(instance, call)
            return
        if not self._blocks(instance, call) and not self._has_unsent(instance, call):
            return
        program = self._program(instance)
        row = None if program is None else self._stopping_row(program, instance, call)
        if row is None:
            return
        stopped = cancelled(self._captured(instance, row, call), call.message_id, call.time)
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
        for row in program.guards_of(plan[instance.node].seq) if instance.status != EXPIRED else ():
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

    def _has_unsent(self, instance: Instance, call: Logged) -> bool:
        """Tell whether something that an expired instance has done was still at the gate when a call was seen."""
        if instance.status != EXPIRED:
            return False
        return any(one.node > 0 and self._is_unsent(instance, one, call) for one in instance.passages)

    def _is_unsent(self, instance: Instance, passage: Passage, call: Logged) -> bool:
        """Tell whether a passage was still at the gate when a call was seen."""
        fact = self._fact(instance.id, passage.node)
        return fact is None or fact.outcome == WAITS or call.seen <= fact.at

    def _stop_late(self, instance: Instance, call: Logged) -> None:
        """Note a stop that came after the sending (1k): nothing changes, unless it can be withdrawn still."""
        program, fact = self._program(instance), self._last_fact(instance)
        if fact is None or fact.outcome != SENT or program is None or instance.status not in (ACTIVE, DUE, COMPLETED):
            return
        before = instance.alive or call.time <= instance.fire
        if (fact.sure and not before) or self._stopping_row(program, instance, call) is None:
            return
        self._doubt(instance)
        told = (instance.id, call.message_id)
        if before and told not in self._told:  # the calls of an instant are asked twice
            self._told.add(told)
            self._late_stops += 1
            self._trace("late_stop", call, instance, None)

    def _doubt(self, instance: Instance) -> None:
        if any(fact.outcome == SENT and not fact.sure for fact in self._facts.get(instance.id, ())):
            self.doubts[instance.id] = None

    def _replace_by(self, now: int) -> None:
        """End the instances of versions that a newer one has ended by now (onPublish: cancel)."""
        for index, instance in enumerate(self._instances):
            program = self._program(instance) if instance.alive else None
            if program is not None and program.replaced and program.replaced <= now:
                self._instances[index] = cancelled(instance, REPLACED, now)
                self._trace("cancelled", None, self._instances[index], None)
