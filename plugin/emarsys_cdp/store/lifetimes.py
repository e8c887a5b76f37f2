"""How long people stay in the users table when nobody calls (semantics 1.8). Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp.store import ANONYMOUS_SECONDS, KNOWN_SECONDS, REDIRECT_SECONDS, SHARED_SECONDS
from emarsys_cdp.store.record import Record


class Lifetimes(Struct, frozen=True, gc=False):
    """
    Lifetimes of a space in seconds, 0 for ever; each call of a person begins it anew.

    *anonymous* is that of people without user and key, *known* of those with a user, *reachable* of those with a key.
    For *shared* seconds an anonymousId that different people used is nobody's.
    """

    anonymous: int = ANONYMOUS_SECONDS
    known: int = KNOWN_SECONDS
    reachable: int = 0
    shared: int = SHARED_SECONDS

    def of(self, record: Record) -> int:
        """Return how long a record stays; what is unfinished stays until somebody has finished it."""
        if record.unfinished:
            return REDIRECT_SECONDS if record.folded else 0
        if record.book is not None and record.book.wake:
            return 0  # a rule still has something to do for the person
        if record.key is not None:
            return self.reachable
        return self.anonymous if record.user is None else self.known


LifetimesOf: TypeAlias = Callable[[str], Lifetimes]
"""From a space to the lifetimes of its people."""

_USUAL = Lifetimes()


def usual(space: str) -> Lifetimes:  # noqa: ARG001 - the same for all spaces
    """Return the lifetimes of a space whose document says nothing of them."""
    return _USUAL
