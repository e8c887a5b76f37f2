"""A real HTTP server in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from emarsys_cdp.droppable import DroppableProtocol

BACKLOG: Final = 2048
KEEP_ALIVE: Final = 75
"""Seconds that a connection may rest: longer than a client's, so that none meets a closed one."""

STOP_SECONDS: Final = 10


class ThreadedServer:
    """
    Serves on *host* and *port* (0: a free one) from `start` to `stop`, once, in an event loop of its own.

    *make_app* makes the application and gets the server, whose `pause` it may wait with.
    """

    def __init__(self, make_app: Callable[[ThreadedServer], ASGIApp], host: str, port: int) -> None:
        self._app = make_app(self)
        self._address = (host, port)
        self._end = asyncio.Event()
        self._running: tuple[Thread, asyncio.AbstractEventLoop] | None = None

    def start(self) -> str:
        """
        Listen, and return the address as `http://127.0.0.1:41234`.

        Raises:
            OSError: the port is not free.

        """
        listener = socket.create_server(self._address, family=_family(self._address[0]))
        host, port = listener.getsockname()[:2]
        started: Future[asyncio.AbstractEventLoop] = Future()
        thread = Thread(target=self._run, args=(listener, started), name="fake-emarsys", daemon=True)
        thread.start()
        self._running = thread, started.result()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Close every connection at once and stop."""
        if self._running is None:
            return
        thread, loop = self._running
        self._running = None
        loop.call_soon_threadsafe(self._end.set)
        thread.join()

    async def pause(self, seconds: float) -> bool:
        """Wait on the server's loop; returns False when the server stopped meanwhile."""
        try:
            await asyncio.wait_for(self._end.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def _run(self, listener: socket.socket, started: Future[asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(self._serve(listener, started))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who waits for the start
                if not started.done():
                    started.set_exception(error)

    async def _serve(self, listener: socket.socket, started: Future[asyncio.AbstractEventLoop]) -> None:
        config = uvicorn.Config(
            self._app,
            http=DroppableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: DroppableProtocol(config, state, {}), sock=listener, backlog=BACKLOG)
        started.set_result(loop)
        await self._end.wait()
        server.close()
        for connection in list(state.connections):
            if isinstance(connection, DroppableProtocol):
                connection.transport.abort()
        if state.tasks:
            await asyncio.wait(list(state.tasks), timeout=STOP_SECONDS)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
