"""Spaces by the host's settings and the documents in force; compiled once and kept until either changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from msgspec import structs

from emarsys_cdp.credentials import OAuth, Secret, read_credentials
from emarsys_cdp.document.compile import CompiledSpace, Compiler
from emarsys_cdp.document.lifetimes import lifetimes_of
from emarsys_cdp.document.model import DEFAULT
from emarsys_cdp.document.stock import read_stock
from emarsys_cdp.documents import Documents, Ruled
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.store.lifetimes import Lifetimes, usual
from emarsys_cdp_hooks import EmarsysCdpError, RetryLater, StopAndFix

MAX_SPACES = 4096
"""Compiled spaces kept; with dynamic settings one destination may have many."""

NOBODY: Final = OAuth("", Secret(""))
"""Credentials of a space that was compiled before any call has come for it."""


class SpaceLifetimes:
    """
    How long the people of each space stay, by the documents in force.

    A document that was invalid at the start takes no calls, so what is written there meanwhile stays as usual.
    """

    def __init__(self, documents: Documents) -> None:
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
            document = self._documents.document(space)
        except RetryLater:
            document = None
        return usual(space) if document is None else lifetimes_of(document.settings)


class Spaces:
    """
    The spaces of all destinations.

    A document is compiled once, whatever destinations have it, beside the calls and before it comes into force.
    """

    def __init__(self, compiler: Compiler, documents: Documents | None = None) -> None:
        self._compiler = compiler
        self._documents = documents
        self._known: OrderedDict[tuple[str, bytes], CompiledSpace | str] = OrderedDict()
        self._made_of: dict[tuple[str, bytes], Ruled | None] = {}
        self._compiled: dict[int, tuple[Ruled, CompiledSpace]] = {}
        if documents is not None:
            documents.follow(self._of, self._renew)

    def get(self, space: str, host: str, fingerprint: bytes, settings: Mapping[str, Any]) -> CompiledSpace:
        """
        Return the space of a destination. *fingerprint* are bytes that differ when the settings do.

        Raises:
            StopAndFix: the settings are wrong; the message shows no secret.
            RetryLater: nobody knows yet which document is in force.

        """
        key = (space, fingerprint)
        known = self._known.get(key)
        if known is None:
            ruled = None if self._documents is None else self._documents.get(space)
            known = self._known[key] = self._make(space, host, settings, ruled)
            self._made_of[key] = ruled
            if len(self._known) > MAX_SPACES:
                oldest, _ = self._known.popitem(last=False)
                self._made_of.pop(oldest, None)
        if isinstance(known, str):
            raise StopAndFix(known)
        return known

    def rules(self, space: str) -> RuleSet | None:
        """
        Return the rules of a space, None when it has none.

        Raises:
            RetryLater: nobody knows yet which document is in force.

        """
        ruled = None if self._documents is None else self._documents.get(space)
        return None if ruled is None else self._of(ruled).rules

    def _make(self, space: str, host: str, settings: Mapping[str, Any], ruled: Ruled | None) -> CompiledSpace | str:
        try:
            credentials = read_credentials(settings)
            if ruled is not None:
                return structs.replace(self._of(ruled), id=space, host=host, credentials=credentials)
            stock = read_stock(settings)
            if stock is not None:
                return self._compiler.compile_stock(space, host, stock, credentials)
            return self._compiler.compile(space, host, DEFAULT, credentials)
        except EmarsysCdpError as error:
            return str(error)

    def _of(self, ruled: Ruled) -> CompiledSpace:
        """Return the space that a document makes, of nobody yet."""
        known = self._compiled.get(id(ruled))
        if known is None:
            known = self._compiled[id(ruled)] = (ruled, self._compiler.compile("", "", ruled[0], NOBODY, ruled[1]))
        return known[1]

    def _renew(self) -> None:
        """Give the documents that came into force to the spaces that are known."""
        if self._documents is None:
            return
        for key in list(self._known):
            self._renew_one(key, self._documents)
        using = {id(ruled) for ruled in self._documents.everything()}
        self._compiled = {number: one for number, one in self._compiled.items() if number in using}

    def _renew_one(self, key: tuple[str, bytes], documents: Documents) -> None:
        """Give a known space its document of now; one whose document is gone is made anew when it is called."""
        ruled, known = documents.get(key[0]), self._known[key]
        if ruled is self._made_of[key]:
            return
        if ruled is None or isinstance(known, str):
            del self._known[key], self._made_of[key]
            return
        self._known[key] = structs.replace(self._of(ruled), id=known.id, host=known.host, credentials=known.credentials)
        self._made_of[key] = ruled
