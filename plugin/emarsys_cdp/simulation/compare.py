"""What a file expects against what came out. Only what the file names is compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from emarsys_cdp.simulation.outcome import Outcome
from emarsys_cdp.simulation.reading import Vector

UNORDERED: Final = ("profiles", "instances")
"""Parts of the output whose order means nothing."""


class Difference(Struct, frozen=True):
    """Something that came out otherwise; *place* is a key of the output, or a result with the number of its step."""

    vector: str
    place: str
    expected: Any
    found: Any


def differences(vector: Vector, outcome: Outcome) -> Iterator[Difference]:
    """Yield what is not as the vector expects."""
    for index, step in enumerate(vector.steps):
        if step.expected not in (None, outcome.results[index]):
            yield Difference(vector.name, f"results[{index}]", step.expected, outcome.results[index])
    found = msgspec.to_builtins(outcome)
    for key, expected in (vector.expect or {}).items():
        if _ordered(key, found.get(key)) != _ordered(key, expected):
            yield Difference(vector.name, key, expected, found.get(key))


def _ordered(key: str, value: Any) -> Any:
    """Return what has no order in one that does not depend on who wrote it."""
    if key not in UNORDERED or not isinstance(value, list):
        return value
    return sorted(value, key=lambda one: json.dumps(one, sort_keys=True))
