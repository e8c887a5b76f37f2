"""The documents in the store: one for each space, with the versions of its rules, published by compare-and-set."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from emarsys_cdp.document.versions import Change, Versions, assign
from emarsys_cdp.store import Publication, Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp_hooks import RetryLater

FORMAT: Final[Literal[1]] = 1
"""Format of what is on the shelf."""

QUICK: Final = 1
"""Level of compression: a document shrinks to a tenth at little cost."""


DEFAULT_NAME: Final = "default"
"""`default.json` in the directory of documents serves every space without a file of its own."""

FILE: Final[Literal["file"]] = "file"
STORE: Final[Literal["store"]] = "store"

Source: TypeAlias = Literal["store", "file"]
"""Where a document is from: by API or command, or the record of a file, which counts only while the file is there."""


class UnreadableDocument(RetryLater):
    """A document of the store was written by another version of the service, or is damaged."""


class Published(Struct, frozen=True):
    """
    A document as it was published.

    *raw* is the document without revision and versions. *at* is the time of
    publication in ms since 1970 UTC.
    """

    revision: int
    at: int
    source: Source
    raw: dict[str, Any]
    versions: Versions
    format: Literal[1] = FORMAT


class Shelf:
    """Documents by their spaces. Every method may raise `StoreUnavailable`."""

    def __init__(self, store: Store, namer: Namer) -> None:
        self._store = store
        self._name = namer("", "documents", "")

    async def revisions(self) -> dict[str, int]:
        """Return the revisions of all documents by their spaces."""
        return await self._store.read_shelf(self._name)

    async def read(self, space: str) -> Published | None:
        """
        Return the document of a space, None when none was published.

        Raises:
            UnreadableDocument: this version does not read it.

        """
        content = await self._store.read_published(self._name, space)
        if content is None:
            return None
        try:
            return await asyncio.to_thread(_unpack, content)
        except (ValueError, zlib.error, RecursionError) as error:
            raise UnreadableDocument(
                f"the document of space {space!r} in the store cannot be read by this version of emarsys-cdp: {error}"
            ) from error

    async def base(self, space: str, there: Published | None) -> Published | None:
        """
        Return what the versions of a space's next document go on from: what is there, else `default.json`.

        Instances of a space that had the document for all spaces are pinned to the versions of that.
        """
        if there is not None or space == DEFAULT_NAME:
            return there
        everybody = await self.read(DEFAULT_NAME)
        return everybody if everybody is not None and everybody.source == FILE else None

    async def put(self, space: str, published: Published, expected: int) -> bool:
        """Publish a document if the one of the space still has a revision (0: there is none)."""
        content = await asyncio.to_thread(_pack, published)
        return await self._store.publish(Publication(self._name, space, expected, published.revision, content))


def _pack(published: Published) -> bytes:
    """Return the bytes of a document; json takes every text and number that a document may have."""
    return zlib.compress(json.dumps(msgspec.to_builtins(published)).encode(), QUICK)


def _unpack(content: bytes) -> Published:
    return msgspec.convert(json.loads(zlib.decompress(content)), Published)


def following(
    there: Published | None, base: Published | None, raw: dict[str, Any], source: Source, now: int
) -> tuple[Published, tuple[Change, ...]]:
    """
    Return the document *raw* as the next one after what is there, with the versions of its rules, and what changes.

    *base* has the rules and versions of before: those of what is there, else those of the document for all spaces.
    """
    before, versions = ({}, Versions()) if base is None else (base.raw, base.versions)
    revision = 1 if there is None else there.revision + 1
    versions, changes = assign(before, versions, raw, now)
    return Published(revision, now, source, raw, versions), changes
