"""
Which spaces send as which API user, and the API Key of each space as it was seen last.

The host sends the settings with each request. What is done without one - deletions name no destination, timers have no
request at all - finds them here. API Keys rest sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from emarsys_cdp.credentials import Credentials, OAuth, Secret, Wsse
from emarsys_cdp.secrets import Seal
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.known_spaces import KnownSpaces, SpaceLists

KEPT_SECONDS: Final = 400 * 24 * 3600
"""A space that sends nothing for longer is forgotten."""

MAX_KNOWN: Final = 10_000
"""API Keys of spaces that a worker remembers to have written."""


class _ApiKey(Struct, frozen=True, array_like=True):
    """Credentials as they are sealed."""

    version: str
    name: str
    secret: str


class Directory:
    """Remembers spaces for all workers. *namer* hides what names are made of."""

    def __init__(self, store: Store, seal: Seal, namer: Namer) -> None:
        self._store = store
        self._seal = seal
        self._namer = namer
        self._of_user = SpaceLists(store)
        self._every = KnownSpaces(store, namer)
        self._known: set[tuple[str, Credentials]] = set()

    async def seen(self, space: str, credentials: Credentials) -> None:
        """Remember the API Key of a space; raises `StoreUnavailable`."""
        if (space, credentials) in self._known:
            return
        sealed = self._seal.close(msgspec.msgpack.encode(_packed(credentials)), self._name(space))
        await self._store.keep({self._name(space): sealed}, KEPT_SECONDS)
        await self._of_user.add(self._user(credentials), space)
        await self._every.add(space)
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        self._known.add((space, credentials))

    async def credentials(self, space: str) -> Credentials | None:
        """Return the API Key that a space had last; raises `StoreUnavailable`."""
        name = self._name(space)
        sealed = await self._store.read_kept(name)
        plain = None if sealed is None else self._seal.open(sealed, name)
        return None if plain is None else _unpacked(msgspec.msgpack.decode(plain, type=_ApiKey))

    async def spaces(self, credentials: Credentials) -> Sequence[str]:
        """Return the spaces that send with an API Key's user; raises `StoreUnavailable`."""
        return await self._of_user.read(self._user(credentials))

    def _user(self, credentials: Credentials) -> str:
        return self._namer("", "api-user", f"{credentials.version}\0{_packed(credentials).name}")

    def _name(self, space: str) -> str:
        return self._namer(space, "api-key", "")


def _packed(credentials: Credentials) -> _ApiKey:
    name = credentials.client_id if isinstance(credentials, OAuth) else credentials.user
    return _ApiKey(credentials.version, name, credentials.secret.reveal())


def _unpacked(key: _ApiKey) -> Credentials:
    secret = Secret(key.secret)
    return OAuth(key.name, secret) if key.version == OAuth.version else Wsse(key.name, secret)
