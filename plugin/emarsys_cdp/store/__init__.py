"""
The store port: what the users table needs of a database, and the values that go in and out.

Two implementations, one suite of tests: `memory.MemoryStore` and `redis.RedisStore`. Every method is one
pipelined round trip and answers in the order of its arguments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from emarsys_cdp_hooks import RetryLater

STUB_SECONDS = 3600
"""A profile that no identifier names yet disappears after this long."""


DAY_SECONDS = 24 * 3600
ANONYMOUS_SECONDS = 30 * DAY_SECONDS
"""A profile that has neither user nor key disappears when nobody has called for this long (semantics 1.8)."""

KNOWN_SECONDS = 365 * DAY_SECONDS
"""A profile that has a user but no key disappears when nobody has called for this long (semantics 1.8)."""

SHARED_SECONDS = 90 * DAY_SECONDS
"""An anonymousId is nobody's for this long after the last call that made it so (semantics 1.8)."""

REDIRECT_SECONDS = 60 * DAY_SECONDS
"""The id of a profile that was merged into another leads there for this long (semantics 1.8)."""

CELL_SECONDS = 90 * 24 * 3600
"""A state that workers share disappears when nobody has changed it for this long."""


START = "0.0"
"""The first place of `Store.step`."""

UNCHANGED = -1
"""Seconds of a claim that leaves the time at which a row disappears as it is."""


class StoreUnavailable(RetryLater):
    """The store does not answer or refuses to write: the host keeps its calls and sends them again."""


class Commit(Struct, frozen=True, gc=False):
    """
    A profile record to write, if the stored one still has the revision *expected* (0: there is none).

    *stub*: nobody names the record yet; it disappears after `STUB_SECONDS` unless it is written again. *seconds*: how
    long it stays, 0 for ever. An empty *record* removes it.
    """

    pid: str
    expected: int
    record: bytes
    stub: bool = False
    seconds: int = 0

    @property
    def lifetime(self) -> int:
        """Seconds until the record disappears unless it is written again; 0: never."""
        return STUB_SECONDS if self.stub else self.seconds


class Claim(Struct, frozen=True):
    """
    An identifier row to set to *new*, if its content is still *old* (None: there is no row), or *new* already.

    An empty *new* removes the row. *seconds*: how long it stays, 0 for ever, `UNCHANGED` as long as it would have.
    """

    name: str
    old: bytes | None
    new: bytes
    seconds: int = 0


class Publication(Struct, frozen=True):
    """
    A document to put on a *shelf* under a *name*, if the one there still has the revision *expected* (0: none).

    It stays for ever. Revisions are positive.
    """

    shelf: str
    name: str
    expected: int
    revision: int
    content: bytes


class Store(Protocol):
    """Identifier rows and profile records. Every method may raise `StoreUnavailable`."""

    async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of identifier rows."""
        ...

    async def read_records(self, pids: Sequence[str]) -> list[bytes | None]:
        """Return stored profile records."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records by compare-and-set on their revision; tell for each whether it was written."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set identifier rows by compare-and-set on their content; tell for each whether it was set."""
        ...

    async def read_kept(self, name: str) -> bytes | None:
        """Return bytes that workers share, None when there are none or their time is over."""
        ...

    async def keep(self, contents: Mapping[str, bytes], seconds: int) -> None:
        """Keep bytes that workers share, by their names, for some seconds."""
        ...

    async def read_cell(self, name: str) -> bytes | None:
        """Return the content of a cell: a small state that all workers change together."""
        ...

    async def swap_cell(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Set a cell if its content is still *old* (None: there is none); tell whether it was set."""
        ...

    async def publish(self, publication: Publication) -> bool:
        """Put a document on a shelf by compare-and-set on its revision; tell whether it was put there."""
        ...

    async def read_shelf(self, shelf: str) -> dict[str, int]:
        """Return the revisions of the documents on a shelf by their names."""
        ...

    async def read_published(self, shelf: str, name: str) -> bytes | None:
        """Return a document of a shelf, None when there is none of this name."""
        ...

    async def lease(self, names: Sequence[str], holder: str, milliseconds: int) -> list[bool]:
        """Take names for a time, unless somebody else has them; tell for each whether *holder* has it now."""
        ...

    async def release(self, names: Sequence[str], holder: str) -> None:
        """Give names back that *holder* still has."""
        ...

    def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the id and the record of every profile of all spaces, in no order."""
        ...

    async def step(self, at: str, size: int) -> tuple[list[tuple[str, bytes]], str | None]:
        """
        Return the records among about *size* keys from a place on, and the place after them, None at the end.

        A place is `<number>.<number>`, the first one `START`. Somebody who is there all the time comes at least
        once, unless the records change their servers meanwhile.
        """
        ...

    def walk(self, step: int) -> AsyncIterator[tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]]:
        """
        Go through everything in steps of about *step* keys, whatever they are; yield the records and rows among them.

        One that is written or changes its server meanwhile may come twice or not at all.
        """
        ...

    async def seconds_left(self, names: Sequence[str]) -> list[int | None]:
        """Return how long identifier rows stay, None for ever or when that is not known."""
        ...

    async def size(self) -> int:
        """Return how many keys there are, whatever they are."""
        ...

    async def ping(self) -> None:
        """Do nothing but raise `StoreUnavailable` when the store does not answer."""
        ...

    async def close(self) -> None:
        """Close connections; the store is not used afterwards."""
        ...
