"""A uvicorn server inside a loop that is somebody else's: no signals, no log, gone at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from emarsys_cdp_hooks import StopAndFix

STOP_SECONDS: Final = 1.0
"""Requests under way get this long at the end."""


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """
    Serve *app* on *host*, port 0 is any free one; yields its URL.

    Raises:
        StopAndFix: it cannot listen there.

    """
    config = uvicorn.Config(app, log_config=None, server_header=False, date_header=False)
    config.access_log = False  # as an argument it would silence the access log of every other server as well
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise StopAndFix(f"cannot listen on {host}:{port}: {error.strerror}") from error
    server = await loop.create_server(lambda: HttpToolsProtocol(config, state, {}), sock=listener)
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=STOP_SECONDS)
        for connection in list(state.connections):
            if isinstance(connection, HttpToolsProtocol) and connection.transport is not None:
                connection.transport.abort()
        await server.wait_closed()
