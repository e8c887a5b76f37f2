"""
Times of a simulation: offsets from 2025-01-06T10:00:00Z, in milliseconds.

They are written `[-][Nd][ H:MM[:SS]]`, such as `0:30`, `2d`, `-1d 6:00`; a sign is that of the whole offset. Shown
they are `Nd HH:MM`, with `:SS` where it is not zero.
"""

from __future__ import annotations

import re
from typing import Final

START: Final = 1_736_157_600_000
"""2025-01-06T10:00:00Z in milliseconds since 1970 UTC (semantics.md, amendment 3)."""

EXPECTED: Final = "write for instance 0:30, 2d, 2d 6:00:15 or -1d 0:00"

MAX_DAYS: Final = 36_500
"""A hundred years: further away there is nothing to simulate, and times would leave the calendar."""

_WRITTEN = re.compile(r"(-)?(?:(\d{1,6})d)?(?:(?:(?<=d)\s+|(?<!d))(\d{1,6}):([0-5]\d)(?::([0-5]\d))?)?\Z", re.ASCII)
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def read_offset(text: object) -> int:
    """
    Return the milliseconds of a written offset.

    Raises:
        ValueError: it is none, or further away than `MAX_DAYS`.

    """
    match = _WRITTEN.match(text.strip()) if isinstance(text, str) else None
    if match is None or (match[2] is None and match[3] is None):
        raise ValueError(f"is no offset of time: {EXPECTED}")
    sign, *numbers = match.groups()
    days, hours, minutes, seconds = (int(number or 0) for number in numbers)
    total = days * _DAY + hours * _HOUR + minutes * _MINUTE + seconds
    if total > MAX_DAYS * _DAY:
        raise ValueError(f"is too far away: at most {MAX_DAYS}d")
    return (-total if sign else total) * 1000


def show_offset(milliseconds: int) -> str:
    """Return an offset as it is shown, floored to the second."""
    seconds = milliseconds // 1000
    sign = "-" if seconds < 0 else ""
    days, rest = divmod(abs(seconds), _DAY)
    hours, rest = divmod(rest, _HOUR)
    minutes, rest = divmod(rest, _MINUTE)
    return f"{sign}{days}d {hours:02}:{minutes:02}" + (f":{rest:02}" if rest else "")
