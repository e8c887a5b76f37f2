"""What help/testing.md says about FakeHost: complete, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emarsys_cdp.testing import Consequence, FakeHost, HostOptions, JobState
from emarsys_cdp.testing.fake_host.options import Setup


@pytest.fixture(scope="module")
def section(root: Path) -> str:
    """Return the section of the help page."""
    page = (root / "plugin/emarsys_cdp/help/testing.md").read_text()
    return page.partition("\n## FakeHost\n")[2].partition("\n## ")[0]


def first_column(section: str, heading: str) -> list[str]:
    """Return the names in the first column of the table with this heading."""
    table = section.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_option_is_documented(section: str) -> None:
    """The table has the options of a host, which are those with a default."""
    assert set(first_column(section, "option")) == set(HostOptions.__annotations__) == set(Setup.__struct_fields__)


def test_every_state_and_consequence_is_documented(section: str) -> None:
    """In their order."""
    assert first_column(section, "state") == list(JobState)
    assert first_column(section, "consequence") == list(Consequence)


def test_everything_it_shows_and_does_is_documented(section: str) -> None:
    """Every public name of FakeHost, and no other."""
    names = {name.partition("(")[0] for name in first_column(section, "name")}

    assert names == {name for name in vars(FakeHost) if not name.startswith("_")}
