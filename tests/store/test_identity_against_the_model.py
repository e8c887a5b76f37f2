"""
The users table held against the model of it (`tests/model`), over a store in memory and over the embedded Valkey.

The same properties hold for the model itself: `unit/test_identity_model.py`. Here they are asked of the product: the
pipeline, rounds of one worker or of two that take turns, erasures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.model import properties, timelines
from tests.model.identity import Model
from tests.model.properties import state
from tests.model.table import Call, Erase, Json, Make, Step, do, play
from tests.model.timelines import DAY, DOCUMENT
from tests.model.vectors import ORIGIN
from tests.support.identity import World, memory, valkey

QUIET = timelines.Names(odd=False)
LONG = timelines.Names(
    users=("user-one", "user-two", "user-three"),
    keys=("key-one@x.com", "key-two@x.com", "key-three@x.com"),
    anons=("device-one", "device-two", "device-three"),
    odd=False,
)
"""Identifiers that nothing else contains by chance."""

CROWD = timelines.Names(
    users=tuple(f"user-{number}" for number in range(8)), keys=("key-one@x.com", "key-two@x.com"), anons=(), odd=False
)
"""So many users of few keys that a key becomes nobody's."""

WORKERS = st.sampled_from((1, 2, 3))
"""With three, one may remember what another changed while a third has seen it."""


def examples(quick: int, thorough: int) -> settings:
    """Return how much is tried: as for the model, with one world for all examples of a test."""
    return settings(
        timelines.examples(quick, thorough),
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture),
    )


@pytest.fixture(scope="module", params=["memory", "valkey"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Open a store that is used by all tests, one after the other."""
    if request.param == "memory":
        opened = World(memory)
    else:
        opened = World(partial(valkey, request.getfixturevalue("valkey_url")))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Say nothing of the calls that are refused."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def making(world: World, workers: int) -> Make:
    """Return what makes a users table with so many workers."""
    return lambda document: world.make(document, workers)


@examples(100, 3_000)
@given(document=timelines.documents(), steps=timelines.timelines(), workers=WORKERS)
def test_the_product_does_what_the_model_does(
    world: World, document: dict[str, Json], steps: list[Step], workers: int
) -> None:
    """After every step people, values, shared devices, results and warnings are those of the model, in every mode."""
    with world.example():
        properties.same_as(Model, making(world, workers), document, steps)


@examples(30, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(LONG, aliases=False, erasures=False), workers=WORKERS)
def test_the_product_does_what_the_model_does_in_conflicts(
    world: World, document: dict[str, Json], steps: list[Step], workers: int
) -> None:
    """The same without aliases and erasures: there is more of everything else then."""
    with world.example():
        properties.same_as(Model, making(world, workers), document, steps)


@examples(30, 2_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(CROWD, aliases=False, erasures=False, size=24),
    workers=WORKERS,
)
def test_the_product_does_what_the_model_does_with_keys_of_many(
    world: World, document: dict[str, Json], steps: list[Step], workers: int
) -> None:
    """The same with more users of a key than may share one."""
    with world.example():
        properties.same_as(Model, making(world, workers), document, steps)


@examples(100, 3_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(),
    cuts=st.lists(st.booleans(), min_size=14, max_size=14),
    workers=WORKERS,
)
def test_calls_that_share_a_round_end_as_one_by_one(
    world: World, document: dict[str, Json], steps: list[Step], cuts: list[bool], workers: int
) -> None:
    """Group commit changes nothing: results, warnings and people are those of the model, which takes them in turn."""
    with world.example():
        model, table = Model(document), world.make(document, workers)
        for group in groups(steps, cuts):
            want = play(model, group)
            calls = [step for step in group if isinstance(step, Call)]
            got = table.calls(calls) if calls else play(table, group)
            # Which of the calls of a round came first is nowhere kept: a duplicate is told after the round.
            dropped = [result == "dropped" for result in got]
            assert (dropped, table.warnings()) == ([result == "dropped" for result in want], model.warnings()), group
            assert state(table) == state(model), group


def groups(steps: Sequence[Step], cuts: Sequence[bool]) -> list[list[Step]]:
    """Return steps in groups: what is no call is alone, between calls the cuts tell."""
    made: list[list[Step]] = []
    for step, cut in zip(steps, cuts, strict=False):
        if cut or not made or not isinstance(step, Call) or not isinstance(made[-1][-1], Call):
            made.append([step])
        else:
            made[-1].append(step)
    return made


@examples(30, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(), workers=WORKERS)
def test_every_identifier_has_one_owner(
    world: World, document: dict[str, Json], steps: list[Step], workers: int
) -> None:
    """P6."""
    with world.example():
        properties.every_identifier_has_one_owner(making(world, workers), document, steps)


@examples(30, 2_000)
@given(data=st.data(), calls=timelines.peaceful(), workers=WORKERS)
def test_order_of_arrival_does_not_matter(world: World, data: st.DataObject, calls: list[Call], workers: int) -> None:
    """P10, with redeliveries, aliases and last-writer values."""
    with world.example():
        orders = data.draw(timelines.orders(calls))
        properties.order_of_arrival_does_not_matter(making(world, workers), DOCUMENT, calls, orders)


@examples(30, 2_000)
@given(
    document=timelines.documents(separate=True),
    steps=timelines.timelines(erasures=False, aliases=False),
    workers=WORKERS,
)
def test_users_stay_apart(world: World, document: dict[str, Json], steps: list[Step], workers: int) -> None:
    """P11 without aliases."""
    with world.example():
        properties.users_stay_apart(making(world, workers), document, steps)


@examples(30, 2_000)
@given(document=timelines.documents(separate=True), steps=timelines.timelines(erasures=False), workers=WORKERS)
def test_aliases_link_what_they_name(world: World, document: dict[str, Json], steps: list[Step], workers: int) -> None:
    """P11 with aliases."""
    with world.example():
        properties.aliases_link_what_they_name(making(world, workers), document, steps)


@examples(30, 2_000)
@given(calls=timelines.claims(), workers=WORKERS)
def test_the_key_is_the_last_claim(world: World, calls: list[Call], workers: int) -> None:
    """P13."""
    with world.example():
        properties.the_key_is_the_last_claim(making(world, workers), DOCUMENT, calls)


@examples(20, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(), others=timelines.bystanders(), workers=WORKERS)
def test_calls_of_nobody_change_nothing(
    world: World, document: dict[str, Json], steps: list[Step], others: list[tuple[int, Call]], workers: int
) -> None:
    """P15."""
    with world.example():
        properties.calls_of_nobody_change_nothing(making(world, workers), document, steps, others)


@examples(20, 2_000)
@given(
    document=timelines.documents(),
    ones=timelines.timelines(QUIET, size=8),
    others=timelines.timelines(QUIET.other(), size=8),
    turns=st.lists(st.booleans(), max_size=16),
    workers=WORKERS,
)
def test_strangers_do_not_meet(
    world: World,
    document: dict[str, Json],
    ones: list[Step],
    others: list[Step],
    turns: list[bool],
    workers: int,
) -> None:
    """P16."""
    with world.example():
        properties.strangers_do_not_meet(making(world, workers), document, ones, others, turns)


@examples(30, 2_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(),
    identifier=timelines.identifiers(),
    mode=st.sampled_from(("delete", "suppress")),
    after=st.sampled_from((0, DAY)),
    workers=WORKERS,
)
def test_nothing_survives_erasure(
    world: World,
    document: dict[str, Json],
    steps: list[Step],
    identifier: tuple[str, str],
    mode: str,
    after: int,
    workers: int,
) -> None:
    """P19: nothing is shown of whom was erased, and calls of before bring nothing back."""
    with world.example():
        properties.nothing_survives_erasure(
            making(world, workers), document, steps, identifier, mode, last(steps) + after
        )


@examples(40, 2_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(LONG),
    identifier=timelines.identifiers(LONG),
    mode=st.sampled_from(("delete", "suppress")),
    workers=WORKERS,
)
def test_no_value_of_whom_was_erased_is_in_the_store(
    world: World, document: dict[str, Json], steps: list[Step], identifier: tuple[str, str], mode: str, workers: int
) -> None:
    """P19: no content of any key of the store has an identifier that was erased and that nobody else uses."""
    with world.example():
        model, table = Model(document), world.make(document, workers)
        erasure = Erase(*identifier, mode, last(steps))
        for step in [*steps, erasure]:
            do(model, step)
            do(table, step)
        used = {value for row in model.profiles() for value in (row["user"], row["key"], *row["former"], *row["anons"])}
        used |= {value for _, value in model.owner}
        stored = table.everything()
        gone = {value for (_, value), stones in model.tombstones.items() if stones} - used
        assert [(value, name) for value in gone for name, content in stored.items() if value.encode() in content] == []


def last(steps: Sequence[Step]) -> int:
    """Return the last arrival."""
    return max((step.arrival for step in steps if isinstance(step, Call)), default=ORIGIN)


@examples(30, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(), later=timelines.device_calls(), workers=WORKERS)
def test_a_shared_device_is_nobody(
    world: World, document: dict[str, Json], steps: list[Step], later: list[Call], workers: int
) -> None:
    """P12, as far as people are concerned."""
    with world.example():
        properties.a_shared_device_is_nobody(making(world, workers), document, steps, later)
