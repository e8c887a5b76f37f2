"""The rules that are shipped to begin with: right, meant, and doing what their examples say."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

import emarsys_cdp
import emarsys_cdp_manifests
from emarsys_cdp.document.model import Document
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.rules.actions_reading import BUILT_IN_ACTIONS
from emarsys_cdp.rules.operators import BUILT_INS, TYPES
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.examples import examples_of, run_examples
from emarsys_cdp.simulation.run import Engine
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.validation import compile_schema
from emarsys_cdp_hooks import Problem

TEMPLATES = Path(emarsys_cdp_manifests.__file__).parent / "templates"
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.json"))
HELP = Path(emarsys_cdp.__file__).parent / "help" / "rules.md"

MANAGER = build_plugin_manager([])
COMPILER, STEPS, CHECK = build_compiler(MANAGER), Steps(MANAGER), compile_schema("simulation")


def raw_template(name: str) -> Any:
    """Return the JSON of a template."""
    return json.loads(emarsys_cdp_manifests.read(f"templates/{name}.json"))


def run(document: Document) -> list[Problem]:
    """Return what comes out otherwise than the examples of a document say."""
    examples, problems = examples_of(document, CHECK, COMPILER)
    engine = Engine(MemoryStore(), STEPS, COMPILER, "templates", lambda _: None)
    return problems + asyncio.run(run_examples(lambda: engine, examples))


@pytest.mark.parametrize("name", NAMES)
def test_a_template_does_what_its_examples_say(name: str) -> None:
    """It has no problem, nothing that is surely not meant, and every example comes out."""
    document = COMPILER.read(name, raw_template(name))

    assert COMPILER.lint(document) == ()
    assert document.rules[0]["id"] == name
    assert document.rules[0]["examples"]
    assert run(document) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_template_tell_when_it_does_something_else(name: str) -> None:
    """With an exit that waits a second longer at least one example fails."""
    raw = raw_template(name)
    exits = [row for row in raw["rules"][0]["conditions"] if row["type"] == "exit"]
    for row in exits:
        if "at" in row:
            row["at"]["offset"] = "-604799s"
        else:
            row["wait"] = f"{_seconds(row.get('wait', '48h')) + 1}s"

    assert run(COMPILER.read(name, raw)) != []


def _seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "h": 3600, "d": 86_400}[text[-1]]


def test_the_help_lists_the_templates() -> None:
    """help/rules.md names every template, and no other."""
    table = HELP.read_text().split("| template |")[1]

    assert sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == NAMES


def test_the_documents_in_the_help_are_right() -> None:
    """Every JSON document in help/rules.md has no problem, and nothing that is not meant."""
    blocks = re.findall(r"```json\n(.*?)```", HELP.read_text(), re.DOTALL)

    assert blocks
    for block in blocks:
        assert COMPILER.lint(COMPILER.read("help/rules.md", json.loads(block))) == ()


def test_the_help_lists_the_operators_and_actions() -> None:
    """help/rules.md names every operator with the types that it is for, and every action."""
    rows = re.findall(r"^\| (`\w.*?`) \| [^|]*\| ([\w, ]+) \|", HELP.read_text(), re.MULTILINE)
    listed = {name: types for names, types in rows for name in re.findall(r"`(\w+)`", names)}
    wanted = {name: "all" if one.types == TYPES else ", ".join(one.types) for name, one in BUILT_INS.items()}

    assert {name: listed.get(name) for name in wanted} == wanted
    assert not [name for name in BUILT_IN_ACTIONS if f"`{name}`" not in HELP.read_text().split("## Actions")[1]]
