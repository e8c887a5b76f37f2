"""Criteria of rules: the truth table, the laws of semantics.md 2.7, and what is known of a call alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model.timelines import examples

from emarsys_cdp.rules.contradictions import contradiction
from emarsys_cdp.rules.criteria import Criterion, Facts
from emarsys_cdp.rules.criteria_compiling import compile_criteria
from emarsys_cdp.rules.criteria_reading import Surroundings, read_criteria
from emarsys_cdp.rules.findings import Findings
from emarsys_cdp.rules.operators import BUILT_INS, CHANGES, MANY, ONE, PAIR, PATTERN, SPAN
from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.times import parse_time

TIME = parse_time("2025-01-06T10:00:00Z") or 0
TYPES = {"s": "string", "n": "numeric", "b": "boolean", "d": "date", "l": "list", "other": "string"}
OPERATORS = json.loads((Path(__file__).parent.parent / "contract/vectors/semantics/operators.json").read_text())


def criterion(raw: Any, zone: str = "UTC", **variables: str) -> Criterion:
    """Return the compiled form of criteria over the maps of `TYPES`; they must be right."""
    findings = Findings()
    around = Surroundings(TYPES, variables, zone)
    node = read_criteria(raw, "match", around, findings)
    assert not findings.problems, findings.problems
    return compile_criteria(node, around)


def problems(raw: Any, **variables: str) -> list[str]:
    """Return the problems of criteria over the maps of `TYPES`."""
    findings = Findings()
    read_criteria(raw, "match", Surroundings(TYPES, variables), findings)
    return [str(one) for one in findings.problems]


def holds(raw: Any, facts: Facts | None = None, zone: str = "UTC", **variables: str) -> bool:
    """Tell whether criteria hold."""
    return criterion(raw, zone, **variables).holds(facts or Facts({}, TIME))


@pytest.mark.parametrize(
    "row", OPERATORS["operators"], ids=lambda row: f"{row['op']} {row['type']} {json.dumps(row['raw'])}"
)
def test_the_truth_table(row: dict[str, Any]) -> None:
    """Every row of operators.json comes out as it says, and what is known of the call alone agrees."""
    leaf = {"map": row["type"][0], "op": row["op"]}
    leaf |= {} if row["arg"] is None else {"value": row["arg"]}
    leaf |= {"ignoreCase": True} if row.get("ignoreCase") else {}
    value = coercion(row["type"], "UTC")(row["raw"])
    event = {} if value is None else {row["type"][0]: value}
    found = criterion(leaf)

    assert found.holds(Facts(event, TIME)) is row["expect"]
    assert found.might(event, TIME) is row["expect"]
    assert [one.holds for one in found.leaves(Facts(event, TIME))] == [row["expect"]]


ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "s": st.sampled_from(["a", "B", "ab", "straße", "STRASSE", "café", "1", '"q"', " x", "a, b", "$x"]),
    "n": st.sampled_from([0, 1, -1, 2.5, "2.50", 1e3, "10"]),
    "b": st.booleans(),
    "d": st.sampled_from(["2025-01-06", "2025-01-06T10:00:00Z", "2025-01-05T23:59:59+02:00", "2024-02-29"]),
    "l": st.lists(st.sampled_from(["a", "B", "b"]), max_size=3),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.one_of(st.none(), strategy) for name, strategy in ARGUMENTS.items()},
    "s": st.one_of(st.none(), st.just(""), ARGUMENTS["s"]),
}
SCALARS = {**ARGUMENTS, "l": ARGUMENTS["s"].filter(bool)}
ENDS = {**SCALARS, "d": st.sampled_from(["2025-01-06T10:00:00Z", "2025-01-05T23:59:59Z", "2024-02-29T00:00:00Z"])}
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"])


def read_as(values: dict[str, Any], zone: str) -> dict[str, Any]:
    """Return values as data maps read them; what is absent is left out."""
    read = {name: coercion(TYPES[name], zone)(raw) for name, raw in values.items()}
    return {name: value for name, value in read.items() if value is not None}


@st.composite
def leaves(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a comparison of any kind by a positive operator."""
    name = draw(st.sampled_from("snbdl"))
    operator = draw(st.sampled_from([one for one in BUILT_INS.values() if TYPES[name] in one.types]))
    leaf: dict[str, Any] = {"map": name, "op": operator.name}
    element = (
        SCALARS[name] if operator.name.startswith("contains") or operator.argument in (MANY, PAIR) else ARGUMENTS[name]
    )
    if operator.argument == ONE:
        leaf["value"] = draw(element)
    elif operator.argument == MANY:
        leaf["value"] = draw(st.lists(element, min_size=1, max_size=3))
    elif operator.argument == PAIR:
        ends = draw(st.tuples(ENDS[name], ENDS[name]))
        leaf["value"] = sorted(ends, key=lambda one: float(one) if name == "n" else parse_time(one) or 0)
    elif operator.argument == SPAN:
        leaf["value"] = draw(st.sampled_from(["0s", "1h", "10h", "2d", 48]))
    elif operator.argument == PATTERN:
        leaf["value"] = draw(st.sampled_from(["a", "^a$", "b|B", "[A-Z]+"]))
    if operator.folds and name in "sl" and draw(st.booleans()):
        leaf["ignoreCase"] = True
    if operator.name not in CHANGES:
        leaf["scope"] = draw(st.sampled_from(["event", "event", "profile", "instance"]))
    if operator.argument == ONE and name in "sn" and draw(st.integers(0, 3)) == 0:
        del leaf["value"]
        leaf["var"] = name
    return leaf


def trees() -> st.SearchStrategy[Any]:
    """Draw criteria of any form."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda part: {"not": part}, inner),
        ),
        max_leaves=6,
    )


def several() -> st.SearchStrategy[dict[str, Any]]:
    """Draw raw values of the data maps."""
    return st.fixed_dictionaries({}, optional=VALUES)


@st.composite
def moments(draw: st.DrawFn, zone: str) -> Facts:
    """Draw what is known at a call."""
    event, profile, before, instance = (read_as(draw(several()), zone) for _ in range(4))
    sync = draw(st.sampled_from([(), ("s",), ("b", "n")]))
    return Facts(event, TIME, {**profile, **event}, before, instance, sync)


LAW = examples(100, 10_000)
CAPTURED = {name: TYPES[name] for name in "snbdl"}


@LAW
@given(st.data(), ZONES)
def test_a_negated_operator_is_its_negation(data: st.DataObject, zone: str) -> None:
    """`not_X` is `not X` for every operator, value and scope (P8)."""
    leaf, facts = data.draw(leaves()), data.draw(moments(zone))
    op = {"is_true": "not_true", "is_false": "not_false"}.get(leaf["op"], f"not_{leaf['op']}")

    assert holds({**leaf, "op": op}, facts, zone, **CAPTURED) is not holds(leaf, facts, zone, **CAPTURED)


@LAW
@given(st.data(), ZONES)
def test_de_morgan(data: st.DataObject, zone: str) -> None:
    """Not all of them is any of their negations, and the other way round (P8)."""
    parts, facts = data.draw(st.lists(trees(), min_size=1, max_size=3)), data.draw(moments(zone))
    negated = [{"not": part} for part in parts]

    for one, other in (("all", "any"), ("any", "all")):
        left, right = {"not": {one: parts}}, {other: negated}
        assert holds(left, facts, zone, **CAPTURED) is holds(right, facts, zone, **CAPTURED)


@LAW
@given(st.data(), ZONES)
def test_a_positive_operator_is_false_on_an_absent_value(data: st.DataObject, zone: str) -> None:
    """Only `empty` holds for what is not there."""
    leaf = data.draw(leaves())

    assert holds(leaf, Facts({}, TIME), zone, **CAPTURED) is (leaf["op"] == "empty")


@LAW
@given(st.data(), ZONES)
def test_reading_a_value_again_changes_nothing(data: st.DataObject, zone: str) -> None:
    """The coercion of a data type is idempotent (P8)."""
    name = data.draw(st.sampled_from("snbdl"))
    raw = data.draw(st.one_of(VALUES[name], st.floats(), st.integers(), st.text(), st.lists(st.text(), max_size=2)))
    read = coercion(TYPES[name], zone)
    value = read(raw)

    assert value is None or read(value) == value


@LAW
@given(st.data(), ZONES)
def test_what_is_known_of_a_call_alone_bounds_what_holds(data: st.DataObject, zone: str) -> None:
    """Where `might` is false, and where the index has no key for a call, nothing can make the criterion hold."""
    found, facts = criterion(data.draw(trees()), zone, **CAPTURED), data.draw(moments(zone))

    if found.holds(facts):
        assert found.might(facts.event, facts.time)
        assert found.keys is None or facts.event.get(found.keys[0]) in found.keys[1]
    if found.keys is not None and facts.event.get(found.keys[0]) in found.keys[1]:
        assert found.might(facts.event, facts.time) == (found.rest is None or found.rest(facts.event, facts.time))


@LAW
@given(st.data(), ZONES)
def test_comparisons_come_out_as_they_decide(data: st.DataObject, zone: str) -> None:
    """A criterion of one comparison holds as its only leaf does, which has the value that was read."""
    leaf, facts = data.draw(leaves()), data.draw(moments(zone))
    (shown,) = criterion(leaf, zone, **CAPTURED).leaves(facts)
    source = {"profile": facts.profile, "instance": facts.instance}.get(leaf.get("scope", ""), facts.event)

    assert shown.holds is holds(leaf, facts, zone, **CAPTURED)
    assert shown.value == source.get(leaf["map"])


@LAW
@given(leaves(), st.booleans(), ZONES)
def test_the_short_form_is_read_as_it_is_written(leaf: dict[str, Any], negated: bool, zone: str) -> None:
    """A comparison that the short form can say means the same when its text is read."""
    plain = {name: leaf[name] for name in ("map", "op", "value") if name in leaf}
    if "var" in leaf:
        plain["value"] = "a"
    if leaf["map"] == "n" and plain.get("value") == "a":
        plain["value"] = 1
    if plain.get("value") == []:
        plain["value"] = ["a"]  # the short form has none for an empty list
    raw = {"not": plain} if negated else plain
    text = criterion(raw, zone).text
    read = Findings()

    assert read_criteria(text, "match", Surroundings(TYPES, zone=zone), read) == read_criteria(
        raw, "match", Surroundings(TYPES, zone=zone), read
    )
    assert read.problems == []


STRANGE: dict[str, st.SearchStrategy[Any]] = {
    "s": st.sampled_from([True, ["a"], []]),
    "n": st.sampled_from(["abc", "", "NaN", "Infinity", True, ["1"]]),
    "b": st.sampled_from(["true", "", ["x"]]),
    "d": st.sampled_from(["soon", "", "10", False, ["x"]]),
    "l": st.sampled_from(["a", True]),
}


@LAW
@given(leaves(), st.fixed_dictionaries(STRANGE), ZONES)
def test_a_value_of_another_type_counts_as_absent(leaf: dict[str, Any], strange: dict[str, Any], zone: str) -> None:
    """So it is with values that were kept before a data map got another type: nothing fails, nothing matches."""
    facts, nothing = Facts(strange, TIME, strange, strange, strange), Facts({}, TIME)

    assert holds(leaf, facts, zone, **CAPTURED) is holds(leaf, nothing, zone, **CAPTURED)


@LAW
@given(st.data(), ZONES)
def test_what_is_said_to_contradict_itself_never_holds(data: st.DataObject, zone: str) -> None:
    """The note that a criterion can never hold is never wrong."""
    parts, facts = data.draw(st.lists(trees(), min_size=1, max_size=4)), data.draw(moments(zone))
    around, findings = Surroundings(TYPES, CAPTURED, zone), Findings()
    node = read_criteria({"all": parts}, "match", around, findings)
    assert node is not None

    if contradiction(node, around) is not None:
        assert not compile_criteria(node, around).holds(facts)
