"""What the documentation claims, held against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.emarsys.field_types import built_in_field_types
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.settings import PREFIX, VARIABLES, Settings
from emarsys_cdp.validation import compile_schema

HELP = Path("plugin/emarsys_cdp/help")


def test_every_setting_is_documented(root: Path) -> None:
    """Every environment variable stands in help/settings.md, and nothing else does."""
    text = (root / HELP / "settings.md").read_text()
    documented = set(re.findall(rf"^\| `{PREFIX}(\w+)`", text, re.MULTILINE))

    assert set(VARIABLES) == documented
    assert {name.upper() for name in Settings.__struct_fields__} == documented


def test_every_metric_is_documented(root: Path) -> None:
    """Every metric stands in help/operations.md under the name that /metrics shows."""
    text = (root / HELP / "operations.md").read_text()
    families = text_string_to_metric_families(Metrics().expose().decode())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}

    assert names
    assert names == set(re.findall(r"^\| `(emarsys_cdp_\w+)`", text, re.MULTILINE))


def test_every_log_event_is_documented(root: Path) -> None:
    """Every event that the product logs stands in help/operations.md, and no other."""
    sources = [path.read_text() for path in (root / "plugin").rglob("*.py")]
    logged = {name for text in sources for name in re.findall(r"_log\.\w+\(\s*\"(\w+)\"", text)}
    table = (root / HELP / "operations.md").read_text().split("| event |")[1]
    documented = set(re.findall(r"`(\w+)`", table)) - {"request"}

    assert logged == documented


def test_the_documents_in_the_help_are_right(root: Path) -> None:
    """Every JSON document in help/documents.md passes `check`."""
    compiler = Compiler(compile_schema("document"), load_system_fields(), built_in_field_types())
    blocks = re.findall(r"```json\n(.*?)```", (root / HELP / "documents.md").read_text(), re.DOTALL)

    assert blocks
    for block in blocks:
        compiler.read("help/documents.md", json.loads(block))


def test_links_lead_somewhere(root: Path) -> None:
    """Every relative link of the shipped texts points to a file."""
    texts = [*root.glob("*.md"), *(root / HELP).glob("*.md"), root / "hooks/README.md", root / "tests/README.md"]
    for path in texts:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_ci_runs_the_commands_of_the_readme(root: Path) -> None:
    """The two commands of the README are the ones that .ci/run runs, to the letter."""
    readme, ci = (root / "README.md").read_text(), (root / ".ci/run").read_text()
    commands = [line for line in readme.splitlines() if line.startswith("bash .ci/install")]

    assert len(commands) == 2
    for command in commands:
        assert f"\n{command}\n" in ci
