"""
Sweeping: going slowly through all people and identifier rows, to finish and remove what nobody asks for any more.

A person's record disappears by itself; the rows of the identifiers stay, and count as absent because their owner has no
record. A sweep frees their memory, finishes merges and erasures that a crash has left half done, and takes out of
records what their rows do not give them (`disowning.py`).

Rows have no lifetime of their own, though Redis could give them one. A row must not go while the record of its owner
lives: the next caller would get the identifier, and one device would have two owners. A returning person is written
with one command to one shard; the rows are in shards of their own, so to keep them alive would cost three more
commands a call on other servers, not in one step with the record's - and a person whose lifetime grows, by a login or a
setting, would need them before it. Removing a row by compare-and-set when its owner is gone is right at any moment: a
profile's id is never used twice, and a profile is written before any row names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from msgspec import Struct

from emarsys_cdp.disowning import disown
from emarsys_cdp.merging import Merger
from emarsys_cdp.store import Claim, Store, StoreUnavailable
from emarsys_cdp.store.known_spaces import KnownSpaces
from emarsys_cdp.store.record import UnreadableRecord, unpack
from emarsys_cdp.store.rows import OWNED, read_row
from emarsys_cdp_hooks import RetryLater

STEP: Final = 200
"""Keys that are looked at with one command: a server answers it in a fraction of a millisecond."""

KEYS_A_SECOND: Final = 5000
"""Speed of a sweep beside a service, about 3 % of a core: a million people with three identifiers in 13 minutes."""

INTERVAL: Final = 6 * 3600
"""Seconds between the end of a sweep and the next one."""

LEASE: Final = 60_000
"""A sweep that has ended without a word keeps others from sweeping for this many milliseconds."""

RENEW: Final = 15.0
"""Seconds after which a sweep says again that it is under way."""


class Swept(Struct, frozen=True):
    """
    What a sweep has seen and done.

    *keys* counts everything in the server that was passed, *people* and *rows* what is in the users table. *finished*
    are merges and erasures that a crash had left half done, *mended* people who had an identifier of somebody else,
    *removed* rows whose owner is gone.
    """

    keys: int = 0
    people: int = 0
    rows: int = 0
    finished: int = 0
    mended: int = 0
    removed: int = 0
    seconds: float = 0.0


class SweptElsewhere(RetryLater):
    """Another worker or command sweeps just now."""


class Sweeper:
    """
    Sweeps the users table of all spaces, one sweeper at a time over all workers and commands.

    *holder* is a text of this worker that no other has.
    """

    def __init__(self, store: Store, merger: Merger, holder: str) -> None:
        self._store = store
        self._merger = merger
        self._holder = holder
        self._known_spaces = KnownSpaces(store, merger.namer)
        self._spaces: set[str] = set()
        self._name, self._mark = merger.namer("", "sweep", "lease"), merger.namer("", "sweep", "done")

    async def run(
        self, keys_a_second: float = 0, on_step: Callable[[Swept], None] = lambda _: None, interval: int = INTERVAL
    ) -> Swept:
        """
        Sweep once, at *keys_a_second* at the most (0: as fast as it goes), and tell *on_step* how far it is.

        For *interval* seconds from its end on no sweep is due.

        Raises:
            SweptElsewhere: another sweep is under way.
            StoreUnavailable: the store is out of order; what was done stays done.

        """
        now = asyncio.get_running_loop().time
        started = renewed = now()
        so_far = Swept()
        self._spaces.clear()
        await self._take()
        try:
            async for records, rows in self._store.walk(STEP):
                so_far = await self._step(so_far, records, rows, now() - started)
                on_step(so_far)
                if keys_a_second:
                    await asyncio.sleep(started + so_far.keys / keys_a_second - now())
                if now() > renewed + RENEW:
                    await self._take()
                    renewed = now()
            for space in sorted(self._spaces):
                await self._known_spaces.add(space)
            await self._store.keep({self._mark: b"done"}, interval)
        finally:
            with suppress(StoreUnavailable):  # then others may sweep when its time is over
                await asyncio.shield(self._store.release([self._name], self._holder))
        return so_far

    async def _take(self) -> None:
        """Keep others from sweeping for a time."""
        if not (await self._store.lease([self._name], self._holder, LEASE))[0]:
            raise SweptElsewhere("another sweep of the users table is under way: it goes through everybody")

    async def is_due(self) -> bool:
        """Tell whether the last sweep has ended long enough ago."""
        return await self._store.read_kept(self._mark) is None

    async def _step(
        self, so_far: Swept, records: Sequence[tuple[str, bytes]], rows: Sequence[tuple[str, bytes]], seconds: float
    ) -> Swept:
        return Swept(
            so_far.keys + STEP,
            so_far.people + len(records),
            so_far.rows + len(rows),
            so_far.finished + await self._finish(records),
            so_far.mended + await disown(self._store, self._merger, records),
            so_far.removed + await self._remove(rows),
            seconds,
        )

    async def _finish(self, records: Sequence[tuple[str, bytes]]) -> int:
        """Finish what was begun with people and left half done; return of how many."""
        finished = 0
        for pid, stored in records:
            with suppress(UnreadableRecord):  # of another version of this program, which will sweep it
                record = unpack(stored)[1]
                self._spaces.add(record.space)
                if record.unfinished and not record.folded and not record.tombstones:
                    await self._merger.finish(pid)
                    finished += 1
        return finished

    async def _remove(self, rows: Sequence[tuple[str, bytes]]) -> int:
        """
        Remove rows whose owner has no record, unless they say that their identifier was erased once.

        A row that names a profile which became part of another names that one from then on.
        """
        owned = [(name, content, row) for name, content in rows if (row := read_row(content)) and row.kind == OWNED]
        pids = list(dict.fromkeys(row.pid for _, _, row in owned if row.pid))
        stored: dict[str | None, bytes | None] = dict(zip(pids, await self._store.read_records(pids), strict=True))
        merged = {name: row.pid for name, _, row in owned if row.pid and _is_merged(stored[row.pid])}
        if merged:
            with suppress(UnreadableRecord):
                await self._merger.settle(merged)
        claims = [
            Claim(name, content, b"")
            for name, content, row in owned
            if row.pid in stored and _is_gone(stored[row.pid]) and not row.erased
        ]
        return sum(await self._store.claim(claims))


def _is_gone(stored: bytes | None) -> bool:
    """Tell that a row's owner is nobody: it has no record, or only the list of what was suppressed with it."""
    try:
        return stored is None or bool(unpack(stored)[1].tombstones)
    except UnreadableRecord:
        return False


def _is_merged(stored: bytes | None) -> bool:
    """Tell that a record is what is left of a profile that became part of another."""
    try:
        return stored is not None and unpack(stored)[1].folded
    except UnreadableRecord:
        return False
