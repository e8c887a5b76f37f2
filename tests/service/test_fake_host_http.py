"""The HTTP client of a FakeHost against plain sockets: framing, kept connections, all ways of not answering."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from emarsys_cdp.testing.fake_host.http_client import HttpClient, NoAnswer, Response

Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def listening(serve: Serving) -> AsyncIterator[str]:
    """Serve every connection with *serve*, then close it; yields the URL."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        expected = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*expected):
            await serve(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


def answering(*answers: bytes, seen: list[bytes] | None = None) -> Serving:
    """Return what answers requests on one connection, one after another, and closes it then."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            if seen is not None:
                seen.append(head + body)
            writer.write(answer)
            await writer.drain()

    return serve


async def asked(
    url: str, *, method: str = "POST", body: bytes | None = b"{}", timeout: float = 5.0, keep_alive: bool = False
) -> Response:
    """Send one request on a client of its own."""
    client = HttpClient(keep_alive=keep_alive)
    try:
        return await client.request(method, url, {"X-A": "b"}, body, timeout)
    finally:
        await client.close()


def ask(answer: bytes, path: str = "/p", **options: object) -> Response:
    """Ask a server that answers so."""

    async def run() -> Response:
        async with listening(answering(answer)) as url:
            return await asked(url + path, **options)  # type: ignore[arg-type]  # each test passes what fits

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (OK, Response(200, {"content-length": "2"}, b"ok")),
        (
            b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            Response(503, {"transfer-encoding": "chunked"}, b"abc"),
        ),
        (b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nto the end", Response(200, {"x": "y"}, b"to the end")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, {}, b"")),
        (b"HTTP/1.1 100 Continue\r\nI: n\r\n\r\n" + OK, Response(200, {"content-length": "2"}, b"ok")),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", None),
    ],
    ids=["length", "chunked", "until the end", "no body", "after 100", "redirect"],
)
def test_answers_of_every_framing(answer: bytes, want: Response | None) -> None:
    """Status, headers and the whole body; a redirect is an answer like any other."""
    got = ask(answer)

    assert got == (want or Response(302, {"location": "/x", "content-length": "0"}, b""))


def test_gzip_is_inflated() -> None:
    """As Go does without being told."""
    body = gzip.compress(b"x" * 10_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

    assert ask(head + body).body == b"x" * 10_000


def test_what_goes_over_the_wire() -> None:
    """The target with its query, the host, the headers, the length, and that the connection is for once only."""
    seen: list[bytes] = []

    async def run() -> str:
        async with listening(answering(OK, seen=seen)) as url:
            await asked(f"{url}/a b/ä?q=1 2%20", body=b"{}")
            return url.removeprefix("http://")

    host = asyncio.run(run())
    assert seen == [
        b"POST /a%20b/%C3%A4?q=1%202%20 HTTP/1.1\r\nHost: " + host.encode() + b"\r\nX-A: b\r\nContent-Length: 2\r\n"
        b"Accept-Encoding: gzip\r\nConnection: close\r\n\r\n{}"
    ]


@pytest.mark.parametrize(("keep_alive", "connections"), [(True, 1), (False, 3)])
def test_connections_are_kept_where_it_is_wanted(keep_alive: bool, connections: int) -> None:
    """Else each request has its own."""
    opened = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await answering(OK, OK, OK, OK)(reader, writer)

    async def run() -> None:
        async with listening(serve) as url:
            client = HttpClient(keep_alive=keep_alive)
            for _ in range(3):
                await client.request("GET", url, {}, None, 5)
            await client.close()

    asyncio.run(run())
    assert len(opened) == connections


def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    """A server may close it at any time between two requests."""

    async def run() -> list[int]:
        async with listening(answering(OK)) as url:
            client = HttpClient(keep_alive=True)
            statuses = []
            for _ in range(3):
                statuses.append((await client.request("GET", url, {}, None, 5)).status)
                await asyncio.sleep(0.05)
            await client.close()
            return statuses

    assert asyncio.run(run()) == [200, 200, 200]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "closed before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf", "closed before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "closed before the answer was whole"),
        (b"SSH-2.0-x\r\n", "is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "is no gzip"),
    ],
)
def test_half_an_answer_is_none(answer: bytes, message: str) -> None:
    """Whatever breaks off or cannot be read."""
    with pytest.raises(NoAnswer, match=message):
        ask(answer)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "/relative", "http://[::1/", "http://127.0.0.1:99999/"]
)
def test_an_address_where_nobody_is(url: str) -> None:
    """It is no answer, like any other fault of the network."""
    with pytest.raises(NoAnswer) as no_answer:
        asyncio.run(asked(url))

    assert not no_answer.value.timed_out


@pytest.mark.parametrize("header", [{"A b": "c"}, {"A": "b\r\nX: y"}, {"": "b"}])
def test_headers_that_would_break_the_request_are_not_sent(header: dict[str, str]) -> None:
    """Neither names nor values may smuggle anything in."""

    async def run() -> None:
        client = HttpClient(keep_alive=False)
        try:
            await client.request("GET", "http://127.0.0.1:1/", header, None, 5)
        finally:
            await client.close()

    with pytest.raises(NoAnswer, match="no header that can be sent"):
        asyncio.run(run())


def test_waiting_has_an_end() -> None:
    """A server that says nothing is given up, and the next request finds the client well."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        writer.close()

    async def run() -> Response:
        client = HttpClient(keep_alive=True)
        async with listening(silent) as quiet, listening(answering(OK)) as good:
            with pytest.raises(NoAnswer, match=r"no answer within 0\.05 s") as no_answer:
                await client.request("GET", quiet, {}, None, 0.05)
            assert no_answer.value.timed_out
            answer = await client.request("GET", good, {}, None, 5)
        await client.close()
        return answer

    assert asyncio.run(run()).status == 200
