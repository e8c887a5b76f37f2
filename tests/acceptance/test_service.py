"""The command `serve` as an operator runs it: a process of its own, an embedded Valkey, signals and settings."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.app import CHECKS, PROCESSOR, ROUTER, answers
from tests.support.requests import call, processor_request, router_request

from emarsys_cdp.testing import expect

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST = 60
"""Seconds after which a start or a stop is taken as hanging."""

STOPPED_WITHIN = 10
"""Seconds that an idle service has for its end."""

SECRET = "hunter2-is-the-secret-of-this-test"  # noqa: S105 - searched for, never used
LISTENS = "emarsys-cdp listens on "
NOTICE = "No EMARSYS_CDP_REDIS_URL: the users table is in "


class Service:
    """A running command: what it has written so far, its URL, and its end."""

    def __init__(self, directory: Path, settings: Mapping[str, str], arguments: tuple[str, ...]) -> None:
        self.directory = directory
        self.lines: list[str] = []
        self._url: str | None = None
        self._arriving: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [COMMAND, "serve", "--port", "0", *arguments],
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

    def _next(self) -> str | None:
        line = self._arriving.get(timeout=LONGEST)
        if line is not None:
            self.lines.append(line)
        return line

    def post(self, path: str, body: bytes) -> httpx.Response:
        """Send a request as the host does, on a connection of its own, and check the answer as it would."""
        response = httpx.post(self.url() + path, content=body, trust_env=False, timeout=LONGEST)
        expect(CHECKS[path](body, response.status_code, response.headers, response.content))
        return response

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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on one data directory; several times in a test, if it likes."""
    running: list[Service] = []

    def run(*arguments: str, **settings: str) -> Service:
        running.append(Service(tmp_path, settings, arguments))
        return running[-1]

    yield run
    for service in reversed(running):
        service.close()


def contacts(path: str, response: httpx.Response) -> list[dict[str, Any]]:
    """Return the contacts of the first output."""
    output = answers(path, response)[0]
    request = output["batchedRequest"] if path == ROUTER else output["output"]
    found: list[dict[str, Any]] = request["body"]["JSON"]["contacts"]
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_it_tells_its_url_and_answers_the_host(start: Start) -> None:
    """Nothing is set up: one line on stderr says where it listens, and a posted batch is transformed."""
    service = start()
    body = [call("identify", n, userId=f"u{n}", traits={"email": f"{n}@example.com"}) for n in (1, 2)]
    response = service.post(ROUTER, router_request(body))

    assert contacts(ROUTER, response) == [{"3": "1@example.com"}, {"3": "2@example.com"}]
    assert service.lines[0].startswith(NOTICE)
    assert len(contacts(PROCESSOR, service.post(PROCESSOR, processor_request(body[:1])))) == 1


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGTERM, {0}), (signal.SIGINT, {0, 130})])
def test_a_signal_ends_it_and_leaves_nothing_behind(start: Start, number: int, codes: set[int]) -> None:
    """Within seconds, by the right exit code, with nothing on stdout, and without its embedded server."""
    service = start()
    service.url()
    valkey = service.valkey()
    assert is_alive(valkey)
    begin = time.monotonic()
    code = service.stop(number)

    assert time.monotonic() - begin < STOPPED_WITHIN
    assert not is_alive(valkey)
    assert service.process.stdout is not None
    assert service.process.stdout.read() == ""
    assert not any("Traceback" in line for line in service.lines)
    assert code in codes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_users_table_outlives_the_process(start: Start, number: int) -> None:
    """A key that came before a restart, or before a crash, is used after it."""
    first = start()
    first.post(ROUTER, router_request([call("identify", 1, userId="u", traits={"email": "a@example.com"})]))
    first.stop(number)
    second = start()
    response = second.post(ROUTER, router_request([call("identify", 2, userId="u", traits={"firstName": "A"})]))

    assert contacts(ROUTER, response) == [{"3": "a@example.com", "1": "A"}]


def test_a_killed_process_leaves_a_server_that_the_next_one_replaces(start: Start) -> None:
    """Nobody has to look for it and end it by hand."""
    first = start()
    first.url()
    orphan = first.valkey()
    first.stop(signal.SIGKILL)
    assert is_alive(orphan)
    second = start()
    second.url()

    assert not is_alive(orphan)
    assert is_alive(second.valkey())


def refusal(service: Service) -> str:
    """Wait for the end of a service that cannot start; return the one line that says why."""
    with pytest.raises(AssertionError, match="the service ended"):
        service.url()
    reasons = [line for line in service.lines if not line.startswith((NOTICE, "{"))]

    assert len(reasons) == 1, service.lines
    assert reasons[0].startswith("emarsys-cdp: ")
    assert service.process.wait(LONGEST) == 1
    return reasons[0]


def test_a_second_service_on_the_same_directory_is_refused(start: Start) -> None:
    """It says whose the directory is and what to do; the first one goes on."""
    first = start()
    first.url()
    line = refusal(start())

    assert f"another emarsys-cdp uses {first.directory / 'data'}" in line
    assert "EMARSYS_CDP_DATA_DIR" in line
    assert first.post(ROUTER, router_request([call("page")])).status_code == 200


def test_a_port_that_is_taken_is_named(start: Start) -> None:
    """The address is in the message, and nothing is left running."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        service = start("--port", port)
        line = refusal(service)

    assert port in line
    assert not (service.directory / "data" / "valkey" / "valkey.pid").exists()


LONG_SECRET = {"EMARSYS_CDP_SECRET": "0123456789abcdef"}
WRONG: Mapping[str, tuple[str, dict[str, str]]] = {
    "REDIS_URL without SECRET": ("SECRET", {"EMARSYS_CDP_REDIS_URL": f"redis://:{SECRET}@127.0.0.1/0"}),
    "REDIS_URL of another scheme": ("REDIS_URL", {"EMARSYS_CDP_REDIS_URL": f"http://u:{SECRET}@h", **LONG_SECRET}),
    "REDIS_URL with a wrong port": ("REDIS_URL", {"EMARSYS_CDP_REDIS_URL": f"redis://:{SECRET}@h:x", **LONG_SECRET}),
    "SECRET too short": ("SECRET", {"EMARSYS_CDP_SECRET": SECRET[:7]}),
    "UPSTREAM no URL": ("UPSTREAM", {"EMARSYS_CDP_UPSTREAM": "transformer:9090"}),
    "UPSTREAM with a password": ("UPSTREAM", {"EMARSYS_CDP_UPSTREAM": f"http://u:{SECRET}@h"}),
    "UPSTREAM with a query": ("UPSTREAM", {"EMARSYS_CDP_UPSTREAM": f"http://h/?key={SECRET}"}),
    "UPSTREAM with a wrong port": ("UPSTREAM", {"EMARSYS_CDP_UPSTREAM": "http://h:99999"}),
    "API_BASE no URL": ("API_BASE", {"EMARSYS_CDP_API_BASE": "ftp://api.emarsys.net"}),
    "API_BASE a broken URL": ("API_BASE", {"EMARSYS_CDP_API_BASE": "http://["}),
    "TOKEN_URL no URL": ("TOKEN_URL", {"EMARSYS_CDP_TOKEN_URL": "auth.emarsys.net"}),
    "TOKEN_URL a broken URL": ("TOKEN_URL", {"EMARSYS_CDP_TOKEN_URL": "https://[::1"}),
    "RULES_DIR no directory": ("RULES_DIR", {"EMARSYS_CDP_RULES_DIR": "/no/such/directory"}),
    "LOG_LEVEL unknown": ("LOG_LEVEL", {"EMARSYS_CDP_LOG_LEVEL": "loud"}),
    "DATA_DIR a file": ("DATA_DIR", {"EMARSYS_CDP_DATA_DIR": __file__}),
    "DATA_DIR that cannot be made": ("DATA_DIR", {"EMARSYS_CDP_DATA_DIR": "/proc/emarsys-cdp"}),
}


@pytest.mark.parametrize(("variable", "settings"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_told_in_one_line(start: Start, variable: str, settings: dict[str, str]) -> None:
    """The line names the variable, shows no secret, and the exit code is 1."""
    service = start(**settings, EMARSYS_CDP_HOST_TOKEN=SECRET)
    line = refusal(service)

    assert f"EMARSYS_CDP_{variable}" in line
    assert SECRET[:7] not in "\n".join(service.lines)


def test_several_wrong_settings_are_told_at_once(start: Start) -> None:
    """Nobody has to start it again for the next mistake."""
    service = start(EMARSYS_CDP_LOG_LEVEL="loud", EMARSYS_CDP_API_BASE="x", EMARSYS_CDP_UPSTREAM="y")

    assert service.end() == 1
    assert all(name in "\n".join(service.lines) for name in ("LOG_LEVEL", "API_BASE", "UPSTREAM"))


def test_wrong_use_has_its_own_exit_code(start: Start) -> None:
    """An option that does not exist is the caller's mistake: 2."""
    assert start("--no-such-option").end() == 2


def test_a_store_that_is_down_does_not_keep_it_from_starting(start: Start) -> None:
    """It listens, is not ready, and asks the host to come again; the password is nowhere."""
    service = start(EMARSYS_CDP_REDIS_URL=f"redis://:{SECRET}@127.0.0.1:1/0", **LONG_SECRET)
    body = processor_request([call("identify", 1, userId="u", traits={"email": "a@example.com"})])
    response = service.post(PROCESSOR, body)
    service.stop()

    assert response.status_code == 503
    assert "127.0.0.1:1" in response.text
    assert any("request_postponed" in line for line in service.lines)
    assert SECRET not in response.text + "\n".join(service.lines)
