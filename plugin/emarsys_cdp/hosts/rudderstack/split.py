"""
Cutting a request apart without reading it, for when one call in it is no JSON.

Brackets and quotes are enough to find where a value ends; so a call with NaN, a broken escape or a hundred thousand
brackets costs only itself.
"""

from __future__ import annotations

import re

_MARK = re.compile(rb'["{}\[\],:]')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OPEN, _CLOSE = b"{[", b"}]"


class Unreadable(ValueError):
    """Brackets or quotes do not match: nothing can be cut out of this."""


def array_elements(data: bytes) -> list[bytes]:
    """
    Return the bytes of each element of a JSON array.

    Raises:
        Unreadable: it is no array, or its brackets do not match.

    """
    return [piece for piece in _pieces(data, b"[", b"]") if piece]


def object_members(data: bytes) -> dict[str, bytes]:
    """
    Return the bytes of each value of a JSON object by its name; of equal names the last counts.

    Raises:
        Unreadable: it is no object, or its brackets do not match.

    """
    members: dict[str, bytes] = {}
    for piece in _pieces(data, b"{", b"}"):
        name = _STRING.match(piece)
        colon = piece.find(b":", name.end()) if name else -1
        if name is not None and colon >= 0:
            members[name[0][1:-1].decode("utf-8", "replace")] = piece[colon + 1 :].strip()
    return members


def _pieces(data: bytes, opening: bytes, closing: bytes) -> list[bytes]:
    data = data.strip()
    if data[:1] != opening or data[-1:] != closing:
        raise Unreadable(f"this is no JSON text between {opening.decode()} and {closing.decode()}")
    pieces: list[bytes] = []
    depth, start, position = 0, 1, 1
    end = len(data) - 1
    while (match := _MARK.search(data, position, end)) is not None:
        mark, position = match[0], match.end()
        if mark == b'"':
            position = _after_string(data, match.start())
        elif mark in _OPEN:
            depth += 1
        elif mark in _CLOSE:
            depth -= 1
            if depth < 0:
                raise Unreadable("there is something after the end")
        elif mark == b"," and depth == 0:
            pieces.append(data[start : match.start()].strip())
            start = position
    if depth != 0:
        raise Unreadable("opening and closing brackets do not match")
    return [*pieces, data[start:end].strip()]


def _after_string(data: bytes, start: int) -> int:
    string = _STRING.match(data, start)
    if string is None:
        raise Unreadable("a quote is not closed")
    return string.end()


def depth_of(data: bytes) -> int:
    """
    Return how deep the brackets of a JSON text are nested.

    Raises:
        Unreadable: a quote is not closed.

    """
    deepest = depth = position = 0
    while (match := _MARK.search(data, position)) is not None:
        mark, position = match[0], match.end()
        if mark == b'"':
            position = _after_string(data, match.start())
        elif mark in _OPEN:
            depth += 1
            deepest = max(deepest, depth)
        elif mark in _CLOSE:
            depth -= 1
    return deepest
