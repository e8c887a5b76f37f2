"""What is kept of a rule is enough to run it: held against the rules of all vectors of the semantics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.documents import EVENT, REVENUE, document, rule

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.rule_parts import maps_of, pattern_part, span_of
from emarsys_cdp.document.rules import build_rules, defaults_of
from emarsys_cdp.document.versions import Versions, assign
from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.reading import read_pattern
from emarsys_cdp.service.assembly import build_compiler

VECTORS = ("vectors.json", "rules.json", "examples.json")
ZONE = {"name": "zone", "path": "traits.zone", "type": "string"}


def documents(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the documents of the vectors that have rules."""
    for name in VECTORS:
        content = json.loads((root / "tests/contract/vectors/semantics" / name).read_text())
        inside = [one["config"] for one in content["vectors"] if "config" in one]
        yield from (one for one in [*content.get("configs", {}).values(), *inside] if one.get("rules"))


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    """Return a compiler without extensions."""
    return build_compiler(build_plugin_manager([]))


def test_the_kept_part_of_every_rule_is_the_rule(root: Path, compiler: Compiler) -> None:
    """The data maps that are found in it are all that its pattern needs, and its span is never too short."""
    seen = 0
    for raw in documents(root):
        read = compiler.read("vector", raw)
        types = {one.name: one.type for one in read.data_maps}
        for one in read.rules:
            used = {name: types[name] for name in maps_of(one, types)}
            span = read_pattern(pattern_part(one), used, defaults_of(read.settings), 1).span  # raises no problem
            assert span is None or span < span_of(one)
            seen += 1

    assert seen > 40


def test_old_versions_run_without_the_data_maps_of_the_gate(compiler: Compiler) -> None:
    """Quiet hours count as they are now, so the zone that an old version named may be gone."""
    quiet = {"from": "21:00", "to": "08:00", "zoneMap": "zone"}
    first = document(rule(quietHours=quiet), maps=(EVENT, REVENUE, ZONE))
    second = document(rule(lifetime="1h"))
    versions = Versions()
    for before, raw in (({}, first), (first, second)):
        versions, _ = assign(before, versions, raw, 0)

    rules = build_rules(compiler.read("document", second), Kinds(), versions=versions)

    assert rules is not None
    programs = [rules.program("coupon", version) for version in (1, 2)]
    assert [one and one.pattern.lifetime for one in programs] == [48 * 3_600_000, 3_600_000]
