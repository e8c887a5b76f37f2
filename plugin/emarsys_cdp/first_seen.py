"""When each data map was first seen in a space: a first sync is no entry of everybody in it (semantics 2.7)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import Namer

Times = dict[str, int]


class FirstSeen:
    """The event times (ms) of the first calls of each space that carried data maps whose history rules ask for."""

    def __init__(self, store: Store, namer: Namer) -> None:
        self._namer = namer
        self._cells: Cells[Times] = Cells(store, Times, {})

    async def of(self, space: str, seen: Mapping[str, int]) -> Mapping[str, int]:
        """
        Return when data maps were first seen; *seen* are those of some calls with their times, noted if they are new.

        Raises:
            StoreUnavailable: the store is out of order.

        """
        name = self._namer(space, "first", "")
        known = self._cells.last(name)
        if seen.keys() <= known.keys():
            return known
        return await self._cells.change(name, partial(_noted, seen))


def _noted(seen: Mapping[str, int], known: Times) -> tuple[Times, Times]:
    times = {**seen, **known}
    return times, times
