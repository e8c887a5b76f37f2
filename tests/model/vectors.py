"""Vectors of the form of vectors.json (semantics.md, amendment 3), as far as they are about the users table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.model.reading import UNITS, iso, time_of
from tests.model.table import Call, Erase, Json, Make, Step, Unsuppress, do

VECTORS = Path(__file__).parent.parent / "contract" / "vectors" / "semantics"
ORIGIN = time_of("2025-01-06T10:00:00Z") or 0
OFFSET = re.compile(r"(-)?(?:(\d+)d)?(?:\s*(\d+):(\d\d)(?::(\d\d))?)?", re.ASCII)


@dataclass(frozen=True)
class Vector:
    """A timeline in a space, the results of its steps where they are named, and what is known at its end."""

    name: str
    document: Mapping[str, Json]
    steps: tuple[Step, ...]
    results: tuple[str | None, ...]
    until: int
    expect: Mapping[str, Json]


def offset(text: str) -> int:
    """Return the time of `[-][Nd][ H:MM[:SS]]` after the origin, in milliseconds since 1970."""
    found = OFFSET.fullmatch(text.strip())
    if not text or not found:
        raise ValueError(f"not an offset like 0:30, -1d 0:00, 2d: {text!r}")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    span = days * UNITS["d"] + hours * UNITS["h"] + minutes * UNITS["m"] + seconds * UNITS["s"]
    return ORIGIN - span if found[1] else ORIGIN + span


def step_of(row: Mapping[str, Json]) -> Step:
    """Read one line of a timeline."""
    at = offset(row["at"])
    if "erase" in row:
        return Erase(row["erase"][0], row["erase"][1], row.get("mode", "delete"), at)
    if "unsuppress" in row:
        return Unsuppress(*row["unsuppress"])
    return Call({"timestamp": iso(offset(row.get("time", row["at"]))), **row["call"]}, at)


def read(file: Path) -> list[Vector]:
    """Read a file of vectors."""
    content = json.loads(file.read_text())
    return [
        Vector(
            name=row["name"],
            document=row["config"] if "config" in row else content["configs"][row["use"]],
            steps=tuple(step_of(line) for line in row["timeline"]),
            results=tuple(line.get("result") for line in row["timeline"]),
            until=offset(row["until"]),
            expect=row["expect"],
        )
        for row in content["vectors"]
    ]


def outcome(make: Make, vector: Vector) -> dict[str, Any]:
    """Return what a users table makes of a vector, in the form of its `expect`, with the results that it names."""
    table = make(vector.document)
    results = [do(table, step) for step in vector.steps]
    # A users table has no clock of its own: the erasure of somebody unknown tells it how late it is.
    do(table, Erase("anon", "somebody unknown", "delete", vector.until))
    return {
        "results": [result if wanted else None for result, wanted in zip(results, vector.results, strict=True)],
        "profiles": table.profiles(),
        "values": [row["values"] for row in table.values()],
        "shared": table.shared(),
        "warnings": table.warnings(),
    }


def differences(make: Make, vector: Vector) -> dict[str, tuple[Json, Json]]:
    """Return what a users table has and what it should have, where they differ."""
    got = outcome(make, vector)
    want = {"results": list(vector.results), **vector.expect}
    return {name: (got[name], want[name]) for name in got if name in want and got[name] != want[name]}
