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
from typing import cast

from msgspec import Struct

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.merging import Merger
from emarsys_cdp.one_round import Added, Round
from emarsys_cdp.settled_round import Settler, tell_apart
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.worker_memory import Memory
from emarsys_cdp.writing import Notice, nobody_asks

__all__ = ["Added", "Rounds"]

MAX_CALLS = 2000
"""Calls of one round."""

MAX_TRIES = 200
"""Rounds that a call may lose against other workers before its request is refused for now."""

Jitter = Callable[[int], float]
"""Number of lost tries to seconds to wait."""


class _Waiting(Struct):
    """A request: its calls, their results so far, how many are missing, and who waits for them."""

    entries: Sequence[Entry]
    results: list[Added | None]
    missing: int
    done: asyncio.Future[list[Added]]


class _Lost(Struct):
    """One call of a request that has lost against another worker, and how often."""

    waiting: _Waiting
    index: int
    entry: Entry
    tries: int = 1


class Rounds:
    """
    The users table of all spaces, for one worker.

    *namer* names identifier rows, *new_pid* makes profile ids, *jitter* spreads the tries of several workers,
    *first_revision* is a random number to count revisions from (without it, one is made of a profile id). *lifetimes*
    tells how long the people of a space stay. *notice* is told of people whom rules have looked at.
    """

    def __init__(
        self,
        store: Store,
        namer: Namer,
        new_pid: Callable[[], str],
        jitter: Jitter,
        first_revision: int | None = None,
        lifetimes: LifetimesOf = usual,
        notice: Notice = nobody_asks,
    ) -> None:
        self._store = store
        self._namer = namer
        self._new_pid = new_pid
        self._jitter = jitter
        self._memory = Memory()
        self._revisions = count(_start(new_pid()) if first_revision is None else first_revision)
        self._merger = Merger(store, namer, self._revisions, lifetimes)
        self._settler = Settler(store, self._memory, self._revisions, lifetimes, notice)
        self._notice = notice
        self._queue: deque[_Waiting] = deque()
        self._runner: asyncio.Task[None] | None = None

    def forget(self, pid: str) -> None:
        """Forget a person whom somebody else has written, which saves a lost try."""
        self._memory.forget(pid)

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
        self._queue.append(_Waiting(entries, [None] * len(entries), len(entries), future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        """Run rounds as long as there are calls; those that lost go first in the next one, with new requests."""
        lost: list[_Lost] = []
        while self._queue or lost:
            if lost and not self._queue:
                await asyncio.sleep(self._jitter(lost[0].tries))
            new = self._arrived(MAX_CALLS - len(lost))
            entries = [one.entry for one in lost]
            for waiting in new:
                entries += waiting.entries
            try:
                results = await self._round(entries)
            except Exception as error:  # noqa: BLE001 - whoever waits has to learn of it, whatever it is
                for waiting in (*new, *(one.waiting for one in lost)):
                    _fail(waiting, error)
                lost = []
            else:
                tried = zip(lost, results, entries, strict=False)
                again = [one for one, added, entry in tried if _is_lost(one, added, entry)]
                lost = again + _distribute(new, results, entries, len(lost))

    async def _round(self, entries: list[Entry]) -> list[Added | None]:
        """
        Return the result of each entry, None for those that have to be tried again.

        What was noted of these for the next try is in *entries* then.
        """
        memory = self._memory
        people = memory.callers(entries)
        if people is not None:
            return await self._settler.settle(entries, people)
        entries[:] = [entry.named(self._namer) for entry in entries]
        known, others = tell_apart(entries, memory)
        results: dict[int, Added | None] = {}
        if known:
            settled = await self._settler.settle([entries[n] for n in known], list(known.values()))
            results |= zip(known, settled, strict=True)
        if others:
            unsettled = self._unsettled([entries[n] for n in others])
            results |= zip(others, await unsettled.run(self._store), strict=True)
            for n, entry in zip(others, unsettled.entries, strict=True):
                entries[n] = entry
        return [results[n] for n in range(len(entries))]

    def _unsettled(self, entries: list[Entry]) -> Round:
        return Round(entries, self._new_pid, self._revisions, self._memory, self._merger, self._notice)

    def _arrived(self, room: int) -> list[_Waiting]:
        """Return the next requests that fit, whole: at least one when there is one."""
        arrived: list[_Waiting] = []
        while self._queue and (not arrived or len(self._queue[0].entries) <= room):
            arrived.append(self._queue.popleft())
            room -= len(arrived[-1].entries)
        return arrived


def _distribute(new: list[_Waiting], results: list[Added | None], entries: list[Entry], start: int) -> list[_Lost]:
    """
    Give each request its results, which begin at *start*; return the calls that have to be tried again.

    *entries* are those of the round, with what it has noted of calls that wait.
    """
    lost: list[_Lost] = []
    for waiting in new:
        end = start + len(waiting.entries)
        waiting.results = results[start:end]
        missing = [index for index, added in enumerate(waiting.results) if added is None]
        waiting.missing = len(missing)
        lost += [_Lost(waiting, index, entries[start + index]) for index in missing]
        _answer(waiting)
        start = end
    return lost


def _is_lost(one: _Lost, added: Added | None, entry: Entry) -> bool:
    """Note the result of another try; tell whether the call has to be tried once more."""
    waiting = one.waiting
    if waiting.done.done():
        return False
    if added is None:
        one.tries += 1
        one.entry = entry
        if one.tries < MAX_TRIES:
            return True
        _fail(waiting, StoreUnavailable(f"a call lost {MAX_TRIES} times against other workers"))
        return False
    waiting.results[one.index] = added
    waiting.missing -= 1
    _answer(waiting)
    return False


def _answer(waiting: _Waiting) -> None:
    if waiting.missing == 0 and not waiting.done.done():
        waiting.done.set_result(cast("list[Added]", waiting.results))


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _start(seed: str) -> int:
    return int.from_bytes(seed.encode()[:7], "big") << 7
