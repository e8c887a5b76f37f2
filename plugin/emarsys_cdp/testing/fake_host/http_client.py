"""
A small HTTP/1.1 client for many short requests: what Go's is to a RudderStack server.

One connection for each request unless connections are kept (reference 1.1); gzip is asked for and inflated; redirects
are answers like any other, which is where it differs from Go.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httptools
from msgspec import Struct

from emarsys_cdp_hooks import RetryLater, StopAndFix

Server: TypeAlias = tuple[str, int, bool]
"""Host name, port, and whether it speaks TLS."""

MAX_CONNECTIONS: Final = 100
"""Transformer.Client.maxHTTPConnections."""
IDLE_SECONDS: Final = 3.0
"""Connections that were idle for longer are not used again: uvicorn and Node close them after 5 s."""

_PRINTABLE: Final = "".join(map(chr, range(33, 127)))
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL: Final = re.compile("[\0-\x08\x0a-\x1f\x7f]")
_PORTS: Final = {"http": 80, "https": 443}


class NoAnswer(RetryLater):
    """There was no whole answer to a request. *timed_out* tells whether it was waited for too long."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        self.timed_out = timed_out
        super().__init__(message)


class Response(Struct, frozen=True):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Address:
    """
    Where a transformer is: `http://host:9090`, also below a path and with `user:password@`.

    *token* is sent as the password of basic authentication, as is a password in the URL.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            right = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        except ValueError:
            right = False
        if not right:
            raise StopAndFix("the transformer's address must be a URL such as http://127.0.0.1:9090")
        name = parts.hostname or ""
        host = f"[{name}]" if ":" in name else name
        self.base = f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
        password = token if token is not None else unquote(parts.password or "")
        self.authorization: dict[str, str] = {}
        if password or parts.username:
            pair = f"{unquote(parts.username or '')}:{password}"
            self.authorization = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


class HttpClient:
    """Sends requests; *keep_alive*: over connections that are used again. It has to be closed."""

    def __init__(self, *, keep_alive: bool) -> None:
        self._keep_alive = keep_alive
        self._idle: defaultdict[Server, list[_Connection]] = defaultdict(list)
        self._open: set[_Connection] = set()
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> Response:
        """
        Send one request and return its answer.

        Raises:
            NoAnswer: it could not be sent, or was not answered as a whole within *timeout* seconds.

        """
        server, head = _head(method, url, headers, body, keep_alive=self._keep_alive)
        async with self._free:
            try:
                async with asyncio.timeout(timeout):
                    return await self._exchange(server, head + (body or b""))
            except TimeoutError as error:
                raise NoAnswer(f"no answer within {timeout:g} s", timed_out=True) from error
            except OSError as error:
                raise NoAnswer(f"no connection: {error.strerror or type(error).__name__}") from error

    async def _exchange(self, server: Server, request: bytes) -> Response:
        connection = self._kept(server) or await self._connected(server)
        try:
            response = await connection.exchange(request)
        except BaseException:
            connection.abort()
            raise
        if self._keep_alive and connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle[server].append(connection)
        else:
            connection.abort()
        return response

    def _kept(self, server: Server) -> _Connection | None:
        idle, now = self._idle[server], asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.reusable and now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connected(self, server: Server) -> _Connection:
        host, port, tls = server
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._open), host, port, ssl=tls or None
        )
        return connection

    async def close(self) -> None:
        """Close all connections and wait until they are."""
        for connection in list(self._open):
            connection.abort()
        await asyncio.gather(*[connection.closed.wait() for connection in list(self._open)])


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, and its answer. *others* are all that are open."""

    transport: asyncio.Transport

    def __init__(self, others: set[_Connection]) -> None:
        self._others = others
        self._answer: asyncio.Future[Response] | None = None
        self._parser: Any = None
        self.closed = asyncio.Event()
        self.idle_since = 0.0
        self.reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._others.add(self)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not of that class

    async def exchange(self, request: bytes) -> Response:
        """Send the bytes of a request and return the answer. Raises NoAnswer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._status, self._headers, self._body, self._to_the_end = 0, dict[str, str](), list[bytes](), False
        self.reusable = False
        self.transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._answer is None or self._answer.done():
            self.abort()  # an answer that nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP: {error}")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the status, and whether the body ends with the connection."""
        self._status = self._parser.get_status_code()
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        self._to_the_end = not framed and self._status >= HTTPStatus.OK

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Hand the answer over, unless it only announces one."""
        if self._status < HTTPStatus.OK:
            self._headers, self._body = {}, []
            return
        self.reusable = self._parser.should_keep_alive()
        self._finish()

    def _finish(self) -> None:
        body = b"".join(self._body)
        try:
            if self._headers.get("content-encoding", "").lower() == "gzip":
                body = zlib.decompress(body, wbits=31)
        except zlib.error:
            self._fail("the answer is no gzip")
            return
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Response(self._status, self._headers, body))
        self._headers, self._body = {}, []  # what may follow is not of this answer

    def connection_lost(self, error: Exception | None) -> None:
        """End what was going on."""
        self.reusable = False
        self._others.discard(self)
        self.closed.set()
        if self._answer is None or self._answer.done():
            return
        if error is None and self._status and self._to_the_end:
            self._finish()
        else:
            self._fail("the connection was closed before the answer was whole")

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswer(message))
        self.transport.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self.reusable = False
        self.transport.abort()


def _head(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, keep_alive: bool
) -> tuple[Server, bytes]:
    """Return where to connect to and the head of a request, body length included."""
    try:
        parts = urlsplit(url)
        server = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0), parts.scheme == "https")
    except ValueError as error:
        raise NoAnswer(f"{url!r} is no URL") from error
    if not server[0] or not server[1]:
        raise NoAnswer(f"{url!r} is no URL that starts with http:// or https://")
    given = {name.lower() for name in headers}
    every = [("Host", parts.netloc.rpartition("@")[2]), *headers.items()]
    if body is not None or method in ("POST", "PUT", "PATCH"):
        every = [pair for pair in every if pair[0].lower() != "content-length"]
        every.append(("Content-Length", str(len(body or b""))))
    if "accept-encoding" not in given:
        every.append(("Accept-Encoding", "gzip"))
    if not keep_alive:
        every.append(("Connection", "close"))
    return server, _lines(method, parts, every)


def _lines(method: str, parts: SplitResult, headers: list[tuple[str, str]]) -> bytes:
    target = quote(parts.path or "/", _PRINTABLE) + (f"?{quote(parts.query, _PRINTABLE)}" if parts.query else "")
    lines = [f"{method} {target} HTTP/1.1".encode()]
    for name, value in headers:
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise NoAnswer(f"{name!r} is no header that can be sent")
        lines.append(f"{name}: {value.strip()}".encode())
    return b"\r\n".join((*lines, b"", b""))
