"""
Rules held against the model of them (`tests/model/rule_*`), over a store in memory and over the embedded Valkey.

The product runs drawn timelines as `emarsys-cdp simulate` does: the pipeline, rounds, timers, the gate, the outbox. The
same properties hold for the model itself: `unit/test_rule_properties.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.model import rule_properties as properties
from tests.model import rule_timelines as timelines
from tests.model import timelines as people
from tests.model.rule_properties import Outcome, vector_of
from tests.model.rule_vectors import outcome as model
from tests.model.table import Call, Erase, Json, Step
from tests.model.timelines import DAY
from tests.model.vectors import ORIGIN, VECTORS, Vector, read
from tests.support.identity import memory, valkey

from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation import reading
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store

PARTS = ("profiles", "shared", "warnings")


def examples(quick: int, thorough: int) -> settings:
    """Return how much is tried: as for the model, with one product for all examples of a test."""
    return settings(
        people.examples(quick, thorough),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture),
    )


class Product:
    """Plays vectors as `simulate` does, one after the other over one store."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        manager = build_plugin_manager([])
        self._runner = asyncio.Runner()
        self._store = open_store()
        self._compiler = build_compiler(manager)
        self._engine = Engine(self._store, Steps(manager), self._compiler, "test", lambda _: None)
        self._numbers = count()

    def __call__(self, vector: Vector) -> Outcome:
        """Return what comes out of a vector."""
        document = self._compiler.read("test", dict(vector.document))
        steps = tuple(_step_of(step) for step in vector.steps)
        asked = reading.Vector(vector.name, document, steps, vector.until - ORIGIN, vector.expect)
        outcome = self._runner.run(run_vector(self._engine, asked, next(self._numbers)))
        made: dict[str, Any] = msgspec.to_builtins(outcome)
        return made

    def close(self) -> None:
        """Close the store."""
        self._runner.run(self._store.close())
        self._runner.close()


def _step_of(step: Step) -> reading.Step:
    if isinstance(step, Call):
        return reading.Step(step.arrival - ORIGIN, call=step.message)
    assert isinstance(step, Erase), "no drawn timeline of rules ends a suppression"
    return reading.Step(step.now - ORIGIN, erase=reading.Person(step.kind, step.value), mode=step.mode)


@pytest.fixture(scope="module", params=["memory", "valkey"])
def product(request: pytest.FixtureRequest) -> Iterator[Product]:
    """Open a store that is used by all tests, one after the other."""
    if request.param == "memory":
        opened = Product(memory)
    else:
        opened = Product(partial(valkey, request.getfixturevalue("valkey_url")))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Say nothing of the calls that are refused."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.parametrize("name", ["vectors.json", "rules.json"])
def test_the_product_does_with_the_vectors_what_the_model_does(product: Product, name: str) -> None:
    """Also in the parts of the outcome that a vector does not name."""
    for vector in read(VECTORS / name):
        if any(isinstance(step, Call | Erase) for step in vector.steps):
            properties.same_as(model, product, vector)


@examples(150, 10_000)
@given(document=timelines.documents(), calls=timelines.peaceful())
def test_the_product_does_what_the_model_does(product: Product, document: dict[str, Json], calls: list[Call]) -> None:
    """P9, for people who are in nobody's way: effects, instances, late stops, people."""
    properties.same_as(model, product, vector_of(document, calls), PARTS)


@examples(150, 10_000)
@given(document=timelines.documents(caps=False), steps=timelines.timelines())
def test_the_product_does_what_the_model_does_in_conflicts(
    product: Product, document: dict[str, Json], steps: list[Step]
) -> None:
    """
    P9, for people in each other's way, who are erased, and whose clocks are wrong.

    Without caps: they may have one key, and who of them is first at one instant nobody says.
    """
    properties.same_as(model, product, vector_of(document, steps), PARTS)


@examples(100, 5_000)
@given(
    document=timelines.simple_rules(
        timelines.maybe("multiple", (True,)),
        timelines.maybe("onRepeatStart", ("restart", "refresh")),
        timelines.maybe("reentry", ({"after": "2h"}, {"maxEntries": 2})),
        timelines.maybe("settle", ("10m", "1h")),
        timelines.maybe("holdForKey", ("1h", "6h")),
        timelines.maybe("lateFireMax", ("1h", "0s")),
        timelines.maybe("quietHours", timelines.QUIET),
        timelines.maybe("caps", timelines.CAPS),
    ),
    calls=timelines.simple_calls(people=2, known=False, size=20),
)
def test_the_product_does_with_starts_and_stops_what_the_model_does(
    product: Product, document: dict[str, Json], calls: list[Call]
) -> None:
    """P9 with one short rule and many calls, of which many come late."""
    properties.same_as(model, product, vector_of(document, calls), PARTS)


@examples(60, 5_000)
@given(
    document=timelines.documents(caps=False),
    steps=timelines.timelines(),
    after=st.sampled_from((0, 1_000, DAY // 24, DAY)),
)
def test_the_product_stands_where_the_model_stands(
    product: Product, document: dict[str, Json], steps: list[Step], after: int
) -> None:
    """P9 on the way: what is active or held some time after the last call."""
    last = max([ORIGIN, *(step.arrival for step in steps if isinstance(step, Call))])

    properties.same_as(model, product, vector_of(document, steps, last + after), PARTS)
