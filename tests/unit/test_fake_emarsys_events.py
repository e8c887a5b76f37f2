"""The fake's external events by their functions: what is triggered, refused, taken once."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.emarsys import ADA, BOB, EVE, FIRST, NOW, WELCOME, account, ask

from emarsys_cdp.testing.fake_emarsys.account import Account
from emarsys_cdp.testing.fake_emarsys.records import EventDefinition

PLAIN: Any = {"external_id": ADA}


def trigger(at: Account, body: Any, event: object = WELCOME) -> tuple[int, Any, str, Any]:
    """Trigger an event by e-mail."""
    named = {"key_id": "3", **body} if isinstance(body, dict) else body
    return ask(at, "POST", f"event/{event}/trigger", named)


def test_one_contact_is_triggered() -> None:
    """The answer has no data, and what was sent is kept as it was."""
    at = account(ADA, BOB)
    body = {
        "external_id": ADA,
        "data": {"global": {"a": 1}},
        "event_time": "2026-11-23T10:00:00Z",
        "trigger_id": "t-1",
        "attachment": [{"filename": "a.pdf", "data": "ZXhhbXBsZQo="}],
    }
    assert trigger(at, body) == (200, 0, "OK", {})

    (event,) = at.events.accepted.all()
    assert (event.event_id, event.name, event.key_field, event.contact_id) == (WELCOME, "welcome", "3", FIRST)
    shown = {name: getattr(event, name) for name in body}
    assert shown == body
    assert not event.repeated


def test_many_contacts_are_triggered() -> None:
    """Ids are those of the contacts, errors stand at the external ids, and the others go on."""
    at = account(ADA, BOB)
    data = trigger(at, {"contacts": [PLAIN, {"external_id": EVE}, {"external_id": BOB}, {"data": {}}]})[3]

    assert data["ids"] == [str(FIRST), str(FIRST + 1)]
    assert {key: list(found) for key, found in data["errors"].items()} == {EVE: ["2008"], "": ["2005"]}
    assert [event.external_id for event in at.events.accepted.all()] == [ADA, BOB]


def test_the_form_for_many_wins_when_both_are_there() -> None:
    """A body with an empty external_id and contacts is a batch (real clients send it)."""
    at = account(ADA, BOB)

    assert trigger(at, {"external_id": "", "data": None, "contacts": [PLAIN]})[3]["ids"] == [str(FIRST)]


@pytest.mark.parametrize(
    ("options", "single", "batch"),
    [
        ({}, {}, {"ids": [str(FIRST)], "errors": []}),
        ({"batch_data": "empty"}, {}, {}),
        ({"no_errors": "absent"}, {}, {"ids": [str(FIRST)]}),
        (
            {"interactions": True, "no_errors": "object"},
            {"connectedTo": {"email": False, "acProgram": True, "interactionsProgram": False}},
            {
                "ids": [str(FIRST)],
                "errors": {},
                "connectedTo": {"email": False, "acProgram": True, "interactionsProgram": False},
            },
        ),
    ],
    ids=str,
)
def test_answers_to_triggers_have_the_forms_of_different_accounts(options: Any, single: Any, batch: Any) -> None:
    """Accounts with and without Interactions answer differently, and so do batches without errors."""
    at = account(ADA, BOB, **options)

    with_error = trigger(at, {"contacts": [PLAIN, {"external_id": EVE}]})[3]

    assert with_error["ids"] == [str(FIRST)]
    assert list(with_error["errors"]) == [EVE]
    assert trigger(at, PLAIN)[3] == single
    assert trigger(at, {"contacts": [PLAIN]})[3] == batch


def test_an_event_that_starts_nothing_is_refused_or_told() -> None:
    """Without Interactions 5005 refuses it, with them connectedTo is false."""
    without, with_them = account(ADA), account(ADA, interactions=True)
    for at in (without, with_them):
        at.events.put(EventDefinition(WELCOME, "welcome"))

    assert trigger(without, PLAIN)[:3] == (400, 5005, "No program or campaign is triggered.")
    assert len(without.events.accepted.all()) == 0
    assert trigger(with_them, PLAIN)[3] == {"connectedTo": False}
    assert len(with_them.events.accepted.all()) == 1


@pytest.mark.parametrize(("dedupe", "accepted", "left_out"), [(True, 3, 2), (False, 5, 0)])
def test_a_trigger_id_is_taken_once_for_an_event(dedupe: bool, accepted: int, left_out: int) -> None:
    """A repeat is answered like the first; it is left out where the account dedupes, and flagged in any case."""
    at = account(ADA, BOB, dedupe=dedupe)
    other = at.events.define("other", NOW)
    row = {**PLAIN, "trigger_id": "t-1"}
    answers = [trigger(at, row), trigger(at, row), trigger(at, {"contacts": [row]}), trigger(at, row, other.id)]
    trigger(at, PLAIN)

    assert [answer[0] for answer in answers] == [200] * 4
    assert len(at.events.accepted.all()) == accepted
    assert len(at.events.repeats.all()) == left_out
    repeated = [event for event in (*at.events.accepted.all(), *at.events.repeats.all()) if event.repeated]
    assert len(repeated) == 2


TIMES = [
    ("2007-03-01T13:00:00Z", True),
    ("2007-03-01T13:00:00.000Z", True),
    ("2007-03-01T13:00:00.000000Z", False),
    ("2007-03-01T13:00:00+00:00", False),
    ("2007-03-01T13:00:00", False),
    ("2007-02-30T13:00:00Z", False),
    ("2007-03-01 13:00:00Z", False),
    ("", False),
    (1172754000, False),
]


@pytest.mark.parametrize(("time", "right"), TIMES, ids=str)
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_times_have_one_of_two_forms(time: Any, right: bool, batch: bool) -> None:
    """Any other time refuses the whole request, and nothing is triggered for anybody."""
    at = account(ADA, BOB)
    row = {**PLAIN, "event_time": time}
    body = {"contacts": [{"external_id": BOB}, row]} if batch else row

    assert trigger(at, body)[:3] == ((200, 0, "OK") if right else (400, 5010, "Invalid event time format."))
    assert len(at.events.accepted.all()) == (1 + batch if right else 0)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"external_id": EVE}, (400, 2008, f"No contact found with the external id: 3 - {EVE}")),
        ({"data": {}}, (400, 2005, "No value provided for key field: 3")),
        ({**PLAIN, "data": []}, (400, 5011, "Event data is not an object.")),
        ({**PLAIN, "data": "[]"}, (400, 5011, "Event data is not an object.")),
        ({**PLAIN, "data": "{"}, (400, 5009, "Event data is not valid JSON.")),
        ({**PLAIN, "trigger_id": 5}, (400, 10001, "Invalid value for `trigger_id`: `5`")),
        ({**PLAIN, "key_id": "x"}, (400, 2004, "Invalid key field id: x")),
        ({"contacts": [PLAIN, None]}, (400, 10001, "Invalid data format for `contacts`. Object expected")),
        ({"contacts": []}, (400, 10001, "Missing parameter: `contacts`")),
        ({"contacts": [PLAIN] * 1001}, (400, 1000, "The request exceeded the maximum batch size of 1,000")),
        ({**PLAIN, "data": {"x": "y" * 1_000_000}}, (400, 5008, "Event data size above limit.")),
        ([], (400, 1010, "Invalid request payload.")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_triggers_that_cannot_be_are_refused(body: Any, want: tuple[int, int, str]) -> None:
    """Nothing is triggered."""
    at = account(ADA, BOB)

    assert trigger(at, body)[:3] == want
    assert at.events.accepted.total == 0


@pytest.mark.parametrize(
    ("event", "want"),
    [
        ("x", (400, 5004, "Event ID: x is invalid.")),
        ("9", (400, 5001, "Invalid event ID for customer.")),
        ("9" * 5000, (400, 5004, f"Event ID: {'9' * 5000} is invalid.")),
    ],
    ids=["word", "unknown", "huge"],
)
def test_unknown_events_are_refused(event: str, want: tuple[int, int, str]) -> None:
    """An id of no event is refused for its usages as for a trigger."""
    assert trigger(account(), PLAIN, event)[:3] == want
    assert ask(account(), "GET", f"event/{event}/usages")[:3] == want


def test_contacts_that_share_a_key_are_not_triggered() -> None:
    """An external id of several contacts is refused with 2010."""
    at = account(ADA, BOB)
    at.contacts.create({"3": ADA}, NOW)

    assert trigger(at, PLAIN)[1] == 2010
    assert list(trigger(at, {"contacts": [PLAIN]})[3]["errors"][ADA]) == ["2010"]


def test_events_are_made_listed_and_looked_up() -> None:
    """A new event starts nothing, the account's own start a program; names are unique."""
    at = account(ADA, BOB)
    number = ask(at, "POST", "event", {"name": "order placed"})[3]["id"]

    assert number != WELCOME
    assert [(one["id"], one["name"]) for one in ask(at, "GET", "event/")[3]] == [
        (WELCOME, "welcome"),
        (number, "order placed"),
    ]
    assert ask(at, "GET", f"event/{WELCOME}/usages")[3]["program_ids"] == [WELCOME]
    assert ask(at, "GET", f"event/{number}/usages")[3] == {
        "program_ids": [],
        "email_ids": [],
        "interactions_program_ids": [],
    }
    assert ask(at, "POST", "event", {"name": "welcome"})[1] == 5003
    assert ask(at, "POST", "event", {})[1] == 5002
