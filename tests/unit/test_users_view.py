"""The rows of the users table as JSON: people, and rows that are none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.world import milliseconds

from emarsys_cdp.document.model import DataMap, Document
from emarsys_cdp.rules.book import Book, Instance, Passage, RuleState
from emarsys_cdp.store.record import Erasing, Record
from emarsys_cdp.store.rows import read_row
from emarsys_cdp.users_view import fields_of, is_person, show_record, show_row
from emarsys_cdp_hooks import StoredValue

ADA = StoredValue("Ada", 1000, "m1")
FIELDS = {"first": "1", "last": "2"}


def waiting(record: Record) -> dict[str, Any]:
    """Return the fields that wait for a key."""
    found: dict[str, Any] = show_record("p", record, FIELDS)["pendingFields"]
    return found


@pytest.mark.parametrize(
    ("record", "is_one"),
    [
        (Record("s", user="u1"), True),
        (Record("s", isolate=True), True),
        (Record("s", user="u1", intents=("p2",)), True),
        (Record("s", stub=True), False),
        (Record("s", user="u1", redirect="p2"), False),
        (Record("s", user="u1", erasing=Erasing("delete", 1)), False),
        (Record("s", tombstones=("n",)), False),
    ],
)
def test_not_every_record_is_a_person(record: Record, is_one: bool) -> None:
    """Half-made, merged and erased ones are none."""
    assert is_person(record) is is_one


def test_a_merged_profile_is_shown_as_where_it_has_gone() -> None:
    """Nothing else of it is shown."""
    assert show_record("p1", Record("s", user="u1", redirect="p2"), {}) == {"redirect": "p1", "to": "p2"}


def test_a_merge_leaves_its_trace() -> None:
    """How many profiles became part of this one, and which; other names of the user."""
    shown = show_record("p1", Record("s", merged_from=("p2", "p3"), aliases=("old",)), {})

    assert (shown["merges"], shown["mergedFrom"], shown["userIdAliases"]) == (2, ["p2", "p3"], ["old"])


def test_running_rules_are_counted() -> None:
    """Instances that are alive, or of which something waits at the gate; a rule without any is not named."""
    ended = Instance("i1", 1, "m1", 1, status="completed")
    at_gate = Instance("i2", 1, "m2", 1, status="cancelled", passages=(Passage(-1, 5, 1),))
    states = {"cart": RuleState((ended, Instance("i3", 1, "m3", 2), at_gate)), "welcome": RuleState((ended,))}

    assert show_record("p1", Record("s", book=Book(rules=states)), {})["running"] == {"cart": 2}


def test_without_a_key_every_mapped_value_waits() -> None:
    """By the field of its data map; a map for rules only has none."""
    values = {"first": ADA, "rules_only": ADA}

    assert waiting(Record("s", values=values)) == {"1": {"v": "Ada", "te": "1970-01-01T00:00:01Z"}}


def test_with_a_key_only_what_could_not_be_sent_waits() -> None:
    """The record names it."""
    values = {"first": ADA, "last": ADA}

    assert waiting(Record("s", key="k", values=values)) == {}
    assert list(waiting(Record("s", key="k", values=values, pending=("last", "gone")))) == ["2"]


def test_values_of_stock_settings_are_named_by_their_field() -> None:
    """A space without a document needs none to say what waits."""
    assert list(waiting(Record("s", values={"stock:31": ADA}))) == ["31"]


def test_nothing_of_a_shared_device_waits() -> None:
    """It is never sent to anybody."""
    shown = show_record("p", Record("s", values={"first": ADA}, isolate=True), FIELDS)

    assert (shown["pendingFields"], shown["flags"]) == ({}, ["isolate"])


def test_times_have_milliseconds_where_there_are_some() -> None:
    """ISO 8601 in UTC."""
    shown = show_record("p", Record("s", first_seen=1000, last_seen=1001), {})

    assert (shown["firstSeen"], shown["lastSeen"]) == ("1970-01-01T00:00:01Z", "1970-01-01T00:00:01.001Z")


def test_fields_are_those_of_the_document() -> None:
    """Without one those of the default document."""
    document = Document(data_maps=(DataMap("a", "x", "string", 7), DataMap("b", "y", "string")))

    assert fields_of(document) == {"a": "7"}
    assert fields_of(None)["first_name"] == "1"


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"s^20094", {"anon": "x", "state": "shared", "users": 2, "until": "2025-04-06"}),
        (
            b"sAAAAAgAAAAIA^20094",
            {"anon": "x", "state": "shared", "users": 2, "until": "2025-04-06", "isolate": "AAAAAgAAAAIA"},
        ),
        (b"q", {"anon": "x", "state": "quarantined", "users": 6}),
        (b"td1000", {"tombstone": "hmac:N", "mode": "delete", "at": "1970-01-01T00:00:01Z"}),
        (b"ts1001@AAAAAgAAAAIA", {"tombstone": "hmac:N", "mode": "suppress", "at": "1970-01-01T00:00:01.001Z"}),
        (b"pAAAAAgAAAAIA+tag--1tag--2", None),
    ],
)
def test_a_row_that_names_nobody_is_shown(content: bytes, shown: dict[str, Any] | None) -> None:
    """A tombstone without the identifier, by the hash that is its name."""
    row = read_row(content)

    assert row is not None
    ends = milliseconds("2025-04-06T12:00:00Z") if row.kind == "s" else None
    assert show_row("N", "anon", "x", row, ends) == shown
