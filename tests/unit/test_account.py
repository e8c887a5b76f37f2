"""What Emarsys tells of an account: read row by row, whatever form the ids have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emarsys_cdp.credentials import OAuth, Secret, Wsse
from emarsys_cdp.emarsys.account import (
    Choices,
    ContactList,
    Customer,
    ExternalEvent,
    Rows,
    read_choices,
    read_contact_lists,
    read_customer,
    read_events,
    read_fields,
)
from emarsys_cdp.emarsys.account_report import (
    CUSTOMER,
    EVENTS,
    FIELDS,
    QUESTIONS,
    WRITES,
    Asked,
    Report,
    clock_ahead,
    judge,
)
from emarsys_cdp.emarsys.fields import UNKNOWN, Field, load_system_fields
from emarsys_cdp.emarsys.replies import Reply
from emarsys_cdp.emarsys.reply_errors import UnreadableError

READERS = (read_customer, read_fields, read_choices, read_contact_lists, read_events)
DATE = "Mon, 23 Nov 2026 10:00:05 GMT"
TOLD = 1_795_428_005_000
"""The same time in ms since 1970."""

OAUTH = OAuth("client-1", Secret("s3cret"))
WSSE = Wsse("customer001", Secret("s3cret"))


def ok(data: Any) -> bytes:
    """Return a reply of success."""
    return json.dumps({"replyCode": 0, "replyText": "OK", "data": data}).encode()


def test_fields_have_ids_as_text() -> None:
    """An id may come as a number or as text, and the string id may be missing or empty."""
    rows = [
        {"id": 14, "name": "Country or region", "application_type": "singlechoice", "string_id": "country"},
        {"id": "7001", "name": "Points", "application_type": "numeric"},
        {"id": " 007002 ", "name": " Topics ", "application_type": None, "string_id": ""},
        {"id": 0, "name": "Interests", "application_type": "interests", "string_id": "interests"},
    ]

    assert read_fields(ok(rows)) == Rows(
        (
            Field("14", "Country or region", "country", "singlechoice"),
            Field("7001", "Points", None, "numeric"),
            Field("7002", "Topics", None, UNKNOWN),
            Field("0", "Interests", "interests", "interests"),
        )
    )


@pytest.mark.parametrize(
    "odd",
    [
        None,
        7,
        "text",
        [],
        {},
        {"id": 1},
        {"name": "no id"},
        {"id": 1, "name": ""},
        {"id": 1, "name": "  "},
        {"id": 1, "name": ["Points"]},
        {"id": True, "name": "Points"},
        {"id": 1.5, "name": "Points"},
        {"id": -1, "name": "Points"},
        {"id": "x1", "name": "Points"},
        {"id": "\u0661", "name": "Points"},
        {"id": "9" * 19, "name": "Points"},
        {"id": {"id": 1}, "name": "Points"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("read", [read_fields, read_contact_lists, read_events])
def test_an_odd_row_costs_only_itself(read: Any, odd: Any) -> None:
    """A row that cannot be used is left out and counted, those around it are read."""
    rows = read(ok([{"id": 1, "name": "first"}, odd, {"id": "3", "name": "third"}]))

    assert [(one.id, one.name) for one in rows.found] == [("1", "first"), ("3", "third")]
    assert rows.skipped == 1


def test_contact_lists_and_events() -> None:
    """Contact lists come with ids as text, events with numbers; a name of digits may come as one, too."""
    assert read_contact_lists(
        ok([{"id": "5001", "name": "News", "created": "2026-01-01 10:00:00", "type": 0}, {"id": "5002", "name": 2026}])
    ) == Rows((ContactList("5001", "News"), ContactList("5002", "2026")))
    assert read_events(ok([{"id": 125, "name": "welcome", "created": "2026-01-01"}])) == Rows(
        (ExternalEvent("125", "welcome"),)
    )


@pytest.mark.parametrize("nothing", [[], {}, "", None])
@pytest.mark.parametrize("read", [read_fields, read_contact_lists, read_events])
def test_an_empty_list_has_many_forms(read: Any, nothing: Any) -> None:
    """No rows are no rows, however Emarsys writes that."""
    assert read(ok(nothing)) == Rows(())


def test_data_may_be_absent() -> None:
    """So are data that are not there at all."""
    body = b'{"replyCode": 0, "replyText": "OK"}'

    assert read_events(body) == Rows(())
    assert read_choices(body) == Choices({})


def test_choices_by_field() -> None:
    """Labels lead to choice ids; the first of two same labels counts, the position of a bit is no id."""
    data = {
        "5": [{"id": "1", "choice": "Male", "bit_position": 4}, {"id": 2, "choice": "Female"}],
        "46": [{"id": "1", "choice": "Mr"}, {"id": "9", "choice": "Mr"}],
        "7002": [],
    }

    assert read_choices(ok(data)) == Choices({"5": {"Male": "1", "Female": "2"}, "46": {"Mr": "1"}, "7002": {}})


def test_odd_choices_are_counted() -> None:
    """A choice without id or label, and a field without a number or a list, are left out and counted."""
    data = {"5": [{"id": "1"}, None, {"choice": "x"}, {"id": "2", "choice": "Female"}], "x": [], "6": {"id": 1}}

    assert read_choices(ok(data)) == Choices({"5": {"Female": "2"}}, 5)


@pytest.mark.parametrize("nothing", [[], {}, "", None])
def test_no_choices_have_many_forms(nothing: Any) -> None:
    """A field without choices, or no field, is an empty object, array or text."""
    assert read_choices(ok(nothing)) == Choices({})


def test_the_customer() -> None:
    """Only the id is documented; a name is taken where there is one."""
    assert read_customer(ok({"id": "218000001", "name": "shop", "timezone": "x"})) == Customer("218000001", "shop")
    assert read_customer(ok({"id": 7})) == Customer("7")


@pytest.mark.parametrize("data", [{}, {"id": None}, {"name": "shop"}, [], "", 5, {"id": "shop"}], ids=repr)
def test_settings_without_a_customer_are_unreadable(data: Any) -> None:
    """An answer that does not say whose account it is was not given by Emarsys."""
    with pytest.raises(UnreadableError, match="names no customer"):
        read_customer(ok(data))


@pytest.mark.parametrize("data", [5, "text", True, {"a": 1}], ids=repr)
@pytest.mark.parametrize("read", [read_fields, read_contact_lists, read_events])
def test_data_that_are_no_list_are_unreadable(read: Any, data: Any) -> None:
    """What is neither a list nor empty is not taken for an empty list."""
    with pytest.raises(UnreadableError, match="no list"):
        read(ok(data))


@pytest.mark.parametrize("data", [5, "text", [1]], ids=repr)
def test_choices_that_are_not_by_field_are_unreadable(data: Any) -> None:
    """Nor are choices taken from anything but an object."""
    with pytest.raises(UnreadableError, match="not grouped by field"):
        read_choices(ok(data))


BODIES = [
    b"",
    b"<html>please sign in</html>",
    b"[]",
    b'{"data": []}',
    b'{"replyCode": 1, "replyText": "no", "data": ""}',
    b'{"replyCode": 0, "data": [',
    b'{"replyCode": 0, "data": [{"id": 1, "name": "\xff"}]}',
    b'{"replyCode": 0, "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"replyCode": 0, "data": [{"id": ' + b"9" * 5_000 + b"}]}",
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:40]))
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_answer_of_success_is_unreadable(read: Any, body: bytes) -> None:
    """A refusal, a page of something on the way and broken JSON are told apart from an empty account."""
    with pytest.raises(UnreadableError):
        read(body)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["id", "name", "choice", "5", "x"]), inner, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_any_data_are_read_or_unreadable(data: Any) -> None:
    """No answer breaks a reader, and no row is lost without being counted."""
    for read in READERS:
        try:
            found: Any = read(ok(data))
        except UnreadableError:
            continue
        if isinstance(found, Rows) and isinstance(data, list):
            assert len(found.found) + found.skipped == len(data)


@pytest.mark.parametrize(
    ("sent", "received", "ahead"),
    [
        (0, 100, 0),
        (-2_000, 3_000, 0),
        (900, 999, 0),
        (-60_000, -59_000, -59),
        (62_000, 62_100, 61),
        (420_000, 430_000, 419),
        (-3_600_000, -3_599_000, -3599),
    ],
)
def test_how_far_our_clock_is_ahead(sent: int, received: int, ahead: int) -> None:
    """What the whole seconds of the header and the time on the way leave open counts as no difference."""
    assert clock_ahead(DATE, TOLD + sent, TOLD + received) == ahead


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 10:00:05 GMT", "Mon, 23 Nov 99999 10:00:05 GMT"])
def test_a_date_that_is_none_says_nothing(date: str) -> None:
    """Without a readable Date header nothing is said about the clock."""
    assert clock_ahead(date, TOLD, TOLD) is None


def report(credentials: OAuth | Wsse, *ahead: int) -> Report:
    """Return the report on answers to one question each, in which our clock seems ahead by so many seconds."""
    reply = Reply(200, {"date": DATE}, ok([]))
    asked = [Asked(EVENTS, TOLD + one * 1000, TOLD + one * 1000, reply, done=True) for one in ahead]
    return judge(credentials, None, asked, load_system_fields())


@pytest.mark.parametrize(
    ("credentials", "ahead", "level", "result"),
    [
        (OAUTH, 61, None, "works"),
        (OAUTH, 62, "warning", "works"),
        (OAUTH, -62, "warning", "works"),
        (OAUTH, 7200, "warning", "works"),
        (WSSE, 62, "warning", "works"),
        (WSSE, 301, "warning", "works"),
        (WSSE, 302, "error", "incomplete"),
        (WSSE, -301, "error", "incomplete"),
    ],
)
def test_the_clock_matters_more_to_signatures(
    credentials: OAuth | Wsse, ahead: int, level: str | None, result: str
) -> None:
    """Above a minute there is a warning, with WSSE above five minutes an error."""
    found = report(credentials, ahead)

    assert [one.level for one in found.findings if "clock" in one.what] == ([] if level is None else [level])
    assert found.result == result


def test_the_least_difference_counts() -> None:
    """One answer that was slow does not make the clock wrong."""
    assert report(OAUTH, 300, 3, -200).clock_ahead_seconds == 2


def test_words_for_the_difference() -> None:
    """The difference is in the units of a clock."""
    assert report(OAUTH, 7386).findings[0].what == "the clock of this machine is 2 h 3 min ahead of that of Emarsys"
    assert report(OAUTH, -125).findings[0].what == "the clock of this machine is 2 min 5 s behind that of Emarsys"


@pytest.mark.parametrize(
    ("user", "shown"), [("client-1", "clie…"), ("abcde", "ab…"), ("a", "…"), ("customer_name001", "cust…")]
)
def test_a_user_is_shown_by_its_beginning(user: str, shown: str) -> None:
    """At most four characters of the API user's name are shown, of a short one half."""
    assert judge(OAuth(user, Secret("x")), None, [], load_system_fields()).user == shown


def test_rows_that_were_left_out_are_told() -> None:
    """The report says how many rows could not be read, and counts the others as the system's and the account's own."""
    fields = [{"id": 3, "name": "E-mail"}, {"id": 7001, "name": "Points"}, {"id": 7002, "name": "Topics"}, {"id": 1}]
    asked = [
        Asked(FIELDS, 0, 0, Reply(200, {}, ok(fields)), done=True),
        Asked(EVENTS, 0, 0, Reply(200, {}, ok([None])), done=True),
    ]
    found = judge(OAUTH, None, asked, load_system_fields())

    assert (found.counts.system_fields, found.counts.own_fields, found.counts.external_events) == (1, 2, 0)
    assert found.counts.contact_lists is None
    assert [(one.level, one.what) for one in found.findings] == [
        ("warning", "rows without a usable id or name, which are left out: 2")
    ]


def test_an_answer_that_cannot_be_used_is_an_error() -> None:
    """An answer of success that is not Emarsys' has its place and its next step."""
    asked = [Asked(CUSTOMER, 0, 0, Reply(200, {}, ok({"hello": "world"})), done=True)]
    found = judge(OAUTH, None, asked, load_system_fields())

    assert found.result == "incomplete"
    assert found.findings[0].what == "the answer to GET settings cannot be used: it names no customer"
    assert "EMARSYS_CDP_API_BASE" in found.findings[0].next_step


def test_the_help_has_every_permission(root: Path) -> None:
    """The table of help/account.md has each permission with its purpose, and whether it is asked."""
    page = (root / "plugin/emarsys_cdp/help/account.md").read_text()
    rows = re.findall(r"^\| `([a-z.]+)`[^|]*\| ([^|;]+?)(?:;[^|]*)? \| (yes|no) \|$", page, re.MULTILINE)

    assert rows == [
        *((one.permission, one.purpose, "yes") for one in QUESTIONS),
        *((name, purpose, "no") for name, purpose in WRITES),
    ]
    assert {f"`{one.instead.permission}` instead" for one in QUESTIONS if one.instead} == set(
        re.findall(r"`[a-z.]+` instead", page)
    )
