"""JSON Schemas, compiled once by a function, with every problem reported at its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fastjsonschema

from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Problem
from emarsys_cdp_manifests import read

Check = Callable[[Any], tuple[Problem, ...]]


def compile_schema(name: str) -> Check:
    """
    Return a function that lists every problem of a value under a shipped schema.

    Raises:
        FileNotFoundError: there is no such schema.

    """
    validate = fastjsonschema.compile(
        json.loads(read(f"schemas/{name}.schema.json")), use_default=False, fast_fail=False
    )

    def check(value: Any) -> tuple[Problem, ...]:
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValuesException as error:
            return tuple(_problem(one) for one in error.errors)
        except fastjsonschema.JsonSchemaValueException as error:
            return (_problem(error),)
        return ()

    return check


def _problem(error: Any) -> Problem:
    place = place_of(error.path[1:])
    message = str(error.message).removeprefix(str(error.name)).strip()
    if error.rule == "anyOf" and "description" in error.definition:
        message = f"is not right here: {error.definition['description']}"
    if error.value is not None and not isinstance(error.value, (dict, list)):
        message = f"{shorten(error.value)} {message}"
    return Problem(place or "document", message)


def place_of(path: list[Any]) -> str:
    """Return `dataMaps[2].path` for the path of a value in a document."""
    text = ""
    for step in path:
        text += f"[{step}]" if str(step).isdigit() else f".{step}"
    return text.removeprefix(".")
