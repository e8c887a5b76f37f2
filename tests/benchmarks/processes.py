"""The service in a process of its own, and what it and its Valkey have used of the processor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Measured:
    """A running service. *pid* is its process, *server* that of its Valkey."""

    def __init__(self, pid: int, server: int, port: int) -> None:
        self.pid = pid
        self.server = server
        self.port = port

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds used so far by the service and by its Valkey."""
        return cpu_of(self.pid), cpu_of(self.server)

    def memory(self) -> int:
        """Return the bytes of memory the service holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


def cpu_of(pid: int) -> float:
    """Return user and system time of a process, in seconds; schedstat counts nanoseconds where it exists."""
    schedules = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
    if all(path.exists() for path in schedules):
        return sum(int(path.read_text().split()[0]) for path in schedules) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def service(directory: Path) -> Iterator[Measured]:
    """Run `emarsys-cdp serve` with its data in *directory*."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("EMARSYS_CDP_")},
        "EMARSYS_CDP_DATA_DIR": str(directory),
        "EMARSYS_CDP_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "emarsys_cdp", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        port = _port(process)
        measured = Measured(process.pid, int((directory / "valkey" / "valkey.pid").read_text()), port)
        set_cores([measured.server], measured.pid)
        yield measured
    finally:
        process.terminate()
        process.wait(30)
        if process.stderr is not None:
            process.stderr.close()


def set_cores(servers: Sequence[int], service: int | None = None) -> None:
    """
    Give what is measured a core of its own; Valkey shares another one with whatever else runs here.

    Without a *service* it is this process that is measured.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for server in servers:
            os.sched_setaffinity(server, cores[1:2])
        os.sched_setaffinity(service or 0, cores[:1])
        if service is not None:
            os.sched_setaffinity(0, cores[1:2])


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        found = re.search(r"listens on http://[^:]+:(\d+)", line)
        if found:
            return int(found[1])
    raise RuntimeError("the service did not start:\n" + "".join(said))
