"""The command `simulate` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import redis

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST = 60
"""Seconds after which a run is taken as hanging."""

KEYS = ["name", "effects", "instances", "profiles", "shared", "warnings", "contradictions", "results"]
TABLET = {
    "vectors": [
        {
            "name": "Ünïcode",
            "config": {},
            "timeline": [
                {"at": "1:00", "call": {"type": "page", "messageId": "m2", "userId": "u2", "anonymousId": "tablet"}},
                {"at": "0:00", "call": {"type": "page", "messageId": "m1", "userId": "u1", "anonymousId": "tablet"}},
                {"at": "2:00", "call": {"type": "track", "messageId": "m3", "userId": "u1"}},
                {"at": "3:00", "call": {"type": "page", "messageId": "m4", "userId": "null"}},
            ],
            "expect": {"shared": ["tablet"]},
        }
    ]
}


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a bare environment."""
    return subprocess.run(
        [COMMAND, "simulate", *arguments],
        env={"PATH": os.environ["PATH"], "COLUMNS": "100", **_paths(), **variables},
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )


def _paths() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PYTHONPATH", "HOME") if name in os.environ}


@pytest.fixture
def tablet(tmp_path: Path) -> Path:
    """Write a file of a tablet that two people use."""
    file = tmp_path / "tablet.json"
    file.write_text(json.dumps(TABLET))
    return file


def changed(file: Path, **parts: Any) -> Path:
    """Change parts of the first vector of a file."""
    raw = json.loads(file.read_text())
    raw["vectors"][0].update(parts)
    file.write_text(json.dumps(raw))
    return file


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_the_output_is_one_array(tablet: Path, store: str) -> None:
    """Exactly the listed keys, results in the order of the file; what else there is to say is not in it."""
    done = run(tablet, "--store", store)
    (outcome,) = json.loads(done.stdout)

    assert done.returncode == 0
    assert list(outcome) == KEYS
    assert outcome == {
        "name": "Ünïcode",
        "effects": [],
        "instances": [],
        "profiles": [
            {"user": "u1", "key": None, "anons": [], "former": []},
            {"user": "u2", "key": None, "anons": [], "former": []},
        ],
        "shared": ["tablet"],
        "warnings": ["anon_shared", "id_blocked", "unidentifiable"],
        "contradictions": 0,
        "results": ["ok", "ok", "dropped", "dropped"],
    }
    assert "Ünïcode, 0d 02:00: the track call has no event" in done.stderr


def test_a_redis_of_ones_own_is_as_before(tablet: Path, valkey_url: str) -> None:
    """The spaces of a simulation are removed from a server that others use too."""
    client = redis.Redis.from_url(valkey_url)
    client.flushall()
    client.set("theirs", "1")
    variables = {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": "0123456789abcdef"}
    first, second = (run(tablet, "--store", "redis", **variables) for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout == second.stdout == run(tablet).stdout
    assert list(client.scan_iter()) == [b"theirs"]
    client.close()


def test_what_a_file_expects_is_printed_over(tablet: Path) -> None:
    """Without --check a wrong expectation changes nothing."""
    before = run(tablet)
    after = run(changed(tablet, expect={"shared": []}))

    assert (after.returncode, after.stdout) == (0, before.stdout)


def test_check_compares(tablet: Path) -> None:
    """Exit code 1 and a table of the differences; the output stays what it is."""
    right = run(tablet, "--check")
    wrong = run(changed(tablet, expect={"shared": []}), "--check")

    assert (right.returncode, wrong.returncode) == (0, 1)
    assert right.stdout == wrong.stdout
    assert "All 1 vectors are as the file expects." in right.stderr
    assert re.search(r'Ünïcode +shared +\[\] +\["tablet"\]', wrong.stderr)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "file: cannot be read: No such file or directory"),
        ("{", "file: is no JSON"),
        ("[]", "document: must be object"),
        ('{"vectors": [{"name": "v", "config": {}, "timeline": [{"at": "x", "call": {}}]}]}', "timeline[0].at: 'x' "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_exit_code_2(tmp_path: Path, text: str | None, problem: str) -> None:
    """The error names file and place, and nothing is on standard output."""
    file = tmp_path / "x.json"
    if text is not None:
        file.write_text(text)
    done = run(file)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"emarsys-cdp: {file}: " in done.stderr
    assert problem in done.stderr


def test_half_a_character_does_not_break_the_output(tablet: Path) -> None:
    """What no UTF-8 has is written as an escape."""
    done = run(changed(tablet, name="\ud83d"))

    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["name"] == "\ud83d"


def test_the_example_of_the_help_runs(root: Path, tmp_path: Path) -> None:
    """The file that help/simulate.md shows does what it says."""
    text = (root / "plugin/emarsys_cdp/help/simulate.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.json").write_text(example)

    done = run(tmp_path / "example.json", "--check")

    assert done.returncode == 0, done.stderr
