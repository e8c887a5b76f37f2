"""
Fields of a row that a newer call has overtaken while the row waited. Pure.

The newer call has a row of its own, so the old value is left out. A field that no data map sets any more is sent as
it is: nothing newer can be known of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emarsys_cdp.delivery.parcel import RowOrigin, Version
from emarsys_cdp.document.compile import CompiledMap
from emarsys_cdp_hooks import StoredValue


def overtaken(
    fields: Sequence[str],
    origin: RowOrigin,
    maps: Sequence[CompiledMap],
    values: Mapping[str, StoredValue],
) -> frozenset[str]:
    """
    Return those of a row's fields whose stored values are not of the calls that the row carries, but of newer ones.

    *maps* are the data maps of the space, *values* the person's values by the maps' names.
    """
    if not origin.versions:
        return frozenset()
    stored: dict[str, list[Version]] = {}
    for data_map in maps:
        value = values.get(data_map.name)
        if data_map.field is not None and value is not None:
            stored.setdefault(data_map.field, []).append((value.event_time, value.message_id))
    return frozenset(name for name in fields if name in stored and all(_is_newer(origin, one) for one in stored[name]))


def _is_newer(origin: RowOrigin, version: Version) -> bool:
    """
    Tell whether a value came from another call than those of a row, after the row was made.

    A value that is older than all of them is not: then an extension has set the field.
    """
    return version not in origin.versions and version > min(origin.versions)
