"""Text as the users table keeps it: normalised, numbers in their shortest decimal form."""

from __future__ import annotations

import unicodedata
from decimal import Decimal, InvalidOperation

MAX_DIGITS = 40
"""A number with more digits than this is taken as text (`1e400` would otherwise fill memory)."""


def nfc(text: str) -> str:
    """Return *text* in Unicode normal form C."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def decimal_text(number: float | int | Decimal) -> str | None:
    """
    Return the shortest decimal text of a number: 111, 111.0 and 1.11e2 are all `111`.

    None for what is no number (NaN, infinity) or has more than `MAX_DIGITS` digits.
    """
    if type(number) is int:
        return str(number) if -(10**MAX_DIGITS) < number < 10**MAX_DIGITS else None
    decimal = number if isinstance(number, Decimal) else Decimal(repr(number))
    if not decimal.is_finite() or abs(decimal.adjusted()) > MAX_DIGITS:
        return None
    text = format(decimal, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def parse_decimal(text: str) -> str | None:
    """Return the shortest decimal text of a written number (`-1.50`, `1e2`), or None if it is none."""
    text = text.strip()
    if not text or (not text[-1].isdigit() and text[-1] != ".") or "_" in text or not text.isascii():
        return None
    try:
        return decimal_text(Decimal(text))
    except InvalidOperation:
        return None


def shorten(value: object, length: int = 60) -> str:
    """Return a value as an error message shows it: quoted, at most *length* characters."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
