"""Running the application: uvicorn with uvloop, tuned for many short requests."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from itertools import count

import uvicorn

from emarsys_cdp.service.app import App
from emarsys_cdp.service.assembly import Service, World, running
from emarsys_cdp.service.short_way import ShortWayProtocol
from emarsys_cdp.settings import Settings

STOP_SECONDS = 30
"""Requests in flight get this long when the service is told to stop."""


LAST_SECONDS = 1.0
"""
Connections that the host keeps open get this long for one more request when the service is told to stop: closed at
once, a request that is on its way would find nobody.
"""


class Server(uvicorn.Server):
    """A uvicorn server that tells when it listens and stops without losing a request. *started_hook* gets the URL."""

    def __init__(self, config: uvicorn.Config, started_hook: Callable[[str], None]) -> None:
        super().__init__(config)
        self._started_hook = started_hook

    def run_to_end(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Run until a signal; on *sockets* when there are any.

        Raises:
            SystemExit: with code 1: it did not start, and has said why.

        """
        try:
            self.run(sockets)
        except SystemExit as error:  # uvicorn has codes of its own for a start that failed
            raise SystemExit(1) from error
        if not self.started:
            raise SystemExit(1)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGINT and SIGTERM, and end well: uvicorn would let the signal kill the process afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start listening, then tell."""
        await super().startup(sockets)  # type: ignore[arg-type]  # uvicorn's own type of sockets
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._started_hook(f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in what has connected, answer everybody with `Connection: close`, then stop as uvicorn does."""
        loop = asyncio.get_running_loop()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in await self._close_listeners(sockets or ()):
            with suppress(OSError):
                await loop.connect_accepted_socket(self._make_protocol, connection)
        deadline = loop.time() + LAST_SECONDS
        while self.server_state.connections and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _close_listeners(self, sockets: Sequence[socket.socket]) -> list[socket.socket]:
        """Stop listening; return the connections that wait in the kernel, which a closing socket would reset."""
        listeners = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        for server in self.servers:
            server.close()
        for one in sockets:
            one.close()
        await asyncio.sleep(0)  # the event loop closes its own
        waiting = list[socket.socket]()
        for listener in listeners:
            with listener, suppress(OSError):
                listener.setblocking(False)
                while True:
                    waiting.append(listener.accept()[0])
        return waiting

    def _make_protocol(self) -> asyncio.Protocol:
        """Return what serves a connection, as uvicorn makes it for those that it accepts."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def _in_our_words(record: logging.LogRecord) -> bool:
    """Let uvicorn's errors look like the commands' own, and pass over what it adds to a reason already given."""
    text = record.getMessage()
    record.msg, record.args = (text if text.startswith("emarsys-cdp") else f"emarsys-cdp: {text}"), ()
    return "Application startup failed" not in text


def make_server(
    settings: Settings,
    host: str,
    port: int,
    *,
    world: World | None = None,
    on_start: Callable[[str], None] = lambda url: None,  # noqa: ARG005 - the default does nothing
    open_service: Callable[[], AbstractAsyncContextManager[Service]] | None = None,
) -> Server:
    """
    Return a server of the service, not yet running.

    *on_start* gets its URL once it listens; *open_service* makes the service, otherwise *settings* and *world* do.
    """
    outside = world or World()
    prefix, numbers = secrets.token_hex(4), count(1)
    logging.getLogger("uvicorn.error").addFilter(_in_our_words)
    app = App(open_service or (lambda: running(settings, outside)), lambda: f"{prefix}-{next(numbers)}")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=ShortWayProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        backlog=2048,
    )
    return Server(config, on_start)


def tune_collector() -> None:
    """Make Python's garbage collector look less often: measured to save 5 to 15 % on this path."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
