"""The command `serve` as an operator runs it: a process of its own, an embedded Valkey, signals and settings."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.app import PROCESSOR, ROUTER, answers
from tests.support.command import NOTICE, Start, is_alive, refusal, starting
from tests.support.requests import call, processor_request, router_request

STOPPED_WITHIN = 10
"""Seconds that an idle service has for its end."""

SECRET = "hunter2-is-the-secret-of-this-test"  # noqa: S105 - searched for, never used


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on one data directory; several times in a test, if it likes."""
    with starting(tmp_path) as run:
        yield run


def contacts(path: str, response: httpx.Response) -> list[dict[str, Any]]:
    """Return the contacts of the first output."""
    output = answers(path, response)[0]
    request = output["batchedRequest"] if path == ROUTER else output["output"]
    found: list[dict[str, Any]] = request["body"]["JSON"]["contacts"]
    return found


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
    "CLOCK virtual with a REDIS_URL": (
        "CLOCK",
        {"EMARSYS_CDP_CLOCK": "virtual", "EMARSYS_CDP_REDIS_URL": "redis://127.0.0.1/0", **LONG_SECRET},
    ),
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


def test_a_virtual_clock_is_for_one_worker(start: Start) -> None:
    """Each worker would have a time of its own."""
    line = refusal(start("--workers", "2", EMARSYS_CDP_CLOCK="virtual"))

    assert "EMARSYS_CDP_CLOCK virtual is for one worker only: leave --workers out" in line


def test_a_virtual_clock_is_told(start: Start) -> None:
    """Whoever reads the log is warned: with it nothing is sent in time."""
    service = start(EMARSYS_CDP_CLOCK="virtual")
    service.url()

    assert service.wait_for("clock_is_virtual")["level"] == "warning"


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
