"""`emarsys-cdp check` as people run it: problems, notes, examples, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import emarsys_cdp_manifests

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
TEMPLATE = json.loads(emarsys_cdp_manifests.read("templates/coupon-no-order.json"))


def check(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [COMMAND, "check", *arguments], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )


def write(path: Path, raw: Any) -> Path:
    """Write a document."""
    path.write_text(json.dumps(raw))
    return path


def changed(**parts: Any) -> dict[str, Any]:
    """Return the template with other parts of its rule."""
    return {**TEMPLATE, "rules": [{**TEMPLATE["rules"][0], **parts}]}


def report(path: Path) -> tuple[int, list[dict[str, str]], list[dict[str, str]]]:
    """Return the exit code, the problems and the notes of one file."""
    result = check("--json", path)
    (found,) = json.loads(result.stdout)
    assert found["file"] == str(path)
    return result.returncode, found["problems"], found["notes"]


def test_a_right_document(tmp_path: Path) -> None:
    """It is said to be right, with what was looked at, and the exit code is 0."""
    path = write(tmp_path / "shop.json", TEMPLATE)
    result = check(path)

    assert (result.returncode, result.stdout) == (0, f"{path}: right (1 data maps, 1 rules, 6 examples)\n")


def test_an_example_that_comes_out_otherwise(tmp_path: Path) -> None:
    """It is a problem at its place, with what is expected and what came out."""
    code, problems, _ = report(write(tmp_path / "shop.json", changed(lifetime="47h")))

    assert code == 1
    assert problems[0]["place"] == "rules[0].examples[0].expect.effects"
    assert '"at": "2d 00:00"' in problems[0]["message"]
    assert '"at": "1d 23:00"' in problems[0]["message"]


@pytest.mark.parametrize(
    ("example", "place", "says"),
    [
        ({"timeline": [{"at": "soon"}]}, "rules[0].examples[0].timeline[0]", "a step is one of"),
        ({"timeline": [{"at": "soon", "call": {}}]}, "rules[0].examples[0].timeline[0].at", "is no offset of time"),
        ({"until": "1d"}, "rules[0].examples[0]", "timeline"),
    ],
)
def test_an_example_that_cannot_be_run(tmp_path: Path, example: Any, place: str, says: str) -> None:
    """It is a problem at its place in the document."""
    code, problems, _ = report(write(tmp_path / "shop.json", changed(examples=[example])))

    assert code == 1
    assert problems[0]["place"] == place
    assert says in problems[0]["message"]


@pytest.mark.parametrize("status", ["draft", "paused", "archived"])
def test_examples_run_whatever_the_status(tmp_path: Path, status: str) -> None:
    """The examples of a rule that is not in force are run as if it were."""
    assert report(write(tmp_path / "shop.json", changed(status=status))) == (0, [], [])


def test_notes_do_not_count(tmp_path: Path) -> None:
    """What is surely not meant is noted, and the exit code stays 0."""
    rows = [{**TEMPLATE["rules"][0]["conditions"][0], "match": ["event = A", "event = B"]}]
    code, problems, notes = report(write(tmp_path / "shop.json", changed(conditions=rows, examples=[])))

    assert (code, problems) == (0, [])
    assert [one["place"] for one in notes] == ["rules[0].conditions[0].match", "rules[0].conditions"]


def test_a_table_for_people(tmp_path: Path) -> None:
    """Problems and notes stand in a table of the file, each with its place in full; right files have a line."""
    wrong = write(tmp_path / "wrong.json", changed(transaction="cart"))
    right = write(tmp_path / "right.json", TEMPLATE)
    result = check(wrong, right)
    lines = result.stdout.splitlines()

    assert result.returncode == 1
    assert lines[0].strip() == str(wrong)
    assert any(line.split()[:2] == ["problem", "rules[0].transaction"] for line in lines)
    assert any(line.startswith(f"{right}: right") for line in lines)
