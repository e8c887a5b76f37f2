"""One request in flight per contact: taking the contacts of a request, and giving them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import count

import structlog

from emarsys_cdp.store import Store, StoreUnavailable

LOOK_SECONDS = 0.05
"""A contact that another request has is asked for again about this often."""

_log = structlog.get_logger("emarsys_cdp.leases")


class Leases:
    """Contacts by the hash of their key; *holder* is a text of this worker, *jitter* gives numbers from 0 to 1."""

    def __init__(self, store: Store, holder: str, jitter: Callable[[], float]) -> None:
        self._store = store
        self._holder = holder
        self._jitter = jitter
        self._numbers = count(1)

    def hold(self, milliseconds: int) -> Hold:
        """Return a hold for one delivery that keeps contacts for a time unless they are given back earlier."""
        return Hold(self._store, f"{self._holder}-{next(self._numbers)}", milliseconds, self._jitter)


class Hold:
    """The contacts that one delivery has, in *names*."""

    def __init__(self, store: Store, holder: str, milliseconds: int, jitter: Callable[[], float]) -> None:
        self._store = store
        self._holder = holder
        self._milliseconds = milliseconds
        self._jitter = jitter
        self.names: set[str] = set()

    async def take(self, names: Iterable[str], patience: float) -> None:
        """
        Take those contacts that are free within *patience* seconds.

        They are waited for in one order, the same for everybody: two requests with the same contacts never wait for
        each other. Raises `StoreUnavailable`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        todo = sorted(set(names))
        while todo:
            taken = await self._store.lease(todo, self._holder, self._milliseconds)
            free = [name for name, ok in zip(todo, taken, strict=True) if ok]
            if len(free) == len(todo) or loop.time() >= deadline:
                self.names |= set(free)
                return
            first = taken.index(False)
            self.names |= set(todo[:first])
            await self._store.release(free[first:], self._holder)
            todo = todo[first:]
            await asyncio.sleep(LOOK_SECONDS * (0.5 + self._jitter()))

    async def renew(self) -> None:
        """Keep the contacts for another time; raises `StoreUnavailable`."""
        await self._store.lease(sorted(self.names), self._holder, self._milliseconds)

    async def keep(self, milliseconds: int) -> None:
        """Give the contacts back after a time, by themselves."""
        try:
            await self._store.lease(sorted(self.names), self._holder, milliseconds)
        except StoreUnavailable as error:  # then they are free after the time that they were taken for
            _log.warning("contacts_not_released", contacts=len(self.names), reason=str(error))

    async def release(self) -> None:
        """Give the contacts back; when the store is out of order they are free after their time."""
        try:
            await asyncio.shield(self._store.release(sorted(self.names), self._holder))
        except StoreUnavailable as error:
            _log.warning("contacts_not_released", contacts=len(self.names), reason=str(error))
