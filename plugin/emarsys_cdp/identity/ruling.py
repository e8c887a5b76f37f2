"""What a call means for the rules of its space, added to the record of its person. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules.book import AT_ONCE, Book
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.rules.taking import Taken, take, trim
from emarsys_cdp.store.record import Record

TRIM_EVERY: Final = 16
"""A log is trimmed when it has grown by this many calls; the rest is done when the person is looked at."""


class Ruled(Struct, frozen=True, gc=False):
    """A call that some rules of its space are about."""

    rules: RuleSet
    taken: Taken


def with_rules(before: Record | None, after: Record, space: str, ruled: Ruled | None) -> Record:
    """
    Return a record to which a call was added with what its rules make of it.

    A device that several people share never leads to anything. Who waited for a key and has one now is looked at.
    """
    if after.isolate:
        return after
    book = after.book
    if ruled is not None:
        book = take(ruled.rules, space, book, ruled.taken, {} if before is None else before.values)
        if len(book.log) % TRIM_EVERY == 0:
            book = trim(ruled.rules, book, ruled.taken.call.seen)
    if book is not None and book.held and after.key is not None and book.wake != AT_ONCE:
        book = replace(book, wake=AT_ONCE)
    return after if book is after.book else replace(after, book=book)


def wake_of(book: Book | None) -> int:
    """Return when a person is to be looked at, 0 never."""
    return 0 if book is None else book.wake


def wake_change(before: Record | None, after: Record) -> int | None:
    """Return when a person is to be looked at, None when that is as it was."""
    if after.book is None and (before is None or before.book is None):
        return None
    wake = wake_of(after.book)
    return wake if before is None or wake != wake_of(before.book) else None
