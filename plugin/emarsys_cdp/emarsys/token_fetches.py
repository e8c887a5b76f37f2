"""When an access token may be fetched: Emarsys' limits, and one worker at a time. Pure."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

FETCHES = ((2, 60_000), (10, 3_600_000))
"""Token requests per client and milliseconds (authentication guide of API v3)."""

LOCK = 10_000
"""A worker that fetches keeps the others from it for this many ms, unless it is done earlier."""


class Fetches(Struct, frozen=True, array_like=True):
    """The latest fetches of one client by all workers, in ms since 1970; *holder* fetches until *locked_until*."""

    times: tuple[int, ...] = ()
    holder: str = ""
    locked_until: int = 0


class Locked(Struct, frozen=True):
    """Another worker fetches just now; look again for its token, at *until* (ms since 1970) at the latest."""

    until: int


class Spent(Struct, frozen=True):
    """No token may be fetched before *until* (ms since 1970)."""

    until: int


def take(fetches: Fetches, holder: str, now: int) -> tuple[Fetches, Locked | Spent | None]:
    """Return the state after a worker asked to fetch, and what keeps it from that; None: it has to fetch now."""
    if fetches.locked_until > now and fetches.holder != holder:
        return fetches, Locked(fetches.locked_until)
    until = _spent_until(fetches.times, now)
    if until is not None:
        return fetches, Spent(until)
    times = (*fetches.times, now)[-max(number for number, _ in FETCHES) :]
    return Fetches(times, holder, now + LOCK), None


def release(fetches: Fetches, holder: str) -> Fetches:
    """Return the state after a worker is done with fetching."""
    return replace(fetches, holder="", locked_until=0) if fetches.holder == holder else fetches


def _spent_until(times: tuple[int, ...], now: int) -> int | None:
    """Return when the next fetch is allowed, None when it is now."""
    waits = [
        times[-number] + period + 1
        for number, period in FETCHES
        if len(times) >= number and times[-number] > now - period
    ]
    return max(waits, default=None)
