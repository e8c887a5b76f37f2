"""What opens an instance, and what a repeated start does (semantics 2.4, S1 to S7, and 2.5). Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from emarsys_cdp.rules.book import (
    ACTIVE,
    SENT,
    Instance,
    Logged,
)
from emarsys_cdp.rules.fold_state import FoldState, entered, text_of
from emarsys_cdp.rules.ids import instance_id
from emarsys_cdp.rules.pattern import IGNORE, RESTART, Row
from emarsys_cdp.rules.program import Program

_time_of = attrgetter("time")


class Starting(FoldState):
    """Opens instances."""

    def _start(self, call: Logged) -> None:
        """Try the start rows (S1 to S7)."""
        program = self._programs(self._rule, call.opens[self._rule])
        if program is None:
            return
        row = next((row for row in program.starts if self._opens(program, row, call)), None)
        pattern = program.pattern
        value = text_of(call, pattern.transaction)
        sent = bool(self._facts) and self._has_sent(call, value)
        if sent:
            row = row or program.starts[0]  # whatever has sent something has been
        if row is None or (not sent and not self._is_free(program, row, call, value)):
            return
        name = instance_id(self._person.space, self._rule, call.message_id, call.who, value)
        if any(one.id == name for one in self._instances):
            return
        new = Instance(name, pattern.version, call.message_id, call.time, 0, call.time, transaction=value)
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
        return self._is_counted(program, row, call, call.time - within)

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

    def _repeat(self, index: int, program: Program, row: Row, call: Logged) -> None:
        instance, what = self._instances[index], program.pattern.on_repeat
        restarts = what == RESTART and instance.status == ACTIVE and instance.node == 0
        if what == IGNORE or (what == RESTART and not restarts) or self._is_over(instance, call):
            self._trace("already_active", call, instance, row)
            return
        if restarts:
            instance = entered(instance, 0, call.time)
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
            log, begin = self._person.log, call.time - guard.lookback
            for earlier in log[bisect_left(log, begin, key=_time_of) : bisect_left(log, call.time, key=_time_of)]:
                fits = value is None or text_of(earlier, program.pattern.transaction) in (None, value)
                if fits and self._matches(program, guard, earlier, new):
                    return True
        return False

    def _is_counted(self, program: Program, row: Row, call: Logged, first: int) -> bool:
        """Tell whether enough calls from *first* on, up to this one, match a start row."""
        log, missing = self._person.log, row.count
        place = bisect_right(log, (call.time, call.message_id), key=lambda one: (one.time, one.message_id))
        while missing and place and log[place - 1].time >= first:
            place -= 1
            missing -= self._matches(program, row, log[place], None)
        return not missing
