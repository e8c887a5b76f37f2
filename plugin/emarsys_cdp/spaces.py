"""Spaces by the host's settings and the documents in force; compiled once and kept until either changes."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from emarsys_cdp.credentials import read_credentials
from emarsys_cdp.document.compile import CompiledSpace, Compiler
from emarsys_cdp.document.lifetimes import lifetimes_of
from emarsys_cdp.document.model import DEFAULT, Document
from emarsys_cdp.document.stock import read_stock
from emarsys_cdp.store.lifetimes import Lifetimes, usual
from emarsys_cdp_hooks import EmarsysCdpError, InvalidDocument, Problem, RetryLater, StopAndFix

MAX_SPACES = 4096
"""Compiled spaces kept; with dynamic settings one destination may have many."""

DEFAULT_NAME = "default"
"""`default.json` in the directory of documents serves every space without a file of its own."""

_log = structlog.get_logger("emarsys_cdp.spaces")


def read_document(path: Path, compiler: Compiler) -> Document:
    """
    Return the document in a file.

    Raises:
        InvalidDocument: it cannot be read, is no JSON, or has problems; all of them are listed.

    """
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidDocument(str(path), (Problem("file", f"cannot be read: {error.strerror}"),)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(str(path), (Problem("file", f"is no JSON: {error}"),)) from error
    return compiler.read(str(path), raw)


class DocumentFiles:
    """
    Documents as `<space>.json` files in a directory, read again when they change.

    A file that becomes invalid leaves the document of before in force, and the log says what is wrong.
    """

    def __init__(self, directory: Path, compiler: Compiler) -> None:
        self._directory = directory
        self._compiler = compiler
        self._stamps: dict[str, tuple[int, int]] = {}
        self._documents: dict[str, Document] = {}
        self._invalid: set[str] = set()
        self._looked = False
        self.generation = 0

    def __getitem__(self, space: str) -> Document | None:
        """
        Return the document of a space, None when it has none.

        Raises:
            RetryLater: its document was invalid when the service started, so nobody knows what was in force before.

        """
        for name in (space, DEFAULT_NAME):
            if name in self._documents:
                return self._documents[name]
            if name in self._invalid:
                raise RetryLater(f"the document {name}.json is invalid, and there is none of before: the log says why")
        return None

    def refresh(self) -> tuple[InvalidDocument, ...]:
        """
        Read what has changed since the last time; return the problems of invalid files.

        Raises:
            OSError: the directory cannot be read; all documents stay as they are.

        """
        problems: list[InvalidDocument] = []
        first = not self._looked
        os.listdir(self._directory)  # a directory that is gone is an error, not a directory without documents
        self._looked = True
        stamps = {path.stem: (path, stat) for path in sorted(self._directory.glob("*.json")) if (stat := _stat(path))}
        for space, (path, stat) in stamps.items():
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self._stamps.get(space) == stamp:
                continue
            self._stamps[space] = stamp
            try:
                self._documents[space] = read_document(path, self._compiler)
            except InvalidDocument as error:
                problems.append(error)
                if first:
                    self._invalid.add(space)
                _log.error("document_refused", space=space, problems=[str(one) for one in error.problems])
            else:
                self.generation += 1
                self._invalid.discard(space)
                _log.info("document_loaded", space=space, rules=len(self._documents[space].rules))
        for space in set(self._stamps) - set(stamps):
            del self._stamps[space]
            self._documents.pop(space, None)
            self._invalid.discard(space)
            self.generation += 1
        return tuple(problems)


def _stat(path: Path) -> os.stat_result | None:
    """Return the state of a visible file; an editor's lock is none, and a file may go away meanwhile."""
    try:
        return None if path.name.startswith(".") else path.stat()
    except FileNotFoundError:
        return None


class SpaceLifetimes:
    """
    How long the people of each space stay, by the documents in force.

    A document that was invalid at the start takes no calls, so what is written there meanwhile stays as usual.
    """

    def __init__(self, documents: DocumentFiles) -> None:
        self._documents = documents
        self._generation = documents.generation
        self._known: dict[str, Lifetimes] = {}

    def __call__(self, space: str) -> Lifetimes:
        """Return the lifetimes of a space."""
        if self._documents.generation != self._generation or len(self._known) > MAX_SPACES:
            self._generation = self._documents.generation
            self._known.clear()
        known = self._known.get(space)
        if known is None:
            known = self._known[space] = self._read(space)
        return known

    def _read(self, space: str) -> Lifetimes:
        try:
            document = self._documents[space]
        except RetryLater:
            document = None
        return usual(space) if document is None else lifetimes_of(document.settings)


class Spaces:
    """The spaces of all destinations."""

    def __init__(self, compiler: Compiler, documents: DocumentFiles | None = None) -> None:
        self._compiler = compiler
        self._documents = documents
        self._generation = 0
        self._known: OrderedDict[tuple[str, bytes], CompiledSpace | str] = OrderedDict()

    def get(self, space: str, host: str, fingerprint: bytes, settings: Mapping[str, Any]) -> CompiledSpace:
        """
        Return the space of a destination. *fingerprint* are bytes that differ when the settings do.

        Raises:
            StopAndFix: the settings are wrong; the message shows no secret.
            RetryLater: the space's document has been invalid since the start.

        """
        if self._documents is not None and self._documents.generation != self._generation:
            self._generation = self._documents.generation
            self._known.clear()
        key = (space, fingerprint)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._make(space, host, settings)
            if len(self._known) > MAX_SPACES:
                self._known.popitem(last=False)
        if isinstance(known, str):
            raise StopAndFix(known)
        return known

    def _make(self, space: str, host: str, settings: Mapping[str, Any]) -> CompiledSpace | str:
        document = None if self._documents is None else self._documents[space]
        try:
            credentials = read_credentials(settings)
            stock = read_stock(settings) if document is None else None
            if stock is not None:
                return self._compiler.compile_stock(space, host, stock, credentials)
            return self._compiler.compile(space, host, document or DEFAULT, credentials)
        except EmarsysCdpError as error:
            return str(error)
