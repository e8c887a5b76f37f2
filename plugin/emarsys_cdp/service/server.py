"""Running the application: uvicorn with uvloop, tuned for many short requests."""

from __future__ import annotations

import gc
import logging
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import uvicorn

from emarsys_cdp.service.app import App
from emarsys_cdp.service.assembly import World, running
from emarsys_cdp.service.short_way import ShortWayProtocol
from emarsys_cdp.settings import Settings

STOP_SECONDS = 30
"""Requests in flight get this long when the service is told to stop."""


class Server(uvicorn.Server):
    """A uvicorn server that tells when it listens. *started_hook* gets the URL."""

    def __init__(self, config: uvicorn.Config, started_hook: Callable[[str], None]) -> None:
        super().__init__(config)
        self._started_hook = started_hook

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
) -> Server:
    """Return a server of the service, not yet running. *on_start* gets its URL once it listens."""
    outside = world or World()
    prefix, numbers = secrets.token_hex(4), count(1)
    logging.getLogger("uvicorn.error").addFilter(_in_our_words)
    app = App(lambda: running(settings, outside), lambda: f"{prefix}-{next(numbers)}")
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
