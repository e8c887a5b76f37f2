"""The fake's contact endpoints by their functions: what is written, refused, found and deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.emarsys import ADA, BOB, FIRST, NOW, account, ask, call

from emarsys_cdp.testing.fake_emarsys.account import Account
from emarsys_cdp.testing.fake_emarsys.contacts import update_contacts


def put(at: Account, *rows: Any, key: Any = "3", create: bool = True, **parts: Any) -> Any:
    """Update contacts and return the data of the answer, which is a 200."""
    body = {"key_id": key, "contacts": list(rows), **parts}
    status, code, text, data = ask(at, "PUT", "contact/", body, create_if_not_exists=str(int(create)))
    assert (status, code, text) == (200, 0, "OK")
    return data


def fields(at: Account) -> list[dict[str, Any]]:
    """Return the fields of every contact."""
    return [contact.fields for contact in at.contacts]


def test_created_contacts_have_numbers_and_updated_ones_text() -> None:
    """The ids of an answer are of mixed types, as Emarsys' are, and only those of rows that went well."""
    at = account()
    first = put(at, {"3": ADA, "1": "Ada"})
    second = put(at, {"3": BOB}, {"1": "Nobody"}, {"3": ADA, "2": "Lovelace"})

    assert first == {"ids": [FIRST], "errors": []}
    assert second["ids"] == [FIRST + 1, str(FIRST)]
    assert fields(at) == [{"3": ADA, "1": "Ada", "2": "Lovelace"}, {"3": BOB}]


def test_one_contact_has_a_form_of_its_own() -> None:
    """Without `contacts` the fields stand beside key_id, and the answer has one id."""
    at = account()

    assert ask(at, "PUT", "contact/", {"key_id": 3, "3": ADA}, create_if_not_exists="1")[3] == {"id": FIRST}
    assert ask(at, "PUT", "contact/", {"key_id": 3, "3": ADA, "1": "Ada"})[3] == {"id": str(FIRST)}
    assert fields(at) == [{"3": ADA, "1": "Ada"}]


def test_empty_values_empty_a_field_and_absent_ones_keep_it() -> None:
    """Empty text and null empty, what is not sent stays."""
    at = account()
    put(at, {"3": ADA, "1": "Ada", "2": "Lovelace", "31": "1", "11": "London"})
    put(at, {"3": ADA, "1": "", "2": None, "31": ""})

    assert fields(at) == [{"3": ADA, "11": "London"}]


def test_without_create_nobody_is_made() -> None:
    """An update of somebody who is not there is refused with 2008, in a batch per row, alone as a whole."""
    at = account()
    text = f"No contact found with the external id: 3 - {ADA}"

    assert put(at, {"3": ADA}, create=False) == {"ids": [], "errors": {ADA: {"2008": text}}}
    assert ask(at, "PUT", "contact/", {"key_id": "3", "3": ADA}) == (400, 2008, text, "")
    assert fields(at) == []


def test_a_key_twice_in_a_request_is_refused_for_both_rows() -> None:
    """Neither row is written, the others are, and the breach is told."""
    at = account()
    body = {"key_id": "3", "contacts": [{"3": ADA}, {"3": BOB}, {"3": ADA}]}
    one = call(body, create_if_not_exists="1")
    data = json.loads(update_contacts(at, one).body)["data"]

    assert data["ids"] == [FIRST]
    assert list(data["errors"]) == [ADA]
    assert list(data["errors"][ADA]) == ["2010"]
    assert fields(at) == [{"3": BOB}]
    assert one.breaches == [("duplicate_key", f"1 keys in several rows, first 3: {ADA}")]


def test_contacts_that_share_a_key_cannot_be_updated_by_it() -> None:
    """A key of several contacts is refused with 2010; by id each of them can be written."""
    at = account()
    for _ in range(2):
        at.contacts.create({"3": ADA}, NOW)
    text = f"More contacts found with the external id: 3 - {ADA}"

    assert put(at, {"3": ADA, "1": "x"})["errors"] == {ADA: {"2010": text}}
    assert put(at, {"id": FIRST, "1": "Ada"}, key="id")["ids"] == [str(FIRST)]
    assert fields(at) == [{"3": ADA, "1": "Ada"}, {"3": ADA}]


@pytest.mark.parametrize("key", ["id", "uid", 3, "3", "email", "customer_number", 7004, "7001"], ids=repr)
def test_keys_are_ids_numbers_or_string_ids(key: Any) -> None:
    """A contact is found by its own ids and by any field that can be a key, named in each way."""
    at = account()
    number = at.contacts.create({"3": ADA, "7004": "C-1", "7001": "12"}, NOW)
    name = {"email": "3", "customer_number": "7004"}.get(str(key), str(key))
    value = {"id": number, "uid": at.contacts.get(number).uid, "3": ADA, "7004": "C-1", "7001": 12}[name]

    assert put(at, {name: value, "1": "Ada"}, key=key, create=False) == {"ids": [str(number)], "errors": []}


@pytest.mark.parametrize("key", ["100", "9x", "7002", "7003", 1.5, None, ["3"], True], ids=repr)
def test_a_key_that_is_none_fails_every_row(key: Any) -> None:
    """In a batch the answer is a 200 with the error at <NO_KEY_ID>, alone it is a 400."""
    text = f"Invalid key field id: {key}"

    assert put(account(), {"3": ADA}, key=key) == {"ids": [], "errors": {"<NO_KEY_ID>": {"2004": text}}}
    assert ask(account(), "PUT", "contact/", {"key_id": key, "3": ADA}) == (400, 2004, text, "")


def test_only_indexed_fields_are_keys_where_the_account_says_so() -> None:
    """With key_fields other fields cannot be keys, but e-mail and the ids always can."""
    at = account(key_fields=frozenset({"7004"}))

    assert put(at, {"7001": "1"}, key="7001")["errors"] == {"<NO_KEY_ID>": {"2004": "Invalid key field id: 7001"}}
    assert put(at, {"7004": "C-1"}, key="7004")["ids"] == [FIRST]
    assert put(at, {"3": ADA}, key="3")["ids"] == [FIRST + 1]
    assert put(at, {"id": FIRST}, key="id")["ids"] == [str(FIRST)]


def test_ids_are_no_keys_for_new_contacts() -> None:
    """Emarsys numbers its contacts itself."""
    text = "Cannot use id or uid as key on contact creation"

    assert put(account(), {"id": "5"}, key="id")["errors"] == {"5": {"2004": text}}
    assert ask(account(), "POST", "contact", {"key_id": "uid", "uid": "x"})[1] == 2004


ROWS = [
    ({"1": "x" * 61}, {"1": "x" * 60}),
    ({"4": "1815-12-10"}, {"4": "1815-12-10"}),
    ({"4": "10.12.1815"}, "2007 Invalid date format for field id: 4"),
    ({"40": "2026-02-30"}, "2007 Invalid date format for field id: 40"),
    ({"40": "2026-W01-1"}, "2007 Invalid date format for field id: 40"),
    ({"5": 2}, {"5": "2"}),
    ({"5": "female"}, "2007 Invalid choice id for field id: 5"),
    ({"5": "3"}, "2007 Invalid choice id for field id: 5"),
    ({"9": "77"}, {"9": "77"}),
    ({"9": "Dr"}, "2007 Invalid choice id for field id: 9"),
    ({"14": "65"}, {"14": "65"}),
    ({"14": "DE"}, "2007 Invalid choice id for field id: 14"),
    ({"31": 1}, {"31": "1"}),
    ({"31": "true"}, "2007 Invalid choice id for field id: 31"),
    ({"31": True}, "2007 Invalid choice id for field id: 31"),
    ({"1": True, "2": False}, {"1": "1", "2": "0"}),
    ({"1": ["x"]}, "2007 Invalid data format for field ID: 1. Scalar expected."),
    ({"1": {"a": 1}}, "2007 Invalid data format for field ID: 1. Scalar expected."),
    ({"7001": 12.5}, {"7001": "12.5"}),
    ({"7001": "-3"}, {"7001": "-3"}),
    ({"7001": "1e5"}, "2007 Invalid data format for field id: 7001. Numeric expected"),
    ({"7001": "1" * 25}, "2007 Invalid data format for field id: 7001. Numeric expected"),
    ({"7002": ["1", 2, "1"]}, {"7002": ["1", "2"]}),
    ({"7002": "1"}, "2007 Invalid data format for field id: 7002. Array expected"),
    ({"7002": []}, "2007 No choice provided for field id: 7002"),
    ({"7002": ["3"]}, "2007 Invalid choice id for field id: 7002"),
    ({"7003": "x"}, "2007 Invalid field type: voucher. The value of vouchers cannot be changed."),
    ({"32": "1"}, "2007 Invalid field id: 32"),
    ({"0": ["1"]}, "2007 Invalid field id: 0"),
    ({"8888": "x"}, "2006 Invalid field id: 8888"),
    ({"email": "x"}, "2006 Invalid field id: email"),
    ({"": "x"}, "2006 Empty field id for value: x"),
    ({"id": "5"}, "2007 Cannot set `id` or `uid` on contact creation"),
    ({"source_id": 7, "predictUserID": "", "predictSecret": ""}, {}),
    ({"source_id": "web"}, "2013 Invalid source id: web"),
]


@pytest.mark.parametrize(("row", "want"), ROWS, ids=lambda value: str(value)[:50])
def test_values_are_checked_by_the_type_of_their_field(row: dict[str, Any], want: Any) -> None:
    """What Emarsys refuses is refused with its code and text and writes nothing; the rest is kept as text."""
    at = account()
    data = put(at, {**row, "3": ADA})
    if isinstance(want, str):
        code, _, text = want.partition(" ")

        assert data == {"ids": [], "errors": {ADA: {code: text}}}
        assert fields(at) == []
    else:
        assert data["ids"] == [FIRST]
        assert fields(at) == [{**want, "3": ADA}]


def test_every_problem_of_a_row_is_told() -> None:
    """A row with several codes has each of them once."""
    errors = put(account(), {"3": ADA, "4": "x", "40": "y", "8888": "z"})["errors"]

    assert errors == {ADA: {"2007": "Invalid date format for field id: 4", "2006": "Invalid field id: 8888"}}


def test_long_text_can_be_refused() -> None:
    """Whether Emarsys cuts or refuses is not documented: the account can be either."""
    assert list(put(account(overlong="refuse"), {"3": ADA, "1": "x" * 61})["errors"][ADA]) == ["2007"]


@pytest.mark.parametrize("value", [None, "", [], {}, True], ids=repr)
def test_a_row_without_a_key_value_is_told_at_the_empty_key(value: Any) -> None:
    """Its error stands at "", whatever stands in place of the value, and the other rows go on."""
    data = put(account(), {"3": value, "1": "x"}, {"3": ADA})

    assert data["ids"] == [FIRST]
    assert list(data["errors"]) == [""]
    assert list(data["errors"][""]) == ["2005"]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"contacts": [{"3": ADA}]}, (400, 10001, "Missing parameter: `key_id`")),
        ({"key_id": "3", "contacts": []}, (400, 10001, "Missing parameter: `contacts`")),
        ({"key_id": "3", "contacts": {}}, (400, 10001, "Invalid data format for `contacts`. Array expected")),
        (
            {"key_id": "3", "contacts": [{"3": str(n)} for n in range(1001)]},
            (400, 1000, "The request exceeded the maximum batch size of 1,000"),
        ),
        ({"key_id": "3", "contact_list_id": 9, "3": ADA}, (400, 2020, "Invalid contact list id: 9")),
        ([], (400, 1010, "Invalid request payload.")),
        ("x", (400, 1010, "Invalid request payload.")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_requests_that_cannot_be_are_refused_as_a_whole(body: Any, want: tuple[int, int, str]) -> None:
    """Nobody is written."""
    at = account()

    assert ask(at, "PUT", "contact/", body, create_if_not_exists="1")[:3] == want
    assert fields(at) == []


def test_contacts_go_into_a_list_on_the_way() -> None:
    """All rows that went well are in the list that the request names."""
    at = account()
    number = at.lists.create("news", "", NOW)
    put(at, {"3": ADA}, {"3": BOB, "4": "x"}, contact_list_id=str(number))
    ask(at, "PUT", "contact/", {"key_id": "3", "3": BOB, "contact_list_id": number}, create_if_not_exists="1")

    assert next(iter(at.lists)).members == (FIRST, FIRST + 1)


def test_creation_refuses_who_is_there() -> None:
    """POST /contact makes new contacts only."""
    at = account()
    put(at, {"3": ADA})
    text = "Contact with the external id already exists: 3"
    body = {"key_id": "3", "contacts": [{"3": ADA}, {"3": BOB}]}

    assert ask(at, "POST", "contact", body)[3] == {"ids": [FIRST + 1], "errors": {ADA: {"2009": text}}}
    assert ask(at, "POST", "contact", {"key_id": "3", "3": ADA})[:3] == (400, 2009, text)


@pytest.mark.parametrize(
    ("options", "broken", "whole"),
    [
        ({"row_errors": "nested", "no_errors": "array"}, {"x@x": {"2007": "T"}}, []),
        ({"row_errors": "flat", "no_errors": "object"}, {"x@x": "T"}, {}),
        ({"row_errors": "array", "no_errors": "absent"}, [{"key": "x@x", "errorCode": 2007, "errorMsg": "T"}], None),
    ],
    ids=lambda value: str(value)[:50],
)
def test_row_errors_come_in_three_shapes_and_none_in_three(options: Any, broken: Any, whole: Any) -> None:
    """An account can have each shape of errors, and each of an answer without errors."""
    at = account(**options)
    text = "Invalid date format for field id: 4"
    errors = put(at, {"3": "x@x", "4": "x"})["errors"]

    assert json.loads(json.dumps(errors).replace(text, "T")) == broken
    assert put(at, {"3": ADA}).get("errors") == whole


def test_data_is_read_with_what_was_not_found() -> None:
    """Data shows the fields that are asked for, null for empty ones, and its errors are an array."""
    at = account()
    put(at, {"3": ADA, "1": "Ada"})
    body = {"keyId": "3", "keyValues": [BOB, ADA], "fields": ["1", 2]}
    data = ask(at, "POST", "contact/getdata", body)[3]

    assert data["result"] == [{"1": "Ada", "2": None, "id": FIRST, "uid": at.contacts.get(FIRST).uid}]
    assert data["errors"] == [{"key": BOB, "errorCode": 2008, "errorMsg": "No contact found with the external id: 3"}]
    assert ask(at, "POST", "contact/getdata", {**body, "keyValues": [BOB]})[3]["result"] is False
    assert ask(at, "POST", "contact/getdata", {"keyId": "id", "keyValues": [FIRST]})[3]["result"][0]["3"] == ADA


def test_ids_are_looked_up() -> None:
    """Looking up maps key values to ids as text, on request all of those that share one."""
    at = account()
    put(at, {"3": ADA})
    for _ in range(2):
        at.contacts.create({"3": BOB}, NOW)
    body = {"key_id": "3", "external_ids": [ADA, BOB, "c@x"]}

    assert ask(at, "POST", "contact/checkids", body)[3]["ids"] == {ADA: str(FIRST)}
    assert {key: list(found) for key, found in ask(at, "POST", "contact/checkids", body)[3]["errors"].items()} == {
        BOB: ["2010"],
        "c@x": ["2008"],
    }
    assert ask(at, "POST", "contact/checkids", {**body, "get_multiple_ids": True})[3]["ids"] == {
        ADA: [str(FIRST)],
        BOB: [str(FIRST + 1), str(FIRST + 2)],
    }


def test_deleting_leaves_those_that_share_a_key() -> None:
    """Contacts are deleted with all their data and leave their lists; who is not found by the key alone stays."""
    at = account()
    number = at.lists.create("news", "", NOW)
    put(at, {"3": ADA, "1": "Ada"}, contact_list_id=number)
    for _ in range(2):
        at.contacts.create({"3": BOB}, NOW)
    data = ask(at, "POST", "contact/delete", {"3": [ADA, BOB, "c@x"]})[3]

    assert data["deleted_contacts"] == 1
    assert {key: list(found) for key, found in data["errors"].items()} == {BOB: ["2010"], "c@x": ["2008"]}
    assert [contact.fields["3"] for contact in at.contacts] == [BOB, BOB]
    assert [one.contact.fields for one in at.contacts.deleted.all()] == [{"3": ADA, "1": "Ada"}]
    assert next(iter(at.lists)).members == ()
    assert put(at, {"3": ADA})["ids"] == [FIRST + 3]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"3": [BOB]}, (400, 2008)),
        ({"key_id": "id", "id": ["5"]}, (400, 2008)),
        ({"key_id": "7004", "3": [ADA]}, (400, 10001)),
        ({"3": ADA}, (400, 2003)),
        ({"3": [str(n) for n in range(1001)]}, (400, 1000)),
        ({"3": [ADA], "contact_list_id": 1}, (400, 2020)),
    ],
    ids=lambda value: str(value)[:50],
)
def test_deletions_that_cannot_be_are_refused(body: Any, want: tuple[int, int]) -> None:
    """Nobody is deleted."""
    at = account()
    put(at, {"3": ADA})

    assert ask(at, "POST", "contact/delete", body)[:2] == want
    assert len(at.contacts) == 1
