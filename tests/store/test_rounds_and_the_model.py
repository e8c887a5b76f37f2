"""Rounds of calls that product and model once took otherwise: a fault that was mended is a case here."""

from __future__ import annotations

from contextlib import closing

import pytest
from tests.model.identity import Model
from tests.model.table import Call, play
from tests.model.timelines import DOCUMENT, message
from tests.model.vectors import ORIGIN
from tests.support.identity import World, memory

KEYS = {"a": "a@x.com", "b": "b@x.com"}


def call(number: int, user: str | None, key: str) -> Call:
    """Return the call with this number."""
    ids = {"email": KEYS[key], **({"userId": user} if user else {})}
    return Call(message("page", f"m{number}", ORIGIN + number * 1000, ids=ids), ORIGIN + number * 1000)


@pytest.mark.parametrize(
    ("workers", "rounds"),
    [
        (1, [[("u1", "b")], [("u1", "a")], [("u2", "b"), ("u1", "b")]]),
        (2, [[("u2", "b")], [("u2", "a")], [("u1", "b"), (None, "b")]]),
    ],
    ids=["taken and used again in one round", "a worker that remembers an old key"],
)
def test_a_round_ends_as_the_model_says(workers: int, rounds: list[list[tuple[str | None, str]]]) -> None:
    """Who has which key, and what is warned of."""
    number = 0
    with closing(World(memory)) as world, world.example():
        model, table = Model(DOCUMENT), world.make(DOCUMENT, workers)
        for one in rounds:
            calls = [call(number + position, *of) for position, of in enumerate(one)]
            number += len(calls)
            play(model, calls)
            table.calls(calls)
        assert (table.profiles(), table.warnings()) == (model.profiles(), model.warnings())
