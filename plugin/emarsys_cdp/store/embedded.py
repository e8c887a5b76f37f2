"""A Valkey server of our own, from a wheel, for when no Redis URL is configured."""

from __future__ import annotations

import atexit
import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO
from urllib.parse import quote

import structlog

from emarsys_cdp.backoff import Backoff
from emarsys_cdp.store.valkey import DidNotStart, ValkeyProcess, stop_left_behind
from emarsys_cdp_hooks import StopAndFix

MAX_SOCKET_PATH = 100
"""A unix socket's path may have 107 bytes on Linux and 103 on macOS."""

SYNC_SECONDS = 1.0
"""What was answered longer ago than this outlives a power failure."""

_APPEND_ONLY = {"appendonly": "yes", "appendfsync": "no", "save": "", "maxmemory-policy": "noeviction"}
"""
Valkey writes to its file before it answers, so what was answered outlives its own death. Not so with `everysec`: while
a sync runs, Valkey keeps writes to itself for up to two seconds and answers all the same (`flushAppendOnlyFile` in its
aof.c; seen with a kill under load). So the sync is ours.
"""

_SYNC: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter

_log = structlog.get_logger("emarsys_cdp.store")


class EmbeddedServer:
    """
    A Valkey server on a unix socket with append-only persistence in *directory*.

    One process at a time owns the directory. A server that a killed process left behind is stopped first; its data
    is in the append-only file. A server that dies is started again, until `stop`. *sync* writes a file to disk.
    """

    def __init__(self, directory: Path, sync: Callable[[int], None] = _SYNC, **options: str) -> None:
        self._directory = directory
        self._sync = sync
        self._options = {**_APPEND_ONLY, **options}
        self._process: ValkeyProcess | None = None
        self._turn = Lock()
        self._stopping = Event()
        self._threads: list[Thread] = []
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
        self._stopping.clear()
        atexit.register(self.stop)
        try:
            stop_left_behind(self._socket())
            self._launch()
        except StopAndFix as error:
            self.stop()
            raise StopAndFix(
                f"the embedded Valkey in {self._directory} does not start: {error}. Its log is valkey.log there; "
                "or set EMARSYS_CDP_REDIS_URL to a Redis of your own."
            ) from error
        self._threads = [Thread(target=work, name=work.__name__, daemon=True) for work in (self._keep, self._keep_safe)]
        for thread in self._threads:
            thread.start()

    def _lock(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._open.close()
            raise StopAndFix(
                f"another emarsys-cdp uses {self._directory}: stop it, or set EMARSYS_CDP_DATA_DIR to another directory"
            ) from error

    def _launch(self) -> ValkeyProcess:
        directory = self._directory.resolve()
        places = {
            "port": "0",
            "unixsocket": str(self._socket().absolute()),
            "unixsocketperm": "700",
            "dir": str(directory),
            "pidfile": str(directory / "valkey.pid"),
        }
        with self._turn:
            if self._stopping.is_set():
                raise DidNotStart("it is not wanted any more")
            self._process = process = ValkeyProcess(directory, self._socket(), {**places, **self._options})
        process.wait_until_ready()
        return process

    def _keep(self) -> None:
        """Start another server whenever one has ended, until nobody wants it any more."""
        process, backoff = self._process, Backoff()
        while process is not None:
            began = time.monotonic()
            code = process.wait()
            if self._stopping.is_set():
                return
            _log.error("embedded_server_died", code=code, log=str(self._directory / "valkey.log"))
            process = self._relaunch(backoff, time.monotonic() - began)

    def _relaunch(self, backoff: Backoff, ran_seconds: float) -> ValkeyProcess | None:
        """Return a running server, however often it takes; None when it is not wanted any more."""
        begin = time.monotonic()
        wait = backoff.wait_after(ran_seconds)
        while not self._stopping.wait(wait):
            try:
                process = self._launch()
            except (StopAndFix, OSError) as error:
                wait = backoff.wait_after(0)
                if not self._stopping.is_set():
                    _log.error("embedded_server_not_restarted", reason=str(error), again_in_seconds=wait)
            else:
                _log.warning("embedded_server_restarted", seconds=round(time.monotonic() - begin, 3))
                return process
        return None

    def _keep_safe(self) -> None:
        """Write what the system still holds in memory to disk, every second."""
        failed = False
        while not self._stopping.wait(SYNC_SECONDS):
            try:
                for path in (self._directory / "appendonlydir").glob("*.incr.aof"):
                    with path.open("rb") as file:
                        self._sync(file.fileno())
            except FileNotFoundError:
                continue  # Valkey has just replaced it by another one
            except OSError as error:
                if not failed:
                    _log.error("embedded_server_not_synced", reason=str(error))
                failed = True
            else:
                failed = False

    def stop(self) -> None:
        """Stop the server; what was written stays in the directory."""
        atexit.unregister(self.stop)
        with self._turn:
            self._stopping.set()
            process, self._process = self._process, None
        if process is not None:
            process.end()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._open.close()
