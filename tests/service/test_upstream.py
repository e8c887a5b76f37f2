"""Every server here is a real one on loopback; stock is a plain socket, so that bytes can be compared."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from emarsys_cdp.droppable import DroppableProtocol
from emarsys_cdp.service.upstream import Upstream
from emarsys_cdp_hooks import StopAndFix

Stock = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BINARY = bytes(range(256)) * 20_000
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NOWHERE = "http://127.0.0.1:1"


@contextlib.asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Serve *app* with our protocol; yield its base URL."""
    config = uvicorn.Config(app, log_config=None, server_header=False, date_header=False)
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: DroppableProtocol(config, state, {}), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in list(state.connections):
            assert isinstance(connection, DroppableProtocol)
            connection.transport.abort()
        async with asyncio.timeout(10):
            await asyncio.gather(*state.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(stock: Stock) -> AsyncIterator[str]:
    """Call *stock* for each connection, then close it; yield the base URL."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        # Cancelled at the end of the test; asyncio's server would log that as an error.
        expected = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*expected):
            await stock(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@contextlib.asynccontextmanager
async def front(url: str, body: bytes | None = None, client: httpx.AsyncClient | None = None) -> AsyncIterator[str]:
    """Forward everything to *url*; yield the front's base URL."""
    upstream = Upstream(url, client=client)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream.forward(scope, receive, send, body)

    try:
        async with serving(app) as base:
            yield base
    finally:
        await upstream.close()


@contextlib.asynccontextmanager
async def through(stock: Stock, body: bytes | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a front of *stock*."""
    async with listening(stock) as url, front(url, body) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


async def connect(base: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a plain connection, as the host's side."""
    url = httpx.URL(base)
    return await asyncio.open_connection(url.host, url.port)


async def head(reader: asyncio.StreamReader) -> bytes:
    """Read a request or an answer up to its body."""
    return await reader.readuntil(b"\r\n\r\n")


def answering(answer: bytes, seen: list[bytes] | None = None) -> Stock:
    """Return a stock that reads a request with a content-length, notes it in *seen*, and sends *answer*."""

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = await head(reader)
        length = [line for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        if seen is not None:
            seen.extend((lines, body))
        writer.write(answer)
        await writer.drain()

    return stock


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an HTTP answer with its length."""
    return b"\r\n".join((b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers, b"", body))


async def ask(base: str, request: bytes) -> bytes:
    """Send *request* over a plain connection; return all that comes back until it is closed."""
    reader, writer = await connect(base)
    with contextlib.closing(writer):
        writer.write(request)
        return await reader.read()


def test_the_request_reaches_stock_as_received() -> None:
    """Path, query, headers and body are the host's own; only Host and what is about the connection change."""
    seen: list[bytes] = []
    request = (
        b"POST /v0//x%2Fy/../caf%C3%A9|{}?a=%20b&c=[]&&d HTTP/1.1\r\nHost: front\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\n"
        b"Accept-Encoding: gzip\r\nX-Feature-Gzip-Support: ?1\r\nX-Twice: a\r\nX-Twice: b\r\n"
        b"X-Latin: caf\xe9\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
    )

    async def run() -> str:
        async with listening(answering(OK, seen)) as url, front(url) as base:
            await ask(base, request)
        return url.removeprefix("http://")

    host = asyncio.run(run())

    assert [
        b"POST /v0//x%2Fy/../caf%C3%A9|{}?a=%20b&c=[]&&d HTTP/1.1",
        b"host: " + host.encode(),
        b"accept-encoding: gzip",
        b"x-feature-gzip-support: ?1",
        b"x-twice: a",
        b"x-twice: b",
        b"x-latin: caf\xe9",
        b"content-length: 4",
    ] == seen[0].rstrip().split(b"\r\n")
    assert seen[1] == b"\x00\xff\r\n"


def test_nothing_is_added_to_a_bare_request() -> None:
    """A request without body and headers has none at stock either."""
    seen: list[bytes] = []

    async def run() -> None:
        async with listening(answering(OK, seen)) as url, front(url + "/base/") as base:
            await ask(base, b"GET //other.example/ HTTP/1.1\r\nHost: front\r\nConnection: close\r\n\r\n")

    asyncio.run(run())

    request_line, host, *more = seen[0].rstrip().split(b"\r\n")
    assert request_line == b"GET /base//other.example/ HTTP/1.1"
    assert host.startswith(b"host: 127.0.0.1:")
    assert more == []


def test_a_body_that_was_read_already_is_sent() -> None:
    """The front looks into some bodies to see whose they are; they go on with their length."""
    seen: list[bytes] = []

    async def run() -> None:
        async with through(answering(OK, seen), body=b'{"destType":"braze"}') as host:
            await host.post("/routerTransform", content=b"read by the application")

    asyncio.run(run())

    assert b"\r\ncontent-length: 20\r\n" in seen[0]
    assert seen[1] == b'{"destType":"braze"}'


def test_the_answer_comes_back_as_stock_sent_it() -> None:
    """A compressed body is not touched, and the host finds stock's headers and no others."""
    packed = gzip.compress(b'{"output":[]}')
    stock_answer = answer(
        packed,
        b"Content-Encoding: gzip",
        b"apiVersion: 2",
        b"X-Rudder-Permanent-Error: true",
        b"X-Response-Time: 3 ms",
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
    )

    async def run() -> bytes:
        async with listening(answering(stock_answer)) as url, front(url) as base:
            return await ask(base, b"POST /x HTTP/1.1\r\nHost: f\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    lines, _, body = asyncio.run(run()).partition(b"\r\n\r\n")

    assert [
        b"HTTP/1.1 200 OK",
        b"content-length: %d" % len(packed),
        b"content-encoding: gzip",
        b"apiversion: 2",
        b"x-rudder-permanent-error: true",
        b"x-response-time: 3 ms",
        b"set-cookie: a=1",
        b"set-cookie: b=2",
        b"connection: close",
    ] == lines.split(b"\r\n")
    assert body == packed


def test_five_megabytes_pass_both_ways() -> None:
    """Binary bodies larger than every buffer arrive whole."""
    seen: list[bytes] = []

    async def run() -> httpx.Response:
        async with through(answering(answer(BINARY), seen)) as host:
            return await host.post("/x", content=BINARY)

    got = asyncio.run(run())

    assert seen[1] == BINARY
    assert got.content == BINARY


@pytest.mark.parametrize(
    ("status", "headers"),
    [(b"404 Not Found", ()), (b"500 Oops", ()), (b"302 Found", (b"location: /elsewhere",)), (b"418 I", ())],
)
def test_every_status_of_stock_passes(status: bytes, headers: tuple[bytes, ...]) -> None:
    """What stock says is what the host gets, a redirect as well."""

    async def run() -> httpx.Response:
        async with through(answering(answer(b"why", *headers, status=status))) as host:
            return await host.get("/x")

    got = asyncio.run(run())

    assert (got.status_code, got.content) == (int(status[:3]), b"why")


def test_a_head_request_has_no_body() -> None:
    """The length that stock names for HEAD is passed without a body."""
    stock_answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"

    async def run() -> httpx.Response:
        async with through(answering(stock_answer)) as host:
            return await host.head("/health")

    got = asyncio.run(run())

    assert (got.status_code, got.headers["content-length"], got.content) == (200, "7", b"")


def test_the_answer_streams() -> None:
    """The host has the first chunk before stock has made the second."""
    first_arrived = asyncio.Event()

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await first_arrived.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async def run() -> list[bytes]:
        chunks = []
        async with through(stock) as host, host.stream("GET", "/x") as response:
            async for chunk in response.aiter_raw():
                chunks.append(chunk)
                first_arrived.set()
        return chunks

    assert asyncio.run(run()) == [b"first", b"second"]


def test_the_request_streams() -> None:
    """Stock has the first chunk of the body before the host has made the second."""
    first_arrived = asyncio.Event()
    seen: list[bytes] = []

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend((await head(reader), await reader.readuntil(b"first\r\n")))
        first_arrived.set()
        seen.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(OK)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await first_arrived.wait()
        yield b"second"

    async def run() -> int:
        async with through(stock) as host:
            return (await host.post("/x", content=body())).status_code

    assert asyncio.run(run()) == 200
    assert b"\r\ntransfer-encoding: chunked\r\n" in seen[0]
    assert seen[1:] == [b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n"]


def assert_retried(got: httpx.Response, reason: str) -> None:
    """*got* is an answer after which the host keeps its events and asks again."""
    assert got.status_code == 503
    assert got.headers["x-rudder-should-retry"] == "true"
    assert got.headers["x-rudder-error-reason"] == reason
    assert got.json() == {"error": f"the stock transformer did not answer: {reason}"}


@pytest.mark.parametrize("path", ["/v0/destinations/braze", "/routerTransform", "/no/such/path", "/features"])
def test_stock_that_refuses_is_a_503(path: str) -> None:
    """While stock restarts the host retries, whatever the path is."""

    async def run() -> httpx.Response:
        async with front(NOWHERE) as base, httpx.AsyncClient(base_url=base) as host:
            return await host.post(path, json=[{}])

    assert_retried(asyncio.run(run()), "upstream_unreachable")


@pytest.mark.parametrize("partial", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"not HTTP\r\n\r\n"])
def test_stock_that_breaks_before_its_answer_is_a_503(partial: bytes) -> None:
    """As long as nothing has gone to the host, it can still be told to retry."""

    async def run() -> httpx.Response:
        async with through(answering(partial)) as host:
            return await host.post("/x", content=b"[]")

    assert_retried(asyncio.run(run()), "upstream_broke")


def test_stock_that_hangs_is_a_503() -> None:
    """The time-out of the client given is the one that counts."""

    async def stock(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> httpx.Response:
        impatient = httpx.AsyncClient(timeout=0.05)
        async with impatient, listening(stock) as url, front(url, client=impatient) as base:
            return await impatient.get(base + "/x", timeout=10)

    assert_retried(asyncio.run(run()), "upstream_timeout")


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[{}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[{}\r\nzz\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_not_ended(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The host sees the connection close within the answer, and never an answer that looks whole."""

    async def run() -> None:
        async with through(answering(broken)) as host:
            await host.get("/x")

    with pytest.raises(httpx.RemoteProtocolError, match=r"without sending complete message body|incomplete chunked"):
        asyncio.run(run())

    assert "BrokenAnswer: the stock transformer broke off its answer" in caplog.text


@pytest.mark.parametrize(
    ("request_part", "answer_part"),
    [
        (b"POST /x HTTP/1.1\r\nHost: f\r\nContent-Length: 9\r\n\r\n[{}", b""),
        (b"GET /x HTTP/1.1\r\nHost: f\r\n\r\n", b""),
        (b"GET /x HTTP/1.1\r\nHost: f\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[{}"),
    ],
)
def test_a_host_that_goes_away_ends_the_request_to_stock(
    request_part: bytes, answer_part: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """While it sends, while it waits and while it reads: stock does not work on for nobody."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer_part)
        asked.set()
        await reader.read()
        ended.set()

    async def run() -> None:
        async with listening(stock) as url, front(url) as base:
            reader, writer = await connect(base)
            writer.write(request_part)
            await asked.wait()
            if answer_part:
                await reader.readuntil(b"[{}")
            writer.close()
            async with asyncio.timeout(10):
                await ended.wait()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())

    assert caplog.records == []


def test_hundreds_of_requests_wait_at_stock_at_once() -> None:
    """The front adds no limit of connections of its own."""
    everybody = 300
    waiting: list[bytes] = []
    complete = asyncio.Event()

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(await head(reader))
        if len(waiting) == everybody:
            complete.set()
        await complete.wait()
        writer.write(OK)

    async def run() -> list[bytes]:
        async with listening(stock) as url, front(url) as base:
            bare = b"GET /x HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n"
            async with asyncio.timeout(30):
                return await asyncio.gather(*(ask(base, bare) for _ in range(everybody)))

    assert {OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")} == set(asyncio.run(run()))


def test_connections_to_stock_are_used_again() -> None:
    """The host opens a connection for each request; stock sees one."""
    connections = 0

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await head(reader)
            writer.write(OK)

    async def run() -> None:
        async with through(stock) as host:
            for _ in range(3):
                await host.get("/x", headers={"connection": "close"})

    asyncio.run(run())

    assert connections == 1


def test_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is for the world outside; stock is a neighbour."""
    seen: list[bytes] = []

    async def run() -> bytes:
        async with listening(answering(OK, seen)) as url, front(url) as base:
            return await ask(base, b"GET /x HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n")

    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    monkeypatch.setenv("ALL_PROXY", NOWHERE)

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "url", ["", "stock:9090", "ftp://stock", "http://", "http://a:hunter2@stock", "http://s/?q", "http://s:x"]
)
def test_a_url_that_cannot_be_stock_is_a_setting_to_fix(url: str) -> None:
    """The message names the setting and what is expected, and never shows the value."""
    with pytest.raises(StopAndFix, match=r"EMARSYS_CDP_UPSTREAM: expected http\[s\]://host") as caught:
        Upstream(url)

    assert "hunter2" not in str(caught.value)
