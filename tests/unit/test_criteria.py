"""Criteria of rules: the truth table, the laws of semantics.md 2.7, and what is known of a call alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emarsys_cdp.rules.criteria import Criterion, Facts
from emarsys_cdp.rules.criteria_compiling import compile_criteria
from emarsys_cdp.rules.criteria_reading import Surroundings, read_criteria
from emarsys_cdp.rules.findings import Findings
from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.times import parse_time

TIME = parse_time("2025-01-06T10:00:00Z") or 0
TYPES = {"s": "string", "n": "numeric", "b": "boolean", "d": "date", "l": "list", "other": "string"}
OPERATORS = json.loads((Path(__file__).parent.parent / "contract/vectors/semantics/operators.json").read_text())


def criterion(raw: Any, zone: str = "UTC", **variables: str) -> Criterion:
    """Return the compiled form of criteria over the maps of `TYPES`; they must be right."""
    findings = Findings()
    around = Surroundings(TYPES, variables, zone)
    node = read_criteria(raw, "match", around, findings)
    assert not findings.problems, findings.problems
    return compile_criteria(node, around)


def problems(raw: Any, **variables: str) -> list[str]:
    """Return the problems of criteria over the maps of `TYPES`."""
    findings = Findings()
    read_criteria(raw, "match", Surroundings(TYPES, variables), findings)
    return [str(one) for one in findings.problems]


def holds(raw: Any, facts: Facts | None = None, zone: str = "UTC", **variables: str) -> bool:
    """Tell whether criteria hold."""
    return criterion(raw, zone, **variables).holds(facts or Facts({}, TIME))


@pytest.mark.parametrize(
    "row", OPERATORS["operators"], ids=lambda row: f"{row['op']} {row['type']} {json.dumps(row['raw'])}"
)
def test_the_truth_table(row: dict[str, Any]) -> None:
    """Every row of operators.json comes out as it says, and what is known of the call alone agrees."""
    leaf = {"map": row["type"][0], "op": row["op"]}
    leaf |= {} if row["arg"] is None else {"value": row["arg"]}
    leaf |= {"ignoreCase": True} if row.get("ignoreCase") else {}
    value = coercion(row["type"], "UTC")(row["raw"])
    event = {} if value is None else {row["type"][0]: value}
    found = criterion(leaf)

    assert found.holds(Facts(event, TIME)) is row["expect"]
    assert found.might(event, TIME) is row["expect"]
    assert [one.holds for one in found.leaves(Facts(event, TIME))] == [row["expect"]]
