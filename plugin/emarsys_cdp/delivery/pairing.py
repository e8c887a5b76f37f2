"""
Whose row is whose: what the host's delivery request does not say, kept from when its rows were made.

The host sends a request and the numbers of its jobs, and wants one answer for each job. Which row is of which job is
kept under a hash of both for a day - and only in spaces whose host has ever asked us to deliver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from emarsys_cdp.delivery.parcel import RowOrigin
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer

T = TypeVar("T")

KEPT_SECONDS: Final = 24 * 3600
"""Longest time between making a request and its delivery for which its rows are known."""

DONE_SECONDS: Final = 600
"""Rows of a request that is delivered are kept for its repetition after a lost answer."""

WANTED_SECONDS: Final = 30 * 24 * 3600
"""A space whose host has asked us to deliver is believed to do so again for this long."""

LOOK_MILLISECONDS: Final = 30_000
"""A worker learns after this long at the latest that another one was asked to deliver."""


MARK_MILLISECONDS: Final = 24 * 3600 * 1000
"""What is believed of a space is said again once a day."""


class Verdicts(Struct, frozen=True, array_like=True):
    """What became of jobs in an earlier request of the same output: (job, status, error)."""

    jobs: tuple[tuple[int, int, str], ...] = ()


class Pairing(Struct, frozen=True, array_like=True):
    """
    The rows of a request with the jobs they are of.

    *earlier* are the names of requests of the same jobs that were sent before this one; *more*: others follow it.
    """

    rows: tuple[RowOrigin, ...]
    earlier: tuple[str, ...] = ()
    more: bool = False


class Pairings:
    """Keeps and finds pairings. *namer* hides what the names are made of; *clock* gives ms since 1970 UTC."""

    def __init__(self, store: Store, namer: Namer, clock: Callable[[], int]) -> None:
        self._store = store
        self._namer = namer
        self._clock = clock
        self._wanted: set[str] = set()
        self._look_again: dict[str, int] = {}
        self._mark_again: dict[str, int] = {}

    async def wanted(self, space: str) -> bool:
        """Tell whether the host of a space asks us to deliver; raises `StoreUnavailable`."""
        now = self._clock()
        if space not in self._wanted and self._look_again.get(space, 0) <= now:
            self._look_again[space] = now + LOOK_MILLISECONDS
            if await self._store.read_kept(self._marker(space)) is not None:
                self._wanted.add(space)
        return space in self._wanted

    async def want(self, space: str) -> None:
        """Remember, for all workers, that the host of a space asks us to deliver; raises `StoreUnavailable`."""
        now = self._clock()
        if self._mark_again.get(space, 0) <= now:
            await self._store.keep(self._marker(space), b"1", WANTED_SECONDS)
            self._mark_again[space] = now + MARK_MILLISECONDS
            self._wanted.add(space)

    def _marker(self, space: str) -> str:
        return self._namer(space, "delivers", "")

    def row(self, space: str, key: str) -> str:
        """Return the name of the contact with a key."""
        return self._namer(space, "row", key)

    def name(self, space: str, jobs: Sequence[int], method: str, endpoint: str, keys: Sequence[str]) -> str:
        """Return the name of the pairing of a request: a hash of its jobs, its address and the keys of its rows."""
        parts = (method, endpoint, *map(str, sorted(jobs)), "", *sorted(keys))
        return self._namer(space, "request", "\0".join(parts))

    async def keep(self, name: str, pairing: Pairing, seconds: int = KEPT_SECONDS) -> None:
        """Keep a pairing; raises `StoreUnavailable`."""
        await self._store.keep(name, msgspec.msgpack.encode(pairing), seconds)

    async def find(self, name: str) -> Pairing | None:
        """Return a pairing, None when there is none (any more); raises `StoreUnavailable`."""
        return _decoded(await self._store.read_kept(name), Pairing)

    async def keep_verdicts(self, space: str, name: str, verdicts: Verdicts) -> None:
        """Keep what became of jobs until the last request of their output is delivered."""
        await self._store.keep(self._namer(space, "verdicts", name), msgspec.msgpack.encode(verdicts), KEPT_SECONDS)

    async def verdicts(self, space: str, names: Sequence[str]) -> list[Verdicts]:
        """Return what became of jobs in earlier requests."""
        found = [await self._store.read_kept(self._namer(space, "verdicts", name)) for name in names]
        return [verdicts for content in found if (verdicts := _decoded(content, Verdicts)) is not None]


def _decoded(content: bytes | None, kind: type[T]) -> T | None:
    """Return a kept value; one that another version has written counts as none."""
    try:
        return None if content is None else msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError:
        return None
