"""How long the people of a space stay, by its document."""

from __future__ import annotations

from emarsys_cdp.document.model import Settings
from emarsys_cdp.store.lifetimes import Lifetimes
from emarsys_cdp.values.durations import read_duration

MIN_SECONDS, MAX_SECONDS = 60, 3650 * 86_400
"""Bounds of a lifetime."""


def read_lifetime(raw: float | str) -> int:
    """
    Return the seconds of a lifetime.

    Raises:
        ValueError: it is no duration, or out of bounds.

    """
    seconds = read_duration(raw)
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"{raw!r} is no lifetime: at least 1m and at most 3650d, such as 30d; a bare number is hours")
    return round(seconds)


def written(settings: Settings) -> dict[str, float | str]:
    """Return the lifetimes that settings have, by the names that documents use."""
    every = {
        "anonymousTtl": settings.anonymous_ttl,
        "knownTtl": settings.known_ttl,
        "reachableTtl": settings.reachable_ttl,
        "sharedTtl": settings.shared_ttl,
    }
    return {name: raw for name, raw in every.items() if raw is not None}


def lifetimes_of(settings: Settings) -> Lifetimes:
    """Return the lifetimes of settings that were checked."""
    return Lifetimes(**{name.removesuffix("Ttl"): read_lifetime(raw) for name, raw in written(settings).items()})
