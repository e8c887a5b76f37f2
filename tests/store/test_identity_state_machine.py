"""
The users table held against the model of it by a state machine: calls, redeliveries, rounds, erasures, time.

Two products run beside the model: three workers over a store in memory, and one over the embedded Valkey.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any

import structlog
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from tests.model import timelines
from tests.model.identity import Model
from tests.model.properties import state
from tests.model.table import Call, Erase, Json, Step, Unsuppress, do, play
from tests.model.timelines import DAY, MINUTE, examples, message
from tests.model.vectors import ORIGIN
from tests.support.identity import RealTable, World, memory, valkey

NAMES = timelines.Names(odd=False)
KIND = st.sampled_from((*timelines.TYPES, "alias"))
LEAPS = (31 * DAY, 91 * DAY, 366 * DAY)
"""Longer than a profile without anything, a shared device, a user without a key stay; never close to the limits."""


class UsersTableMachine(RuleBasedStateMachine):
    """Does the same with the model and the products, and compares after each step."""

    worlds: tuple[World, World]

    def __init__(self) -> None:
        super().__init__()
        self._left = ExitStack()
        self._now = ORIGIN
        self._number = 0
        self._known: list[Call] = []

    @initialize(document=timelines.documents())
    def begin(self, document: dict[str, Json]) -> None:
        """Make empty tables of one document."""
        one, other = (self._left.enter_context(world.example()) for world in self.worlds)
        self._model = Model(document)
        self._tables: list[RealTable] = [one.make(document, 3), other.make(document, 1)]

    @rule(data=st.data(), size=st.integers(1, 4))
    def calls(self, data: st.DataObject, size: int) -> None:
        """Let calls arrive together, of people who get into each other's way."""
        self._take([self._new(data) for _ in range(size)])

    @precondition(lambda self: self._known)
    @rule(data=st.data())
    def redelivery(self, data: st.DataObject) -> None:
        """Let some calls come again, alone or together."""
        self._take(data.draw(st.lists(st.sampled_from(self._known), min_size=1, max_size=3)))

    @rule(person=timelines.identifiers(NAMES), mode=st.sampled_from(("delete", "suppress")))
    def erase(self, person: tuple[str, str], mode: str) -> None:
        """Erase somebody."""
        self._do(Erase(*person, mode, self._now))

    @rule(person=timelines.identifiers(NAMES))
    def unsuppress(self, person: tuple[str, str]) -> None:
        """End a suppression."""
        self._do(Unsuppress(*person))

    @rule(minutes=st.integers(1, 20))
    def wait(self, minutes: int) -> None:
        """Let some time pass."""
        self._now += minutes * MINUTE

    @rule(leap=st.sampled_from(LEAPS))
    def leap(self, leap: int) -> None:
        """Let so much time pass that something ends; calls of before do not come again."""
        assume(self._now < ORIGIN + 5 * 366 * DAY)
        self._now += leap
        self._known = []
        self._do(Erase("anon", "somebody unknown", "delete", self._now))  # a table has no clock of its own

    def teardown(self) -> None:
        """Leave the stores as they were."""
        self._left.close()

    def _new(self, data: st.DataObject) -> Call:
        kind, self._number = data.draw(KIND), self._number + 1
        ids = {
            "userId": data.draw(NAMES.some(NAMES.users)),
            "anonymousId": data.draw(NAMES.some(NAMES.anons)),
            "email": data.draw(NAMES.some(NAMES.keys, rarely=True)),
            "previousId": data.draw(NAMES.some((*NAMES.users, *NAMES.anons))) if kind == "alias" else None,
        }
        values = data.draw(st.lists(st.sampled_from(timelines.VALUES), max_size=1))
        late = data.draw(st.sampled_from((0, 0, MINUTE, 10 * MINUTE)))
        made = Call(message(kind, f"m{self._number}", self._now - late, ids=ids, values=values), self._now)
        self._known.append(made)
        return made

    def _take(self, calls: list[Call]) -> None:
        want = [result == "dropped" for result in play(self._model, calls)]
        for table in self._tables:
            assert [result == "dropped" for result in table.calls(calls)] == want, calls
        self._compare(calls)

    def _do(self, step: Step) -> None:
        do(self._model, step)
        for table in self._tables:
            do(table, step)
        self._compare(step)

    def _compare(self, what: Any) -> None:
        want = {**state(self._model), "warnings": self._model.warnings()}
        for table in self._tables:
            got = {**state(table), "warnings": table.warnings()}
            wrong = {part: (got[part], want[part]) for part in want if got[part] != want[part]}
            assert wrong == {}, f"{what}: got and expected {wrong}"


def test_the_products_follow_the_model(valkey_url: str) -> None:
    """Whatever happens in whatever order, both stores end as the model does; warnings and dropped calls too."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    worlds = World(memory), World(lambda: valkey(valkey_url))
    machine = type("Machine", (UsersTableMachine,), {"worlds": worlds})
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    try:
        run_state_machine_as_test(
            machine, settings=settings(examples(25, 2_000), stateful_step_count=15, suppress_health_check=slow)
        )
    finally:
        for world in worlds:
            world.close()
