"""
Access tokens of API v3: fetched rarely, shared sealed through the store.

Emarsys hands out 2 tokens a minute and 10 an hour per client, each for an hour, so a token is fetched once, kept,
and fetched again at half its life. The host sends requests later than we write them: a token is handed out only
while it lives for another 15 minutes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct

from emarsys_cdp.credentials import OAuth
from emarsys_cdp.secrets import Seal
from emarsys_cdp.store import Store
from emarsys_cdp_hooks import RetryLater

MIN_LEFT = 15 * 60 * 1000
"""Milliseconds that a handed-out token lives at least: the host may wait before it sends."""

FETCHES = ((2, 60_000), (10, 3_600_000))
"""Token requests per client and milliseconds (authentication guide of API v3)."""

DEFAULT_SECONDS = 3600
"""Life of a token whose answer does not tell."""

FETCH_SECONDS = 10.0


class Token(Struct, frozen=True):
    """An access token with the times (ms since 1970) it was fetched and it ends."""

    text: str
    fetched: int
    ends: int

    def due(self, now: int) -> bool:
        """Tell whether half of its life is over, or so much that a host could not wait any more."""
        return now >= min((self.fetched + self.ends) // 2, self.ends - MIN_LEFT)

    def usable(self, now: int) -> bool:
        """Tell whether a host that waits before sending can still use it."""
        return self.ends - now >= MIN_LEFT


class _Answer(Struct):
    access_token: str
    expires_in: float | None = None


class Tokens:
    """Access tokens of all API Keys, for one worker."""

    def __init__(self, url: str, client: httpx.AsyncClient, store: Store, seal: Seal, clock: Callable[[], int]) -> None:
        self._url = url
        self._client = client
        self._store = store
        self._seal = seal
        self._clock = clock
        self._tokens: dict[str, Token] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._fetched: dict[str, deque[int]] = {}

    async def token(self, credentials: OAuth) -> str:
        """
        Return a token that lives for another 15 minutes.

        Raises:
            RetryLater: none can be had for now; the message says why and shows no secret.

        """
        name = self._name(credentials)
        token = self._tokens.get(name)
        if token is None or token.due(self._clock()):
            async with self._locks.setdefault(name, asyncio.Lock()):
                token = await self._renew(name, credentials)
        return token.text

    def _name(self, credentials: OAuth) -> str:
        parts = "\0".join((self._url, credentials.client_id, credentials.secret.reveal()))
        return sha256(parts.encode()).hexdigest()[:32]

    async def _renew(self, name: str, credentials: OAuth) -> Token:
        """Return the token that another worker has renewed, or a new one; the old one while it can be used."""
        now = self._clock()
        known = self._tokens.get(name)
        if known is None or known.due(now):
            known = max(filter(None, (known, await self._load(name))), key=lambda token: token.ends, default=None)
        if known is not None and not known.due(now):
            self._tokens[name] = known
            return known
        try:
            token = await self._fetch(name, credentials, now)
        except RetryLater:
            if known is None or not known.usable(now):
                raise
            return known
        self._tokens[name] = token
        sealed = self._seal.close(msgspec.msgpack.encode(token), name)
        await self._store.keep(name, sealed, max(1, (token.ends - now) // 1000))
        return token

    async def _load(self, name: str) -> Token | None:
        sealed = await self._store.read_kept(name)
        plain = None if sealed is None else self._seal.open(sealed, name)
        return None if plain is None else msgspec.msgpack.decode(plain, type=Token)

    async def _fetch(self, name: str, credentials: OAuth, now: int) -> Token:
        self._spend(name, now)
        user, secret = quote(credentials.client_id, safe=""), quote(credentials.secret.reveal(), safe="")
        try:
            reply = await self._client.post(
                self._url,
                data={"grant_type": "client_credentials"},
                auth=httpx.BasicAuth(user, secret),
                timeout=FETCH_SECONDS,
            )
        except httpx.HTTPError as error:
            raise RetryLater(f"no access token: {self._url} cannot be reached ({type(error).__name__})") from error
        if reply.status_code in (400, 401, 403):
            raise RetryLater(
                f"no access token: Emarsys refuses the API Key (HTTP {reply.status_code}); check client_id and "
                "client_secret under Management > Security Settings > API Credentials"
            )
        try:
            reply.raise_for_status()
            answer = msgspec.json.decode(reply.content, type=_Answer)
        except (httpx.HTTPStatusError, msgspec.MsgspecError) as error:
            raise RetryLater(f"no access token: {self._url} answered HTTP {reply.status_code}") from error
        token = Token(answer.access_token, now, now + int((answer.expires_in or DEFAULT_SECONDS) * 1000))
        if not token.usable(now):
            raise RetryLater(f"no access token: those of {self._url} live less than {MIN_LEFT // 60_000} minutes")
        return token

    def _spend(self, name: str, now: int) -> None:
        """Count a fetch against Emarsys's limits; refuse it when they are used up."""
        times = self._fetched.setdefault(name, deque(maxlen=FETCHES[-1][0]))
        for count, period in FETCHES:
            if len(times) >= count and times[-count] > now - period:
                wait = (times[-count] + period - now) // 1000 + 1
                raise RetryLater(f"no access token: Emarsys hands out the next one in {wait} s")
        times.append(now)
