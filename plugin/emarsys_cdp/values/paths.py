"""
JSON paths of data maps: dots, `[n]`, `[*]`, quoted names, alternatives; compiled to functions.

`properties.items[0].sku`, `traits['first name']`, `properties.items[*].sku`. A path that begins with `traits.`
is also looked up under `context.traits.` and the other way round, because an identify carries its traits at the
root and every other call in the context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Getter: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Call message to the value at a path; None where there is none."""

Step: TypeAlias = str | int
EVERY = -1
"""The step `[*]`: every element of an array."""

MAX_STEPS = 32
_TOKEN = re.compile(
    r"""\.?(?P<name>[^.\[\]'"\s][^.\[\]]*) | \[(?P<index>\d{1,6})\] | \[(?P<every>\*)\]
      | \[(?P<quote>['"])(?P<quoted>(?:(?!(?P=quote)).)+)(?P=quote)\]""",
    re.VERBOSE,
)


def parse_path(path: str) -> tuple[Step, ...]:
    """
    Return the steps of a path: names, array indexes, or `EVERY`.

    Raises:
        ValueError: the path is not of this grammar; says where and what would be right.

    """
    text = path.removeprefix("$")
    text = text.removeprefix(".") if path.startswith("$") else text
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (position == 0 and text[0] == "."):
            raise ValueError(f"{path!r} cannot be read at {text[position : position + 10]!r}: {_HELP}")
        steps.append(_step(match))
        position = match.end()
    if not steps or len(steps) > MAX_STEPS:
        raise ValueError(f"{path!r} has {len(steps)} steps, 1 to {MAX_STEPS} are allowed: {_HELP}")
    return tuple(steps)


_HELP = "write names with dots, as in properties.items[0].sku or traits['first name']"


def _step(match: re.Match[str]) -> Step:
    if match["name"]:
        return match["name"].strip()
    if match["index"]:
        return int(match["index"])
    return EVERY if match["every"] else match["quoted"]


def compile_path(path: str | Sequence[str]) -> Getter:
    """
    Return a function that reads the first non-null value of one or several paths.

    Raises:
        ValueError: a path is not of the grammar.

    """
    variants: list[tuple[Step, ...]] = []
    for one in [path] if isinstance(path, str) else path:
        steps = parse_path(one)
        variants += [variant for variant in (steps, _elsewhere(steps)) if variant]
    return _first(variants)


def compile_trait(name: str) -> Getter:
    """Return a function that reads a trait by its path, or by its plain name where that is no path."""
    try:
        return compile_path(f"traits.{name}")
    except ValueError:
        return _first([("traits", name), ("context", "traits", name)])


def _elsewhere(steps: tuple[Step, ...]) -> tuple[Step, ...] | None:
    if steps[:2] == ("context", "traits") and len(steps) > 2:  # noqa: PLR2004 - the length of the prefix
        return steps[1:]
    return ("context", *steps) if steps[0] == "traits" and len(steps) > 1 else None


def _first(variants: Sequence[tuple[Step, ...]]) -> Getter:
    """Read the first variant that is there."""
    head, *rest = variants
    if len(head) == 2 and all(isinstance(step, str) for step in head):  # noqa: PLR2004 - a trait or a property
        return _child(str(head[0]), str(head[1]), tuple(_getter(steps) for steps in rest))
    if not rest:
        return _getter(head)
    getters = tuple(_getter(steps) for steps in variants)

    def first(message: Mapping[str, Any]) -> Any:
        for getter in getters:
            value = getter(message)
            if value is not None:
                return value
        return None

    return first


def _child(parent: str, name: str, others: tuple[Getter, ...] = ()) -> Getter:
    """Read a path of two names, else the first of others: nearly all data maps, so it has a function of its own."""

    def child(message: Mapping[str, Any]) -> Any:
        value = message.get(parent)
        if type(value) is dict:
            value = value.get(name)
            if value is not None:
                return value
        for getter in others:
            value = getter(message)
            if value is not None:
                return value
        return None

    return child


def _getter(steps: tuple[Step, ...]) -> Getter:
    if all(isinstance(step, str) for step in steps):
        return _names(tuple(str(step) for step in steps))
    return lambda message: _walk(message, steps)


def _names(names: tuple[str, ...]) -> Getter:
    """Read a path of names only: nearly all paths, so without a general walk."""
    if len(names) == 1:
        (name,) = names
        return lambda message: message.get(name)
    *parents, last = names

    def getter(message: Mapping[str, Any]) -> Any:
        value: Any = message
        for name in parents:
            value = value.get(name)
            if type(value) is not dict:
                return None
        return value.get(last)

    return getter


def _walk(value: Any, steps: tuple[Step, ...]) -> Any:
    for position, step in enumerate(steps):
        if step == EVERY:
            if not isinstance(value, list):
                return None
            found = [_walk(element, steps[position + 1 :]) for element in value]
            return [element for element in found if element is not None]
        value = _take(value, step)
        if value is None:
            return None
    return value


def _take(value: Any, step: Step) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, Mapping) else None
    return value[step] if isinstance(value, list) and step < len(value) else None
