"""
The store port: what the users table needs of a database, and the values that go in and out.

Two implementations, one suite of tests: `memory.MemoryStore` and `redis.RedisStore`. Every method is one
pipelined round trip and answers in the order of its arguments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

from emarsys_cdp_hooks import RetryLater

STUB_SECONDS = 3600
"""A profile that no identifier names yet disappears after this long."""


class StoreUnavailable(RetryLater):
    """The store does not answer or refuses to write: the host keeps its calls and sends them again."""


class Commit(Struct, frozen=True, gc=False):
    """
    A profile record to write, if the stored one still has the revision *expected* (0: there is none).

    *stub*: nobody names the record yet; it disappears after `STUB_SECONDS` unless it is written again.
    """

    pid: str
    expected: int
    record: bytes
    stub: bool = False


class Claim(Struct, frozen=True):
    """An identifier row to set to *new*, if its content is still *old* (None: there is no row), or *new* already."""

    name: str
    old: bytes | None
    new: bytes


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

    async def read_sealed(self, name: str) -> bytes | None:
        """Return sealed bytes that workers share, None when there are none or their time is over."""
        ...

    async def write_sealed(self, name: str, sealed: bytes, seconds: int) -> None:
        """Keep sealed bytes that workers share for some seconds."""
        ...

    def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the id and the record of every profile of all spaces, in no order."""
        ...

    async def ping(self) -> None:
        """Do nothing but raise `StoreUnavailable` when the store does not answer."""
        ...

    async def close(self) -> None:
        """Close connections; the store is not used afterwards."""
        ...
