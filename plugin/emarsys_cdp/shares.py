"""
Which worker looks after which shards: those that are alive share them by rendezvous hashing.

Nothing depends on it but work done twice: timers and effects are leased whoever looks. Times are in ms since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Final

from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import SHARDS, Namer

BEAT: Final = 2_000
"""A worker says this often that it is alive."""

DEAD: Final = 10_000
"""A worker that has not said so for this long is dead: the others take its shards."""

Beats = dict[str, int]


class Shares:
    """The shards of one worker among those that share a store; *worker* is its name."""

    def __init__(self, store: Store, namer: Namer, worker: str, clock: Callable[[], int]) -> None:
        self._cells: Cells[Beats] = Cells(store, Beats, {})
        self._name = namer("", "workers", "")
        self._worker = worker
        self._clock = clock
        self._alive: tuple[str, ...] = (worker,)
        self._beaten = 0

    @property
    def shards(self) -> Sequence[int]:
        """The shards that are this worker's, as far as it knows."""
        return shards_of(self._worker, self._alive)

    async def beat(self) -> None:
        """
        Say that this worker is alive, if it is time to, and see who else is.

        Raises:
            StoreUnavailable: the store is out of order; the shards stay as they are.

        """
        now = self._clock()
        if now - self._beaten < BEAT:
            return
        beats = await self._cells.change(self._name, partial(_with_beat, self._worker, now))
        self._alive, self._beaten = tuple(sorted(beats)), now

    async def leave(self) -> None:
        """Say that this worker stops, so that the others take its shards at once; raises `StoreUnavailable`."""
        await self._cells.change(self._name, partial(_without, self._worker))


def _with_beat(worker: str, now: int, beats: Beats) -> tuple[Beats, Beats]:
    alive = {name: at for name, at in beats.items() if at > now - DEAD} | {worker: now}
    return alive, alive


def _without(worker: str, beats: Beats) -> tuple[Beats, None]:
    return {name: at for name, at in beats.items() if name != worker}, None


@lru_cache(maxsize=64)
def shards_of(worker: str, alive: tuple[str, ...]) -> tuple[int, ...]:
    """Return the shards of a worker: each is of the one that its hash ranks highest, so few move when one leaves."""
    return tuple([shard for shard in range(SHARDS) if _winner(shard, alive) == worker])


def _winner(shard: int, alive: Iterable[str]) -> str:
    return max(alive, key=lambda name: (blake2b(f"{name}\0{shard}".encode(), digest_size=8).digest(), name))
