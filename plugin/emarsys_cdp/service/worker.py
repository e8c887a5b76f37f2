"""One of several workers: a process that its parent has started (`emarsys_cdp.service.workers`)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from emarsys_cdp.credentials import Secret
from emarsys_cdp.log import configure_logging
from emarsys_cdp.service.assembly import Service, World, running
from emarsys_cdp.service.server import make_server, tune_collector
from emarsys_cdp.service.shared_metrics import sharing
from emarsys_cdp.settings import Settings

LISTENS = b"listens"
"""What a worker tells its parent, once."""

_log = structlog.get_logger("emarsys_cdp.service")


class Launch(Struct, frozen=True):
    """What a worker is told by its parent: over a socket, since it has secrets; *listeners* are file descriptors."""

    number: int
    settings: Settings
    listeners: list[int]
    metrics: Path

    def pack(self) -> bytes:
        """Return it as a line."""
        return msgspec.json.encode(self, enc_hook=_to_text) + b"\n"


def unpack(line: bytes) -> Launch:
    """Return what `Launch.pack` made a line of."""
    return msgspec.json.decode(line, type=Launch, dec_hook=lambda kind, text: kind(text))


def _to_text(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


class Child:
    """The worker's side: it tells its parent when it listens, and ends when the parent is gone."""

    def __init__(self, launch: Launch, parent: socket.socket) -> None:
        self._launch = launch
        self._parent = parent
        self._orphan = False
        self._server = make_server(launch.settings, "", 0, on_start=lambda _: self._started(), open_service=self._open)

    def run(self) -> None:
        """Serve until told to stop; `SystemExit` with code 1 when it does not start."""
        self._server.run_to_end([socket.socket(fileno=number) for number in self._launch.listeners])
        if self._orphan:
            shutil.rmtree(self._launch.metrics, ignore_errors=True)  # what the parent would have done

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Service]:
        launch = self._launch
        async with (
            running(launch.settings, World()) as service,
            sharing(service.metrics, launch.metrics, launch.number, lambda: self._server.should_exit),
        ):
            yield service

    def _started(self) -> None:
        self._parent.sendall(LISTENS)
        asyncio.get_running_loop().add_reader(self._parent, self._parent_ended)

    def _parent_ended(self) -> None:
        """Stop as at a signal: the parent never writes again, so what can be read is its end."""
        asyncio.get_running_loop().remove_reader(self._parent)
        _log.error("parent_died")
        self._orphan = True
        self._server.should_exit = True


def main() -> None:
    """Run a worker; the argument is the file descriptor of the socket to its parent."""
    parent = socket.socket(fileno=int(sys.argv[1]))
    with parent.makefile("rb") as lines:
        launch = unpack(lines.readline())
    configure_logging(launch.settings.log_level, launch.number)
    tune_collector()
    Child(launch, parent).run()


if __name__ == "__main__":
    main()
