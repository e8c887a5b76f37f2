"""Documents of the store for people and programs: what is in force, and putting another one in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import DEFAULT
from emarsys_cdp.document.versions import Change, Versions, bare, numbered
from emarsys_cdp.document_files import read_raw
from emarsys_cdp.documents import MAX_TRIES, Documents
from emarsys_cdp.shelf import STORE, Published, Shelf, following
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import DropCall

_SHOWN: Final = ("identity", "settings", "contacts", "dataMaps", "rules")
"""Parts of the default document that are shown."""


class Shown(Struct, frozen=True):
    """
    A space's document of now: with its *revision*, and the versions of its rules, it is *document*.

    *source* is `default` where the space has none, with revision 0. *file* is set when it is in a file.
    """

    revision: int
    source: Literal["default", "store", "file"]
    document: dict[str, Any]
    versions: Versions
    file: Path | None = None


class Receipt(Struct, frozen=True):
    """A publication: its revision, and what it changed of each rule."""

    revision: int
    changes: tuple[Change, ...]


class InFile(DropCall):
    """The space's document is in a file, so it is changed there."""


class Stale(DropCall):
    """Somebody has published since; *revision* is the one of now."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        super().__init__(
            f"somebody has published since: the document has revision {revision} now. Make the changes in that one"
        )


class Publisher:
    """Shows and publishes documents. *clock* gives ms since 1970 UTC. Every method may raise `StoreUnavailable`."""

    def __init__(self, shelf: Shelf, documents: Documents, compiler: Compiler, clock: Callable[[], int]) -> None:
        self._shelf = shelf
        self._documents = documents
        self._compiler = compiler
        self._clock = clock

    async def spaces(self) -> list[str]:
        """Return the spaces for which a document was published, or recorded from a file."""
        return sorted(await self._shelf.revisions())

    async def show(self, space: str) -> Shown:
        """
        Return the document of a space.

        Raises:
            InvalidDocument: it is in a file that is no JSON.
            UnreadableDocument: this version does not read it.

        """
        file = self._documents.file_of(space)
        there = await self._shelf.read(space if file is None else file.stem)
        if file is not None:
            return await asyncio.to_thread(_of_file, file, there)
        if there is None or there.source != STORE:
            return Shown(0, "default", default_document(), Versions())
        return Shown(there.revision, STORE, numbered(there.raw, there.revision, there.versions), there.versions)

    def refuse_file(self, space: str) -> None:
        """
        Refuse to publish for a space whose document is in a file.

        Raises:
            InFile: it is.

        """
        file = self._documents.file_of(space)
        if file is not None:
            raise InFile(
                f"the document of this space is in the file {file.name} of EMARSYS_CDP_RULES_DIR: change it there; it "
                "is read again at once"
            )

    async def revision(self, space: str) -> int:
        """Return the revision of a space's document in the store, 0 when it has none."""
        return _revision(await self._shelf.read(space))

    async def publish(self, space: str, raw: Any, expected: int | None) -> Receipt:
        """
        Put a document in force if that of now still has the revision *expected*; None: whatever is there.

        Raises:
            InFile: the space's document is in a file.
            Stale: somebody else has published since.
            InvalidDocument: with every problem; the document of before stays in force.

        """
        self.refuse_file(space)
        await asyncio.to_thread(self._compiler.read, space, raw)
        plain = bare(raw)
        for _ in range(MAX_TRIES):
            there = await self._shelf.read(space)
            if expected not in (None, _revision(there)):
                raise Stale(_revision(there))
            base = await self._shelf.base(space, there)
            published, changes = await asyncio.to_thread(following, there, base, plain, STORE, self._clock())
            self._documents.check(space, published)
            if await self._shelf.put(space, published, 0 if there is None else there.revision):
                return Receipt(published.revision, changes)
        raise StoreUnavailable(f"the document was published by others {MAX_TRIES} times in a row")


def _revision(there: Published | None) -> int:
    return there.revision if there is not None and there.source == STORE else 0


def _of_file(file: Path, record: Published | None) -> Shown:
    """Return a document of a file; the one of before while the file has problems, as far as there was one."""
    if record is None:
        return Shown(0, "file", read_raw(file), Versions(), file)
    raw = numbered(record.raw, record.revision, record.versions)
    return Shown(record.revision, "file", raw, record.versions, file)


def default_document() -> dict[str, Any]:
    """Return the document of a space that has none, as somebody would write it."""
    whole: Mapping[str, Any] = msgspec.to_builtins(DEFAULT)
    return {"revision": 0, **{name: _given(whole[name]) for name in _SHOWN}}


def _given(part: Any) -> Any:
    """Return a part without what is not given."""
    if isinstance(part, dict):
        return {name: _given(one) for name, one in part.items() if one is not None}
    return [_given(one) for one in part] if isinstance(part, (list, tuple)) else part
