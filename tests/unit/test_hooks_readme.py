"""hooks/README.md says what the hooks are: held together with their specifications here."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import pluggy
import pytest
from msgspec import Struct

import emarsys_cdp_hooks
from emarsys_cdp_hooks import (
    PROJECT,
    Call,
    Identifiers,
    Profile,
    Space,
    UpsertContact,
    specs,
)

README = Path(emarsys_cdp_hooks.__file__).parent.parent / "README.md"
HELP = README.parent.parent / "plugin" / "emarsys_cdp" / "help" / "extensions.md"

HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(specs).items() if name.startswith(f"{PROJECT}_")
}

SPACE = Space(id="wholesale", host="rudderstack", key_field="3")
MESSAGE = {
    "event": "Order Completed",
    "anonymousId": "anon-1",
    "context": {"account": " A-1 ", "consent": {"marketing": False}},
    "properties": {"membership": "gold", "products": [{"sku": "A"}, {"sku": "B"}]},
}
CALLS = [
    Call(index=0, type="track", message_id="m-1", event_time=1_700_000_000_000, arrival=0, message=MESSAGE),
    Call(index=1, type="page", message_id="m-2", event_time=1_700_000_001_000, arrival=0, message={}),
]
ARGUMENTS: dict[str, Any] = {
    "space": SPACE,
    "calls": CALLS,
    "now": 1_700_000_002_000,
    "identifiers": [Identifiers(user="A-1"), Identifiers()],
    "profiles": [Profile("p", "A-1", "ada@example.com", (), 0, 0, {}), None],
    "actions": [(0, (UpsertContact("3", "ada@example.com", {"3": "ada@example.com"}),)), (1, ())],
    "merge": True,
}
"""One batch as every hook gets it: the first call is what the examples are about, the second is empty."""


class Example(Struct, frozen=True):
    """A fenced block of the README: the heading it stands under, its language and its text."""

    heading: str
    language: str
    text: str

    @property
    def hook(self) -> str:
        """The hook that the heading names."""
        return self.heading.strip("`").split("(")[0]


def examples(language: str) -> list[Example]:
    """Return the fenced blocks of a language."""
    heading, found = "", []
    for match in re.finditer(r"^#{1,6} ([^\n]*)$|^```(\w*)\n(.*?)^```$", README.read_text(), re.M | re.S):
        if match[1] is not None:
            heading = match[1]
        else:
            found.append(Example(heading, match[2], match[3]))
    return [example for example in found if example.language == language]


PYTHON = examples("python")
OF_HOOKS = [example for example in PYTHON if example.hook in HOOKS]
WITH_HOOKS = [example for example in PYTHON if "@hookimpl" in example.text]
FIRST = "emarsys_cdp_loyalty"
"""The module that the first example is; the test that follows imports it."""

Run: TypeAlias = Callable[[Example, str], ModuleType]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that executes an example as a module of this name."""

    def execute(example: Example, name: str) -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(example.text, str(README), "exec"), vars(module))  # noqa: S102 - our own documentation
        return module

    return execute


def test_every_hook_is_a_heading_with_its_parameters() -> None:
    """Each hook has one heading: its name and its parameters in order; no other function is a heading."""
    headings = re.findall(r"^### `(.*)`$", README.read_text(), re.M)

    assert headings == [f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in HOOKS.items()]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_when_what_and_what_if(name: str) -> None:
    """Under its heading each hook tells when it runs, what its answer means, and what happens when it fails."""
    text = re.split(r"^### `", README.read_text(), flags=re.M)
    (section,) = [part.split("\n## ")[0] for part in text if part.startswith(f"{name}(")]

    assert re.findall(r"^\*\*(.*?)\*\*", section, re.M) == ["When:", "Answer:", "When it fails:"]


def test_every_hook_has_one_example() -> None:
    """Under each hook's heading stands one example in Python."""
    assert [example.hook for example in OF_HOOKS] == list(HOOKS)


@pytest.mark.parametrize("example", WITH_HOOKS, ids=lambda example: example.hook)
def test_every_hook_in_an_example_is_accepted(example: Example, run: Run) -> None:
    """Every Python block with hooks executes, and a manager with our specifications takes them."""
    module = run(example, "example")
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specs)
    manager.register(module)
    manager.check_pending()

    assert [caller.name for caller in manager.get_hookcallers(module) or ()] == re.findall(
        r"^@hookimpl\ndef (\w+)", example.text, re.M
    )


@pytest.mark.parametrize("example", OF_HOOKS, ids=lambda example: example.hook)
def test_an_example_answers_its_hook(example: Example, run: Run) -> None:
    """The example implements the hook of its heading; for a batch of two calls it has something to say of each."""
    function: FunctionType = getattr(run(example, "example"), example.hook)
    answer = function(**{name: ARGUMENTS[name] for name in inspect.signature(function).parameters})

    assert len(answer) == (len(CALLS) if inspect.signature(function).parameters else 1)


def test_the_example_of_a_test_passes(run: Run) -> None:
    """The test that the README shows passes with the extension that it shows before."""
    extension, test = (example for example in PYTHON if example not in OF_HOOKS)
    run(extension, FIRST)
    module = run(test, "test_example")

    module.test_calls_of_the_monitoring_are_dropped()


def test_the_example_project_declares_our_entry_point() -> None:
    """The pyproject.toml of the README is TOML and declares a module in the group that is looked at."""
    (example,) = examples("toml")
    project = tomllib.loads(example.text)["project"]

    assert project["entry-points"][PROJECT] == {"loyalty": FIRST}
    assert project["dependencies"] == ["emarsys-cdp"]


@pytest.mark.parametrize("name", emarsys_cdp_hooks.__all__)
def test_every_exported_name_is_explained(name: str) -> None:
    """Every value type, error and other name that extensions import is named."""
    assert f"`{name}`" in README.read_text().split("## The values")[1]


def test_links_inside_the_page_lead_somewhere() -> None:
    """Every link of the table of contents is a heading of the page."""
    text = README.read_text()
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", text, re.M)}

    assert set(re.findall(r"\(#(.*?)\)", text)) == anchors


def test_the_help_page_names_every_hook() -> None:
    """The short page of the help names the same hooks in the same order."""
    assert re.findall(rf"^\| `({PROJECT}_\w+)` \|", HELP.read_text(), re.M) == list(HOOKS)
