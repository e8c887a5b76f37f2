"""What help/testing.md says about FakeEmarsys: complete, and nothing that is not there."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from emarsys_cdp.testing.fake_emarsys import FakeEmarsys, Fault
from emarsys_cdp.testing.fake_emarsys.control import DO, SHOW
from emarsys_cdp.testing.fake_emarsys.faults import FaultKind
from emarsys_cdp.testing.fake_emarsys.records import ViolationKind


@pytest.fixture(scope="module")
def section(root: Path) -> str:
    """Return the section of the help page."""
    page = (root / "plugin/emarsys_cdp/help/testing.md").read_text()
    return page.partition("\n## FakeEmarsys\n")[2].partition("\n## ")[0]


def first_column(section: str, heading: str) -> set[str]:
    """Return the names in the first column of the table with this heading."""
    table = section.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_keyword_is_documented(section: str) -> None:
    """The table of keywords has those of FakeEmarsys, all of them and no other."""
    assert first_column(section, "keyword") == set(inspect.signature(FakeEmarsys).parameters)


def test_every_fault_is_documented(section: str) -> None:
    """So do the tables of kinds of faults and of their parts."""
    tables = re.findall(r"\| kind \|.*?\n\n", section, re.DOTALL)

    assert [first_column(table, "kind") for table in tables] == [set(get_args(ViolationKind)), set(get_args(FaultKind))]
    assert first_column(section, "part") | {"kind"} == set(Fault.__struct_fields__)


def test_every_control_endpoint_is_documented(section: str) -> None:
    """And the table of addresses."""
    addresses = {address.removeprefix("/_fake/") for address in first_column(section, "address")}

    assert addresses == set(SHOW) | set(DO)


def test_everything_it_shows_and_does_is_named(section: str) -> None:
    """Every public name of FakeEmarsys is in the section, but for where it is and how it starts."""
    names = {name for name in vars(FakeEmarsys) if not name.startswith("_")}
    elsewhere = {"start", "stop", "url", "control_url"}

    assert {name for name in names if not re.search(rf"\b{name}\b", section)} <= elsewhere


def test_importing_the_package_does_not_import_a_server() -> None:
    """The checks of answers stay cheap: uvicorn and httpx are imported with the first use of FakeEmarsys."""
    code = (
        "import sys, emarsys_cdp.testing as testing;"
        "before = {'uvicorn', 'uvloop', 'starlette', 'httpx'} & set(sys.modules);"
        "print(sorted(before), testing.FakeEmarsys.__name__, 'uvicorn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[] FakeEmarsys True\n"
