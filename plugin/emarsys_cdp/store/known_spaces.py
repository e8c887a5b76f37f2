"""Lists of spaces that all workers share, so that nobody has to look at everybody to know them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import Namer

MAX_SPACES = 1000
"""Spaces of one list; with more, those seen first are forgotten."""


class _Spaces(Struct, frozen=True, array_like=True):
    spaces: tuple[str, ...] = ()


class SpaceLists:
    """
    Lists of spaces by their names, which are hashes.

    A cell that nobody changes disappears in the end; the next worker that starts begins anew.
    """

    def __init__(self, store: Store) -> None:
        self._cells = Cells(store, _Spaces, _Spaces())

    async def add(self, name: str, space: str) -> None:
        """Add a space to a list; raises `StoreUnavailable`."""
        await self._cells.change(name, lambda known: (_with(known, space), None))

    async def read(self, name: str) -> Sequence[str]:
        """Return the spaces of a list; raises `StoreUnavailable`."""
        return (await self._cells.read(name)).spaces


class KnownSpaces:
    """The spaces that calls have come for. It is a hint: a space that is not in it may have people all the same."""

    def __init__(self, store: Store, namer: Namer) -> None:
        self._lists = SpaceLists(store)
        self._name = namer("", "spaces", "")

    async def add(self, space: str) -> None:
        """Remember a space; raises `StoreUnavailable`."""
        await self._lists.add(self._name, space)

    async def read(self) -> Sequence[str]:
        """Return the spaces; raises `StoreUnavailable`."""
        return await self._lists.read(self._name)


def _with(known: _Spaces, space: str) -> _Spaces:
    return known if space in known.spaces else _Spaces((*known.spaces, space)[-MAX_SPACES:])
