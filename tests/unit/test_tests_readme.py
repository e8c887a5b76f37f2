"""tests/README.md: what it says about folders, vectors, rules and settings is so, and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emarsys_cdp.document.stock import SETTINGS
from emarsys_cdp.testing import Rule

RULES = [rule.value for rule in Rule if rule.value.startswith(("1.2", "1.3", "1.4"))]
STOCK_SETTINGS = (*SETTINGS, "discardEmptyProperties")


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    """Return the text of tests/README.md."""
    return (root / "tests" / "README.md").read_text()


def _vectors(readme: str) -> set[str]:
    """Return the names in the last column of the tables of rules."""
    section = readme.partition("## Rule by rule")[2]
    rows = [line.strip("|").rpartition("|")[2] for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}


def test_the_list_names_every_vector_and_no_other(readme: str, root: Path) -> None:
    """Each vector is in the list of rules, and each name in it is a file."""
    files = {path.stem for path in (root / "tests" / "contract" / "vectors" / "rudderstack").glob("*.json")}

    assert files
    assert _vectors(readme) == files


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_host_is_in_the_list(rule: str, readme: str) -> None:
    """A rule that the host's verdict knows has its line, with a vector or the folder that holds it."""
    line = next((line for line in readme.splitlines() if line.startswith("|") and rule in line), None)

    assert line is not None
    assert "`" in line or "every vector" in line


@pytest.mark.parametrize("setting", STOCK_SETTINGS)
def test_every_stock_setting_has_a_vector(setting: str, readme: str, root: Path) -> None:
    """A setting of the stock destination has its line, and one of the vectors there uses the setting."""
    rows = [line.strip("|").rsplit("|", 1) for line in readme.splitlines() if line.startswith("| `")]
    names = [
        name for what, vectors in rows if f"`{setting}`" in what for name in re.findall(r"`([a-z0-9-]+)`", vectors)
    ]
    files = [root / "tests" / "contract" / "vectors" / "rudderstack" / f"{name}.json" for name in names]

    assert any(f'"{setting}"' in path.read_text() for path in files)


def test_every_folder_is_in_the_list(readme: str, root: Path) -> None:
    """Whoever adds a folder says what belongs into it."""
    folders = {path.parent.name for path in (root / "tests").glob("*/*.py")}
    named = set(re.findall(r"^\| `([a-z_]+)[/`]", readme.partition("## A vector")[0], re.MULTILINE))

    assert folders - named == set()
