"""
Caps: how many effects of a rule, or of a space, a contact may get in a sliding time (semantics 2.8). Pure.

A passage of the gate has its place by its name, so that asking again finds the place it has already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from emarsys_cdp.rules.pattern import Cap

Places: TypeAlias = tuple[tuple[str, int], ...]
"""Who has a place, by the name of the passage, and since when (ms since 1970 UTC); the oldest first."""


def reserve(places: Places, name: str, caps: Sequence[Cap], now: int) -> tuple[Places, int | None]:
    """
    Return the places with one for a passage, and None; or as they were, and when there is room again.

    Places that no cap counts any more are left out.
    """
    longest = max([cap.per for cap in caps], default=0)
    places = tuple([one for one in places if one[1] > now - longest])
    if any(one[0] == name for one in places):
        return places, None
    free = 0
    for cap in caps:
        counted = [at for _, at in places if at > now - cap.per]
        if len(counted) >= cap.count:
            free = max(free, counted[len(counted) - cap.count] + cap.per)
    return (places, free) if free else ((*places, (name, now)), None)


def release(places: Places, name: str) -> Places:
    """Return the places without that of a passage that was not sent after all."""
    return tuple([one for one in places if one[0] != name])
