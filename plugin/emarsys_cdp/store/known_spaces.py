"""The spaces that calls have come for, so that nobody has to look at everybody to know them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import Namer

MAX_SPACES = 1000
"""With more, those seen first are forgotten."""


class _Spaces(Struct, frozen=True, array_like=True):
    spaces: tuple[str, ...] = ()


class KnownSpaces:
    """
    Names of spaces, for all workers. It is a hint: a space that is not in it may have people all the same.

    A cell that nobody changes disappears in the end; the next worker that starts begins anew.
    """

    def __init__(self, store: Store, namer: Namer) -> None:
        self._cells = Cells(store, _Spaces, _Spaces())
        self._name = namer("", "spaces", "")

    async def add(self, space: str) -> None:
        """Remember a space; raises `StoreUnavailable`."""
        await self._cells.change(self._name, lambda known: (_with(known, space), None))

    async def read(self) -> Sequence[str]:
        """Return the spaces; raises `StoreUnavailable`."""
        return (await self._cells.read(self._name)).spaces


def _with(known: _Spaces, space: str) -> _Spaces:
    return known if space in known.spaces else _Spaces((*known.spaces, space)[-MAX_SPACES:])
