"""
The truth table of the criteria through the whole engine, on every store.

Each row becomes a rule that starts when its criterion holds and triggers at once, and a call that carries the value.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.stores import on

from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.reading import Step, Vector
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/semantics/operators.json").read_text())[
    "operators"
]
STEPS = Steps(build_plugin_manager([]))
COMPILER = build_compiler(build_plugin_manager([]))


def vector_of(number: int, row: dict[str, Any]) -> Vector:
    """Return a timeline of one call with the row's value."""
    leaf = {"map": "value", "op": row["op"]}
    leaf |= {"value": row["arg"]} if row["arg"] is not None else {}
    leaf |= {"ignoreCase": True} if row.get("ignoreCase") else {}
    document = COMPILER.read(
        "test",
        {
            "dataMaps": [{"name": "value", "path": "properties.value", "type": row["type"]}],
            "rules": [
                {
                    "id": "rule",
                    "conditions": [
                        {"seq": 0, "type": "start", "match": leaf},
                        {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "event": "it holds"}]},
                    ],
                }
            ],
        },
    )
    call = {
        "type": "track",
        "messageId": "m1",
        "userId": "u1",
        "event": "Something",
        "properties": {"value": row["raw"]},
        "context": {"traits": {"email": "a@x.com"}},
    }
    return Vector(f"row {number}", document, (Step(0, 0, call),), 60_000)


def test_an_operator_decides_what_is_sent(make_store: Callable[[], Store]) -> None:
    """For every row the message is sent exactly when the table says that the operator holds."""

    async def run(store: Store) -> list[int]:
        engine = Engine(store, STEPS, COMPILER, "test", lambda _: None)
        outcomes = [await run_vector(engine, vector_of(number, row), number) for number, row in enumerate(ROWS)]
        return [number for number, outcome in enumerate(outcomes) if bool(outcome.effects) != ROWS[number]["expect"]]

    assert [ROWS[number] for number in on(make_store, run)] == []


def test_there_are_rows() -> None:
    """A table that lost its rows would pass everything."""
    assert len(ROWS) >= 64
