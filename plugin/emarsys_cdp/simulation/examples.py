"""The examples that rules carry: timelines with what is expected of them, run like any simulation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import Document
from emarsys_cdp.simulation.compare import differences
from emarsys_cdp.simulation.reading import Vector, read_vector
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.validation import Check
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import InvalidDocument, Problem

_SHOWN: Final = 500
"""Most characters of a value that a message shows."""


class Example(Struct, frozen=True):
    """An example of a rule, and its place in the document."""

    place: str
    vector: Vector


def examples_of(document: Document, check: Check, compiler: Compiler) -> tuple[list[Example], list[Problem]]:
    """
    Return the examples of all rules of a document, and the problems of those that cannot be run.

    An example runs with its rule alone, as an active one. *check* is that of the schema `simulation`.
    """
    found: list[Example] = []
    problems: list[Problem] = []
    for index, rule in enumerate(document.rules):
        alone = replace(document, rules=({**rule, "status": "active"},))
        for number, raw in enumerate(rule.get("examples", [])):
            place = f"rules[{index}].examples[{number}]"
            named = {**raw, "name": raw.get("name", f"example {number + 1}")}
            wrong = [
                Problem(one.place.replace("vectors[0]", place), one.message) for one in check({"vectors": [named]})
            ]
            if not wrong:
                try:
                    found.append(Example(place, read_vector(named, alone, place, compiler)))
                except InvalidDocument as error:
                    wrong = [*error.problems]
            problems += wrong
    return found, problems


async def run_examples(open_engine: Callable[[], Engine], examples: Sequence[Example]) -> list[Problem]:
    """
    Return a problem for everything that came out otherwise than an example expects.

    Raises:
        StoreUnavailable: the store does not answer.

    """
    problems = []
    engine = open_engine()
    try:
        for number, example in enumerate(examples):
            outcome = await run_vector(engine, example.vector, number)
            problems += [
                Problem(
                    f"{example.place}.{'' if one.place.startswith('results') else 'expect.'}{one.place}",
                    f"{shorten(example.vector.name)} expects {_shown(one.expected)}, and {_shown(one.found)} came out",
                )
                for one in differences(example.vector, outcome)
            ]
    finally:
        await engine.store.close()
    return problems


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
