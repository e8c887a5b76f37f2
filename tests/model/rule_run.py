"""
The canonical run: semantics.md 2.4 to 2.6, always over the whole log of a person.

Calls of one instant: first every exclude of all of them, then steps and starts by messageId, then the excludes of the
stage that was just entered, by the other calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from tests.model.reading import Json
from tests.model.rule_criteria import Moment, Space, holds
from tests.model.rule_document import Row, Rule
from tests.model.rule_instance import Facts, Instance, captured
from tests.model.rule_log import Entry, Log


def run(rule: Rule, log: Log, facts: Facts, now: int, space: Space) -> list[Instance]:
    """Return all instances that a person has, or has had, of a rule."""
    fold = _Fold(rule, log, facts, space)
    for time, calls in groupby(log, key=lambda entry: entry.time):
        fold.pass_time(time, included=False)
        fold.take(time, list(calls))
    fold.pass_time(now, included=True)
    return fold.instances


@dataclass
class _Fold:
    rule: Rule
    log: Log
    facts: Facts
    space: Space

    def __post_init__(self) -> None:
        self.instances: list[Instance] = []

    def pass_time(self, until: int, *, included: bool) -> None:
        for instance in self.instances:
            instance.pass_time(until, included=included)

    def take(self, time: int, calls: Sequence[Entry]) -> None:
        """Take all calls of an instant."""
        for call in calls:
            for instance in self.instances:
                self.try_stop(instance, call)
        for call in calls:
            for instance in self.instances:
                self.try_step(instance, call)
            self.try_start(call)
        for instance in self.instances:
            if instance.since == time and instance.moves.intersection(call.mid for call in calls):
                for call in calls:
                    if call.mid not in instance.moves:
                        self.try_stop(instance, call)

    # Stops

    def try_stop(self, instance: Instance, call: Entry) -> None:
        """E1 and E2."""
        row = next((row for row in self.armed_stops(instance, call) if self.stops(row, instance, call)), None)
        last = instance.last_decision()
        if row is None:
            return
        if last is None or not last.is_before(call):
            instance.cancel(row, call)
        elif last.what == "sent" and instance.state == "active":
            # It happened no later than the exit was due, and came after it was sent.
            instance.late_stops.add(call.mid)

    def stops(self, row: Row, instance: Instance, call: Entry) -> bool:
        return self.fits(instance, call, or_none=True) and self.matches(row, call, instance)

    def armed_stops(self, instance: Instance, call: Entry) -> list[Row]:
        """Return the exclude rows that are armed: of the stage, of the whole instance, of actions that still wait."""
        rule, time = self.rule, call.time
        unsent = [
            one
            for one in instance.passages
            if one.guard and (one.key not in self.facts or not self.facts[one.key].is_before(call))
        ]
        rows: list[Row] = []
        if instance.state == "cancelled":
            return []
        if instance.state in {"active", "due"} and instance.is_live(time):
            stage = rule.of_type("exclude", rule.plan[instance.node].seq)
            rows += [row for row in stage if row.is_armed(instance.since, time)]
        for seq, since in (one.guard for one in unsent if one.guard):
            rows += [row for row in rule.of_type("exclude", seq) if row.within is None and row.is_armed(since, time)]
        return rows + (rule.of_type("exclude") if unsent or instance.is_live(time) else [])

    # Steps

    def try_step(self, instance: Instance, call: Entry) -> None:
        """E3: at most one row, so that one call advances an instance by one place."""
        node, last = instance.next, instance.last_decision()
        if instance.state != "active" or node is None or node.is_act or (last and last.is_before(call)):
            return
        for row in node.rows:
            if row.number in instance.joined or not self.steps(row, instance, call):
                continue
            times = instance.found.setdefault(row.number, [])
            times.append(call.time)
            if sum(1 for time in times if row.count_within is None or time >= call.time - row.count_within) < row.count:
                continue
            instance.capture(row, call)
            instance.joined.add(row.number)
            if len(instance.joined) == len(node.rows) or not any(row.joins for row in node.rows):
                instance.enter(instance.node + 1, call.time)
                instance.moves.add(call.mid)
            return

    def steps(self, row: Row, instance: Instance, call: Entry) -> bool:
        armed = row.is_armed(instance.since, call.time, default=self.rule.lifetime)
        return armed and self.fits(instance, call, or_none=False) and self.matches(row, call, instance)

    # Starts

    def try_start(self, call: Entry) -> None:
        """S1 to S7. Whatever has sent something has been, and stays."""
        rule = self.rule
        rows = rule.of_type("start", rule.plan[0].seq)
        row = next((row for row in rows if self.matches(row, call) and self.is_enough(row, call)), None)
        transaction = call.values.get(rule.transaction) if rule.transaction else None
        new = Instance(rule, call, transaction, self.facts, {}, call.time, moves={call.mid})
        if new.has_sent():
            new.variables = captured(row or rows[0], call)
            self.instances.append(new)
        elif row is not None and self.may_start(new, call, row):
            new.variables = captured(row, call)
            self.instances.append(new)

    def is_enough(self, row: Row, call: Entry) -> bool:
        """Tell whether so many calls have matched until this one, which is one of them."""
        since = call.time - (self.rule.lifetime if row.count_within is None else row.count_within)
        until = [one for one in self.log if one.version <= call.version and one.time >= since]
        return row.count <= sum(1 for one in until if self.matches(row, one))

    def may_start(self, new: Instance, call: Entry, row: Row) -> bool:
        rule = self.rule
        if not rule.starts or call.time < call.seen - rule.max_lateness:  # S1
            return False
        if rule.transaction and new.transaction is None:  # S3
            return False
        if self.is_late(new, call):  # S2
            return False
        if self.blocks(new, call, row):  # S4
            return False
        if rule.max_entries is not None and len(self.instances) >= rule.max_entries:  # S5
            return False
        reached = [one.due for one in self.instances if one.due is not None]
        if reached and call.time < reached[-1] + rule.cool_down:
            return False
        return not self.looks_back(new, call, row)  # S6

    def is_late(self, new: Instance, call: Entry) -> bool:
        """
        S2: the rule has sent before this call came, and the call tells of before that.

        *Chosen*: not where every start opens an instance of its own, whatever else there is.
        """
        if self.rule.multiple and not self.rule.transaction:
            return False
        return any(
            decision.what == "sent" and decision.is_before(call) and call.time <= decision.at
            for key, decision in self.facts.items()
            if key[0] == self.rule.id and (not self.rule.multiple or decision.transaction == new.transaction)
        )

    def blocks(self, new: Instance, call: Entry, row: Row) -> bool:
        """S4 and 2.5: what there already is goes on, begins anew, or takes the new variables."""
        rule = self.rule
        live = [one for one in self.instances if one.is_live(call.time)]
        if rule.multiple and not rule.transaction:
            return len(live) >= rule.max_active
        same = [one for one in live if one.transaction == new.transaction]
        for one in same[:1]:
            self.repeat(one, call, row)
        return bool(same) or (not rule.multiple and bool(live)) or len(live) >= rule.max_active

    def repeat(self, instance: Instance, call: Entry, row: Row) -> None:
        """Let a start that is no new one do what onRepeatStart says."""
        last = instance.last_decision()
        if last and last.is_before(call):
            return
        if self.rule.on_repeat == "restart" and instance.state == "active" and instance.node == 0:
            instance.enter(0, call.time)
            instance.capture(row, call)
            instance.moves.add(call.mid)
        elif self.rule.on_repeat == "refresh":
            instance.capture(row, call)

    def looks_back(self, new: Instance, call: Entry, row: Row) -> bool:
        """
        S6: something that excludes has happened shortly before.

        *Chosen*: rows for the whole instance look back too, and a call of another transaction is none that excludes.
        """
        asking = replace(new, variables=captured(row, call))
        excludes = self.rule.of_type("exclude", self.rule.plan[0].seq) + self.rule.of_type("exclude")
        return any(
            self.stops(one, asking, earlier)
            for one in excludes
            if one.lookback
            for earlier in self.log
            if call.time - one.lookback <= earlier.time < call.time
        )

    # Both

    def fits(self, instance: Instance, call: Entry, *, or_none: bool) -> bool:
        """Tell whether a call is of the instance's transaction; a stop without a value is of any."""
        if not self.rule.transaction:
            return True
        value: Json = call.values.get(self.rule.transaction)
        return value == instance.transaction or (or_none and value is None)

    def matches(self, row: Row, call: Entry, instance: Instance | None = None) -> bool:
        """Tell whether a call is of a row's types and its criteria hold."""
        if row.on and call.type not in row.on:
            return False
        moment = Moment(
            self.space,
            self.log,
            call.time,
            call,
            variables=instance.variables if instance else {},
            variable_types=self.rule.variable_types,
            initial_sync=self.rule.initial_sync,
        )
        return holds(row.match, moment)
