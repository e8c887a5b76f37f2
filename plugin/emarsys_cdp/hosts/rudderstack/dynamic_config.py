"""Settings that take their value from each call: `{{ path || default }}` anywhere in a destination's Config."""

from __future__ import annotations

import re
from typing import Any

from emarsys_cdp.values.text import decimal_text

_TEMPLATE = re.compile(r"\s*\{\{\s*(?P<path>.*?)\s*\|\|\s*(?P<default>.*?)\s*\}\}\s*\Z", re.DOTALL)
_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*\Z")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>.*)(?P=quote)\Z""", re.DOTALL)


def resolve(config: Any, message: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """
    Return the settings for one call and the call without the values that went into them.

    A value that the call lacks is taken from the template's default. Neither argument is changed.
    """
    taken: list[list[str]] = []
    resolved = _resolve(config, message, taken)
    for path in taken:
        message = _without(message, path)
    return resolved, message


def _resolve(config: Any, message: dict[str, Any], taken: list[list[str]]) -> Any:
    if isinstance(config, str):
        match = _TEMPLATE.match(config) if "{{" in config else None
        return config if match is None else _value(match, message, taken)
    if isinstance(config, dict):
        return {key: _resolve(value, message, taken) for key, value in config.items()}
    if isinstance(config, list):
        return [_resolve(value, message, taken) for value in config]
    return config


def _value(match: re.Match[str], message: dict[str, Any], taken: list[list[str]]) -> Any:
    path = match["path"].removeprefix("event.").removeprefix("message.")
    if _PATH.match(path):
        steps = path.split(".")
        value = _get(message, steps)
        if value is not None and value != "":
            taken.append(steps)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            return decimal_text(value) if is_number else value
    quoted = _QUOTED.match(match["default"])
    return quoted["text"] if quoted else match["default"]


def _get(message: Any, steps: list[str]) -> Any:
    for step in steps:
        message = message.get(step) if isinstance(message, dict) else None
    return message


def _without(message: dict[str, Any], steps: list[str]) -> dict[str, Any]:
    first, *rest = steps
    if first not in message:
        return message
    if not rest:
        return {key: value for key, value in message.items() if key != first}
    child = message[first]
    return {**message, first: _without(child, rest)} if isinstance(child, dict) else message
