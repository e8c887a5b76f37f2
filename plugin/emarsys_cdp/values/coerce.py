"""The types of data maps: what a raw JSON value counts as. What does not fit its type is absent (None)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from emarsys_cdp.values.text import decimal_text, nfc, parse_decimal
from emarsys_cdp.values.times import iso_time, parse_date
from emarsys_cdp_hooks import Value

Coercion: TypeAlias = Callable[[Any], Value]

_TRUE = frozenset(("true", "1", "yes"))
_FALSE = frozenset(("false", "0", "no"))


def to_string(raw: Any) -> str | None:
    """Return text as it is (NFC); a number as its shortest decimal text; a boolean as `true` or `false`."""
    if type(raw) is str:
        return raw if raw.isascii() else nfc(raw)
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, (int, float)):
        return decimal_text(raw)
    return None


def to_numeric(raw: Any) -> str | None:
    """Return a number, or text like `12`, `-1.50`, `1e2`, as its shortest decimal text."""
    if isinstance(raw, bool):
        return None
    if isinstance(raw, (int, float)):
        return decimal_text(raw)
    return parse_decimal(raw) if isinstance(raw, str) else None


def to_boolean(raw: Any) -> bool | None:
    """Read True, 1, `yes` and false, 0, `no` in any case."""
    if isinstance(raw, bool):
        return raw
    text = to_string(raw)
    if text is None:
        return None
    text = text.strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def to_list(raw: Any) -> list[str] | None:
    """Return an array of scalars as texts, without its nulls; a scalar as an array of one."""
    if raw is None or isinstance(raw, dict):
        return None
    texts = [to_string(element) for element in (raw if isinstance(raw, list) else [raw])]
    found = [text for text in texts if text is not None]
    return found if found or raw == [] else None


def date_reader(zone: str) -> Coercion:
    """Return the coercion of type date in a time zone; its values are ISO 8601 text in UTC (`...Z`)."""

    def to_date(raw: Any) -> str | None:
        moment = parse_date(raw, zone)
        try:
            return None if moment is None else iso_time(moment).replace(".000Z", "Z")
        except OverflowError:
            return None

    return to_date


def coercion(data_type: str, zone: str) -> Coercion:
    """
    Return the function that reads a raw value as *data_type* in a time zone.

    Raises:
        KeyError: there is no such type.

    """
    return {
        "string": to_string,
        "numeric": to_numeric,
        "boolean": to_boolean,
        "date": date_reader(zone),
        "list": to_list,
    }[data_type]
