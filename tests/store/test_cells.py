"""States that all workers change together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells

NAME = "CCCCCCCCCCCCCCCCCCCCCCCC"


class Count(msgspec.Struct, frozen=True, array_like=True):
    """A counter, and who has counted last."""

    number: int = 0
    writer: str = ""


def test_no_change_is_lost(make_store: Callable[[], Store]) -> None:
    """Workers that change a state at the same time all find their change in it."""
    workers, each = 4, 25

    async def count(cells: Cells[Count], writer: str) -> list[int]:
        def decide(state: Count) -> tuple[Count, int]:
            return Count(state.number + 1, writer), state.number + 1

        return [await cells.change(NAME, decide) for _ in range(each)]

    async def main() -> tuple[list[int], Count]:
        stores = [make_store() for _ in range(workers)]
        cells = [Cells(store, Count, Count()) for store in stores]
        found = await asyncio.gather(*(count(one, f"{number}") for number, one in enumerate(cells)))
        last = await cells[0].read(NAME)
        for store in stores:
            await store.close()
        return [number for numbers in found for number in numbers], last

    numbers, last = asyncio.run(main())

    assert sorted(numbers) == list(range(1, workers * each + 1))
    assert last.number == workers * each


def test_an_unreadable_state_counts_as_none(make_store: Callable[[], Store]) -> None:
    """One that another version has written is replaced and stops nothing."""

    async def main() -> tuple[Count, Count]:
        store = make_store()
        await store.swap_cell(NAME, None, b"\xc1")
        cells = Cells(store, Count, Count())
        before = await cells.read(NAME)
        await cells.change(NAME, lambda state: (Count(state.number + 1, "me"), None))
        after = await Cells(store, Count, Count()).read(NAME)
        await store.close()
        return before, after

    assert asyncio.run(main()) == (Count(), Count(1, "me"))
