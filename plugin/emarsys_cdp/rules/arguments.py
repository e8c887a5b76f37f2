"""What comparisons compare with: read from documents by the data type, and shown to people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from emarsys_cdp.rules.operators import (
    DATE,
    LIST,
    MANY,
    NOTHING,
    NUMERIC,
    PAIR,
    PATTERN,
    SPAN,
    STRING,
    BuiltIn,
    compile_pattern,
)
from emarsys_cdp.rules.spans import read_span, show_span
from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.text import nfc, shorten
from emarsys_cdp.values.times import parse_time
from emarsys_cdp.values.times import zone as zone_of
from emarsys_cdp_hooks import Json, Value

MAX_TEXT: Final = 1000
"""Longest text that is compared with, in characters."""

MAX_PATTERN: Final = 256
"""Longest regular expression, in characters (semantics 2.7)."""

MAX_LIST: Final = 10_000
"""Most elements of a list that is compared with."""

EXPECTED: Final[Mapping[str, str]] = {
    STRING: "a text",
    NUMERIC: "a number such as 12.50",
    "boolean": "true or false",
    DATE: "a date such as 2025-01-06 or 2025-01-06T10:00:00Z",
    LIST: "a list of texts",
}

_PARTS = ("contains", "starts_with", "ends_with")
_PAIR_LENGTH = 2
_PLAIN = re.compile(r"[^\s\",](?:[^\",]*[^\s\",])?\Z")


def read_argument(operator: BuiltIn, raw: Json, data_type: str, zone: str) -> Json:
    """
    Return an argument in the form that the operator prepares: values as data maps read them, durations in ms.

    Raises:
        ValueError: it is not what the operator compares with.

    """
    name, kind = operator.name, operator.argument
    if kind == NOTHING:
        if raw is not None:
            raise ValueError(f"{name} compares with nothing: leave out the value {shorten(raw)}")
        return None
    if raw is None:
        raise ValueError(f"{name} needs a value; whether there is one tell exists and empty")
    if kind == SPAN:
        return read_span(raw)
    if kind == PATTERN:
        return _pattern(raw)
    element = STRING if data_type == LIST and name.startswith("contains") else data_type
    if kind == MANY:
        return _many(name, raw, element, zone)
    if kind == PAIR:
        return _pair(raw, element, zone)
    value = _value(raw, element, zone)
    if value == "" and name in _PARTS:
        raise ValueError(f"every text {name.replace('_', ' ')} an empty one: use exists, or give a text")
    return value


def _value(raw: Json, data_type: str, zone: str) -> Value:
    value = coercion(data_type, zone)(raw)
    if value is None:
        raise ValueError(f"{shorten(raw)} is not of type {data_type}: give {EXPECTED[data_type]}")
    if any(len(text) > MAX_TEXT for text in (value if isinstance(value, list) else [str(value)])):
        raise ValueError(f"{shorten(raw)} is too long: at most {MAX_TEXT} characters are compared")
    return value


def _many(name: str, raw: Json, data_type: str, zone: str) -> list[Value]:
    if not isinstance(raw, list):
        raise ValueError(f"{name} needs a list, such as [{shorten(raw)}]")
    if not raw:
        raise ValueError(f"{name} needs a list of one value or more: nothing is in an empty one")
    if len(raw) > MAX_LIST:
        raise ValueError(f"a list of {len(raw)} is too long: at most {MAX_LIST} values; a data map can tell them apart")
    return [_value(one, data_type, zone) for one in raw]


def _pair(raw: Json, data_type: str, zone: str) -> list[Value]:
    if not isinstance(raw, list) or len(raw) != _PAIR_LENGTH:
        raise ValueError(f"{shorten(raw)} are no two ends: give a list of two, such as [10, 20]")
    values = [_value(one, data_type, zone) for one in raw]
    low, high = (Decimal(str(one)) if data_type == NUMERIC else parse_time(str(one)) or 0 for one in values)
    if low > high:
        raise ValueError(f"nothing is between {shorten(raw[0])} and {shorten(raw[1])}: give the lower end first")
    return values


def _pattern(raw: Json) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"{shorten(raw)} is no regular expression: give a text such as ^SKU-")
    if len(raw) > MAX_PATTERN:
        raise ValueError(f"a regular expression of {len(raw)} characters is too long: at most {MAX_PATTERN}")
    compile_pattern(nfc(raw))
    return nfc(raw)


def show_argument(operator: BuiltIn, argument: Json, data_type: str, zone: str) -> str:
    """Return an argument as the short form writes it."""
    if operator.argument == SPAN:
        return show_span(argument)
    if operator.argument == PATTERN:
        return str(argument)
    if operator.argument in (MANY, PAIR):
        return ", ".join(_quoted(_show(one, data_type, zone)) for one in argument)
    if isinstance(argument, list):
        return ", ".join(map(_quoted, argument))
    text = _show(argument, data_type, zone)
    return text if text and text == text.strip() and text[0] != '"' else _in_quotes(text)


def _show(value: Any, data_type: str, zone: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):  # of several lists; the short form has one for lists of one only
        return value[0] if len(value) == 1 else f"[{', '.join(value)}]"
    moment = parse_time(value) if data_type == DATE and isinstance(value, str) else None
    return str(value) if moment is None else _show_date(value, moment, zone)


def _show_date(text: str, moment: int, name: str) -> str:
    """Return the day alone for its midnight in the zone."""
    try:
        local = datetime.fromtimestamp(moment / 1000, zone_of(name))
    except (OverflowError, ValueError, OSError):
        return text
    day = local.date().isoformat()
    return day if coercion(DATE, name)(day) == text else text


def _quoted(text: str) -> str:
    return text if _PLAIN.match(text) else _in_quotes(text)


def _in_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
