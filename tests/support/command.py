"""The command `serve` as an operator runs it: a process of its own with a data directory of the test's."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.app import CHECKS

from emarsys_cdp.testing import expect

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST = 60
"""Seconds after which a start or a stop is taken as hanging."""

LISTENS = "emarsys-cdp listens on "
NOTICE = "No EMARSYS_CDP_REDIS_URL: the users table is in "


class Service:
    """A running command: what it has written so far, its URL, and its end."""

    def __init__(self, directory: Path, settings: Mapping[str, str], command: tuple[str | Path, ...]) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self._url: str | None = None
        self._arriving: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(directory),
                "EMARSYS_CDP_DATA_DIR": str(directory / "data"),
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._arriving.put(line.rstrip("\n"))
        self._arriving.put(None)

    def url(self) -> str:
        """Wait until it listens and return its URL."""
        while self._url is None and (line := self._next()) is not None:
            if line.startswith(LISTENS):
                self._url = line.removeprefix(LISTENS)
        assert self._url is not None, f"the service ended: {self.lines}"
        return self._url

    def _next(self, seconds: float = LONGEST) -> str | None:
        line = self._arriving.get(timeout=seconds)
        if line is not None:
            self.lines.append(line)
        return line

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return what it has logged so far of one event."""
        try:
            while self._next(0) is not None:
                pass
        except queue.Empty:
            pass
        entries = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait until it has logged an event so often, and return the last one."""
        deadline = time.monotonic() + LONGEST
        while len(found := self.logged(event)) < times:
            assert time.monotonic() < deadline, f"no {event}: {self.lines}"
            time.sleep(0.01)
        return found[times - 1]

    def post(self, path: str, body: bytes) -> httpx.Response:
        """Send a request as the host does, on a connection of its own, and check the answer as it would."""
        response = httpx.post(self.url() + path, content=body, trust_env=False, timeout=LONGEST)
        expect(CHECKS[path](body, response.status_code, response.headers, response.content))
        return response

    def get(self, path: str) -> httpx.Response:
        """Get a page, on a connection of its own."""
        return httpx.get(self.url() + path, trust_env=False, timeout=LONGEST)

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        while self._next() is not None:
            pass
        return self.process.wait(LONGEST)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for its end."""
        self.process.send_signal(number)
        return self.end()

    def valkey(self) -> int:
        """Return the process id of its embedded server."""
        return int((self.directory / "data" / "valkey" / "valkey.pid").read_text())

    def workers(self) -> list[int]:
        """Return the process ids of its workers, the oldest first."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [int(pid) for pid in children if "emarsys_cdp" in Path(f"/proc/{pid}/cmdline").read_text()]
        return sorted(found)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(LONGEST)
        finally:
            self.process.kill()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


Start = Callable[..., Service]


@contextmanager
def starting(directory: Path, *command: str | Path) -> Iterator[Start]:
    """Give a function that starts the command on one data directory, and end at last what it has started."""
    running: list[Service] = []

    def run(*arguments: str, **settings: str) -> Service:
        whole = (*(command or (COMMAND,)), "serve", "--port", "0", *arguments)
        running.append(Service(directory, settings, whole))
        return running[-1]

    try:
        yield run
    finally:
        for service in reversed(running):
            service.close()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def refusal(service: Service) -> str:
    """Wait for the end of a service that cannot start; return the one line that says why."""
    with pytest.raises(AssertionError, match="the service ended"):
        service.url()
    reasons = [line for line in service.lines if not line.startswith((NOTICE, "{"))]

    assert len(reasons) == 1, service.lines
    assert reasons[0].startswith("emarsys-cdp: ")
    assert service.process.wait(LONGEST) == 1
    return reasons[0]
