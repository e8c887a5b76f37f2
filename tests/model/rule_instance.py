"""An instance of a rule, what of it waits at the gate, and what the gate has decided: semantics.md 2.3, 2.4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.model.reading import Json, time_of
from tests.model.rule_document import Node, Row, Rule
from tests.model.rule_log import Entry

PassageKey = tuple[str, str, str]
"""Rule, messageId of the start, stage: an instance passes the gate once for each stage in which something is done."""


@dataclass(frozen=True)
class Decision:
    """
    What the gate has decided of a passage, and when.

    `what`: sent, shadow (passed, nothing sent), stale, archived, filtered, unreachable or capped.
    """

    what: str
    at: int
    turn: int
    transaction: Json

    def is_before(self, entry: Entry) -> bool:
        """Tell whether a call came after it. By turn, so that this is clear at one instant too."""
        return self.turn < entry.turn


Facts = Mapping[PassageKey, Decision]
"""All that was decided for a person: facts stay facts, whatever becomes known later."""


@dataclass(frozen=True)
class Passage:
    """
    What is done in a stage, or by the row of a stop, is due: it waits at the gate.

    `variables` as they were then; None: those that the instance has when it is sent. `guard`: the stage that an action
    has ended, and since when the instance had stood there.
    """

    key: PassageKey
    due: int
    rows: tuple[Row, ...]
    is_stop: bool = False
    variables: Mapping[str, Json] | None = None
    guard: tuple[int, int] | None = None


@dataclass(eq=False)
class Instance:
    """
    One run through the plan of a rule.

    It stands at `plan[node]` since `since`. `state`: active; due (its exit waits at the gate), done (its plan is at an
    end without an exit), cancelled, expired. `due` is when it reached its exit. `moves` are the calls that opened
    or moved it; `found` has when calls matched a row of the next stage, `joined` its rows that are done with.
    """

    rule: Rule
    start: Entry
    transaction: Json
    facts: Facts
    variables: dict[str, Json]
    since: int
    node: int = 0
    state: str = "active"
    why: str | None = None
    due: int | None = None
    passages: list[Passage] = field(default_factory=list)
    moves: set[str] = field(default_factory=set)
    found: dict[int, list[int]] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)
    late_stops: set[str] = field(default_factory=set)

    # What it waits for

    @property
    def next(self) -> Node | None:
        """The next place of the plan."""
        return self.rule.plan[self.node + 1] if self.node + 1 < len(self.rule.plan) else None

    def timeout(self, node: Node) -> int:
        """Return the last instant at which an event of a stage is waited for (T1)."""
        return self.since + max(self.rule.lifetime if row.within is None else row.within for row in node.rows)

    def fire_time(self, node: Node) -> int | None:
        """Return when what is done in a stage is due (2.3); None if the date that it goes by is none."""
        row = node.rows[0]
        if row.at is not None:
            date = time_of(self.variables.get(row.at[0]))
            return None if date is None else max(self.since, date + row.at[1])
        if row.wait is not None:
            return self.since + row.wait
        stands = self.rule.plan[self.node].seq
        guards = self.rule.of_type("exclude", stands) + self.rule.of_type("exclude")
        lifetime = self.rule.lifetime
        return self.since + max((lifetime if row.within is None else row.within for row in guards), default=0)

    def wakes(self) -> int | None:
        """Return the time at which it does something by itself."""
        node = self.next
        if self.state != "active" or node is None:
            return None
        return self.fire_time(node) if node.is_act else self.timeout(node) + 1

    # What happens

    def enter(self, node: int, time: int) -> None:
        """Go on to a place of the plan."""
        self.node, self.since = node, time
        self.found, self.joined = {}, set()

    def pass_time(self, until: int, *, included: bool) -> None:
        """Do what is due before a time (T1 to T3), or at it as well."""
        while self.state == "active":
            node = self.next
            if node is None:
                self.state = "done"
            elif not node.is_act:
                # "now > s + within": the last instant itself is still one to wait in.
                if self.timeout(node) >= until:
                    return
                self._time_out(node)
            else:
                due = self.fire_time(node)
                if due is not None and (due > until or (due == until and not included)):
                    return
                self._fire(node, due)

    def _time_out(self, node: Node) -> None:
        if any(row.goes_on for row in node.rows):
            self.enter(self.node + 1, self.timeout(node))
        else:
            self.state, self.why = "expired", "timeout"

    def _fire(self, node: Node, due: int | None) -> None:
        if due is None:
            self.state, self.why = "expired", "no_date"
            return
        key = (self.rule.id, self.start.mid, str(node.seq))
        if node.is_exit:
            self.passages.append(Passage(key, due, node.rows))
            self.state, self.due = "due", due
            return
        guard = (self.rule.plan[self.node].seq, self.since)
        self.passages.append(Passage(key, due, node.rows, variables=dict(self.variables), guard=guard))
        self.enter(self.node + 1, due)

    def cancel(self, row: Row, stop: Entry) -> None:
        """Be stopped; the actions of the stop's row are due at once."""
        self.state, self.why = "cancelled", stop.mid
        self.capture(row, stop)
        if row.actions:
            key = (self.rule.id, self.start.mid, f"stop {row.number}")
            self.passages.append(Passage(key, stop.time, (row,), is_stop=True, variables=dict(self.variables)))

    def capture(self, row: Row, entry: Entry) -> None:
        """Take the variables of a row. *Chosen*: without a new value the old one stays."""
        self.variables |= captured(row, entry)

    # What it is

    def last_decision(self) -> Decision | None:
        """Return what was decided of its last stage, if something is done there."""
        last = self.rule.last_act
        return self.facts.get((self.rule.id, self.start.mid, str(last.seq))) if last else None

    def has_sent(self) -> bool:
        """Tell whether anything of it was sent."""
        mine = (self.rule.id, self.start.mid)
        return any(key[:2] == mine and decision.what == "sent" for key, decision in self.facts.items())

    def waiting(self) -> list[Passage]:
        """Return what waits at the gate; what was stopped does not, except for the stop's own actions."""
        stopped = self.state == "cancelled"
        return [one for one in self.passages if one.key not in self.facts and (one.is_stop or not stopped)]

    def is_live(self, time: int) -> bool:
        """Tell whether it is ACTIVE or DUE at an event time: until its exit is decided, and nothing else waits."""
        if self.state in {"active", "due"}:
            last = self.last_decision()
            return self.state == "active" or last is None or time <= last.at
        ends = [self.facts[one.key].at for one in self.passages if one.key in self.facts]
        return self.state == "done" and (len(ends) < len(self.passages) or time <= max(ends, default=time - 1))

    def shown_state(self, now: int, *, has_key: bool) -> tuple[str, str | None]:
        """
        Return status and why, as `instances` has them.

        *Chosen*: held is also one that goes on while what it did before waits for a key.
        """
        if self.state in {"cancelled", "expired"}:
            return self.state, self.why
        last, waiting = self.last_decision(), self.waiting()
        if self.state == "due" and last is not None and last.what not in {"sent", "shadow"}:
            return last.what, None
        if not waiting:
            return "active" if self.state == "active" else "completed", None
        held = any(now >= one.due + self.rule.settle for one in waiting) and not has_key
        return "held" if held else "active", None


def captured(row: Row, entry: Entry) -> dict[str, Json]:
    """Return the variables that a row takes from a call."""
    return {name: entry.values[source] for source, name in row.variables if source in entry.values}
