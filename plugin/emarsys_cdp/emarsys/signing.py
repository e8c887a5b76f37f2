"""Addresses and headers of Emarsys requests: base URL with API version, and who we are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from emarsys_cdp.credentials import Credentials, OAuth
from emarsys_cdp.emarsys.headers import NONCE_BYTES, wsse_header

JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
"""Headers of every request, GET included (API conventions)."""

_BEARER: Final = "Bearer "


class TokenSource(Protocol):
    """Where access tokens come from."""

    async def token(self, credentials: OAuth, left: int = ..., refused: str | None = None) -> str:
        """Return an access token, not the *refused* one; raises `RetryLater` when none can be had for now."""
        ...


class Signer:
    """Makes the headers of requests; *clock* gives ms since 1970, *random_bytes* the nonces."""

    def __init__(self, tokens: TokenSource, clock: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._random_bytes = random_bytes

    async def prepare(self, credentials: Credentials) -> Callable[[], Mapping[str, str]]:
        """
        Return a function that makes the headers of one request after another, for a host that sends later.

        Raises:
            RetryLater: there is no access token for now.

        """
        if isinstance(credentials, OAuth):
            bearer = {**JSON, "Authorization": _BEARER + await self._tokens.token(credentials)}
            return lambda: bearer
        return lambda: {
            **JSON,
            "X-WSSE": wsse_header(credentials, self._random_bytes(NONCE_BYTES), self._clock()),
        }

    async def sign(
        self, credentials: Credentials, left: int, refused: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """
        Return the headers of one request that is sent at once.

        An access token lives for another *left* ms; *refused* are headers that Emarsys has just refused.

        Raises:
            RetryLater: there is no access token for now.

        """
        if not isinstance(credentials, OAuth):
            return (await self.prepare(credentials))()
        old = None if refused is None else refused["Authorization"].removeprefix(_BEARER)
        return {**JSON, "Authorization": _BEARER + await self._tokens.token(credentials, left, old)}


def endpoint(api_base: str, credentials: Credentials, path: str) -> str:
    """Return the URL of a request: API v3 for OAuth 2.0, v2 for WSSE."""
    return f"{api_base}/{credentials.version}/{path}"
