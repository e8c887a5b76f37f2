"""The model of rules: the vectors of the semantics, the operators, and what has to be true of any rules."""

from __future__ import annotations

import json

import pytest
from tests.model.reading import DataMap
from tests.model.rule_criteria import Moment, Space, holds
from tests.model.rule_log import Entry
from tests.model.rule_vectors import differences
from tests.model.table import Json
from tests.model.vectors import ORIGIN, VECTORS, Vector, read

CASES = [vector for name in ("vectors.json", "rules.json") for vector in read(VECTORS / name)]
OPERATORS = json.loads((VECTORS / "operators.json").read_text())["operators"]


@pytest.mark.parametrize("vector", CASES, ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    """Every timeline of the semantics ends as it says, with its effects, instances and people."""
    assert differences(vector) == {}


def test_all_vectors_are_run() -> None:
    """Those of the specification and the worked examples that are not among them."""
    assert len(read(VECTORS / "vectors.json")) == 48
    assert len(CASES) >= 48 + 40
    assert len({vector.name for vector in CASES}) == len(CASES)


@pytest.mark.parametrize("row", OPERATORS, ids=lambda row: f"{row['op']} {row['type']} {row['raw']!r}")
def test_operators(row: dict[str, Json]) -> None:
    """Every row of the truth table of the criteria comes out, and its opposite (P8)."""
    value = DataMap("it", ("it",), row["type"]).value({"it": row["raw"]}, "UTC")
    entry = Entry("track", ORIGIN, "m1", ORIGIN, 1, {"it": value} if value is not None else {})
    moment = Moment(Space(types={"it": row["type"]}), [entry], ORIGIN, entry)
    leaf = {"map": "it", "op": row["op"], "value": row["arg"], "ignoreCase": row.get("ignoreCase", False)}

    assert holds(leaf, moment) is row["expect"]
    assert holds({"not": leaf}, moment) is not row["expect"]
