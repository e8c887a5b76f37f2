"""
Caps: how many effects of a rule, or of a space, a contact may get in a sliding time (semantics 2.8). Pure.

A passage of the gate has its place by its name, so that asking again finds the place it has already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp.rules.pattern import Cap

Places: TypeAlias = tuple[tuple[str, int], ...]
"""Who has a place, by the name of the passage, and since when (ms since 1970 UTC); the oldest first."""


class Full(Struct, frozen=True):
    """
    There is no place.

    *until*: the passage waits until then (ms), since a cap that is full lets it wait, whatever others say now; they are
    asked then. None: it is over.
    """

    until: int | None


def reserve(name: str, caps: Sequence[Cap], now: int, places: Places) -> tuple[Places, Full | None]:
    """
    Return the places with one for a passage, and None; or as they were, and how long it waits.

    Places that no cap counts any more are left out.
    """
    longest = max([cap.per for cap in caps], default=0)
    places = tuple([one for one in places if one[1] > now - longest])
    if any(one[0] == name for one in places):
        return places, None
    counted = [(cap, [at for _, at in places if at > now - cap.per]) for cap in caps]
    full = [(cap, times[len(times) - cap.count] + cap.per) for cap, times in counted if len(times) >= cap.count]
    if full:
        return places, Full(max([until for cap, until in full if cap.defer], default=None))
    return (*places, (name, now)), None


def release(name: str, places: Places) -> tuple[Places, None]:
    """Return the places without that of a passage that was not sent after all."""
    return tuple([one for one in places if one[0] != name]), None
