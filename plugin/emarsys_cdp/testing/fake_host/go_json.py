"""
JSON as it looks when it has gone through a Go `map[string]any`.

A RudderStack server does that with every call, every destination's settings and every JSON body that it sends
(reference 1.1).
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Final, NoReturn

from emarsys_cdp.testing.conformance_types import Json

_EXACT_DIGITS: Final = 15
"""Integers of so many digits are the same as float64."""
_LARGEST_WITHOUT_EXPONENT: Final = 1e21
"""Go writes larger floats with an exponent."""

_ESCAPED: Final = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def loads(text: bytes | str) -> Json:
    """
    Read JSON as Go does: every number is a float64, and U+FFFD stands for what is no character.

    Raises:
        ValueError: it is no JSON, or has a number that is too large.
        RecursionError: it is nested too deeply.

    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_no_constant)


def dumps(value: Json) -> bytes:
    """Write what `loads` has read: names sorted, `<>&` escaped. Small fractions may be spelt differently than by Go."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def recoded(text: bytes) -> bytes:
    """Return JSON text as it comes out of a Go map. Raises as `loads`."""
    return dumps(loads(text))


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _EXACT_DIGITS else _number(text)


def _number(text: str) -> int | float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large for a number")
    whole = number.is_integer() and abs(number) < _LARGEST_WITHOUT_EXPONENT
    return int(Decimal(repr(number))) if whole else number  # Go fills up with zeros what is not exact


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
