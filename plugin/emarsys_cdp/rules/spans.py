"""Spans of time in documents, as milliseconds."""

from __future__ import annotations

from typing import Final

from emarsys_cdp.values.durations import EXPECTED, read_duration
from emarsys_cdp.values.text import shorten

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

MAX_SPAN: Final = 3650 * DAY
"""Longest span: ten years."""

_UNITS: Final = (("d", DAY), ("h", HOUR), ("m", 60_000), ("s", 1000))


def read_span(raw: object) -> int:
    """
    Return the milliseconds of a written duration; a bare number is hours.

    Raises:
        ValueError: it is none, negative, or longer than ten years.

    """
    if not isinstance(raw, (int, float, str)) or isinstance(raw, bool):
        raise ValueError(f"{shorten(raw)} is no duration: {EXPECTED}")
    if str(raw).startswith("-"):
        raise ValueError(f"{shorten(raw)} is negative: a duration is not; {EXPECTED}")
    milliseconds = read_duration(raw) * 1000
    if not milliseconds <= MAX_SPAN:
        raise ValueError(f"{shorten(raw)} is too long: at most 3650d; a bare number is hours")
    return round(milliseconds)


def read_signed_span(raw: object) -> int:
    """
    Return the milliseconds of a written duration that may begin with a minus: `-7d`, `2h`.

    Raises:
        ValueError: it is none, or longer than ten years.

    """
    if isinstance(raw, str) and raw.startswith("-"):
        return -read_span(raw[1:])
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and raw < 0:
        return -read_span(-raw)
    return read_span(raw)


def show_span(milliseconds: int) -> str:
    """Return a span as documents write it, in the largest unit up to days that it is whole in: `14d`, `90s`."""
    for unit, size in _UNITS:
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds / 1000:g}s"
