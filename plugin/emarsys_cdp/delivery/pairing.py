"""
Whose row is whose: what the host's delivery request does not say, kept from when its rows were made.

The host sends a request and the numbers of its jobs, and wants one answer for each job. Which row is of which job is
kept under a hash of both for a day - but not in spaces whose host sends by itself, as far as we know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec
import structlog
from msgspec import Struct

from emarsys_cdp.delivery.parcel import RowOrigin
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer

T = TypeVar("T")

_log = structlog.get_logger("emarsys_cdp.delivery")

KEPT_SECONDS: Final = 24 * 3600
"""Longest time between making a request and its delivery for which its rows are known."""

DONE_SECONDS: Final = 600
"""Rows of a request that is delivered are kept for its repetition after a lost answer."""

FIRST_MILLISECONDS: Final = 24 * 3600 * 1000
"""In the first day of a space nobody knows yet whether its host asks us to deliver, so its rows are kept."""

BELIEVED_MILLISECONDS: Final = 30 * 24 * 3600 * 1000
"""A space whose host has asked us to deliver is believed to do so again for this long."""

USE_SECONDS: Final = 400 * 24 * 3600
"""How a space is used is forgotten after this long."""

LOOK_MILLISECONDS: Final = 30_000
"""A worker learns after this long at the latest that another one was asked to deliver."""


MARK_MILLISECONDS: Final = 24 * 3600 * 1000
"""What is believed of a space is said again once a day."""


class _Use(Struct, frozen=True, array_like=True):
    """How a space is used: the ms since 1970 when it was first seen, and when its host last asked us to deliver."""

    since: int = 0
    delivers: int = 0

    def wanted(self, now: int) -> bool:
        return now < self.since + FIRST_MILLISECONDS or now < self.delivers + BELIEVED_MILLISECONDS


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
        self._uses: dict[str, _Use] = {}
        self._look_again: dict[str, int] = {}
        self._waiting: dict[str, Pairing] = {}
        self._writing: dict[str, Pairing] = {}
        self._writer: asyncio.Task[None] | None = None

    async def wanted(self, space: str) -> bool:
        """Tell whether the host of a space may ask us to deliver; raises `StoreUnavailable`."""
        now = self._clock()
        use = self._uses.get(space)
        if use is None or self._look_again[space] <= now:
            use = await self._use(space, now)
        return use.wanted(now)

    async def _use(self, space: str, now: int) -> _Use:
        """Return how a space is used, as the store has it; a space that it does not know begins now."""
        stored = await self._store.read_kept(self._marker(space))
        use = _decoded(stored, _Use) or self._uses.get(space) or _Use(since=now)
        if stored is None:
            await self._store.keep({self._marker(space): msgspec.msgpack.encode(use)}, USE_SECONDS)
        self._uses[space], self._look_again[space] = use, now + LOOK_MILLISECONDS
        return use

    async def want(self, space: str) -> None:
        """Remember, for all workers, that the host of a space asks us to deliver; raises `StoreUnavailable`."""
        now = self._clock()
        use = self._uses.get(space) or await self._use(space, now)
        if use.delivers + MARK_MILLISECONDS <= now:
            use = self._uses[space] = _Use(use.since, delivers=now)
            await self._store.keep({self._marker(space): msgspec.msgpack.encode(use)}, USE_SECONDS)

    def _marker(self, space: str) -> str:
        return self._namer(space, "use", "")

    def contact(self, space: str, key: str) -> str:
        """Return the name of the contact with a key."""
        return self._namer(space, "contact", key)

    def name(self, space: str, jobs: Sequence[int], method: str, endpoint: str, keys: Sequence[str]) -> str:
        """Return the name of the pairing of a request: a hash of its jobs, its address and the keys of its rows."""
        parts = msgspec.json.encode((method, endpoint, sorted(jobs), keys))
        return self._namer(space, "request", parts.decode())

    def keep_soon(self, name: str, pairing: Pairing) -> None:
        """
        Keep a pairing without waiting for it: where it is not kept, the request's jobs come one by one.

        Those of all requests that are answered while others are being written are written together.
        """
        self._waiting[name] = pairing
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def finish(self) -> None:
        """Wait for what is being kept."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        while self._waiting:
            self._writing, self._waiting = self._waiting, {}
            try:
                encode = msgspec.msgpack.encode
                await self._store.keep({name: encode(one) for name, one in self._writing.items()}, KEPT_SECONDS)
            except StoreUnavailable as error:
                _log.warning("rows_not_kept", requests=len(self._writing), reason=str(error))
            finally:
                self._writing = {}

    async def keep(self, name: str, pairing: Pairing, seconds: int) -> None:
        """Keep a pairing; raises `StoreUnavailable`."""
        await self._store.keep({name: msgspec.msgpack.encode(pairing)}, seconds)

    async def find(self, name: str) -> Pairing | None:
        """Return a pairing, None when there is none (any more); raises `StoreUnavailable`."""
        known = self._waiting.get(name) or self._writing.get(name)
        return _decoded(await self._store.read_kept(name), Pairing) if known is None else known

    async def keep_verdicts(self, space: str, name: str, verdicts: Verdicts) -> None:
        """Keep what became of jobs until the last request of their output is delivered."""
        stored = {self._namer(space, "verdicts", name): msgspec.msgpack.encode(verdicts)}
        await self._store.keep(stored, KEPT_SECONDS)

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
