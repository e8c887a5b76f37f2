"""The command `account check` as an operator runs it: a process of its own against FakeEmarsys."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from pathlib import Path

import pytest

from emarsys_cdp.testing import FakeEmarsys, Fault

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST = 60
"""Seconds after which a run is taken as hanging."""

S3CRET = "hunter2-is-the-secret-of-this-test"
OAUTH_KEY = f"client-1:{S3CRET}"
WSSE_KEY = f"wsse:customer001:{S3CRET}"


@pytest.fixture
def emarsys() -> Iterator[FakeEmarsys]:
    """Run a fake; whatever a test does, no rule of the API is broken and nothing is written."""
    with FakeEmarsys(oauth={"client-1": S3CRET}, wsse={"customer001": S3CRET}) as fake:
        yield fake
        assert fake.violations == ()
        assert {one.method for one in fake.requests if not one.path.startswith("/oauth2")} <= {"GET"}


def environment(emarsys: FakeEmarsys, key: str | None = None) -> dict[str, str]:
    """Return a bare environment that leads to the fake, with an API Key if one is given."""
    return {
        "PATH": os.environ["PATH"],
        "COLUMNS": "80",
        "TERM": "xterm",
        "EMARSYS_CDP_API_BASE": emarsys.api_base,
        "EMARSYS_CDP_TOKEN_URL": emarsys.token_url,
        **({} if key is None else {"EMARSYS_CDP_API_KEY": key}),
    }


def run(variables: Mapping[str, str], *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end; wherever the secret comes from, it is in nothing that is printed."""
    done = subprocess.run(
        [COMMAND, "account", "check", *arguments],
        env=variables,
        input=given,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )
    assert S3CRET not in done.stdout + done.stderr
    return done


def terminal(variables: Mapping[str, str], typed: str, *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal of its own and type one line when it asks; return exit code and screen."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "account", "check", *arguments],
        env=variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        screen = b""
        while piece := read(ours):
            screen += piece
            if typed and screen.endswith(b"API Key: "):
                os.write(ours, f"{typed}\n".encode())
                typed = ""
        timer.cancel()
    os.close(ours)
    return process.returncode, screen.decode()


def read(descriptor: int) -> bytes:
    """Return what comes next on a terminal, nothing when its other side was closed."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # so does Linux tell the end
        return b""


def test_a_key_that_works(emarsys: FakeEmarsys) -> None:
    """The first line is the answer; the rest is readable on 80 columns, without colours in a pipe."""
    done = run(environment(emarsys, OAUTH_KEY))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "This API Key works."
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for line in (
        r"API +v3, OAuth 2\.0",
        r"API user +clie…",
        r"access token +fetched",
        r"account +\d+ fake_emarsys",
        r"rate limit +1000 requests a minute, 99\d left",
        r"fields +\d+ of the system, 0 of the account's own",
        r"external events +1",
        r"contact lists +0",
        r" ?externalevent\.list +on +lists external events",
        r" ?contact\.update +not tried +creates and updates contacts",
    ):
        assert re.search(rf"^{line} *$", done.stdout, re.MULTILINE), line


def test_what_is_wrong_comes_with_its_next_step(emarsys: FakeEmarsys) -> None:
    """A missing permission is named before everything else, and the exit code is 1."""
    emarsys.forbid("customer001", "contactlist.list")
    done = run(environment(emarsys, WSSE_KEY))
    words = " ".join(done.stdout.split())

    assert (done.returncode, done.stderr) == (1, "")
    assert words.startswith("Emarsys takes this API Key, but something is wrong. error")
    assert "next: switch contactlist.list on in Emarsys under Management > Security Settings > API Credentials" in words
    assert "end of WSSE and API v2 for 2026-12-31" in words


def test_one_json_object(emarsys: FakeEmarsys) -> None:
    """With --json stdout is one object with all that the text has, and nothing else is printed."""
    emarsys.forbid("client-1", "externalevent.list")
    done = run(environment(emarsys, OAUTH_KEY), "--json")
    found = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (1, "")
    assert (found["result"], found["api"], found["authentication"]) == ("incomplete", "v3", "OAuth 2.0")
    assert {one["name"]: one["state"] for one in found["permissions"]}["externalevent.list"] == "off"
    assert [sorted(one) for one in found["findings"]] == [["level", "next_step", "what"]]
    assert (found["counts"]["external_events"], found["counts"]["contact_lists"]) == (None, 0)
    assert (found["rate_limit"]["limit"], found["user"]) == (1000, "clie…")


def test_a_wrong_clock_is_told_from_a_wrong_secret(emarsys: FakeEmarsys) -> None:
    """An hour too late, a right WSSE key is refused; the Date of the answer shows that the clock is to blame."""
    emarsys.advance(3600)
    late = {"Date": formatdate(time.time() + 3600, usegmt=True)}
    emarsys.script(Fault("status", status=401, headers=late))
    done = run(environment(emarsys, WSSE_KEY))
    words = " ".join(done.stdout.split())

    assert done.returncode == 1
    assert words.startswith("Whether this API Key works cannot be told.")
    assert re.search(r"clock of this machine is (1 h 0|59) min(?: \d+ s)? behind that of Emarsys", words)
    assert "next: set the clock" in words


@pytest.mark.parametrize("key", ["client-1:other", "wsse:customer001:other"])
def test_a_key_that_is_refused(emarsys: FakeEmarsys, key: str) -> None:
    """The answer is plain, and what is not known is left out."""
    done = run(environment(emarsys, key))

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[0] == "This API Key does not work: Emarsys refuses it."
    assert "other" not in done.stdout
    assert "contact.update" not in done.stdout


def test_the_key_in_a_file(emarsys: FakeEmarsys, tmp_path: Path) -> None:
    """A file with a line break at its end, or standard input, comes before the environment."""
    (tmp_path / "key").write_text(f"{OAUTH_KEY}\n")
    variables = environment(emarsys, "client-1:other")

    assert run(variables, "--api-key-file", str(tmp_path / "key")).returncode == 0
    assert run(variables, "--api-key-file", "-", given=f"{WSSE_KEY}\n").returncode == 0


def test_the_key_is_asked_for_and_hidden(emarsys: FakeEmarsys) -> None:
    """On a terminal the key is asked for, is not shown while it is typed, and the answer has colours."""
    code, screen = terminal(environment(emarsys), OAUTH_KEY)

    assert code == 0
    assert S3CRET not in screen
    assert "\x1b[1;32mThis API Key works." in screen


USED_WRONGLY = {
    "no key": ([], "there is no API Key: set EMARSYS_CDP_API_KEY"),
    "on the command line": ([OAUTH_KEY], "not taken from the command line"),
    "as an option": ([f"--api-key={OAUTH_KEY}"], "No such option"),
    "instead of a file": (["--api-key-file", OAUTH_KEY], "cannot be read: No such file"),
    "an empty file": (["--api-key-file", os.devnull], "is empty"),
    "no text": (["--api-key-file", str(COMMAND.parent / "python")], "holds no API Key"),
    "malformed": (["--api-key-file", "-"], "not of a known form: write client_id:client_secret"),
}


@pytest.mark.parametrize("case", USED_WRONGLY)
def test_used_wrongly(emarsys: FakeEmarsys, case: str) -> None:
    """Without a key of a known form the exit code is 2, nothing is asked, and stderr says what would be right."""
    arguments, words = USED_WRONGLY[case]
    done = run(environment(emarsys), *arguments, given=S3CRET)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert emarsys.requests == ()


def test_a_malformed_key_in_the_environment(emarsys: FakeEmarsys) -> None:
    """So it is when the environment has one, with --json as well."""
    done = run(environment(emarsys, S3CRET), "--json")

    assert (done.returncode, done.stdout) == (2, "")
    assert "not of a known form" in done.stderr


def test_help() -> None:
    """The help has the ways to give a key, and the exit codes."""
    done = run({"PATH": os.environ["PATH"]}, "--help")

    assert done.returncode == 0
    for words in ("--api-key-file", "EMARSYS_CDP_API_KEY", "Exit codes: 0", "never from the command line"):
        assert words in " ".join(done.stdout.split())
