"""
A short way for whole requests to the host's endpoints: from uvicorn's parser to the application and back.

ASGI makes a scope, two messages each way, an event and a cycle of every request, and uvicorn checks what is in them.
Here the body of a plain POST to an endpoint of ours is put together as it arrives, and when it is whole the application
is asked at once. Whatever is not plain - another path or method, a body above `MAX_SHORT`, `Expect`, HTTP/1.0, requests
that do not wait for their answers, a host that goes away before its request is whole, a request for the stock
transformer - goes the usual way, which then begins with what was read so far.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from emarsys_cdp.droppable import DroppableProtocol
from emarsys_cdp.service.app import BATCH, PROCESSOR, ROUTER, App, Reply

MAX_SHORT: Final = 1_048_576
"""Largest body that goes the short way, in bytes; uvicorn holds back the sender of a larger one."""

PATHS: Final[Mapping[bytes, str]] = {path.encode(): path for path in (ROUTER, BATCH, PROCESSOR)}


_CLOSE: Final = (b"connection", b"close")
"""Default header by which a server that stops ends its connections after their answers."""


class _Nobody:
    """Stands where uvicorn wakes the reader of a request: here nobody waits."""

    def set(self) -> None:
        """Do nothing."""


_NOBODY: Final = _Nobody()


class _Exchange:
    """A request on the short way, with the attributes by which uvicorn knows a request."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "path", "pieces", "response_complete", "size")

    def __init__(self, path: str, keep_alive: bool) -> None:
        self.path = path
        self.keep_alive = keep_alive
        self.pieces: list[bytes] | None = []
        self.size = 0
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NOBODY


class ShortWayProtocol(DroppableProtocol):
    """uvicorn's protocol (`http` of uvicorn.Config) for an `App`."""

    cycle: Any
    """The request of now: a cycle of uvicorn's or an `_Exchange`, which are told apart by their type."""

    def on_headers_complete(self) -> None:
        """Take a plain request to an endpoint of ours the short way."""
        path = PATHS.get(self.url)
        if path is None or not self._is_plain():
            super().on_headers_complete()
        else:
            self.cycle = _Exchange(path, self.parser.should_keep_alive())

    def _is_plain(self) -> bool:
        return (
            isinstance(self.app, App)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and (self.cycle is None or self.cycle.response_complete)
            and self.limit_concurrency is None
            and not self.root_path
        )

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        exchange = self.cycle
        if type(exchange) is not _Exchange or exchange.pieces is None:
            super().on_body(body)
            return
        exchange.pieces.append(body)
        exchange.size += len(body)
        if exchange.size > MAX_SHORT:
            self._go_the_usual_way(exchange.pieces)

    def on_message_complete(self) -> None:
        """Have the whole request answered."""
        exchange = self.cycle
        if type(exchange) is not _Exchange or exchange.pieces is None:
            super().on_message_complete()
            return
        pieces = exchange.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        answering = self.app.directly(exchange.path, self.headers, body)
        if answering is None:
            self._go_the_usual_way([body])
            super().on_message_complete()
            return
        exchange.pieces = None
        task = self.loop.create_task(self._answer(exchange, answering))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let a request that will never be whole end as others do."""
        exchange = self.cycle
        if type(exchange) is _Exchange and exchange.pieces is not None:
            self._go_the_usual_way([])  # what was read is of no use any more
        super().connection_lost(exc)

    def _go_the_usual_way(self, pieces: list[bytes]) -> None:
        """Begin the request over ASGI, with the body read so far."""
        keep_alive, self.cycle = self.cycle.keep_alive, None
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and keep_alive
        for piece in pieces:
            super().on_body(piece)

    async def _answer(self, exchange: _Exchange, answering: Coroutine[Any, Any, Reply]) -> None:
        try:
            reply = await answering
            if self.flow.write_paused and not exchange.disconnected:
                await self.flow.drain()
        except BaseException:
            self.transport.abort()  # at the end of the time for stopping: without an answer the host keeps its calls
            raise
        if exchange.disconnected:
            return
        keep_alive = exchange.keep_alive and _CLOSE not in self.server_state.default_headers
        self.transport.write(self._head(reply, keep_alive) + reply.body)
        exchange.response_complete = True
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _head(self, reply: Reply, keep_alive: bool) -> bytes:
        default = self.server_state.default_headers
        lines = [b"%b: %b\r\n" % header for header in (*default, *reply.headers) if header != _CLOSE]
        end = b"content-length: %d\r\n\r\n" if keep_alive else b"content-length: %d\r\nconnection: close\r\n\r\n"
        return b"".join((STATUS_LINE[reply.status], *lines, end % len(reply.body)))
