"""
The documents in force, from files and from the store; a worker has all of them in its memory.

Answers are synchronous, so no call ever waits for a document. `refresh` looks once for what has changed: at files by
their stamps, at the store by the revisions of its shelf. Only what has changed is read, checked and compiled, beside
the calls, and comes into force at once when all of it is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
from msgspec import Struct

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import Document
from emarsys_cdp.document.versions import Live, RawDocument, Versions, bare, map_problems, presumed_live
from emarsys_cdp.document_files import Stamp, look, read_raw
from emarsys_cdp.shelf import DEFAULT_NAME, FILE, Published, Shelf, UnreadableDocument, following
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import InvalidDocument, RetryLater

Ruled: TypeAlias = tuple[Document, Versions]
"""A document and the versions of its rules; as long as nothing changes it is the same object."""

LiveOf: TypeAlias = Callable[[str, RawDocument, Versions], Live]
"""From a space, its next document and the versions then to what tells which versions have running instances."""

LOGGED: Final = 20
"""Problems of a document that a line of the log shows; `emarsys-cdp check` prints them all."""

MAX_TRIES: Final = 100
"""Tries against other workers before the store counts as out of order."""

_log = structlog.get_logger("emarsys_cdp.documents")


class _File(Struct, frozen=True):
    """A document of a file that is in force."""

    path: Path
    raw: dict[str, Any]
    ruled: Ruled


class Documents:
    """
    The documents of all spaces. *directory* has those in files, if any; *clock* gives ms since 1970 UTC.

    A file of the space wins over `default.json`, and that over the store. *live_of* tells which old versions have
    running instances; None: they are told by time alone. Unless *records* is true the versions of files are computed
    and not written: for commands that only look.

    *generation* is another number whenever something has changed.
    """

    def __init__(
        self,
        shelf: Shelf,
        compiler: Compiler,
        clock: Callable[[], int],
        directory: Path | None = None,
        live_of: LiveOf | None = None,
        *,
        records: bool = True,
    ) -> None:
        self._shelf = shelf
        self._compiler = compiler
        self._clock = clock
        self._directory = directory
        self._live_of = live_of or (lambda _, raw, versions: presumed_live(raw, versions, clock()))
        self._records = records
        self._stamps: dict[str, Stamp] = {}
        self._files: dict[str, _File] = {}
        self._invalid: dict[str, str] = {}
        self._seen: dict[str, int] = {}
        self._stored: dict[str, Ruled] = {}
        self._unreadable: dict[str, str] = {}
        self._looked = False
        self._silence = "the store has not answered since the start"
        self._turn = asyncio.Lock()
        self._prepare: list[Callable[[Ruled], object]] = []
        self._renew: list[Callable[[], None]] = []
        self.generation = 0

    def get(self, space: str) -> Ruled | None:
        """
        Return the document of a space with the versions of its rules, None when it has none.

        Raises:
            RetryLater: nobody knows which is in force: the store has not answered yet, or the space's document was
                invalid when the service started and there is none of before.

        """
        if not self._looked:
            raise RetryLater(f"the documents have not been read yet: {self._silence}")
        for name in (space, DEFAULT_NAME):
            if name in self._files:
                return self._files[name].ruled
            if name in self._invalid:
                raise RetryLater(self._invalid[name])
        if space in self._unreadable:
            raise RetryLater(self._unreadable[space])
        return self._stored.get(space)

    def document(self, space: str) -> Document | None:
        """Return the document of a space, None when it has none; raises as `get` does."""
        ruled = self.get(space)
        return None if ruled is None else ruled[0]

    def everything(self) -> Iterator[Ruled]:
        """Yield all documents in force."""
        yield from (file.ruled for file in self._files.values())
        yield from self._stored.values()

    def file_of(self, space: str) -> Path | None:
        """Return the file that the document of a space is in; None when it is not in a file."""
        if self._directory is None:
            return None
        return next((self._directory / f"{name}.json" for name in (space, DEFAULT_NAME) if name in self._stamps), None)

    def follow(self, prepare: Callable[[Ruled], object], renew: Callable[[], None]) -> None:
        """
        Have *prepare* called before a document comes into force, and *renew* at once after any change.

        What takes long belongs into *prepare*: it runs in a thread, while calls go on with the document of before.
        """
        self._prepare.append(prepare)
        self._renew.append(renew)

    def check(self, space: str, published: Published) -> None:
        """
        Look whether running instances still find what they need when *published* comes into force.

        Raises:
            InvalidDocument: a data map that they read is gone or of another type.

        """
        live = self._live_of(space, published.raw, published.versions)
        problems = map_problems(published.raw, published.versions.kept, live)
        if problems:
            raise InvalidDocument(space, problems)

    async def refresh(self) -> tuple[InvalidDocument, ...]:
        """
        Look for what has changed since the last time; return the problems of what is invalid.

        Raises:
            OSError: the directory cannot be read; all documents stay as they are.
            StoreUnavailable: the store does not answer; documents that were not read stay as they are.

        """
        async with self._turn:
            try:
                problems = [*await self._refresh_stored(), *await self._refresh_files()]
            except StoreUnavailable as error:
                self._silence = str(error)
                raise
            self._looked = True
        return tuple(problems)

    async def _refresh_stored(self) -> list[InvalidDocument]:
        revisions = await self._shelf.revisions()
        problems = []
        for space, revision in revisions.items():
            if self._seen.get(space) != revision:
                problems += await self._take_stored(space)
                self._seen[space] = revision
        for space in set(self._seen) - set(revisions):
            del self._seen[space]
            self._stamps.pop(space, None)  # the record of a file is written again
            self._forget_stored(space)
        return problems

    async def _take_stored(self, space: str) -> list[InvalidDocument]:
        """Put a document of the store in force; one that is invalid here leaves that of before."""
        try:
            there = await self._shelf.read(space)
            if there is None or there.source == FILE:
                self._forget_stored(space)
                await self._take_record(space, there)
                return []
            ruled = await self._ready(await self._read(space, there.raw), there)
        except (InvalidDocument, UnreadableDocument) as error:
            if not self._looked and space not in self._stored:
                self._unreadable[space] = str(error)
            _refused(space, error)
            return [error] if isinstance(error, InvalidDocument) else []
        self._unreadable.pop(space, None)
        self._stored[space] = ruled
        self._loaded(space, ruled, there)
        return []

    async def _take_record(self, name: str, record: Published | None) -> None:
        """Take the versions that another worker has given to the rules of a file that is the same here."""
        file = self._files.get(name)
        if file is None or record is None or record.raw != file.raw or record.versions == file.ruled[1]:
            return
        self._files[name] = _File(file.path, file.raw, await self._ready(file.ruled[0], record))
        self._changed()

    def _forget_stored(self, space: str) -> None:
        self._unreadable.pop(space, None)
        if self._stored.pop(space, None) is not None:
            self._changed()

    async def _refresh_files(self) -> list[InvalidDocument]:
        if self._directory is None:
            return []
        found = await asyncio.to_thread(look, self._directory)
        problems = []
        for name, (path, stamp) in found.items():
            if self._stamps.get(name) != stamp:
                problems += await self._take_file(name, path)
                self._stamps[name] = stamp
        for name in set(self._stamps) - set(found):
            del self._stamps[name]
            self._files.pop(name, None)
            self._invalid.pop(name, None)
            self._changed()
        return problems

    async def _take_file(self, name: str, path: Path) -> list[InvalidDocument]:
        """Put the document of a file in force; one that is invalid leaves that of before, also from before a start."""
        try:
            raw = await asyncio.to_thread(read_raw, path)
            document = await self._read(str(path), raw)
            record = await self._record(name, path, bare(raw))
            ruled = await self._ready(document, record)
        except (InvalidDocument, UnreadableDocument) as error:
            _refused(name, error)
            if not self._looked and name not in self._files:
                await self._take_last_record(name, path)
            return [error] if isinstance(error, InvalidDocument) else []
        self._invalid.pop(name, None)
        self._files[name] = _File(path, record.raw, ruled)
        self._stored.pop(name, None)  # its record has taken the place of what was published
        self._loaded(name, ruled, record)
        return []

    async def _take_last_record(self, name: str, path: Path) -> None:
        try:
            record = await self._shelf.read(name)
            if record is not None and record.source == FILE:
                ruled = await self._ready(await self._read(name, record.raw), record)
                self._files[name] = _File(path, record.raw, ruled)
                self._loaded(name, ruled, record)
                return
        except (InvalidDocument, UnreadableDocument) as error:
            _refused(name, error)
        self._invalid[name] = f"the document {path.name} is invalid, and there is none of before: the log says why"

    async def _record(self, name: str, path: Path, raw: dict[str, Any]) -> Published:
        """
        Return the document of a file with the versions of its rules, which all workers have from the store.

        Whoever is first writes them down. A file that takes over from `default.json` goes on with its versions.
        """
        for _ in range(MAX_TRIES):
            there = await self._shelf.read(name)
            if there is not None and there.source == FILE and there.raw == raw:
                self._seen[name] = there.revision
                return there
            base = await self._shelf.base(name, there)
            record, _ = await asyncio.to_thread(following, there, base, raw, FILE, self._clock())
            self._check_file(path, record)
            if not self._records or await self._shelf.put(name, record, 0 if there is None else there.revision):
                self._seen[name] = record.revision
                return record
        raise StoreUnavailable(f"the record of {path.name} was changed by others {MAX_TRIES} times in a row")

    def _check_file(self, path: Path, record: Published) -> None:
        try:
            self.check(path.stem, record)
        except InvalidDocument as error:
            raise InvalidDocument(str(path), error.problems) from error

    async def _read(self, source: str, raw: Any) -> Document:
        """Return a checked document; in a thread, since a large one takes seconds and calls go on meanwhile."""
        return await asyncio.to_thread(self._compiler.read, source, raw)

    async def _ready(self, document: Document, published: Published) -> Ruled:
        """Return a document with its versions when all who need it are prepared."""
        ruled = (document, published.versions)
        for prepare in self._prepare:
            await asyncio.to_thread(prepare, ruled)
        return ruled

    def _loaded(self, name: str, ruled: Ruled, published: Published) -> None:
        self._changed()
        _log.info("document_loaded", space=name, rules=len(ruled[0].rules), revision=published.revision)

    def _changed(self) -> None:
        self.generation += 1
        for renew in self._renew:
            renew()


def _refused(name: str, error: InvalidDocument | UnreadableDocument) -> None:
    problems = [str(one) for one in error.problems] if isinstance(error, InvalidDocument) else [str(error)]
    _log.error("document_refused", space=name, problems=problems[:LOGGED], of=len(problems))
