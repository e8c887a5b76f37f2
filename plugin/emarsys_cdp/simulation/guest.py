"""A simulation in a Redis that others use too: what it writes is removed at the end."""

from __future__ import annotations

from collections.abc import Sequence

from emarsys_cdp.store import Claim, Commit
from emarsys_cdp.store.record import HEADER_BYTES
from emarsys_cdp.store.redis import RedisStore


class GuestStore(RedisStore):
    """A store that remembers what was written through it; the names are those of a simulation alone."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pids: set[str] = set()
        self._names: set[str] = set()

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records by compare-and-set on their revision."""
        self._pids |= {one.pid for one in commits}
        return await super().commit(commits)

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set identifier rows by compare-and-set on their content."""
        self._names |= {one.name for one in claims}
        return await super().claim(claims)

    async def close(self) -> None:
        """Remove what was written, then close the connections."""
        try:
            pids, names = list(self._pids), list(self._names)
            if pids:
                stored = zip(pids, await self.read_records(pids), strict=True)
                commits = [Commit(pid, _revision(record), b"") for pid, record in stored if record is not None]
                await super().commit(commits)
            if names:
                rows = zip(names, await self.read_rows(names), strict=True)
                await super().claim([Claim(name, row, b"") for name, row in rows if row is not None])
        finally:
            await super().close()


def _revision(record: bytes) -> int:
    return int.from_bytes(record[1:HEADER_BYTES], "big")
