"""The fake's lists, fields and routes by their functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.emarsys import ADA, BOB, EVE, FIRST, LIST, NOW, WELCOME, ask
from tests.support.emarsys import account as empty_account

from emarsys_cdp.testing.fake_emarsys.account import Account
from emarsys_cdp.testing.fake_emarsys.routes import PERMISSIONS, ROUTES


def account() -> Account:
    """Return an account with two contacts and an empty list."""
    found = empty_account(ADA, BOB)
    found.lists.create("news", "", NOW)
    return found


def members(at: Account) -> tuple[int, ...]:
    """Return the members of the first list."""
    return next(iter(at.lists)).members


def test_contacts_are_put_into_a_list_and_taken_out() -> None:
    """Both answers count, and name who is not there; the contacts themselves stay."""
    at = account()
    missing = {EVE: {"2008": f"No contact found with the external id: 3 - {EVE}"}}
    body = {"key_id": "3", "external_ids": [ADA, BOB, EVE]}

    assert ask(at, "POST", f"contactlist/{LIST}/add", body)[3] == {"inserted_contacts": 2, "errors": missing}
    assert members(at) == (FIRST, FIRST + 1)
    assert ask(at, "POST", f"contactlist/{LIST}/delete", {"external_ids": [BOB]})[3] == {
        "deleted_contacts": 1,
        "errors": [],
    }
    assert members(at) == (FIRST,)
    assert len(at.contacts) == 2


def test_lists_are_made_and_listed() -> None:
    """A list that is made with contacts has them, one that is made empty has no errors in its answer."""
    at = account()

    assert ask(at, "POST", "contactlist", {"name": "empty", "key_id": "3"})[3] == {"id": LIST + 1}
    assert ask(at, "POST", "contactlist", {"name": "full", "external_ids": [ADA]})[3] == {"id": LIST + 2, "errors": []}
    shown = ask(at, "GET", "contactlist")[3]
    assert [(one["id"], one["name"], one["type"]) for one in shown] == [
        (str(LIST), "news", 0),
        (str(LIST + 1), "empty", 0),
        (str(LIST + 2), "full", 0),
    ]
    assert shown[0]["created"] == "2026-11-18 11:06:40"


@pytest.mark.parametrize(
    ("path", "body", "want"),
    [
        ("contactlist/x/add", {"external_ids": [ADA]}, (400, 1, "Action x is invalid.")),
        ("contactlist/9/add", {"external_ids": [ADA]}, (400, 3006, "No contact list found with the specified ID.")),
        (f"contactlist/{LIST}/add", {"key_id": "x", "external_ids": [ADA]}, (400, 2004, "Invalid key field id: x")),
        (f"contactlist/{LIST}/add", {}, (400, 10001, "Missing parameter: `external_ids`")),
        (
            f"contactlist/{LIST}/add",
            {"external_ids": {}},
            (400, 3003, "Invalid datatype for the list of external IDs. A"),
        ),
        (
            f"contactlist/{LIST}/delete",
            {"external_ids": ["x"] * 10_001},
            (400, 3002, "The list of external IDs exceeds the maximum size."),
        ),
        ("contactlist", {"external_ids": [ADA]}, (400, 3001, "List name is not set.")),
        ("contactlist", {"name": "news"}, (400, 3005, "Contact list with the requested name already exists.")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_list_requests_that_cannot_be_are_refused(path: str, body: Any, want: tuple[int, int, str]) -> None:
    """Nothing is made, and nobody put in."""
    at = account()
    status, code, text, _ = ask(at, "POST", path, body)

    assert (status, code) == want[:2]
    assert text.startswith(want[2])
    assert (len(list(at.lists)), members(at)) == (1, ())


def test_fields_are_listed_with_their_types() -> None:
    """The list has system fields and the account's own, in any language that Emarsys has."""
    at = account()
    shown = {field["id"]: field for field in ask(at, "GET", "field")[3]}

    assert shown[14] == {
        "id": 14,
        "name": "Country or region",
        "application_type": "singlechoice",
        "string_id": "country",
    }
    assert shown[31]["application_type"] == "special"
    assert shown[7002] == {"id": 7002, "name": "Topics", "application_type": "multichoice", "string_id": ""}
    assert ask(at, "GET", "field/translate/de")[3] == list(shown.values())
    assert ask(at, "GET", "field/translate/xx")[:3] == (400, 1002, "Invalid language code")


def test_choices_are_listed() -> None:
    """Choices have ids as text; several fields can be asked for at once."""
    at = account()
    genders = [{"id": "1", "choice": "Male", "bit_position": 0}, {"id": "2", "choice": "Female", "bit_position": 1}]

    assert ask(at, "GET", "field/5/choice")[3] == genders
    assert ask(at, "GET", "field/5/choice/translate/en")[3] == genders
    several = ask(at, "GET", "field/choices", fields="5,7002", language="en")[3]
    assert several["5"] == genders
    assert [one["choice"] for one in several["7002"]] == ["News", "Sports"]
    assert ask(at, "GET", "field/8888/choice")[:3] == (404, None, "No such field")
    assert ask(at, "GET", "field/choices", fields="5,8888")[:3] == (404, None, "No such field")


def test_settings_name_the_account() -> None:
    """Clients test their credentials by it: the id is above zero."""
    assert ask(account(), "GET", "settings")[3]["id"] > 0


@pytest.mark.parametrize(
    ("method", "path", "want"),
    [
        ("GET", "nothing", (400, 1, "No resource requested")),
        ("GET", "", (400, 1, "No resource requested")),
        ("GET", "contactlist/wrong", (400, 1, "Action wrong is invalid.")),
        ("POST", "contact/Getdata", (400, 1, "Action Getdata is invalid.")),
        ("DELETE", "contact", (400, 1009, "Invalid HTTP method.")),
        ("GET", "event/5/trigger", (400, 1009, "Invalid HTTP method.")),
    ],
)
def test_unknown_paths_are_refused(method: str, path: str, want: tuple[int, int, str]) -> None:
    """What is no endpoint is told in the words of Emarsys' routing."""
    assert ask(account(), method, path)[:3] == want


def test_every_endpoint_has_its_permission() -> None:
    """No two endpoints share one, so that each can be switched off alone."""
    assert len(set(PERMISSIONS)) == len(ROUTES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "3", "id", ADA]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["3", "id", "4", "", "x"]), inner),
    max_leaves=8,
)
NAMES = (
    *("3", "contacts", "contact_list_id", "keyValues", "external_ids", "external_id", "fields", "data", "event_time"),
    *("trigger_id", "name", "get_multiple_ids"),
)
PATHS = [(route.method, route.path.replace("{}", str(number))) for route in ROUTES for number in (LIST, WELCOME)]


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(
    body=st.dictionaries(st.sampled_from(NAMES), JSON),
    key=st.sampled_from(["3", "id", 7002, None]),
    where=st.sampled_from(PATHS),
)
def test_every_body_is_answered_in_the_form_of_emarsys(body: Any, key: Any, where: tuple[str, str]) -> None:
    """Whatever a body has in the places that are read, it is done or refused; it never makes the fake fail."""
    named = body if key is None else {"key_id": key, "keyId": key, **body}

    assert ask(account(), *where, named, create_if_not_exists="1")[0] in (200, 400, 404)
