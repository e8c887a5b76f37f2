"""Data maps: the values that a call carries, as the types they are configured to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emarsys_cdp.document.compile import CompiledMap, CompiledSpace
from emarsys_cdp.values.coerce import to_string
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Call, Json, Space, Unfit, Value, hookimpl

MAX_TEXT = 16_384
"""Longest value of a data map that the users table keeps, in characters."""

MAX_ELEMENTS = 1000
"""Most elements of a list that the users table keeps."""

MAX_LEVELS = 16
"""Deepest nesting of a value that is kept as received."""

_EXPECTED = {
    "string": "text, a number or true/false",
    "numeric": "a number such as 12.50",
    "boolean": "true or false",
    "date": "a date such as 2025-01-06 or 2025-01-06T10:00:00Z",
    "list": "an array of texts",
}


@hookimpl(trylast=True)
def emarsys_cdp_map_values(space: Space, calls: Sequence[Call]) -> list[dict[str, Value | Json | Unfit]] | None:
    """Read every data map of the space from every call; what is not there is left out."""
    if not isinstance(space, CompiledSpace):
        return None
    maps = space.maps
    return [read_maps(maps, call.message) for call in calls]


def read_maps(maps: Sequence[CompiledMap], message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of data maps in one message by the maps' names."""
    values: dict[str, Any] = {}
    for data_map in maps:
        raw = data_map.read(message)
        if raw is None:
            continue
        coerce = data_map.coerce
        if coerce is to_string and type(raw) is str and len(raw) <= MAX_TEXT and raw.isascii():
            values[data_map.name] = raw  # text as it is: most values
            continue
        try:
            value = coerce(raw)
        except ValueError as error:
            values[data_map.name] = Unfit(f"data map {data_map.name}: {error}")
            continue
        if value is None and raw == "":
            continue
        if value is None or (len(value) > MAX_TEXT if type(value) is str else not _is_small(value)):
            values[data_map.name] = _unfit(data_map, raw, value)
        else:
            values[data_map.name] = value
    return values


def _is_small(value: Any, levels: int = MAX_LEVELS) -> bool:
    if isinstance(value, (list, dict)):
        elements = value if isinstance(value, list) else value.values()
        return levels > 0 and len(value) <= MAX_ELEMENTS and all(_is_small(one, levels - 1) for one in elements)
    return not isinstance(value, str) or len(value) <= MAX_TEXT


def _unfit(data_map: CompiledMap, raw: Any, value: Any) -> Unfit:
    if value is None:
        expected = _EXPECTED.get(data_map.type, "a value of its type")
        return Unfit(f"data map {data_map.name}: {shorten(raw)} is not of type {data_map.type}: give {expected}")
    return Unfit(
        f"data map {data_map.name}: the value is too large: at most {MAX_TEXT} characters and "
        f"{MAX_ELEMENTS} elements are kept"
    )
