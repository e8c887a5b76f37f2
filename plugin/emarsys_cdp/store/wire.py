"""
One pipelined connection to a Redis server.

Commands are packed by hiredis and written at once; replies are read in order. Several pipelines may be in flight.
This is three to eight times cheaper than a general client (help/state.md has the figures), and it is the hot
path; everything else about Redis is left to the redis package.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ssl import SSLContext
from typing import Any, TypeAlias

import hiredis
from msgspec import Struct

from emarsys_cdp.store import StoreUnavailable

Command: TypeAlias = tuple[Any, ...] | bytes
"""The words of a command (str, bytes or int), or all of it in the protocol's form."""

Reply: TypeAlias = Any
"""bytes, int, None, a list of these, or a `hiredis.ReplyError` as a value."""

CONNECT_SECONDS = 3.0
REPLY_SECONDS = 10.0


class Address(Struct, frozen=True, kw_only=True):
    """
    Where a server is and how to sign in; *path* is a unix socket.

    With *sentinels* it is the server that these know as the *master* of this name, wherever that is now.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: SSLContext | None = None
    sentinels: tuple[Address, ...] = ()
    master: str = ""

    def __repr__(self) -> str:
        return f"Address({self})"

    def __str__(self) -> str:
        return self.master or self.path or f"{self.host}:{self.port}"


class _Protocol(asyncio.Protocol):
    """Feeds what arrives to a hiredis reader and completes the pipelines in their order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[int, asyncio.Future[list[Reply]], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._replies: list[Reply] = []
        self.transport: asyncio.Transport | None = None
        self.lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def send(self, packed: bytes, count: int) -> asyncio.Future[list[Reply]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Reply]] = loop.create_future()
        self._waiting.append((count, future, loop.time() + REPLY_SECONDS))
        if self._watch is None:
            self._watch = loop.call_later(REPLY_SECONDS, self._look, loop)
        if self.lost is not None:
            future.set_exception(self.lost)
        elif self.transport is not None:
            self.transport.write(packed)
        return future

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the connection up when its oldest pipeline waits too long: one timer for all of them."""
        self._watch = None
        if not self._waiting:
            return
        deadline = self._waiting[0][2]
        if deadline <= loop.time():
            self.lost = TimeoutError(f"no answer in {REPLY_SECONDS:.0f} s")
            self.abort()
        else:
            self._watch = loop.call_at(deadline, self._look, loop)

    def abort(self) -> None:
        self.lost = self.lost or ConnectionAbortedError("the connection was given up")
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except hiredis.HiredisError as error:
            self.lost = ConnectionError(f"what answers is no Redis: {error}")
            self.abort()

    def _feed(self, data: bytes) -> None:
        next_reply, waiting, replies = self._reader.gets, self._waiting, self._replies
        self._reader.feed(data)
        wanted = waiting[0][0] if waiting else 0
        while (reply := next_reply()) is not False:
            replies.append(reply)
            if len(replies) < wanted:
                continue
            if not waiting:
                raise hiredis.ProtocolError("a reply that nobody asked for")
            _, future, _ = waiting.popleft()
            if not future.done():
                future.set_result(replies)
            wanted = waiting[0][0] if waiting else 0
            replies = self._replies = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.lost or exc or ConnectionResetError("the server closed the connection")
        if self._watch is not None:
            self._watch.cancel()
        for _, future, _ in self._waiting:
            if not future.done():
                future.set_exception(self.lost)
        self._waiting.clear()


class Wire:
    """
    A connection that opens itself when it is used and again after it was lost.

    *setup* are commands sent after each opening (loading of scripts); *locate* finds out before each where to connect
    to. What is lost in flight is not sent again:
    the caller gets `StoreUnavailable` and cannot know whether the commands were carried out.
    """

    def __init__(
        self, address: Address, setup: Sequence[Command] = (), locate: Callable[[], Awaitable[Address]] | None = None
    ) -> None:
        self.address = address
        self._setup = setup
        self._locate = locate
        self._users = 0
        self._protocol: _Protocol | None = None
        self._opening: asyncio.Task[_Protocol] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._protocol is not None and self._protocol.lost is None

    async def run(self, commands: Iterable[Command]) -> list[Reply]:
        """
        Send commands in one write and return their replies; errors of single commands are values.

        Raises:
            StoreUnavailable: no connection, or no answer within `REPLY_SECONDS`.

        """
        packed = _pack(commands)
        if not packed:
            return []
        protocol = self._protocol
        if protocol is None or protocol.lost is not None:
            protocol = await self._connected()
        return await self._send(protocol, packed)

    async def _connected(self) -> _Protocol:
        """Wait for the one opening that all who need it share; it is given up when the last of them is cancelled."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._users += 1
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            if self._users == 1:
                self._opening.cancel()
            raise
        finally:
            self._users -= 1

    async def _send(self, protocol: _Protocol, packed: list[bytes]) -> list[Reply]:
        try:
            return await protocol.send(b"".join(packed), len(packed))
        except (OSError, TimeoutError) as error:
            protocol.abort()
            raise StoreUnavailable(f"Redis at {self.address} did not answer: {_reason(error)}") from error

    async def _open(self) -> _Protocol:
        protocol = await self._connect()
        try:
            packed = _pack((*self._sign_in(), *self._setup))
            for reply in await self._send(protocol, packed) if packed else ():
                if isinstance(reply, hiredis.ReplyError):
                    raise StoreUnavailable(f"Redis at {self.address} refused the connection: {reply}")
        except BaseException:
            protocol.abort()
            raise
        self._protocol = protocol
        return protocol

    async def _connect(self) -> _Protocol:
        if self._locate is not None:
            self.address = await self._locate()
        loop, address = asyncio.get_running_loop(), self.address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.path is not None:
                    return (await loop.create_unix_connection(_Protocol, address.path))[1]
                name = address.host if address.tls else None
                return (
                    await loop.create_connection(
                        _Protocol, address.host, address.port, ssl=address.tls, server_hostname=name
                    )
                )[1]
        except (OSError, TimeoutError) as error:
            raise StoreUnavailable(f"Redis at {address} cannot be reached: {_reason(error)}") from error

    def _sign_in(self) -> list[Command]:
        address, commands = self.address, list[Command]()
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        return commands

    def close(self) -> None:
        """Close the connection; pipelines in flight fail."""
        if self._protocol is not None:
            self._protocol.abort()
        self._protocol = None


def _pack(commands: Iterable[Command]) -> list[bytes]:
    return [one if isinstance(one, bytes) else hiredis.pack_command(one) for one in commands]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
