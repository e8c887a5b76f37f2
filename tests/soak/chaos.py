"""What goes wrong in a soak: faults of Emarsys, killed workers, a killed Valkey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Final

from emarsys_cdp.testing import Fault

SEND_SECONDS: Final = 1.0
"""Emarsys requests of the soak are given up after this long."""

HOSTS_SEE: Final = (
    Fault("status", status=429, probability=0.01),
    Fault("status", status=500, probability=0.02),
    Fault("status", status=502, probability=0.02),
    Fault("status", status=503, probability=0.01),
    Fault("reset", path="[ce]*", probability=0.02),
    Fault("status", path="[ce]*", status=500, after=True, probability=0.02),
)
"""Faults that the HTTP status shows: a host that sends by itself meets them too."""

WE_SEE: Final = (
    Fault("lost", path="[ce]*", hold=2.0, probability=0.005),
    Fault("slow", path="[ce]*", delay=0.5, probability=0.02),
    Fault("garbage", path="[ce]*", after=True, probability=0.01),
    Fault("rows", path="contact", code=2009, text="Contact with the external id already exists", probability=0.02),
)
"""Faults that take somebody who reads answers and keeps one request in flight per contact."""


class Service:
    """`emarsys-cdp serve` with two workers and the embedded Valkey. *kills* counts what was killed."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, url: str) -> None:
        self._process = process
        self._directory = directory
        self.url = url
        self.kills = {"worker": 0, "valkey": 0}

    def kill_worker(self, random: Random) -> None:
        """Kill one of the workers."""
        found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        workers = [int(pid) for pid in found if "valkey" not in _name(int(pid))]
        if workers:
            self._kill("worker", random.choice(workers))

    def kill_valkey(self) -> None:
        """Kill the embedded server."""
        with suppress(OSError, ValueError):
            pid = int((self._directory / "valkey" / "valkey.pid").read_text())
            if "valkey" in _name(pid):
                self._kill("valkey", pid)

    def _kill(self, what: str, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[what] += 1


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


@contextmanager
def service(directory: Path, settings: Mapping[str, str], log: Path) -> Iterator[Service]:
    """Run the service; its log goes to a file."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EMARSYS_CDP_")},
        "EMARSYS_CDP_DATA_DIR": str(directory),
        "EMARSYS_CDP_LOG_LEVEL": "warning",
        "EMARSYS_CDP_SEND_SECONDS": str(SEND_SECONDS),
        **settings,
    }
    command = [sys.executable, "-m", "emarsys_cdp", "serve", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = _listening(process)
        with log.open("w") as file:
            writer = Thread(target=_copy, args=(process.stderr, file), daemon=True)
            writer.start()
            yield Service(process, directory, url)
            process.terminate()
            process.wait(60)
            writer.join(10)
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


def _listening(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "http://" in line:
            return line[line.index("http://") :].split()[0].strip('"')
    raise RuntimeError("the service did not start: " + "".join(said))


def _copy(source: Iterator[str], target: object) -> None:
    with suppress(ValueError):
        for line in source:
            target.write(line)  # type: ignore[attr-defined]


@contextmanager
def killing(service: Service, random: Random, every: float) -> Iterator[None]:
    """Kill a worker or Valkey every so many seconds, more or less, until this is left."""
    stop = Event()

    def run() -> None:
        while not stop.wait(every * (0.5 + random.random())):
            if random.random() < 0.6:
                service.kill_worker(random)
            else:
                service.kill_valkey()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
