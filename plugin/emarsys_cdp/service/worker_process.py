"""A worker as its parent sees it: a process, and a line on which it tells that it listens."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import ExitStack, suppress

import structlog

from emarsys_cdp.service.server import STOP_SECONDS
from emarsys_cdp.service.worker import LISTENS, Launch

START_SECONDS = 60.0
"""A worker that does not listen by then is ended."""

KILL_SECONDS = STOP_SECONDS + 5.0
"""A worker that is told to stop and has not ended by then is killed."""

_log = structlog.get_logger("emarsys_cdp.service")


class DidNotListen(Exception):
    """A worker has not come to listen; with the reason."""


class Worker:
    """A worker's process; *end* is done, with its exit code, when it has ended."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.end = asyncio.create_task(self._wait())
        self._process = process
        self._reader, self._writer = reader, writer
        self._began = asyncio.get_running_loop().time()

    async def _wait(self) -> int:
        code = await self._process.wait()
        self._writer.close()  # earlier it would tell the worker that we are gone
        return code

    def age(self) -> float:
        """Return the seconds for which it has listened."""
        return asyncio.get_running_loop().time() - self._began

    async def wait_until_it_listens(self) -> None:
        """
        Wait until it listens.

        Raises:
            DidNotListen: it has ended instead.

        """
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._reader.readexactly(len(LISTENS))
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.end
            raise DidNotListen(f"it did not listen within {START_SECONDS:.0f} s") from None
        except (asyncio.IncompleteReadError, OSError):  # its end of the line is closed
            raise DidNotListen(f"it ended with code {await self.end} before it listened") from None
        self._began = asyncio.get_running_loop().time()

    async def stop(self) -> bool:
        """End it; False when it had to be killed."""
        self.send(signal.SIGTERM)
        return await self.is_over()

    async def is_over(self) -> bool:
        """Wait until it has ended; False when it had to be killed because it did not."""
        done, _ = await asyncio.wait({self.end}, timeout=KILL_SECONDS)
        if not done:
            _log.error("worker_killed", pid=self.pid)
            self.send(signal.SIGKILL)
            await self.end
        return bool(done)

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.end.done():
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


async def start_worker(launch: Launch) -> Worker:
    """Start the process of a worker; the secrets in *launch* are on no command line."""
    ours, theirs = socket.socketpair()
    with ExitStack() as failed, theirs:
        failed.callback(ours.close)
        ours.sendall(launch.pack())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "emarsys_cdp.service.worker", str(theirs.fileno())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *launch.listeners),
            process_group=0,  # a terminal's Ctrl-C is for the parent, which passes it on
        )
        failed.pop_all()
    return Worker(process, *await asyncio.open_connection(sock=ours))
