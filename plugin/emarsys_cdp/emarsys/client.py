"""
The only module that sends anything to Emarsys: one HTTP exchange, and what it may and may not do.

Connections are kept and verified, redirects are not followed, the environment's proxies are not used, and an answer is
read up to a bound. Whoever calls decides about repeating.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import httpx

from emarsys_cdp.emarsys.replies import Reply
from emarsys_cdp_hooks import EmarsysCdpError

SECONDS: Final = 10.0
"""By default an exchange is given up after this long, as RudderStack does (`Router.EMARSYS.httpTimeout`)."""

CONNECT_SECONDS: Final = 5.0

MAX_REPLY: Final = 32 * 1024 * 1024
"""Largest answer that is read, in bytes: 1,000 rows with an error text each have a tenth of a megabyte."""

_LIMITS: Final = httpx.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30)


class NotSent(EmarsysCdpError):
    """The request cannot have reached Emarsys: there was no connection."""


class NoAnswer(EmarsysCdpError):
    """The request was sent, and whether Emarsys has processed it nobody knows."""


def open_http(proxy: str | None = None) -> httpx.AsyncClient:
    """Return connections to Emarsys; *proxy* is the URL of an HTTP proxy on the way there."""
    return httpx.AsyncClient(
        proxy=proxy,
        limits=_LIMITS,
        timeout=httpx.Timeout(SECONDS, connect=CONNECT_SECONDS),
        trust_env=False,
        follow_redirects=False,
    )


class Client:
    """Exchanges requests for answers over *http*, which is closed by whoever made it; waits *seconds* for each."""

    def __init__(self, http: httpx.AsyncClient, seconds: float = SECONDS) -> None:
        self._http = http
        self.seconds = seconds

    async def exchange(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> Reply:
        """
        Send one request once and return its answer, whatever its status.

        Raises:
            NotSent: no connection came about, so Emarsys knows nothing of it.
            NoAnswer: the connection broke, or no whole answer came in time; it may have been processed.

        """
        try:
            async with asyncio.timeout(self.seconds), self._stream(method, url, headers, content) as answer:
                body = await _read(answer)
                return Reply(answer.status_code, {name.lower(): text for name, text in answer.headers.items()}, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise NotSent(f"no connection: {type(error).__name__}") from error
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {self.seconds:g} s") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise NoAnswer(f"no whole answer: {type(error).__name__}") from error

    def _stream(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream(method, url, headers=dict(headers), content=content, follow_redirects=False)


async def _read(answer: httpx.Response) -> bytes:
    pieces, size = [], 0
    async for piece in answer.aiter_bytes():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REPLY:
            raise httpx.StreamError(f"the answer has more than {MAX_REPLY} bytes")
    return b"".join(pieces)
