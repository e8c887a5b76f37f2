"""The command `manifest`: a host's settings form on stdout or in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from emarsys_cdp.cli.manifest import manifest_command
from emarsys_cdp.forms import rudderstack, shipped

FILES = rudderstack.files(shipped())


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(manifest_command, arguments)


@pytest.mark.parametrize("arguments", [("rudderstack",), ("rudderstack", "--json")], ids=" ".join)
def test_one_json_object_goes_to_stdout(arguments: tuple[str, ...]) -> None:
    """Without a directory stdout is one JSON object: file names and what is in the files."""
    result = run(*arguments)

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {name: json.loads(text) for name, text in FILES.items()}
    assert result.stderr == ""


def test_the_files_are_written(tmp_path: Path) -> None:
    """With a directory the files are written there and named on stderr; stdout stays empty."""
    directory = tmp_path / "new" / "rudderstack"

    result = run("rudderstack", "--out", str(directory))

    assert result.exit_code == 0
    assert {path.name: path.read_text() for path in directory.iterdir()} == FILES
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"wrote {directory / name}" for name in FILES]


def test_files_of_the_same_name_are_overwritten(tmp_path: Path) -> None:
    """A second run refreshes the files and leaves others alone."""
    (tmp_path / "schema.json").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")

    result = run("rudderstack", "--out", str(tmp_path))

    assert result.exit_code == 0
    assert (tmp_path / "schema.json").read_text() == FILES["schema.json"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """What cannot be written is named, with the reason, and the exit code is 1."""
    blocked = tmp_path / "db-config.json"
    blocked.mkdir()

    result = run("rudderstack", "--out", str(tmp_path))

    assert result.exit_code == 1
    assert result.stderr == f"Error: {blocked}: cannot be written: Is a directory\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument"),
        (("elsewhere",), "'elsewhere' is not 'rudderstack'"),
        (("rudderstack", "--output", "x"), "No such option"),
        (("rudderstack", "--out", __file__), "is a file"),
    ],
    ids=["no host", "unknown host", "unknown option", "a file for a directory"],
)
def test_wrong_use_is_explained(arguments: tuple[str, ...], said: str) -> None:
    """Wrong use says what is wrong on stderr, prints nothing on stdout and exits with 2."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_help_teaches() -> None:
    """The help says what the files are for, shows examples and lists the exit codes."""
    result = run("--help")

    assert result.exit_code == 0
    for text in (
        *FILES,
        "\n    emarsys-cdp manifest rudderstack --out rudderstack\n",
        "Exit codes: 0 done, 1",
    ):
        assert text in result.stdout
