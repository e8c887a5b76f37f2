"""What becomes of an effect after a try to send it, and when it is tried again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.delivery.parcel import Sent
from emarsys_cdp.effect import Effect, Sending, pack_effect
from emarsys_cdp.emarsys.outcomes import Delivered, Dropped
from emarsys_cdp.store.outbox import DEAD, LEASED, SENT, WAITING, EffectRef, Settlement

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000

HELD_WAIT: Final = 10 * MINUTE
"""An effect that waits for a name to appear in the account is looked at again after this long."""

POSTED_WAIT: Final = 15 * MINUTE
"""An effect that has not come back from the host after this long is given to it once more (design.md section 1)."""

MAX_WAIT: Final = 10 * MINUTE
"""Longest wait of an effect that Emarsys has certainly not taken; only the gate that is asked again gives it up."""

UNCLEAR_WAITS: Final = (
    15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 8 * HOUR,
)  # fmt: skip
"""Waits after tries of which nobody knows whether Emarsys has taken them: ten tries in a day, then it is dead."""

_DOUBLED: Final = 20

_UNTAKEN: Final = frozenset(
    (
        0,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.LOCKED,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    )
)
"""Statuses of requests that Emarsys has certainly not processed; 0: none was sent."""


class Done(Struct, frozen=True):
    """Emarsys has taken it; *note* is a warning worth showing."""

    note: str = ""


class Posted(Struct, frozen=True):
    """The host has it, and will hand it back; *doubt*: why it perhaps has it not."""

    doubt: str = ""


class Again(Struct, frozen=True):
    """
    It is tried again, not before *at* (ms since 1970 UTC; None: by a back-off).

    *unclear*: nobody knows whether Emarsys has taken it.
    """

    reason: str
    at: int | None = None
    unclear: bool = False


class Held(Struct, frozen=True):
    """It waits for somebody to mend a name or a setting."""

    reason: str


class Never(Struct, frozen=True):
    """It will never be taken as it is; *missing*: because Emarsys has no such contact."""

    reason: str
    missing: bool = False


Fate: TypeAlias = Done | Posted | Again | Held | Never


def fate_of(sent: Sent) -> Fate:
    """Return the fate of an effect whose row was sent."""
    outcome = sent.outcome
    if isinstance(outcome, Delivered):
        return Done(outcome.note)
    if isinstance(outcome, Dropped):
        return Never(outcome.reason, sent.missing)
    return Again(outcome.reason, outcome.at, unclear=sent.status not in _UNTAKEN)


def final(effect: Effect, fate: Fate) -> Fate:
    """Return the fate that counts: after too many tries without a clear answer an effect is given up."""
    if isinstance(fate, Again) and fate.unclear and effect.sending.unclear >= len(UNCLEAR_WAITS):
        return Never(f"given up after {effect.sending.unclear + 1} tries: {fate.reason}")
    return fate


def settlement(
    ref: EffectRef, holder: str, effect: Effect, fate: Fate, tries: int, now: int, chance: float
) -> Settlement:
    """
    Return what the store is told of a `final` fate.

    *tries* are those so far, this one included; *chance*, a number from 0 to 1, spreads the next ones.
    """
    state, due, changes = _next(effect.sending, fate, tries, now, chance)
    content = pack_effect(replace(effect, sending=replace(effect.sending, **changes)))
    note = fate.note if isinstance(fate, Done) else fate.doubt if isinstance(fate, Posted) else fate.reason
    return Settlement(ref, holder, state, due, note, content)


def _next(
    sending: Sending, fate: Fate, tries: int, now: int, chance: float
) -> tuple[str, int, Mapping[str, int | bool]]:
    """Return the state that follows, when it ends, and what changes of the sending."""
    spread = 0.75 + chance / 2
    if isinstance(fate, Done):
        return SENT, 0, {"held": False}
    if isinstance(fate, Never):
        return DEAD, 0, {"held": False, "unclear": 0, "posted": 0}
    if isinstance(fate, Posted):
        wait = int(_back_off(tries) * spread) if fate.doubt else POSTED_WAIT
        return WAITING, now + wait, {"held": False, "posted": now}
    if isinstance(fate, Held):
        return WAITING, now + int(HELD_WAIT * spread), {"held": True}
    if fate.unclear:
        wait = UNCLEAR_WAITS[min(sending.unclear, len(UNCLEAR_WAITS) - 1)]
        return LEASED, now + int(wait * spread), {"held": False, "unclear": sending.unclear + 1}
    return WAITING, max(now + int(_back_off(tries) * spread), fate.at or 0), {"held": False}


def _back_off(tries: int) -> int:
    """Return how long an effect waits that was certainly not taken: 2, 4, 8 ... seconds, at most `MAX_WAIT`."""
    return min(MAX_WAIT, SECOND << min(tries, _DOUBLED))
