"""The store in this process's memory: for tests and for trying things out; nothing survives the process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence

from emarsys_cdp.store import Claim, Commit, Publication
from emarsys_cdp.store.memory_outbox import MemoryOutbox
from emarsys_cdp.store.record import HEADER_BYTES, header


class MemoryStore(MemoryOutbox):
    """A `Store` in dictionaries. What is kept for some seconds elsewhere stays until the process ends."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, bytes] = {}
        self.records: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}
        self.cells: dict[str, bytes] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.shelves: dict[str, dict[str, tuple[int, bytes]]] = {}

    async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of identifier rows."""
        return [self.rows.get(name) for name in names]

    async def read_records(self, pids: Sequence[str]) -> list[bytes | None]:
        """Return stored profile records."""
        return [self.records.get(pid) for pid in pids]

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records by compare-and-set on their revision."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> bool:
        stored = self.records.get(commit.pid)
        expected = header(commit.expected) if commit.expected else None
        if (stored[:HEADER_BYTES] if stored else None) != expected:
            return False
        if commit.record:
            self.records[commit.pid] = commit.record
        else:
            self.records.pop(commit.pid, None)
        self._note(commit)
        return True

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set identifier rows by compare-and-set on their content."""
        return [self._claim(claim) for claim in claims]

    def _claim(self, claim: Claim) -> bool:
        content = self.rows.get(claim.name)
        if (content or b"") == claim.new:
            return True
        if content != claim.old:
            return False
        if claim.new:
            self.rows[claim.name] = claim.new
        else:
            del self.rows[claim.name]
        return True

    async def read_kept(self, name: str) -> bytes | None:
        """Return bytes that workers share."""
        return self.kept.get(name)

    async def keep(self, contents: Mapping[str, bytes], seconds: int) -> None:  # noqa: ARG002
        """Keep bytes that workers share, until the process ends."""
        self.kept |= contents

    async def read_cell(self, name: str) -> bytes | None:
        """Return the content of a cell."""
        return self.cells.get(name)

    async def swap_cell(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Set a cell by compare-and-set on its content."""
        if self.cells.get(name) != old:
            return False
        self.cells[name] = new
        return True

    async def publish(self, publication: Publication) -> bool:
        """Put a document on a shelf by compare-and-set on its revision."""
        shelf = self.shelves.setdefault(publication.shelf, {})
        if shelf.get(publication.name, (0, b""))[0] != publication.expected:
            return False
        shelf[publication.name] = publication.revision, publication.content
        return True

    async def read_shelf(self, shelf: str) -> dict[str, int]:
        """Return the revisions of the documents on a shelf."""
        return {name: revision for name, (revision, _) in self.shelves.get(shelf, {}).items()}

    async def read_published(self, shelf: str, name: str) -> bytes | None:
        """Return a document of a shelf."""
        return self.shelves.get(shelf, {}).get(name, (0, None))[1]

    async def lease(self, names: Sequence[str], holder: str, milliseconds: int) -> list[bool]:
        """Take names for a time, unless somebody else has them."""
        return [self._lease(name, holder, milliseconds / 1000) for name in names]

    def _lease(self, name: str, holder: str, seconds: float) -> bool:
        now = time.monotonic()
        current, until = self.leases.get(name, (holder, now))
        if current != holder and until > now:
            return False
        self.leases[name] = holder, now + seconds
        return True

    async def release(self, names: Sequence[str], holder: str) -> None:
        """Give names back."""
        for name in names:
            if self.leases.get(name, ("", 0.0))[0] == holder:
                del self.leases[name]

    async def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every profile."""
        for pid, record in list(self.records.items()):
            yield pid, record

    async def step(self, at: str, size: int) -> tuple[list[tuple[str, bytes]], str | None]:
        """Return some of the records."""
        number, _, start_at = at.partition(".")
        start, records = int(start_at), sorted(self.records.items()) if number == "0" else []
        return records[start : start + size], f"0.{start + size}" if start + size < len(records) else None

    async def walk(self, step: int) -> AsyncIterator[tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]]:
        """Go through everything in steps."""
        records, rows = list(self.records.items()), list(self.rows.items())
        for start in range(0, len(records), step):
            yield records[start : start + step], []
        for start in range(0, len(rows), step):
            yield [], rows[start : start + step]

    async def seconds_left(self, names: Sequence[str]) -> list[int | None]:
        """Return that nothing is known of how long rows stay."""
        return [None for _ in names]

    async def size(self) -> int:
        """Return how many keys there are."""
        people = len(self.records) + len(self.rows)
        shared = len(self.kept) + len(self.cells) + len(self.leases)
        return people + shared + sum(map(bool, self.timers.values())) + sum(map(len, self.effects.values()))

    async def ping(self) -> None:
        """Answer."""

    async def close(self) -> None:
        """Forget nothing: there is nothing to close."""
