"""A pattern with what the engine looks up of it at every call. Pure."""

from __future__ import annotations

from msgspec import Struct

from emarsys_cdp.rules.book import Instance
from emarsys_cdp.rules.pattern import EXCLUDE, IGNORE, START, WHOLE, At, Node, Pattern, Row
from emarsys_cdp.values.times import parse_time


class Program(Struct, frozen=True):
    """
    A pattern ready to run.

    *starts* are its start rows; *guards* the exclude rows by the sequence that they guard, `WHOLE` for all.
    *last_act* is the place of the last act node in the plan, -1 without any;
    *replaced*: from this time on (ms) a newer version ends the instances of this one, 0 never. *single*: a start does
    nothing as long as there is an instance.
    """

    pattern: Pattern
    starts: tuple[Row, ...]
    guards: dict[int, tuple[Row, ...]]
    last_act: int
    replaced: int = 0
    single: bool = False

    def guards_of(self, seq: int) -> tuple[Row, ...]:
        """Return the exclude rows that guard a stage, not those of the whole instance."""
        return self.guards.get(seq, ())

    @property
    def whole(self) -> tuple[Row, ...]:
        """The exclude rows that guard the whole instance."""
        return self.guards.get(WHOLE, ())

    def rows_of(self, node: Node) -> list[Row]:
        """Return the rows of a node of the plan."""
        return [self.pattern.rows[index] for index in node.rows]

    def next_node(self, instance: Instance) -> Node | None:
        """Return the node that an instance waits for, None at the end of the plan."""
        plan = self.pattern.plan
        return plan[instance.node + 1] if instance.node + 1 < len(plan) else None

    def fire_time(self, instance: Instance, node: Node) -> int | None:
        """Return F of an act node for an instance that stands before it (2.3); None: no usable date."""
        row = self.pattern.rows[node.rows[0]]
        if row.at is not None:
            return _date(instance, row.at)
        if row.wait is not None:
            return instance.since + row.wait
        guards = (*self.guards_of(self.pattern.plan[instance.node].seq), *self.whole)
        lifetime = self.pattern.lifetime
        return instance.since + max((lifetime if guard.within is None else guard.within for guard in guards), default=0)

    def deadline(self, instance: Instance, node: Node) -> int:
        """Return the last instant at which an event node can be reached."""
        lifetime = self.pattern.lifetime
        return instance.since + max(lifetime if row.within is None else row.within for row in self.rows_of(node))


def program(pattern: Pattern, replaced: int = 0) -> Program:
    """Return the program of a pattern."""
    guards: dict[int, tuple[Row, ...]] = {}
    for row in pattern.rows:
        if row.type == EXCLUDE:
            guards[row.seq] = (*guards.get(row.seq, ()), row)
    starts = tuple([row for row in pattern.rows if row.type == START])
    last_act = max([place for place, node in enumerate(pattern.plan) if node.acts], default=-1)
    single = not pattern.multiple and pattern.on_repeat == IGNORE
    return Program(pattern, starts, guards, last_act, replaced, single)


def _date(instance: Instance, at: At) -> int | None:
    text = instance.variables.get(at.var)
    date = parse_time(text) if isinstance(text, str) else None
    return None if date is None else max(instance.since, date + at.offset)


def armed(row: Row, since: int, time: int) -> bool:
    """Tell whether a guard of a stage that was entered at *since* is armed: both ends count."""
    return since + (row.wait or 0) <= time and (row.within is None or time <= since + row.within)


def in_window(row: Row, since: int, time: int, lifetime: int) -> bool:
    """Tell whether a step row takes calls of this time, in a stage that was entered at *since*: both ends count."""
    within = lifetime if row.within is None else row.within
    return since + (row.wait or 0) <= time <= since + within
