"""
The timelines of the specification through `simulate`'s engine, on every store.

`vectors.json` is the specification's own file; `examples.json` has its worked examples of identity in the same form,
and what its tables say of aliases, limits, modes, erasing and time to live; `lifetimes.json` has the settings of the
latter, `identity.json` more of what the model of `tests/model` passes as well. `rules.json` has the worked examples of
rules.
"""

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
from emarsys_cdp.simulation.reading import Simulation, read_simulation
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store
from emarsys_cdp.validation import compile_schema

FOLDER = Path(__file__).parent / "vectors/semantics"
RAW: dict[str, list[dict[str, Any]]] = {
    name: json.loads((FOLDER / name).read_text())["vectors"]
    for name in ("vectors.json", "examples.json", "identity.json", "lifetimes.json", "rules.json")
}
CASES = [
    pytest.param(name, number, id=vectors[number]["name"])
    for name, vectors in RAW.items()
    for number in range(len(vectors))
]


@pytest.fixture(scope="module")
def simulations() -> dict[str, Simulation]:
    """Return the files as the command reads them."""
    compiler, check = build_compiler(build_plugin_manager([])), compile_schema("simulation")
    return {name: read_simulation(FOLDER / name, check, compiler) for name in RAW}


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_vector_comes_out(
    make_store: Callable[[], Store], simulations: dict[str, Simulation], name: str, number: int
) -> None:
    """Effects, instances, the users table, warnings and results of the steps are those that the file expects."""
    manager = build_plugin_manager([])
    raw, vector = RAW[name][number], simulations[name].vectors[number]

    async def run(store: Store) -> dict[str, Any]:
        engine = Engine(store, Steps(manager), build_compiler(manager), "test", lambda _: None)
        outcome: dict[str, Any] = msgspec.to_builtins(await run_vector(engine, vector, number))
        return outcome

    outcome = on(make_store, run)

    assert {key: outcome[key] for key in raw["expect"]} == raw["expect"]
    assert [got for got, step in zip(outcome["results"], raw["timeline"], strict=True) if "result" in step] == [
        step["result"] for step in raw["timeline"] if "result" in step
    ]


def test_there_are_vectors() -> None:
    """A file that lost its vectors would pass everything."""
    assert len(CASES) >= 48 + 37 + 62 + 6 + 80
    assert all(raw["expect"] and raw["timeline"] for vectors in RAW.values() for raw in vectors)


def test_no_file_means_something_else_than_it_says(simulations: dict[str, Simulation]) -> None:
    """No name in them is passed over."""
    assert [simulation.notices for simulation in simulations.values()] == [()] * len(RAW)
