"""The command `fake-host` as a user starts it: a process of its own, asked over HTTP, ended by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.support.scripted import LONGEST, Reply, World, track, until

from emarsys_cdp.forms import rudderstack, shipped

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LISTENS = "fake-host listens on "
SECRET = "hunter2-of-this-test"  # noqa: S105 - it protects nothing


@pytest.fixture
def world() -> Iterator[World]:
    """Run a transformer and a destination."""
    with ExitStack() as stack:
        yield World(stack)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write the workspaceConfig.json that the product ships."""
    path = tmp_path / "workspaceConfig.json"
    path.write_text(rudderstack.files(shipped())["workspaceConfig.json"])
    return path


def run(*arguments: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [COMMAND, "fake-host", *arguments],
        env={"PATH": os.environ["PATH"], "EMARSYS_CDP_HOST_TOKEN": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(world: World, config: Path, *arguments: str) -> tuple[subprocess.Popen[str], httpx.Client]:
    """Start the command in front of the scripted transformer; return it and a client of its gateway."""
    process = run("--transformer", world.transformer.url, "--config", str(config), "--port", "0", *arguments)
    world.stack.callback(process.kill)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith(LISTENS)
    client = httpx.Client(base_url=line.removeprefix(LISTENS).strip(), auth=("write-key", ""), trust_env=False)
    world.stack.callback(client.close)
    return process, client


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal, and return the exit code and what was written to stderr."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=LONGEST)
    return process.returncode, errors


def test_it_takes_calls_until_it_is_told_to_stop(world: World, config: Path) -> None:
    """A call is delivered with the settings of the file, the token goes along, and at the end the numbers stand."""
    process, client = started(world, config, "--no-proxy")
    assert client.post("/v1/track", json=track("e")).text == "OK"
    until(lambda: client.get("/_fake/counts").json()["delivered"])
    code, errors = ended(process, signal.SIGINT)

    assert code == 0, errors
    assert "1 delivered" in errors
    assert world.destination.events == ["e"]
    assert world.transforms()[0].json["destinations"]["emarsys"]["Config"]["apiKey"] == "client_id:client_secret"
    assert world.transforms()[0].headers["authorization"].startswith("Basic ")


def test_a_broken_rule_is_found_something_wrong(world: World, config: Path) -> None:
    """The exit code is 1 and stderr says which rule, without the token."""
    world.script.replies = [Reply(404)]
    process, client = started(world, config)
    client.post("/v1/track", json=track("e"))
    until(lambda: client.get("/_fake/jobs?state=aborted").json())
    code, errors = ended(process, signal.SIGTERM)

    assert code == 1
    assert "emarsys-cdp: /routerTransform: 1.3-5 the status is never 404" in errors
    assert SECRET not in errors


def test_a_wrong_file_is_told_in_one_line(tmp_path: Path) -> None:
    """With the place in it."""
    path = tmp_path / "workspaceConfig.json"
    path.write_text('{"sources": [{"id": 5}]}')
    process = run("--transformer", "http://127.0.0.1:1", "--config", str(path))
    _, errors = process.communicate(timeout=LONGEST)

    assert process.returncode == 1
    assert errors.startswith("emarsys-cdp: workspaceConfig.json: ")
    assert "$.sources[0]" in errors
    assert errors.count("\n") == 1
