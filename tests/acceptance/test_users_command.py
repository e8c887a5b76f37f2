"""The command `users` as an operator runs it: beside a running service, and without one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from tests.support.app import ROUTER, host_of
from tests.support.requests import call, router_request
from tests.support.servers import flush
from tests.support.world import SECRET, make_service

from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.keys import owned_by, row_key
from emarsys_cdp.store.redis import RedisStore

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST: Final = 60
"""Seconds after which a run is taken as hanging."""

ADA: Final = call("identify", 1, userId="u1", anonymousId="laptop", traits={"email": "ada@x.com", "firstName": "Ada"})
GRACE: Final = call("page", 2, userId="u2", anonymousId="tablet")
JOAN: Final = call("page", 3, userId="u3", anonymousId="tablet")

Variables = Mapping[str, str]


def fill(url: str, calls: Sequence[Mapping[str, Any]], *spaces: str) -> None:
    """Let a service take calls for some spaces."""

    async def main() -> None:
        async with host_of(make_service(RedisStore(url))) as host:
            for space in spaces:
                await host.send(ROUTER, router_request(calls, space=space))

    asyncio.run(main())


@pytest.fixture
def table(valkey_url: str) -> Variables:
    """Return the settings of a Redis in which three people are, two of whom used a tablet."""
    flush(valkey_url)
    fill(valkey_url, [ADA, GRACE, JOAN], "dest-1")
    return {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": SECRET}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[tuple[Path, EmbeddedServer]]:
    """Give a data directory and its server, which runs as that of a service does."""
    server = EmbeddedServer(tmp_path / "valkey")
    server.start()
    (tmp_path / "secret").write_text(SECRET)
    fill(server.url, [ADA, GRACE, JOAN], "dest-1")
    try:
        yield tmp_path, server
    finally:
        server.stop()


def run(variables: Variables, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end; the secret is in nothing that is printed."""
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        [COMMAND, "users", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "100", **paths, **variables},
        input=typed,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )
    assert SECRET not in done.stdout + done.stderr
    return done


def shown(variables: Variables, *arguments: str) -> Any:
    """Return the JSON that a command prints."""
    done = run(variables, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(variables: Variables, *arguments: str, code: int = 1) -> str:
    """Return why a command refuses; it prints nothing else."""
    done = run(variables, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    return done.stderr


def test_a_person_is_shown_by_every_identifier(table: Variables) -> None:
    """The only space need not be named, and a key is read as that of a call is."""
    by_user, by_key, by_anon = (
        shown(table, "show", *which) for which in (("--user", "u1"), ("--key", " Ada@X.com"), ("--anon", "laptop"))
    )

    assert by_user == by_key == by_anon
    assert (by_user["userId"], by_user["primaryKey"], by_user["anonymousId"]) == ("u1", "ada@x.com", "laptop")


def test_a_person_is_shown_in_words(table: Variables) -> None:
    """Identifiers, times and the values of data maps."""
    text = run(table, "show", "--user", "u1", "--space", "dest-1").stdout

    for part in ("u1", "ada@x.com", "laptop", "first_name", "Ada", "2026-11-23T09:59:01.100Z", "identify m-1"):
        assert part in text


def test_a_shared_device_is_shown_as_such(table: Variables) -> None:
    """It is nobody's, and the words say so."""
    found = shown(table, "show", "--anon", "tablet")
    text = run(table, "show", "--anon", "tablet").stdout

    assert (found["anon"], found["state"], found["users"]) == ("tablet", "shared", 2)
    assert timedelta(88) < datetime.fromisoformat(found["until"]) - datetime.now() < timedelta(91)  # noqa: DTZ005 - days
    assert "This anonymousId is shared: different people used it" in text
    assert f"until {found['until']}" in " ".join(text.split())


def test_nobody_is_an_error(table: Variables) -> None:
    """Exit code 1; what can be no identifier is told apart from what is unknown."""
    assert "emarsys-cdp: nobody in space dest-1 has userId 'u9'" in refusal(table, "show", "--user", "u9")
    assert "userId 'null' is a value that programs send when they know nobody" in refusal(
        table, "show", "--user", "null"
    )


@pytest.mark.parametrize("arguments", [(), ("--user", "u1", "--anon", "laptop")])
def test_one_identifier_is_given(table: Variables, arguments: Sequence[str]) -> None:
    """None or several are used wrongly."""
    assert "name the person by one of --user, --key, --anon" in refusal(table, "show", *arguments, code=2)


def test_several_spaces_have_to_be_told_apart(table: Variables) -> None:
    """The error lists them."""
    fill(table["EMARSYS_CDP_REDIS_URL"], [call("page", 4, userId="u1")], "dest-2")

    assert "there are several spaces, name one of them: dest-1, dest-2" in refusal(table, "show", "--user", "u1")
    assert shown(table, "show", "--user", "u1", "--space", "dest-2")["lastCall"]["mid"] == "m-4"


def test_the_last_that_were_seen_are_listed(table: Variables) -> None:
    """Newest first, and how many there are."""
    assert [one["userId"] for one in shown(table, "list")] == ["u3", "u2", "u1"]
    assert [one["userId"] for one in shown(table, "list", "--limit", "2")] == ["u3", "u2"]
    text = run(table, "list", "--limit", "2").stdout
    assert "u3" in text
    assert "u1" not in text
    assert "The 2 of 3 people that were seen last" in text


def test_everybody_is_exported(table: Variables) -> None:
    """One JSON object a line, as `show --json` has it."""
    lines = [json.loads(line) for line in run(table, "export").stdout.splitlines()]

    assert sorted(one["userId"] for one in lines) == ["u1", "u2", "u3"]
    assert shown(table, "show", "--user", "u1") in lines


def test_what_people_who_are_gone_have_left_is_swept(table: Variables) -> None:
    """All spaces, whatever is set; the numbers are told."""
    with redis.Redis.from_url(table["EMARSYS_CDP_REDIS_URL"]) as client:
        client.set(row_key("A" * 24), owned_by("DEADDEADDEAD"))
        first, second = shown(table, "sweep"), run(table, "sweep", "--keys-per-second", "100000")

        assert (first["people"], first["removed"], first["finished"]) == (3, 1, 0)
        assert client.get(row_key("A" * 24)) is None
    assert (second.returncode, second.stderr) == (0, "")
    assert re.search(r"people +3\n", second.stdout)


def test_erasing_asks_for_the_identifier(table: Variables) -> None:
    """The person is shown first; another answer, or none, changes nothing."""
    wrong, none = (run(table, "erase", "--user", "u1", typed=typed) for typed in ("u2\n", ""))

    assert (wrong.returncode, none.returncode) == (1, 1)
    assert "nothing was changed" in wrong.stderr
    assert "ada@x.com" in wrong.stderr
    assert shown(table, "show", "--user", "u1")["userId"] == "u1"


def test_a_person_is_erased(table: Variables) -> None:
    """By one identifier the whole person; what is left says when, and what to do in Emarsys is said."""
    done = run(table, "erase", "--user", "u1", typed="u1\n")

    assert done.returncode == 0
    assert "Erased:" in done.stdout
    assert "delete the contact with the key ada@x.com" in done.stdout
    assert shown(table, "show", "--key", "ada@x.com")["mode"] == "delete"
    assert "This identifier was erased at " in run(table, "show", "--anon", "laptop").stdout
    assert [one["userId"] for one in shown(table, "list")] == ["u3", "u2"]


def test_a_suppressed_person_comes_back(table: Variables) -> None:
    """Suppress, show, unsuppress; a second time there is nobody to take back."""
    removed = shown(table, "suppress", "--key", "ada@x.com", "--yes")

    assert {"kind": "user", "value": "u1"} in removed["identifiers"]
    assert "all calls with it are dropped" in run(table, "show", "--user", "u1").stdout
    assert "Calls with userId u1 are taken again." in run(table, "unsuppress", "--user", "u1").stdout
    assert "userId 'u1' is not suppressed in space dest-1" in refusal(table, "unsuppress", "--user", "u1")


def test_it_works_beside_a_running_service(directory: tuple[Path, EmbeddedServer]) -> None:
    """The server of the service is asked; it goes on."""
    path, server = directory
    variables = {"EMARSYS_CDP_DATA_DIR": str(path)}

    assert shown(variables, "show", "--user", "u1")["primaryKey"] == "ada@x.com"
    fill(server.url, [call("page", 5, userId="u5")], "dest-1")
    assert len(shown(variables, "list")) == 4


def test_it_works_without_a_service(directory: tuple[Path, EmbeddedServer]) -> None:
    """A server runs for the command alone; afterwards the directory is free."""
    path, server = directory
    server.stop()
    variables = {"EMARSYS_CDP_DATA_DIR": str(path)}

    assert shown(variables, "show", "--user", "u1")["primaryKey"] == "ada@x.com"
    assert len(run(variables, "export").stdout.splitlines()) == 3
    server.start()


def test_a_directory_without_a_table_stays_as_it_is(tmp_path: Path) -> None:
    """Looking makes nothing."""
    text = refusal({"EMARSYS_CDP_DATA_DIR": str(tmp_path / "x")}, "list")

    assert f"there is no users table in {tmp_path / 'x'}: the service makes it when it starts" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["export", "list"])
def test_a_full_disk_is_told(table: Variables, command: str) -> None:
    """One line, and no success."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "users", command],
            env={**os.environ, **table},
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONGEST,
        )

    assert (done.returncode, done.stderr) == (
        1,
        "emarsys-cdp: the output cannot be written: No space left on device\n",
    )


def test_who_has_seen_enough_of_an_export_is_not_told_of_it(table: Variables) -> None:
    """As with `| head`: nothing on standard error."""
    with subprocess.Popen(
        [COMMAND, "users", "export"],
        env={**os.environ, **table},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_another_secret_is_told(table: Variables) -> None:
    """Nobody would be found by it."""
    text = refusal({**table, "EMARSYS_CDP_SECRET": "another secret of the tests"}, "show", "--user", "u1")

    assert "the identifiers of this users table are not found by the secret: EMARSYS_CDP_SECRET" in text


def test_an_empty_table_is_told(valkey_url: str) -> None:
    """There is no space to choose."""
    flush(valkey_url)
    variables = {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": SECRET}

    assert "the users table is empty" in refusal(variables, "list")
    assert "Nobody is in the users table of this space." in run(variables, "list", "--space", "x").stdout


def test_a_redis_that_is_down_is_told(tmp_path: Path) -> None:
    """One line, no traceback."""
    variables = {"EMARSYS_CDP_REDIS_URL": f"unix://{tmp_path}/no.sock", "EMARSYS_CDP_SECRET": SECRET}
    text = refusal(variables, "list")

    assert text.startswith("emarsys-cdp: ")
    assert len(text.splitlines()) == 1
