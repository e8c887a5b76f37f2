"""What a space makes of a timeline, in the form of the vectors (semantics.md, amendment 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.model.reading import UNITS
from tests.model.rule_space import RuleModel
from tests.model.table import Call, Erase, Json, do
from tests.model.vectors import ORIGIN, Vector


def shown(time: int) -> str:
    """Return a time as `Nd HH:MM` after the origin, with `:SS` where it is not zero, floored to the second."""
    seconds = (time - ORIGIN) // UNITS["s"]
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    return f"{sign}{days}d {hours:02}:{minutes:02}" + (f":{rest:02}" if rest else "")


def outcome(vector: Vector) -> dict[str, Any]:
    """Return what comes out of a vector, steps taken in the order of their times."""
    model, results = RuleModel(vector.document), dict[int, str]()
    arrivals = [_at(step, vector, number) for number, step in enumerate(vector.steps)]
    for number in sorted(range(len(vector.steps)), key=lambda number: arrivals[number]):
        results[number] = do(model, vector.steps[number])
    model.advance(vector.until, included=True)
    instances = model.instances()
    return {
        "effects": [effect | {"at": shown(effect["at"])} for effect in model.effects()],
        "instances": instances,
        "contradictions": model.contradictions(),
        "profiles": model.profiles(),
        "values": [row["values"] for row in model.values()],
        "shared": model.shared(),
        "warnings": model.warnings(),
        "results": [results[number] if wanted else None for number, wanted in enumerate(vector.results)],
    }


def _at(step: Json, vector: Vector, number: int) -> int:
    """Return when a step happens; one that has no time of its own happens with the one before."""
    if isinstance(step, Call):
        return step.arrival
    if isinstance(step, Erase):
        return step.now
    return _at(vector.steps[number - 1], vector, number - 1) if number else ORIGIN


def differences(vector: Vector) -> Mapping[str, tuple[Json, Json]]:
    """Return what has come out and what should have, where they differ."""
    got = outcome(vector)
    want = {"results": list(vector.results), **vector.expect}
    return {name: (got[name], want[name]) for name in got if name in want and got[name] != want[name]}
