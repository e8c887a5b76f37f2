"""What a transport gets and what it answers; there are two: `direct` and `ingestion`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from emarsys_cdp.effect import Effect
from emarsys_cdp.outbox.fates import Fate
from emarsys_cdp.store.outbox import StoredEffect


class Leased(Struct, frozen=True):
    """An effect that we have leased: as it is stored, and read."""

    stored: StoredEffect
    effect: Effect


class Tried(Struct, frozen=True):
    """What became of an effect, and the effect with what was found out on the way."""

    effect: Effect
    fate: Fate


class Objection(Struct, frozen=True):
    """Why an effect may not be sent now: until when (ms since 1970 UTC) it waits, None: it is never sent."""

    reason: str
    until: int | None = None


Allowed: TypeAlias = Callable[[Effect, int], Objection | None]
"""Looks at the gate once more just before an effect is sent, or handed out, at a time (ms since 1970 UTC)."""


def always(effect: Effect, now: int) -> Objection | None:  # noqa: ARG001 - the signature of Allowed
    """Let every effect pass."""
    return None


class Transport(Protocol):
    """A way to Emarsys. *ordered*: it keeps the order of a person's effects, so several may be under way."""

    @property
    def ordered(self) -> bool:
        """Whether it keeps the order."""

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:
        """Send effects of a space, each person's in order; return what became of each. Raises `StoreUnavailable`."""
