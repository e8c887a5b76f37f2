"""
The way to the stock transformer: what is not for Emarsys goes there, and its answer comes back unchanged.

Whatever happens, the host gets no answer by which it would throw events away: an outage is a 503 that it
retries, and an answer that breaks off is never ended as if it were whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeAlias
from urllib.parse import quote

import httpx
import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from emarsys_cdp_hooks import Json, RetryLater, StopAndFix

Headers: TypeAlias = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
"""Headers about one connection, https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1."""

TIMEOUT: Final = httpx.Timeout(connect=2, read=600, write=600, pool=None)
"""Seconds; reading is as patient as the host. There is no limit of connections to wait for."""

LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=2)
"""Idle connections are given up before Node closes them (5 s), else a request could meet a closing one."""

FEATURES_PATIENCE: Final = 5.0
"""Seconds for GET /features; the host itself gives up after 30."""

_log = structlog.get_logger()


class BrokenAnswer(RetryLater):
    """The stock transformer broke off in the middle of its answer: the host's connection is closed."""


class _HostGone(RetryLater):
    """The host closed its connection before its request was whole; nobody waits for an answer."""


class Upstream:
    """
    The stock transformer at *base_url* (`http://transformer:9090`), for as long as the service runs.

    *client* brings its own timeouts and limits, and is closed by whoever made it. Raises StopAndFix when
    *base_url* cannot be one.
    """

    def __init__(self, base_url: str, *, client: httpx.AsyncClient | None = None) -> None:
        self._base = _base(base_url)
        self._prefix = self._base.raw_path.rstrip(b"/")
        self._owned = client is None
        self._client = client or httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS, trust_env=False)

    async def forward(self, scope: Scope, receive: Receive, send: Send, body: bytes | None = None) -> None:
        """
        Answer the request of *scope* with the stock transformer's answer, or a 503 when there is none.

        *body* is the request's body where it was read already; it is streamed otherwise. Raises BrokenAnswer
        when the answer breaks off. A host that goes away ends the request to the stock transformer as well.
        """
        incoming = _Incoming(receive, body)
        relay = asyncio.create_task(self._relay(self._request(scope, incoming), incoming, send))
        gone = asyncio.create_task(incoming.host_gone())
        try:
            await asyncio.wait({relay, gone}, return_when=asyncio.FIRST_COMPLETED)
            if relay.done():
                relay.result()
        finally:
            relay.cancel()
            gone.cancel()
            await asyncio.gather(relay, gone, return_exceptions=True)

    async def features(self, patience: float = FEATURES_PATIENCE) -> dict[str, Json] | None:
        """Return stock's answer to GET /features; None without a good one within *patience* seconds."""
        url = self._base.copy_with(raw_path=self._prefix + b"/features")
        try:
            async with asyncio.timeout(patience):
                response = await self._client.get(url, follow_redirects=False)
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=dict[str, Json])
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            _log.warning("upstream_features_missed", error=repr(error))
            return None

    async def close(self) -> None:
        """Close the connections to the stock transformer."""
        if self._owned:
            await self._client.aclose()

    def _request(self, scope: Scope, incoming: _Incoming) -> httpx.Request:
        path = scope.get("raw_path") or quote(scope["path"]).encode()
        query = scope["query_string"]
        # As a target the path stays as it was received; as a URL httpx would normalise it.
        target = self._prefix + path + (b"?" + query if query else b"")
        headers = [(b"host", self._base.netloc), *_request_headers(scope["headers"], incoming.body)]
        how = {"target": target, "timeout": self._client.timeout.as_dict()}
        return httpx.Request(scope["method"], self._base, headers=headers, stream=incoming, extensions=how)

    async def _relay(self, request: httpx.Request, incoming: _Incoming, send: Send) -> None:
        try:
            response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        except _HostGone:
            return
        except httpx.HTTPError as error:
            await _answer_unavailable(send, error)
        else:
            incoming.done.set()
            await _pass_on(response, send)


class _Incoming(httpx.AsyncByteStream):
    """The body of the host's request as it arrives, and afterwards the news that the host went away."""

    def __init__(self, receive: Receive, body: bytes | None) -> None:
        self.body = body
        self.done = asyncio.Event()
        self._receive = receive

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.body is not None:
            yield self.body
        more = self.body is None
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _HostGone
            yield message.get("body", b"")
            more = message.get("more_body", False)
        self.done.set()

    async def host_gone(self) -> None:
        """Return when the host has closed its connection; what is left of its body is of no use by then."""
        await self.done.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _base(url: str) -> httpx.URL:
    with contextlib.suppress(httpx.InvalidURL):
        base = httpx.URL(url)
        if base.scheme in {"http", "https"} and base.host and not set("@?#").intersection(url):
            return base
    # The value is not shown: it may be one with a password.
    raise StopAndFix("EMARSYS_CDP_UPSTREAM: expected http[s]://host[:port][/path], without user and query")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    lowered = [(name.lower(), value) for name, value in headers]
    listed = b",".join(value for name, value in lowered if name == b"connection")
    dropped = HOP_BY_HOP.union(token.strip().lower() for token in listed.split(b","))
    return [(name, value) for name, value in lowered if name not in dropped]


def _request_headers(received: Headers, body: bytes | None) -> Headers:
    replaced = {b"host"} if body is None else {b"host", b"content-length"}
    kept = [(name, value) for name, value in _end_to_end(received) if name not in replaced]
    if body is not None:
        kept.append((b"content-length", b"%d" % len(body)))
    elif any(name == b"transfer-encoding" for name, _ in received):
        kept.append((b"transfer-encoding", b"chunked"))
    return kept


async def _pass_on(response: httpx.Response, send: Send) -> None:
    headers = _end_to_end(response.headers.raw)
    try:
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for chunk in response.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except httpx.HTTPError as error:
        raise BrokenAnswer(f"the stock transformer broke off its answer: {error!r}") from None
    finally:
        await response.aclose()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer_unavailable(send: Send, error: httpx.HTTPError) -> None:
    reason = _reason(error)
    _log.warning("upstream_failed", reason=reason, error=repr(error))
    body = msgspec.json.encode({"error": f"the stock transformer did not answer: {reason}"})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-rudder-should-retry", b"true"),
        (b"x-rudder-error-reason", reason.encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "upstream_unreachable"
    return "upstream_timeout" if isinstance(error, httpx.TimeoutException) else "upstream_broke"
