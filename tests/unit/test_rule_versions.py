"""Versions of rules: which change makes a new one, which old ones are kept, which data maps have to stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest
from tests.support.documents import EVENT, EXCLUDE, EXIT, REVENUE, START, document, rule

from emarsys_cdp.document import versions as module
from emarsys_cdp.document.rule_parts import maps_of, span_of
from emarsys_cdp.document.versions import (
    MAX_KEPT,
    Change,
    RuleVersion,
    Versions,
    assign,
    bare,
    map_problems,
    numbered,
    presumed_live,
)

NOW: Final = 1_800_000_000_000
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

STEP: Final = {"seq": 1, "type": "step", "within": "7d"}

FIRST: Final = document(rule(conditions=[{**START, "wait": 0, "variables": ["revenue"]}, EXCLUDE, EXIT]))


def after(*steps: Mapping[str, Any], every: int = DAY) -> tuple[Versions, tuple[Change, ...]]:
    """Return versions and last changes after documents were published one after another."""
    before: Mapping[str, Any] = {}
    versions, changes = Versions(), tuple[Change, ...]()
    for number, raw in enumerate(steps):
        versions, changes = assign(before, versions, raw, NOW + number * every)
        before = raw
    return versions, changes


def changed(**parts: Any) -> dict[str, Any]:
    """Return the first document with its rule changed."""
    return {**FIRST, "rules": [{**FIRST["rules"][0], **parts}]}


PATTERN: Final = {
    "a lifetime": changed(lifetime="49h"),
    "a transaction": changed(transaction="ecom_event"),
    "several at a time": changed(multiple=True),
    "a repeated start": changed(onRepeatStart="restart"),
    "re-entry": changed(reentry={"after": "1d"}),
    "at most active": changed(maxActive=3),
    "a condition": changed(conditions=[START, EXIT]),
    "an action": changed(conditions=[*FIRST["rules"][0]["conditions"][:2], {**EXIT, "actions": []}]),
    "the path of a map": {**FIRST, "dataMaps": [EVENT, {**REVENUE, "path": "properties.total"}]},
    "the type of a map": {**FIRST, "dataMaps": [EVENT, {**REVENUE, "type": "string"}]},
    "the path of a map in a short text": {**FIRST, "dataMaps": [{**EVENT, "path": "properties.event"}, REVENUE]},
}
SETTINGS: Final = {
    "a name": changed(name="Coupon"),
    "a status": changed(status="paused"),
    "caps": changed(caps=[{"count": 1, "per": "1d"}]),
    "quiet hours": changed(quietHours={"from": "21:00", "to": "08:00"}),
    "hold for key": changed(holdForKey="1h"),
    "settle": changed(settle="2m"),
    "what a publication does": changed(onPublish="cancel"),
}
UNCHANGED: Final = {
    "the same": FIRST,
    "an assigned version": changed(version=7),
    "another data map": {**FIRST, "dataMaps": [EVENT, REVENUE, {"name": "x", "path": "x", "type": "string"}]},
    "the field of a map": {**FIRST, "dataMaps": [{**EVENT, "field": 5}, REVENUE]},
    "a path as a list": {**FIRST, "dataMaps": [{**EVENT, "path": ["event"]}, REVENUE]},
    "settings of the document": {**FIRST, "settings": {"timezone": "Europe/Berlin"}},
}


@pytest.mark.parametrize("raw", PATTERN.values(), ids=PATTERN)
def test_a_change_of_the_pattern_part_makes_a_new_version(raw: Mapping[str, Any]) -> None:
    """Instances of before stay with what they began with."""
    versions, changes = after(FIRST, raw)

    assert changes == (Change("coupon", 2, "new version", "finish"),)
    assert versions.current == {"coupon": 2}
    assert [(one.version, one.since, one.until) for one in versions.kept] == [(1, NOW, NOW + DAY)]


@pytest.mark.parametrize("raw", SETTINGS.values(), ids=SETTINGS)
def test_a_change_of_anything_else_of_a_rule_makes_none(raw: Mapping[str, Any]) -> None:
    """It counts at once for all."""
    versions, changes = after(FIRST, raw)

    assert changes == (Change("coupon", 1, "settings"),)
    assert versions == after(FIRST)[0]


@pytest.mark.parametrize("raw", UNCHANGED.values(), ids=UNCHANGED)
def test_what_instances_do_not_see_changes_nothing(raw: Mapping[str, Any]) -> None:
    """Not even the settings."""
    assert after(FIRST, raw)[1] == (Change("coupon", 1, "unchanged"),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"lifetime": 48}),
        ({"lifetime": "48h"}, {"lifetime": "2d"}),
        ({}, {"multiple": False, "transaction": None, "onRepeatStart": "ignore", "maxActive": 25}),
        ({"conditions": [START, EXIT]}, {"conditions": [START, {**EXIT, "wait": None}]}),
        (
            {"conditions": [START, {"seq": 1, "type": "step", "wait": "90m"}, {**EXIT, "seq": 2}]},
            {"conditions": [START, {"seq": 1, "type": "include", "wait": 1.5}, {**EXIT, "seq": 2}]},
        ),
    ],
)
def test_two_ways_to_write_the_same_are_one_version(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Defaults, durations and names of types are written as one likes."""
    first, second = (document({"id": "r", "conditions": [START, EXIT], **parts}) for parts in (one, other))

    assert after(first, second)[0].current == {"r": 1}


def test_an_old_version_is_kept_as_it_was() -> None:
    """Its rule, the types of the data maps that it reads, and what its successor does to its instances."""
    versions, _ = after(FIRST, changed(lifetime="1h", onPublish="migrate"))

    old = {**FIRST["rules"][0], "version": 1}
    maps = {"ecom_event": "string", "revenue": "numeric"}
    assert versions.kept == (RuleVersion("coupon", 1, old, maps, NOW, "migrate", NOW + DAY),)
    assert versions.since == {"coupon": NOW + DAY}


def test_an_old_pattern_that_comes_back_is_a_version_of_its_own() -> None:
    """Numbers only go up."""
    versions, _ = after(FIRST, changed(lifetime="1h"), FIRST)

    assert versions.current == {"coupon": 3}
    assert [one.version for one in versions.kept] == [1, 2]


@pytest.mark.parametrize(
    ("modes", "kept"),
    [
        (("finish", "finish"), [("finish", 1), ("finish", 2)]),
        (("finish", "migrate"), [("migrate", 1), ("migrate", 2)]),
        (("finish", "cancel"), [("cancel", 2), ("cancel", 2)]),
        (("migrate", "cancel"), [("cancel", 2), ("cancel", 2)]),
        (("migrate", "finish"), [("migrate", 1), ("finish", 2)]),
        (("cancel", "migrate"), [("cancel", 1), ("migrate", 2)]),
        (("cancel", "cancel"), [("cancel", 1), ("cancel", 2)]),
        (("finish", "removed"), [("cancel", 2), ("cancel", 2)]),
    ],
)
def test_a_publication_does_the_same_with_all_old_versions(modes: tuple[str, str], kept: list[tuple[str, int]]) -> None:
    """Who is in an older version migrates or leaves too, at the time of the publication that did it."""
    steps = [
        changed(lifetime=f"{number}h", onPublish=mode) if mode != "removed" else document()
        for number, mode in enumerate(modes, 2)
    ]
    versions, _ = after(changed(lifetime="1h"), *steps)

    assert [(one.mode, (one.until - NOW) // DAY) for one in versions.kept] == kept


def test_a_removed_rule_is_kept_and_numbers_go_on_when_it_comes_back() -> None:
    """Its instances leave it."""
    gone, changes = after(FIRST, document())
    back, _ = after(FIRST, document(), FIRST)

    assert changes == (Change("coupon", 1, "removed", "cancel"),)
    assert (gone.current, [one.mode for one in gone.kept]) == ({}, ["cancel"])
    assert back.current == {"coupon": 2}


def test_rules_have_versions_of_their_own() -> None:
    """A change of one is none of the others."""
    others = [rule("a"), rule("b"), rule("c")]
    versions, changes = after(document(*others), document(rule("b", lifetime="1h"), rule("a", name="A"), rule("d")))

    assert changes == (
        Change("b", 2, "new version", "finish"),
        Change("a", 1, "settings"),
        Change("d", 1, "added"),
        Change("c", 1, "removed", "cancel"),
    )
    assert versions.current == {"b": 2, "a": 1, "d": 1}


def test_old_versions_go_when_no_instance_can_be_pinned_to_them() -> None:
    """Their longest span and 30 days after they were replaced."""
    steps = [changed(lifetime=f"{number}h") for number in (1, 2, 3)]
    lasts = span_of(steps[0]["rules"][0]) + 30 * DAY
    before, versions = steps[1], after(*steps[:2], every=0)[0]

    assert [one.version for one in assign(before, versions, steps[2], NOW + lasts)[0].kept] == [1, 2]
    assert [one.version for one in assign(before, versions, steps[2], NOW + lasts + 1)[0].kept] == [2]


def test_at_most_fifty_old_versions_of_a_rule_are_kept() -> None:
    """The newest."""
    versions, _ = after(*(changed(lifetime=f"{number}h") for number in range(1, MAX_KEPT + 4)), every=1)

    assert [one.version for one in versions.kept] == list(range(3, MAX_KEPT + 3))


def test_what_old_versions_take_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whichever rule that were replaced first are forgotten."""
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 2 * len(json.dumps({**rule("a", lifetime="1h"), "version": 1})))
    steps = [
        document(rule("a", lifetime="1h"), rule("b", lifetime="1h")),
        document(rule("a", lifetime="2h"), rule("b", lifetime="1h")),
        document(rule("a", lifetime="2h"), rule("b", lifetime="2h")),
        document(rule("a", lifetime="3h"), rule("b", lifetime="2h")),
    ]

    assert [(one.rule, one.version) for one in after(*steps)[0].kept] == [("a", 2), ("b", 1)]


def test_a_document_is_shown_with_its_numbers_and_kept_without() -> None:
    """`bare` takes away what `numbered` adds."""
    versions, _ = after(FIRST)
    shown = numbered(FIRST, 7, versions)

    assert (shown["revision"], shown["rules"][0]["version"]) == (7, 1)
    assert bare(shown) == FIRST


@pytest.mark.parametrize(
    ("parts", "hours"),
    [
        ({}, 48 + 48 + 48),
        ({"lifetime": 1}, 1 + 1 + 1),
        ({"holdForKey": "2d", "lifetime": 1}, 1 + 1 + 48),
        ({"lifetime": 1, "conditions": [START, {**EXCLUDE, "within": "3h"}, EXIT]}, 3 + 3 + 1),
        ({"lifetime": 1, "conditions": [START, {**EXCLUDE, "within": "3h"}, {**EXIT, "wait": "60d"}]}, 3 + 1440 + 1),
        ({"lifetime": 1, "conditions": [START, STEP, {**EXIT, "wait": "3d"}]}, 1 + 168 + 72 + 1),
        ({"lifetime": 1, "conditions": [START, {**EXIT, "at": {"var": "d", "offset": "-7d"}}]}, 1 + 2 * 366 * 24 + 1),
    ],
)
def test_a_span_is_never_too_short(parts: Mapping[str, Any], hours: int) -> None:
    """Windows of events, waits before actions, then all that the gate may wait for."""
    assert span_of(rule(**parts)) == (hours + 1 + 24 + 24) * HOUR


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("revenue >= 20", {"revenue"}),
        ("revenue>=20", {"revenue"}),
        ("first name is empty", {"first name"}),
        ("first name", {"first name"}),
        ("first = revenue", {"first"}),
        (["revenue > 1", "first exists"], {"revenue", "first"}),
        ({"map": "revenue", "op": "gte", "value": "first"}, {"revenue"}),
        ({"all": [{"any": [{"map": "first", "op": "exists"}]}, {"not": "revenue = 1"}]}, {"revenue", "first"}),
        ("unknown = 1", set()),
        (None, set()),
    ],
)
def test_the_data_maps_of_criteria_are_found(match: Any, found: set[str]) -> None:
    """In every form that criteria have; a name may have spaces and begin as another one does."""
    one = {"id": "r", "conditions": [{"seq": 0, "type": "start", "match": match}]}

    assert maps_of(one, {"revenue", "first", "first name"}) == found


def test_the_data_maps_of_everything_else_are_found() -> None:
    """The transaction, variables in both forms, what an effect is filtered by."""
    names = {"cart", "a", "b", "c", "unused"}
    row = {"seq": 0, "type": "start", "variables": ["a", {"map": "b", "as": "unused"}], "onlyIf": "c = 1"}

    assert maps_of({"id": "r", "transaction": "cart", "conditions": [row]}, names) == {"cart", "a", "b", "c"}


WITHOUT: Final = changed(conditions=[START, EXCLUDE, EXIT])
"""The first document whose rule reads the revenue no more."""


def problems(raw: Mapping[str, Any], later: int = 0, **parts: Any) -> list[tuple[str, str]]:
    """Return the problems of *raw* with changed data maps, some time after the revenue was read for the last time."""
    versions, _ = after(FIRST, raw, every=0)
    live = presumed_live(raw, versions, NOW + later)
    return [(one.place, one.message) for one in map_problems({**raw, **parts}, versions.kept, live)]


def test_a_data_map_that_instances_read_stays() -> None:
    """The problem names the rule and the version, and says what would be right."""
    ((place, message),) = problems(WITHOUT, dataMaps=[EVENT])

    assert place == "dataMaps"
    assert message == (
        "version 1 of rule 'coupon' reads 'revenue' as numeric, and instances of it may run until "
        "2027-01-23T09:00:00.000Z: leave the data map as it was until then, or archive the rule"
    )


def test_a_data_map_that_instances_read_keeps_its_type() -> None:
    """The problem is at the type."""
    ((place, _),) = problems(WITHOUT, dataMaps=[{**EVENT, "type": "list"}, REVENUE])

    assert place == "dataMaps[0].type"


@pytest.mark.parametrize(
    ("raw", "later"),
    [
        (WITHOUT, 30 * DAY),
        ({**WITHOUT, "rules": [{**WITHOUT["rules"][0], "status": "archived"}]}, 0),
        ({**WITHOUT, "rules": [{**WITHOUT["rules"][0], "status": "draft"}]}, 0),
        ({**WITHOUT, "rules": [{**WITHOUT["rules"][0], "onPublish": "cancel"}]}, 0),
        ({**WITHOUT, "rules": []}, 0),
    ],
    ids=["after its time", "archived", "a draft", "cancelled", "removed"],
)
def test_a_data_map_that_nobody_reads_any_more_may_go(raw: Mapping[str, Any], later: int) -> None:
    """No instance runs that could miss it."""
    assert problems(raw, later, dataMaps=[EVENT]) == []


def test_who_knows_better_decides_what_lives() -> None:
    """A count of instances takes the place of what time tells."""
    versions, _ = after(FIRST, WITHOUT)
    without = {**WITHOUT, "dataMaps": [EVENT]}

    assert map_problems(without, versions.kept, lambda *_: False) == ()
    assert len(map_problems(without, versions.kept, lambda *one: one == ("coupon", 1))) == 1


@pytest.mark.parametrize("status", [None, "active", "paused", "shadow"])
def test_the_current_version_lives_while_its_rule_runs(status: str | None) -> None:
    """Paused and shadowed rules have instances, too."""
    raw = changed(**({} if status is None else {"status": status}))
    live = presumed_live(raw, after(raw)[0], NOW)

    assert live("coupon", 1)
    assert not live("coupon", 2)
    assert not live("other", 1)
