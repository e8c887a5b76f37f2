from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emarsys_cdp.identity.identifiers import MAX_LENGTH, Reader
from emarsys_cdp.values.paths import compile_path
from emarsys_cdp_hooks import Identifiers

BLOCKED = [
    "", " ", "0", "00", "-", "--", "0000-0000", "00000000-0000-0000-0000-000000000000", "-1", "null", "anonymous",
    "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true", "false",
    "[object Object]", "NaN", "None", "anonymousId", "anonymous_id", "userId", "user_id", "nil", "(null)", "<nil>",
    "n/a", "na", "unknown", "user", "test", "void", "ffffffff-ffff-ffff-ffff-ffffffffffff", "{{user.id}}",
    "x{{ user.id }}", "${userId}", "%USERNAME%", "<id>",
]  # fmt: skip

NEARLY_BLOCKED = [
    "00-1", "-10", "nullable", "anonymous1", "guests", "10", "nobody", "tester", "100%", "%20", "a<b", "{id}", "$id",
    "ffffffff-ffff-ffff-ffff-fffffffffffe", "'", '"', "''x", "users", "\"null'",
]  # fmt: skip


def shown(value: Any) -> str:
    """Return a value as the id of a case: 111 and "111" differ."""
    return repr(value)[:60]


def reader(key_type: str = "email", blocked: frozenset[str] = frozenset()) -> Reader:
    """Return a reader whose primary key is the trait `email`."""
    return Reader(compile_path("traits.email"), key_type, blocked)


def read_key(raw: Any, key_type: str) -> Identifiers:
    """Read a call that has a primary key only."""
    return reader(key_type).read({"traits": {"email": raw}})


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ("u1", "u1"),
        ("  u1\t", "u1"),
        ("\u00a0u1\u2003", "u1"),
        ("Jane", "Jane"),
        ("cafe\u0301", "caf\u00e9"),
        ("111", "111"),
        (111, "111"),
        (111.0, "111"),
        (-5, "-5"),
        (0.1, "0.1"),
        (1e22, "10000000000000000000000"),
        (12345678901234567890, "12345678901234567890"),
        ("111.0", "111.0"),
        ("u" * MAX_LENGTH, "u" * MAX_LENGTH),
        (" " * 300 + "u1", "u1"),
        ("\u4f60\u597d", "\u4f60\u597d"),
    ],
    ids=shown,
)
def test_normalisation(raw: Any, want: str) -> None:
    """The userId and the anonymousId are trimmed, in NFC, keep their case; a number is its shortest text."""
    read = reader().read({"userId": raw, "anonymousId": raw})

    assert read == Identifiers(want, None, want)


def test_equal_numbers_are_one_person() -> None:
    """111, 111.0 and "111" name the same person, in whatever order they are read by one reader."""
    read = reader().read

    assert {read({"userId": raw}).user for raw in (111, "111", 111.0, "111", 111)} == {"111"}


@pytest.mark.parametrize("quotes", ["{}", "'{}'", '"{}"', " {} ", "' {} '"], ids=shown)
@pytest.mark.parametrize("case", [str, str.upper, str.lower, str.title], ids=["as it is", "upper", "lower", "title"])
@pytest.mark.parametrize("raw", BLOCKED, ids=shown)
def test_blocked_values(raw: str, case: Any, quotes: str) -> None:
    """What programs send when they know nobody is no identifier, in any case and inside a pair of quotes."""
    value = quotes.format(case(raw))

    read = reader("text").read({"userId": value, "anonymousId": value, "traits": {"email": value}})

    assert read == Identifiers(warnings=("id_blocked",) * 3)


@pytest.mark.parametrize("raw", NEARLY_BLOCKED, ids=shown)
def test_not_blocked_values(raw: str) -> None:
    """A value that only resembles a blocked one is an identifier."""
    assert reader().read({"userId": raw}) == Identifiers(raw)


@pytest.mark.parametrize("raw", [0, 0.0, -0.0, -1, -1.0], ids=shown)
def test_blocked_numbers(raw: float) -> None:
    """A number is blocked when its text is."""
    assert reader().read({"userId": raw}) == Identifiers(warnings=("id_blocked",))


@pytest.mark.parametrize("raw", ["nobody@example.com", "NOBODY@Example.com", "'nobody@example.com'"], ids=shown)
def test_configured_blocked_values(raw: str) -> None:
    """A space's own blocked values are blocked in any case and inside quotes, and only there."""
    blocked = frozenset({"nobody@example.com"})

    assert reader("email", blocked).read({"traits": {"email": raw}}) == Identifiers(warnings=("id_blocked",))
    assert reader("text").read({"traits": {"email": raw}}) == Identifiers(None, raw)


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        (True, "id_wrong_type"),
        (False, "id_wrong_type"),
        ({}, "id_wrong_type"),
        ({"id": "u1"}, "id_wrong_type"),
        ([], "id_wrong_type"),
        (["u1"], "id_wrong_type"),
        ("u\x001", "id_wrong_type"),
        ("u\n1", "id_wrong_type"),
        ("u\x7f1", "id_wrong_type"),
        ("u\x1b[31m", "id_wrong_type"),
        ("u" * (MAX_LENGTH + 1), "id_too_long"),
        ("v" * 1_000_000, "id_too_long"),
    ],
    ids=shown,
)
def test_refused_values(raw: Any, warning: str) -> None:
    """Booleans, objects, arrays, control characters and long texts are refused, each with a warning."""
    read = reader("text").read({"userId": raw, "anonymousId": raw, "traits": {"email": raw}})

    assert read == Identifiers(warnings=(warning,) * 3)


@pytest.mark.parametrize("message", [{}, {"userId": None, "anonymousId": None, "traits": {"email": None}}], ids=shown)
def test_absent_values(message: dict[str, Any]) -> None:
    """What is not there is no identifier and no warning."""
    assert reader().read(message) == Identifiers()


def test_one_refusal_leaves_the_others() -> None:
    """A refused identifier costs only itself; the warnings come in the order userId, key, anonymousId."""
    read = reader().read({"userId": "null", "anonymousId": True, "traits": {"email": "jane@example.com"}})

    assert read == Identifiers(None, "jane@example.com", None, ("id_blocked", "id_wrong_type"))


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ("jane@example.com", "jane@example.com"),
        (" Jane.DOE@Example.COM ", "jane.doe@example.com"),
        ("o'hara+shop@example.co.uk", "o'hara+shop@example.co.uk"),
        ("J\u00d6RG@example.com", "j\u00f6rg@example.com"),
        ("jo\u0308rg@example.com", "j\u00f6rg@example.com"),
    ],
    ids=shown,
)
def test_emails(raw: str, want: str) -> None:
    """A key of type email is lower-cased."""
    assert read_key(raw, "email") == Identifiers(None, want)


@pytest.mark.parametrize(
    "raw",
    [
        "jane", "jane@", "@example.com", "jane@@example.com", "jane doe@example.com", "Jane <jane@example.com>",
        "jane@example.com, joe@example.com", "jane@example.com;joe@example.com", "mailto:jane@example.com", 111,
        "a@b@c",
    ], ids=shown
)  # fmt: skip
def test_no_emails(raw: Any) -> None:
    """A key of type email that is none is refused."""
    assert read_key(raw, "email") == Identifiers(warnings=("key_not_email",))


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ("+491701234567", "+491701234567"),
        ("+49 (170) 123-45.67", "+491701234567"),
        ("+49-170/1234567", "+491701234567"),
    ],
    ids=shown,
)
def test_phones(raw: Any, want: str) -> None:
    """A key of type phone keeps its plus sign and its digits."""
    assert read_key(raw, "phone") == Identifiers(None, want)


@pytest.mark.parametrize(
    "raw", ["12", "+49", "call me", "49+1701234567", "0170/1234567", "+" + "1" * 21, "jane@example.com"], ids=shown
)
def test_no_phones(raw: str) -> None:
    """A key of type phone that is none is refused."""
    assert read_key(raw, "phone") == Identifiers(warnings=("key_not_email",))


@pytest.mark.parametrize("raw", ["C-4711", "Jane Doe", "MiXed", "49+170"], ids=shown)
def test_text_keys(raw: str) -> None:
    """A key of type text stays as it is."""
    assert read_key(raw, "text") == Identifiers(None, raw)


def test_who() -> None:
    """The person as the call names it is its userId, else its anonymousId, else its key."""
    assert [
        Identifiers("u", "k", "a").who,
        Identifiers(None, "k", "a").who,
        Identifiers(None, "k").who,
        Identifiers().who,
    ] == ["u", "a", "k", None]


@settings(deadline=None, database=None)
@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.text(), max_size=2)
    | st.dictionaries(st.text(), st.text(), max_size=2),
    st.sampled_from(["email", "phone", "text"]),
)
def test_reading_is_total_and_idempotent(raw: Any, key_type: str) -> None:
    """Any JSON value is read without an error, and what was read is read again as itself."""
    read = reader(key_type).read({"userId": raw, "anonymousId": raw, "traits": {"email": raw}})
    again = reader(key_type).read({"userId": read.user, "anonymousId": read.anon, "traits": {"email": read.key}})

    assert (again.user, again.key, again.anon) == (read.user, read.key, read.anon)
    assert again.warnings == ()
