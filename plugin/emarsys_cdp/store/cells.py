"""States that all workers change together: read, decide purely, write by compare-and-set, try again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from emarsys_cdp.store import Store, StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")

MAX_TRIES = 100
"""Tries against other workers before the store counts as out of order."""


class Cells(Generic[T]):
    """
    States of one kind by their name, a hash. *empty* is the state of a name that has none yet.

    What this worker has seen last is tried first, so a state that nobody else changes costs one round trip. An
    unreadable state counts as empty.
    """

    def __init__(self, store: Store, kind: type[T], empty: T) -> None:
        self._store = store
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._empty = empty
        self._seen: dict[str, bytes | None] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def read(self, name: str) -> T:
        """Return the state of a name, read anew."""
        content = self._seen[name] = await self._store.read_cell(name)
        return self._state(content)

    def last(self, name: str) -> T:
        """Return the state as this worker has seen it last."""
        return self._state(self._seen.get(name))

    async def change(self, name: str, decide: Callable[[T], tuple[T, R]]) -> R:
        """
        Change a state and return what *decide* returned with the new one; it may be asked several times.

        Two new states that different workers make of the same old one must differ, or both would count as written.

        Raises:
            StoreUnavailable: the store is out of order, or other workers were faster too often.

        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name not in self._seen:
                self._seen[name] = await self._store.read_cell(name)
            for _ in range(MAX_TRIES):
                content = self._seen[name]
                state, result = decide(self._state(content))
                packed = msgspec.msgpack.encode(state)
                if packed == content or await self._store.swap_cell(name, content, packed):
                    self._seen[name] = packed
                    return result
                self._seen[name] = await self._store.read_cell(name)
        raise StoreUnavailable(f"a shared state was changed by others {MAX_TRIES} times in a row")

    def _state(self, content: bytes | None) -> T:
        if content is None:
            return self._empty
        try:
            return self._decoder.decode(content)
        except msgspec.MsgspecError:
            return self._empty
