"""What the client of Emarsys does and does not do, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from emarsys_cdp.emarsys import client as module
from emarsys_cdp.emarsys.client import Client, NoAnswer, NotSent, open_http
from emarsys_cdp.emarsys.replies import Reply

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """Run a server that answers connections like this."""
    running = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/api/v3/contact/"


def says(text: bytes) -> tuple[Answer, list[bytes]]:
    """Return what answers every request on a connection with *text*, and the heads of the requests it gets."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                writer.write(text)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return answer, heads


def exchange(answer: Answer, times: int = 1, seconds: float = 2.0) -> list[Reply]:
    """Send requests one after another and return the answers."""

    async def main() -> list[Reply]:
        async with server(answer) as url, open_http() as http:
            client = Client(http, seconds)
            return [await client.exchange("PUT", url, {"X-WSSE": "x"}, b"{}") for _ in range(times)]

    return asyncio.run(main())


def test_redirects_are_not_followed() -> None:
    """They would take the signature elsewhere."""
    elsewhere, heads = says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
    (reply,) = exchange(elsewhere)

    assert reply.status == 302
    assert len(heads) == 1


def test_a_connection_is_used_again() -> None:
    """Handshakes cost more than requests."""
    connections = 0
    answer, heads = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answer(reader, writer)

    replies = exchange(counted, times=5)

    assert [reply.body for reply in replies] == [b"{}"] * 5
    assert (connections, len(heads)) == (1, 5)


def test_the_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets them for other programs does not see our secrets."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    answer, heads = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    assert exchange(answer)[0].status == 200
    assert len(heads) == 1


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers without an end fills no memory."""
    monkeypatch.setattr(module, "MAX_REPLY", 1000)
    endless, _ = says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 0x400 + b"\r\n")

    with pytest.raises(NoAnswer, match="no whole answer"):
        exchange(endless)


def test_a_slow_answer_is_given_up_however_it_trickles() -> None:
    """The time is that of the whole exchange, not that between two bytes."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    with pytest.raises(NoAnswer, match=r"no answer within 0\.3 s"):
        exchange(trickle, seconds=0.3)


def test_nobody_there_is_told_from_no_answer() -> None:
    """A request that cannot have reached Emarsys may be sent again without a second thought."""

    async def main() -> None:
        async with open_http() as http:
            await Client(http).exchange("PUT", "http://127.0.0.1:1/", {}, b"")

    with pytest.raises(NotSent, match="no connection"):
        asyncio.run(main())
