"""Addresses and headers of Emarsys requests: base URL with API version, and who we are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from emarsys_cdp.credentials import Credentials, OAuth
from emarsys_cdp.emarsys.wsse import NONCE_BYTES, wsse_header

_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class TokenSource(Protocol):
    """Where access tokens come from."""

    async def token(self, credentials: OAuth) -> str:
        """Return an access token; raises `RetryLater` when none can be had for now."""
        ...


class Signer:
    """Makes the headers of requests; *clock* gives ms since 1970, *random_bytes* the nonces."""

    def __init__(self, tokens: TokenSource, clock: Callable[[], int], random_bytes: Callable[[int], bytes]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._random_bytes = random_bytes

    async def prepare(self, credentials: Credentials) -> Callable[[], Mapping[str, str]]:
        """
        Return a function that makes the headers of one request after another.

        Raises:
            RetryLater: there is no access token for now.

        """
        if isinstance(credentials, OAuth):
            bearer = {**_JSON, "Authorization": f"Bearer {await self._tokens.token(credentials)}"}
            return lambda: bearer
        return lambda: {
            **_JSON,
            "X-WSSE": wsse_header(credentials, self._random_bytes(NONCE_BYTES), self._clock()),
        }


def endpoint(api_base: str, credentials: Credentials, path: str) -> str:
    """Return the URL of a request: API v3 for OAuth 2.0, v2 for WSSE."""
    return f"{api_base}/{credentials.version}/{path}"
