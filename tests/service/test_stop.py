"""The end of the service, moment by moment: a real server on a real socket, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import TypeVar

import pytest
import uvloop
from tests.support.world import make_service

from emarsys_cdp.service import server as server_module
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.service.server import Server, make_server
from emarsys_cdp.settings import Settings
from emarsys_cdp.store.memory import MemoryStore

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
T = TypeVar("T")


@asynccontextmanager
async def opened() -> AsyncIterator[Service]:
    """Make the service."""
    yield make_service(MemoryStore())


def run(use: Callable[[Server, socket.socket], Awaitable[T]]) -> T:
    """Use a server that listens, and a socket that is to be connected to it."""

    async def main() -> T:
        server = make_server(Settings(), "127.0.0.1", 0, open_service=opened)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup()
        with closing(socket.socket()) as client:
            return await use(server, client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def connect(server: Server, client: socket.socket) -> None:
    """Connect without letting the server notice it: the kernel accepts by itself."""
    client.connect(server.servers[0].sockets[0].getsockname()[:2])
    client.setblocking(False)


async def answer(client: socket.socket) -> bytes:
    """Return what arrives, to the end of the body."""
    async with asyncio.timeout(10):
        data = b""
        while not data.endswith(b"}"):
            piece = await asyncio.get_running_loop().sock_recv(client, 10_000)
            assert piece, data
            data += piece
        return data


def test_what_waits_in_the_kernel_is_answered() -> None:
    """A connection that was accepted by the kernel but not yet by us when we stop is not reset."""

    async def use(server: Server, client: socket.socket) -> bytes:
        connect(server, client)
        client.sendall(HEALTH)
        await server.shutdown()
        return await answer(client)

    head = run(use).lower()

    assert head.startswith(b"http/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in head


def test_a_kept_connection_may_send_once_more() -> None:
    """A request that comes on an open connection after the stop is answered, and then the connection is closed."""

    async def use(server: Server, client: socket.socket) -> tuple[bytes, bytes, bytes]:
        connect(server, client)
        client.sendall(HEALTH)
        first = await answer(client)
        stopping = asyncio.create_task(server.shutdown())
        await asyncio.sleep(0.1)
        client.sendall(HEALTH)
        second = await answer(client)
        end = await asyncio.get_running_loop().sock_recv(client, 1)
        await stopping
        return first, second, end

    first, second, end = run(use)

    assert b"connection: close" not in first.lower()
    assert b"\r\nconnection: close\r\n" in second.lower()
    assert end == b""


def test_nobody_is_waited_for_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing comes is closed after a moment, and the service has ended."""
    monkeypatch.setattr(server_module, "LAST_SECONDS", 0.1)

    async def use(server: Server, client: socket.socket) -> bytes:
        connect(server, client)
        async with asyncio.timeout(10):
            await server.shutdown()
            return await asyncio.get_running_loop().sock_recv(client, 1)

    assert run(use) == b""


def test_new_connections_are_refused() -> None:
    """Who comes after the stop is told at once, so that the host asks again elsewhere."""

    async def use(server: Server, client: socket.socket) -> None:
        address = server.servers[0].sockets[0].getsockname()
        await server.shutdown()
        with pytest.raises(ConnectionRefusedError):
            client.connect(address)

    run(use)
