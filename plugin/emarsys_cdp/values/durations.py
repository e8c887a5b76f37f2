"""Durations as documents write them: a number of hours, or text such as `90s`, `30m`, `48h`, `7d`, `2w`."""

from __future__ import annotations

import re
from typing import Final

EXPECTED: Final = "write a number of hours, or text such as 30m, 48h, 7d or 2w"

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WRITTEN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])\Z", re.ASCII)


def read_duration(raw: float | str) -> float:
    """
    Return the seconds of a written duration.

    Raises:
        ValueError: it is none.

    """
    if isinstance(raw, str):
        match = _WRITTEN.match(raw)
        if match is None:
            raise ValueError(f"{raw!r} is no duration: {EXPECTED}")
        return float(match[1]) * _UNITS[match[2]]
    return raw * _UNITS["h"]
