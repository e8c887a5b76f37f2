"""The timelines of the specification through `simulate`'s engine, on every store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.stores import on

from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.reading import Vector, read_simulation
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store
from emarsys_cdp.validation import compile_schema

FILE = Path(__file__).parent / "vectors/semantics/vectors.json"
RAW: list[dict[str, Any]] = json.loads(FILE.read_text())["vectors"]
IDENTITY = [number for number, raw in enumerate(RAW) if raw["name"].startswith("I")]


@pytest.fixture(scope="module")
def vectors() -> tuple[Vector, ...]:
    """Return the vectors as the command reads them."""
    compiler = build_compiler(build_plugin_manager([]))
    return read_simulation(FILE, compile_schema("simulation"), compiler).vectors


@pytest.mark.parametrize("number", IDENTITY, ids=[RAW[number]["name"] for number in IDENTITY])
def test_an_identity_vector_comes_out(
    make_store: Callable[[], Store], vectors: tuple[Vector, ...], number: int
) -> None:
    """The users table, the warnings and the results of the steps are those that the specification expects."""
    manager = build_plugin_manager([])
    expected, wanted = RAW[number]["expect"], [step.get("result", "ok") for step in RAW[number]["timeline"]]

    async def run(store: Store) -> dict[str, Any]:
        engine = Engine(store, Steps(manager), build_compiler(manager), "test", lambda _: None)
        outcome: dict[str, Any] = msgspec.to_builtins(await run_vector(engine, vectors[number], number))
        return outcome

    outcome = on(make_store, run)

    assert {key: outcome[key] for key in expected} == expected
    assert outcome["results"] == wanted


def test_there_are_identity_vectors() -> None:
    """A file that lost its vectors would pass everything."""
    assert len(IDENTITY) == 11
