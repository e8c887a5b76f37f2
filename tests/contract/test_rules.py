"""
Rules of documents: when criteria hold, what is refused and why, and what is surely not meant.

`vectors/rules/criteria.json` has criteria with what is known at a call, `refused.json` rules with every problem and its
place, `lint.json` valid ones with the notes. A rule is one of a document with the data maps of `MAPS`; what a vector
gives is a part of the message.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.timelines import examples

import emarsys_cdp_manifests
from emarsys_cdp.credentials import Secret, Wsse
from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.emarsys.field_types import built_in_field_types
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.rules.criteria import Facts
from emarsys_cdp.rules.criteria_compiling import compile_criteria
from emarsys_cdp.rules.criteria_reading import MAX_PATTERNS, Surroundings, read_criteria
from emarsys_cdp.rules.findings import Findings
from emarsys_cdp.rules.reading import MAX_PROBLEMS
from emarsys_cdp.validation import compile_schema
from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.times import parse_time
from emarsys_cdp_hooks import InvalidDocument, Problem

VECTORS = Path(__file__).parent / "vectors" / "rules"
UNUSED = Wsse("user", Secret("secret"))
TIME = parse_time("2025-01-06T10:00:00Z") or 0
MAPS = [
    {"name": "event", "path": "event", "type": "string"},
    {"name": "price", "path": "properties.price", "type": "numeric"},
    {"name": "member", "path": "traits.member", "type": "boolean"},
    {"name": "until", "path": "traits.until", "type": "date"},
    {"name": "tags", "path": "traits.tags", "type": "list"},
]


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    """Return a compiler without extensions."""
    return Compiler(compile_schema("document"), load_system_fields(), built_in_field_types())


def vectors(name: str) -> list[Any]:
    """Return the vectors of a file as parameters."""
    read = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return [pytest.param(one, id=one["note"]) for one in read]


def document(*rules: dict[str, Any]) -> dict[str, Any]:
    """Return a document of rules."""
    return {"dataMaps": MAPS, "rules": rules}


def expect(found: tuple[Problem, ...], wanted: list[dict[str, str]]) -> None:
    """Check that each problem is at its place, with the words that are wanted, and that there are no others."""
    assert [one.place for one in found] == [one["place"] for one in wanted], found
    for one, want in zip(found, wanted, strict=True):
        assert want["says"] in one.message


@pytest.mark.parametrize("vector", vectors("criteria"))
def test_when_criteria_hold(vector: dict[str, Any]) -> None:
    """Criteria hold or not as the vector says, and what is known of the call alone does not exclude it."""
    zone = vector.get("zone", "UTC")
    types = {one["name"]: one["type"] for one in MAPS}
    around = Surroundings(types, vector.get("types", {}), zone)
    findings = Findings()
    found = compile_criteria(read_criteria(vector["match"], "match", around, findings), around)
    event, profile, before, instance = (
        _read(vector.get(part, {}), {**types, **around.variables}, zone)
        for part in ("event", "profile", "before", "instance")
    )
    facts = Facts(event, TIME, profile, before, instance, tuple(vector.get("sync", ())))

    assert findings.problems == []
    assert found.holds(facts) is vector["holds"]
    assert found.might(event, TIME) or not vector["holds"]


def _read(values: dict[str, Any], types: dict[str, str], zone: str) -> dict[str, Any]:
    """Return values as data maps read them."""
    return {name: coercion(types[name], zone)(raw) for name, raw in values.items()}


@pytest.mark.parametrize("vector", vectors("refused"))
def test_a_rule_that_is_refused(compiler: Compiler, vector: dict[str, Any]) -> None:
    """Every problem is told at its place, with the value and what would be right."""
    with pytest.raises(InvalidDocument) as error:
        compiler.read("document", document(vector["rule"]))

    expect(error.value.problems, vector["problems"])


@pytest.mark.parametrize("vector", vectors("lint"))
def test_what_is_surely_not_meant(compiler: Compiler, vector: dict[str, Any]) -> None:
    """A valid rule is taken, and what nobody can mean is noted at its place."""
    read = compiler.read("document", document(vector["rule"]))

    expect(compiler.lint(read), vector["notes"])


LARGE = {
    "a list": (
        {"map": "event", "op": "in", "value": [str(number) for number in range(10_001)]},
        "at most 10000 values",
    ),
    "comparisons": ({"any": ["event = A"] * 501}, "has 501 comparisons: at most 500"),
    "a text": ("event = " + "a" * 10_000, "a text of 10008 characters is too long: at most 10000"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_criteria_that_are_too_large(compiler: Compiler, kind: str) -> None:
    """What would make every call slow is refused with the bound."""
    match, says = LARGE[kind]
    with pytest.raises(InvalidDocument) as error:
        compiler.read("document", document({"id": "r", "conditions": [{"seq": 0, "type": "start", "match": match}]}))
    (problem,) = error.value.problems

    assert problem.place.startswith("rules[0].conditions[0].match")
    assert says in problem.message


START, EXIT = {"seq": 0, "type": "start", "match": "event = A"}, {"seq": 1, "type": "exit"}


def rule(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a rule."""
    return {"id": "r", "conditions": list(rows), **more}


OF_EXIT = "rules[0].conditions[1]"


@pytest.mark.parametrize(
    ("rules", "place", "says"),
    [
        ([rule(START, {**EXIT, "wait": "-5h"})], f"{OF_EXIT}.wait", "'-5h' is not right here: A number of hours"),
        ([rule(START, {**EXIT, "wait": "1e9w"})], f"{OF_EXIT}.wait", "'1e9w' is not right here: A number of hours"),
        ([rule(START, {**EXIT, "wait": -1})], f"{OF_EXIT}.wait", "-1 is not right here: A number of hours"),
        ([rule(START, {**EXIT, "waits": 1})], OF_EXIT, "waits"),
        ([rule({**START, "on": "click"})], "rules[0].conditions[0].on", "'click' is not right here: page, screen"),
        ([rule(*[START] * 201)], "rules[0].conditions", "200"),
        ([rule(START, EXIT, id=f"r{number}") for number in range(1001)], "rules", "1000"),
        ([rule(START, EXIT)] * 2, "rules[1].id", "'r' is the id of rules[0] too: ids must differ"),
        ([rule(START, EXIT, quietHours={"from": "21:00"})], "rules[0].quietHours", "to"),
        ([rule(START, EXIT, status="on")], "rules[0].status", "'on' must be one of"),
    ],
)
def test_rules_of_the_wrong_shape(compiler: Compiler, rules: list[Any], place: str, says: str) -> None:
    """What the schema refuses has its place and value as well."""
    with pytest.raises(InvalidDocument) as error:
        compiler.read("document", {"dataMaps": MAPS, "rules": rules})
    (problem,) = error.value.problems

    assert problem.place == place
    assert says in problem.message


def test_settings_and_rules_are_reported_together(compiler: Compiler) -> None:
    """All problems of a document are told at once, whatever part they are in."""
    settings = {"settle": "9999w", "caps": [{"count": 1, "per": 0}]}
    maps = [*MAPS, {"name": "sku", "path": "x..y", "type": "sting"}]
    with pytest.raises(InvalidDocument) as error:
        compiler.read(
            "document", {"settings": settings, "dataMaps": maps, "rules": [rule(START, EXIT, transaction="cart")]}
        )

    assert [one.place for one in error.value.problems] == [
        "dataMaps[5].path",
        "dataMaps[5].type",
        "settings.settle",
        "settings.caps[0].per",
        "rules[0].transaction",
    ]


JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1e300,
    "",
    "*",
    "x",
    "\ud800",
    "9" * 400,
    [],
    {},
    [[]],
    {"x": {}},
    [None],
    {"map": []},
]
RULES = [
    json.loads(emarsys_cdp_manifests.read(f"templates/{name}.json"))
    for name in ("cart-abandoned", "browse-abandoned", "renewal-reminder", "audience-entered", "dunning", "onboarding")
] + [document(one["rule"]) for one in json.loads((VECTORS / "refused.json").read_text())["vectors"]]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *[one for key, part in inner for one in _places(part, (*path, key))]]


@examples(300, 20_000)
@given(st.data())
def test_no_document_breaks_the_reading(compiler: Compiler, data: st.DataObject) -> None:
    """Whatever stands anywhere in a document, it is refused with places, or it can be compiled and linted."""
    raw = json.loads(json.dumps({"document": data.draw(st.sampled_from(RULES))}))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(_places(raw)[1:]))
        part = raw
        for step in path:
            part = part[step]
        part[last] = deepcopy(data.draw(st.sampled_from(JUNK)))
    try:
        read = compiler.read("document", raw["document"])
    except InvalidDocument as error:
        problems = error.problems
    else:
        compiler.lint(read)
        compiler.compile("space", "host", read, UNUSED)
        return
    assert problems
    assert all(one.place and one.message for one in problems)


def test_very_many_problems_end_the_reading(compiler: Compiler) -> None:
    """A million wrong comparisons would take minutes, and the answer would be larger than the document."""
    tests = [{"map": "event", "op": "matches", "value": f"([{number}"} for number in range(500)]
    rows = [{"seq": 0, "type": "start", "match": {"any": tests}}] * 100
    rules = [{"id": "rule", "conditions": [*rows, {"seq": 1, "type": "exit"}]}]

    with pytest.raises(InvalidDocument) as refused:
        compiler.read("test", document(*rules))

    assert len(refused.value.problems) == MAX_PROBLEMS + 1
    assert refused.value.problems[-1].message == f"has more problems than these {MAX_PROBLEMS}: mend them first"


def test_a_long_name_of_a_zone_is_shown_in_short(compiler: Compiler) -> None:
    """What is wrong is told in a line, whatever was written."""
    quiet = {"from": "20:00", "to": "08:00", "zone": "x" * 5000}
    rule = {"id": "rule", "quietHours": quiet, "conditions": [{"seq": 0, "type": "start"}, {"seq": 1, "type": "exit"}]}

    with pytest.raises(InvalidDocument) as refused:
        compiler.read("test", document(rule))

    assert [one.place for one in refused.value.problems] == ["rules[0].quietHours.zone"]
    assert len(refused.value.problems[0].message) < 200


def test_very_many_regular_expressions_are_refused(compiler: Compiler) -> None:
    """Each takes memory for as long as the document is in force: a hundred thousand would end the service."""
    tests = [{"map": "event", "op": "matches", "value": f"^{number}"} for number in range(500)]
    rows = [{"seq": 0, "type": "start", "match": {"any": tests}}] * (MAX_PATTERNS // 500)
    most = {"id": "rule", "conditions": [*rows, {"seq": 1, "type": "exit"}]}
    one = {"id": "one", "conditions": [{"seq": 0, "type": "start", "match": tests[0]}, {"seq": 1, "type": "exit"}]}

    assert len(compiler.read("test", document(most)).rules) == 1
    with pytest.raises(InvalidDocument) as refused:
        compiler.read("test", document(most, one))

    assert [found.place for found in refused.value.problems] == ["rules[1].conditions[0].match.value"]
    assert f"at most {MAX_PATTERNS}" in refused.value.problems[0].message
