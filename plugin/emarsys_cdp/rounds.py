"""
Group commit: all calls that arrive while a round trip to the store is in flight form the next round.

What another worker changed meanwhile, or claimed first, goes into the next round together with the requests that have
arrived since. So one busy person never starves the others, and two workers never overwrite each other. `one_round.py`
has what happens within a round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from msgspec import Struct

from emarsys_cdp.identity.resolution import Entry
from emarsys_cdp.one_round import Added, Memory, Round
from emarsys_cdp.store import Store, StoreUnavailable

__all__ = ["Added", "Memory", "Rounds"]

MAX_CALLS = 2000
"""Calls of one round."""

MAX_TRIES = 200
"""Rounds that a call may lose against other workers before its request is refused for now."""

Jitter = Callable[[int], float]
"""Number of lost tries to seconds to wait."""


class _Waiting(Struct):
    """A request: the results of its calls so far, how many are missing, and who waits for them."""

    results: list[Added | None]
    missing: int
    done: asyncio.Future[list[Added]]


class _Item(Struct):
    """One call of a request in the queue, and how often it has lost against another worker."""

    entry: Entry
    index: int
    waiting: _Waiting
    tries: int = 0


class Rounds:
    """
    The users table of all spaces, for one worker.

    *new_pid* makes profile ids, *jitter* spreads the tries of several workers, *first_revision* is a random number
    to count revisions from (without it, one is made of a profile id).
    """

    def __init__(
        self, store: Store, new_pid: Callable[[], str], jitter: Jitter, first_revision: int | None = None
    ) -> None:
        self._store = store
        self._new_pid = new_pid
        self._jitter = jitter
        self._memory = Memory()
        self._revisions = count(_start(new_pid()) if first_revision is None else first_revision)
        self._queue: deque[list[_Item]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def add(self, entries: Sequence[Entry]) -> list[Added]:
        """
        Add calls to the users table and return the person of each, after all of them.

        Raises:
            StoreUnavailable: the store cannot be read or written, or other workers were faster too often; some of
                the calls may have been added, which does no harm when they come again.

        """
        if not entries:
            return []
        future: asyncio.Future[list[Added]] = asyncio.get_running_loop().create_future()
        waiting = _Waiting([None] * len(entries), len(entries), future)
        self._queue.append([_Item(entry, index, waiting) for index, entry in enumerate(entries)])
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Run rounds as long as there are calls; those that lost go first in the next one, with new requests."""
        lost: list[_Item] = []
        while self._queue or lost:
            if lost and not self._queue:
                await asyncio.sleep(self._jitter(lost[0].tries))
            items = lost + self._arrived(MAX_CALLS - len(lost))
            round_ = Round([item.entry for item in items], self._new_pid, self._revisions, self._memory)
            try:
                results = await round_.run(self._store)
            except Exception as error:  # noqa: BLE001 - whoever waits has to learn of it, whatever it is
                for item in items:
                    _fail(item, error)
                lost = []
            else:
                lost = [item for item, added in zip(items, results, strict=True) if _is_lost(item, added)]

    def _arrived(self, room: int) -> list[_Item]:
        """Return the calls of the next requests that fit: whole requests, and at least one."""
        items: list[_Item] = []
        while self._queue and (not items or len(items) + len(self._queue[0]) <= room):
            items += self._queue.popleft()
        return items


def _is_lost(item: _Item, added: Added | None) -> bool:
    """Note the result of a call; tell whether it has to be tried again."""
    waiting = item.waiting
    if waiting.done.done():
        return False
    if added is None:
        item.tries += 1
        if item.tries < MAX_TRIES:
            return True
        _fail(item, StoreUnavailable(f"a call lost {MAX_TRIES} times against other workers"))
        return False
    waiting.results[item.index] = added
    waiting.missing -= 1
    if waiting.missing == 0:
        waiting.done.set_result([one for one in waiting.results if one is not None])
    return False


def _fail(item: _Item, error: Exception) -> None:
    if not item.waiting.done.done():
        item.waiting.done.set_exception(error)


def _start(seed: str) -> int:
    return int.from_bytes(seed.encode()[:7], "big") << 7
