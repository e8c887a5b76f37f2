"""The users table by its identifiers, as long as people cannot be erased yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Struct

from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import SHARED, Namer, owner
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp_hooks import StopAndFix


class Found(Struct, frozen=True):
    """A person."""

    pid: str
    record: Record


class UsersToday:
    """Finds people; *kind* is u, k or a."""

    def __init__(self, store: Store, namer: Namer) -> None:
        self._store = store
        self._namer = namer

    async def find(self, space: str, kind: str, value: str) -> Found | None:
        """Return who has an identifier."""
        (row,) = await self._store.read_rows([self._namer(space, kind, value)])
        pid = owner(row)
        (stored,) = await self._store.read_records([pid]) if pid else [None]
        return Found(pid, unpack(stored)[1]) if pid and stored else None

    async def state(self, space: str, kind: str, value: str) -> str:
        """Return absent, owned or shared."""
        (row,) = await self._store.read_rows([self._namer(space, kind, value)])
        return "absent" if row is None else "shared" if row == SHARED else "owned"

    async def erase(self, space: str, kind: str, value: str, mode: str, now: int) -> None:  # noqa: ARG002
        """Not yet."""
        raise StopAndFix("people cannot be erased in this version")

    async def unsuppress(self, space: str, kind: str, value: str) -> bool:  # noqa: ARG002
        """Not yet."""
        raise StopAndFix("people cannot be erased in this version")

    async def scan(self, space: str) -> AsyncIterator[Found]:
        """Yield everybody in a space."""
        async for pid, stored in self._store.scan():
            record = unpack(stored)[1]
            if record.space == space and not record.stub:
                yield Found(pid, record)
