"""
Access tokens of API v3: fetched rarely, shared sealed through the store.

Emarsys hands out 2 tokens a minute and 10 an hour per client, each for an hour, so a token is fetched once for all
workers, kept, and fetched again at half its life. A host sends requests later than we write them: it is given a token
only while that lives for another 15 minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from emarsys_cdp.credentials import OAuth
from emarsys_cdp.emarsys.client import Client, NoAnswer, NotSent
from emarsys_cdp.emarsys.headers import basic_header
from emarsys_cdp.emarsys.replies import Reply
from emarsys_cdp.emarsys.token_fetches import Fetches, Locked, Spent, release, take
from emarsys_cdp.secrets import Seal
from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells
from emarsys_cdp_hooks import RetryLater

MIN_LEFT: Final = 15 * 60 * 1000
"""Milliseconds that a token handed to a host lives at least: the host may wait before it sends."""

SENT_AT_ONCE: Final = 60 * 1000
"""Milliseconds that a token lives at least when the request is sent by us, now."""

DEFAULT_SECONDS: Final = 3600
"""Life of a token whose answer does not tell."""

LOOK_SECONDS: Final = 0.1
"""While another worker fetches a token, the store is looked at this often."""

REFUSED: Final = 600
"""Seconds until a secret that Emarsys refused twice is tried again: another one of its client shares the fetches."""

_FORM: Final = b"grant_type=client_credentials"


class KeyRefused(RetryLater):
    """The token URL does not take client_id and client_secret; calls are kept until somebody has mended them."""


class Token(Struct, frozen=True):
    """An access token with the times (ms since 1970) it was fetched and it ends."""

    text: str
    fetched: int
    ends: int

    def due(self, now: int) -> bool:
        """Tell whether half of its life is over, or so much that a host could not wait any more."""
        return now >= min((self.fetched + self.ends) // 2, self.ends - MIN_LEFT)

    def usable(self, now: int, left: int) -> bool:
        """Tell whether it lives for another *left* ms."""
        return self.ends - now >= left


class _Answer(Struct):
    access_token: str
    expires_in: float | None = None


class _Refusals(Struct, frozen=True, array_like=True):
    """How often a secret was refused, and until when (ms since 1970) it is not tried again."""

    number: int = 0
    until: int = 0


class Tokens:
    """
    Access tokens of all API Keys.

    *clock* gives ms since 1970 UTC; *holder* is a text of this worker that no other worker has.
    """

    def __init__(
        self, url: str, client: Client, store: Store, seal: Seal, clock: Callable[[], int], holder: str
    ) -> None:
        self._url = url
        self._client = client
        self._store = store
        self._seal = seal
        self._clock = clock
        self._holder = holder
        self._fetches = Cells(store, Fetches, Fetches())
        self._tokens: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def token(self, credentials: OAuth, left: int = MIN_LEFT, refused: str | None = None) -> str:
        """
        Return a token that lives for another *left* ms.

        *refused* is a token that Emarsys has just refused: another one is returned, which another worker may have
        fetched meanwhile.

        Raises:
            RetryLater: none can be had for now; the message says why and shows no secret.

        """
        name = self._name(credentials)
        token = self._tokens.get(name)
        if token is None or token.due(self._clock()) or token.text == refused:
            async with self._locks.setdefault(name, asyncio.Lock()):
                token = await self._renew(name, credentials, left, refused)
        return token.text

    def _name(self, credentials: OAuth) -> str:
        return self._hash("token", credentials.client_id, credentials.secret.reveal())

    def _hash(self, *parts: str) -> str:
        return sha256("\0".join((self._url, *parts)).encode()).hexdigest()[:32]

    async def _renew(self, name: str, credentials: OAuth, left: int, refused: str | None) -> Token:
        """Return the token that another worker has renewed, or a new one; the old one while it can be used."""
        while True:
            known = await self._newest(name, refused)
            if known is not None and not known.due(self._clock()):
                return known
            usable = known if known is not None and known.usable(self._clock(), left) else None
            taken = await self._take(credentials)
            if taken is None:
                try:
                    return await self._fetched(name, credentials, left)
                except RetryLater:
                    if usable is None:
                        raise
                    return usable
            if usable is not None:
                return usable
            if isinstance(taken, Spent):
                wait = (taken.until - self._clock()) // 1000 + 1
                raise RetryLater(f"no access token: Emarsys hands out the next one in {wait} s", taken.until)
            await asyncio.sleep(LOOK_SECONDS)

    async def _newest(self, name: str, refused: str | None) -> Token | None:
        """Return the token that lives longest, of this worker's and the stored one, but not the one refused."""
        now = self._clock()
        known = self._tokens.get(name)
        if known is None or known.due(now) or known.text == refused:
            found = [token for token in (known, await self._load(name)) if token is not None and token.text != refused]
            known = max(found, key=lambda token: token.ends, default=None)
            if known is not None:
                self._tokens[name] = known
        return known

    async def _take(self, credentials: OAuth) -> Locked | Spent | None:
        """Ask to fetch; the limits are those of the client, whatever its secret."""
        refusals = await self._refusals(credentials)
        if refusals.until > self._clock():
            return Spent(refusals.until)
        client = self._hash("client", credentials.client_id)
        return await self._fetches.change(client, lambda fetches: take(fetches, self._holder, self._clock()))

    async def _fetched(self, name: str, credentials: OAuth, left: int) -> Token:
        """Fetch a token and share it."""
        try:
            token = await self._fetch(credentials, left)
            self._tokens[name] = token
            sealed = self._seal.close(msgspec.msgpack.encode(token), name)
            await self._store.keep({name: sealed}, max(1, (token.ends - self._clock()) // 1000))
            return token
        finally:
            client = self._hash("client", credentials.client_id)
            await self._fetches.change(client, lambda fetches: (release(fetches, self._holder), None))

    async def _load(self, name: str) -> Token | None:
        sealed = await self._store.read_kept(name)
        plain = None if sealed is None else self._seal.open(sealed, name)
        return None if plain is None else msgspec.msgpack.decode(plain, type=Token)

    async def _fetch(self, credentials: OAuth, left: int) -> Token:
        now = self._clock()
        reply = await self._ask(credentials)
        if reply.status in (400, 401, 403):
            await self._count_refusal(credentials, now)
            raise KeyRefused(
                f"no access token: Emarsys refuses the API Key (HTTP {reply.status}); check client_id and "
                "client_secret under Management > Security Settings > API Credentials"
            )
        try:
            if reply.status != HTTPStatus.OK:
                raise ValueError(f"HTTP {reply.status}")
            answer = msgspec.json.decode(reply.body, type=_Answer)
            token = Token(answer.access_token, now, now + int((answer.expires_in or DEFAULT_SECONDS) * 1000))
        except (ValueError, OverflowError) as error:
            raise RetryLater(f"no access token: {self._url} answered HTTP {reply.status} without one") from error
        if not token.usable(now, left):
            raise RetryLater(f"no access token: those of {self._url} live less than {left // 60_000} minutes")
        return token

    async def _refusals(self, credentials: OAuth) -> _Refusals:
        content = await self._store.read_kept(self._hash("refused", self._name(credentials)))
        return _Refusals() if content is None else msgspec.msgpack.decode(content, type=_Refusals)

    async def _count_refusal(self, credentials: OAuth, now: int) -> None:
        """Let a secret that was refused twice wait, so that another one of the same client has fetches left."""
        number = (await self._refusals(credentials)).number + 1
        refusals = _Refusals(number, now + REFUSED * 1000 if number > 1 else 0)
        name = self._hash("refused", self._name(credentials))
        await self._store.keep({name: msgspec.msgpack.encode(refusals)}, 2 * REFUSED)

    async def _ask(self, credentials: OAuth) -> Reply:
        user, secret = quote(credentials.client_id, safe=""), quote(credentials.secret.reveal(), safe="")
        headers = {
            "Authorization": basic_header(user, secret),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        try:
            return await self._client.exchange("POST", self._url, headers, _FORM)
        except (NotSent, NoAnswer) as error:
            raise RetryLater(f"no access token: {self._url} cannot be reached ({error})") from error
