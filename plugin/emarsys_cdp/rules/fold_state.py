"""What a fold has at hand: the instances of one rule for one person, the facts of the gate, the log (semantics 2.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules import history
from emarsys_cdp.rules.book import (
    CANCELLED,
    EXPIRED,
    WAITS,
    Fact,
    Instance,
    Logged,
    RuleState,
)
from emarsys_cdp.rules.criteria import NOTHING, Facts
from emarsys_cdp.rules.pattern import Row
from emarsys_cdp.rules.program import Program
from emarsys_cdp_hooks import StoredValue, Value

Programs: TypeAlias = Callable[[str, int], "Program | None"]
"""The program of a rule (by its id) and version; None: nobody knows it any more."""

Trace: TypeAlias = Callable[[str, "Logged | None", "Instance | None", "Row | None"], None]
"""
Is told of every decision: its reason, the call, the instance and the row that it is about.

Without a call it is a timer's, or that of a newer version: the instance says when.
"""


def silent(reason: str, call: Logged | None, instance: Instance | None = None, row: Row | None = None) -> None:
    """Trace nothing."""


class Person(Struct, frozen=True):
    """What a fold reads of a person: the space, the log in its order, and the values of before it."""

    space: str
    log: Sequence[Logged]
    base: Mapping[str, StoredValue] = {}


class FoldState:
    """
    The instances of one rule for one person, and what is asked of them at every call.

    *doubts* are instances whose sent effects a stop would have prevented: they may be withdrawn still. *trace* is told
    of every decision.
    """

    def __init__(self, rule: str, programs: Programs, person: Person, state: RuleState, trace: Trace = silent) -> None:
        self._rule = rule
        self._programs = programs
        self._person = person
        self._state = state
        self._facts = state.facts
        self._instances = list(state.instances)
        self._known: dict[int, Program | None] = {}
        self._horizon = state.horizon
        self._late_stops = state.late_stops
        self._told: set[tuple[str, str]] = set()
        self._trace = trace
        self._moved: dict[int, set[str]] = {}
        self.doubts: dict[str, None] = {}

    def _outcome(self, instance: str, node: int) -> str:
        fact = self._fact(instance, node)
        return WAITS if fact is None else fact.outcome

    def _fact(self, instance: str, node: int) -> Fact | None:
        for fact in self._facts.get(instance, ()):
            if fact.node == node:
                return fact
        return None

    def _is_over(self, instance: Instance, call: Logged) -> bool:
        """Tell whether a call was seen after the gate had decided an instance's last stage: facts stay facts (E1)."""
        fact = self._last_fact(instance)
        return fact is not None and fact.outcome != WAITS and call.seen > fact.at

    def _last_fact(self, instance: Instance) -> Fact | None:
        """Return what the gate knows of the last stage of an instance in which something is done."""
        program = self._program(instance) if instance.id in self._facts else None
        return None if program is None else self._fact(instance.id, program.last_act)

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
        value = text_of(call, name)
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


def entered(instance: Instance, node: int, since: int) -> Instance:
    """Return an instance that has come to a node of its plan."""
    return replace(instance, node=node, since=since, done=(), found=())


def cancelled(instance: Instance, why: str, time: int) -> Instance:
    """Return an instance that is over: what still waits at the gate is dropped."""
    passages = tuple([replace(one, outcome=CANCELLED) if one.outcome == WAITS else one for one in instance.passages])
    return replace(instance, status=CANCELLED, why=why, ended=time, passages=passages)


def text_of(call: Logged, data_map: str | None) -> str | None:
    """Return the value of a transaction: text that is not empty."""
    value = None if data_map is None else call.values.get(data_map)
    return value if isinstance(value, str) and value else None
