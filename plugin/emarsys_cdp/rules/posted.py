"""Which effects of a person may still be in the outbox: what an erasure has to remove. Pure; times in ms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from emarsys_cdp.rules.book import Book, Posted

KEPT: Final = 60 * 24 * 3_600_000
"""
How long an effect is remembered after it went to the outbox.

The outbox forgets one 30 days after it was sent or given up (`store/outbox.py`), and none waits for longer than that.
"""


def with_posted(book: Book, new: Iterable[Posted], now: int) -> Book:
    """Return a book that remembers new effects, and no longer those that are gone by now."""
    kept = {(one.id, one.shard): one for one in (*book.posted, *new) if one.at > now - KEPT}
    posted = tuple(kept.values())
    return book if posted == book.posted else replace(book, posted=posted)
