"""Which effects of a person may still be in the outbox: what an erasure has to remove. Pure; times in ms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from emarsys_cdp.rules.book import Book, Posted

KEPT: Final = 30 * 24 * 3_600_000
"""The outbox forgets an effect this long after it was sent or given up (`store/outbox.py`)."""

USUAL_WAIT: Final = 30 * 24 * 3_600_000
"""An effect is taken to wait there for this long before that: `lateFireMax` is a day where a rule says nothing."""


def with_posted(book: Book, new: Iterable[Posted], now: int, late_max: int = 0) -> Book:
    """
    Return a book that remembers new effects, and no longer those that are gone by now.

    *late_max* is the longest `lateFireMax` of the rules: none waits in the outbox for longer (`gate_again.py`).
    """
    first = now - KEPT - max(USUAL_WAIT, late_max)
    kept = {(one.id, one.shard): one for one in (*book.posted, *new) if one.at > first}
    posted = tuple(kept.values())
    return book if posted == book.posted else replace(book, posted=posted)
