from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.paths import EVERY, MAX_STEPS, compile_path, compile_trait, parse_path
from emarsys_cdp.values.text import MAX_DIGITS, decimal_text, shorten
from emarsys_cdp.values.times import iso_time, parse_time, zone

TYPES = ["string", "numeric", "boolean", "date", "list"]
JANUARY_6 = 1_736_157_600_000
"""2025-01-06T10:00:00Z."""

COERCIONS: list[tuple[str, Any, Any]] = [
    ("string", "express", "express"),
    ("string", "Express", "Express"),
    ("string", "", ""),
    ("string", " x ", " x "),
    ("string", "cafe\u0301", "caf\u00e9"),
    ("string", 10, "10"),
    ("string", 10.0, "10"),
    ("string", 9.9, "9.9"),
    ("string", 0, "0"),
    ("string", -0.0, "0"),
    ("string", True, "true"),
    ("string", False, "false"),
    ("string", None, None),
    ("string", ["express"], None),
    ("string", {"a": 1}, None),
    ("string", math.nan, None),
    ("string", math.inf, None),
    ("numeric", 100, "100"),
    ("numeric", "100.00", "100"),
    ("numeric", 99.99, "99.99"),
    ("numeric", " 100 ", "100"),
    ("numeric", "9.90", "9.9"),
    ("numeric", "-1.50", "-1.5"),
    ("numeric", "1e2", "100"),
    ("numeric", "1E-2", "0.01"),
    ("numeric", "+5", "5"),
    ("numeric", "007", "7"),
    ("numeric", "-0", "0"),
    ("numeric", "0.000", "0"),
    ("numeric", 0.1, "0.1"),
    ("numeric", 5e-7, "0.0000005"),
    ("numeric", 1e22, "10000000000000000000000"),
    ("numeric", "1,000", None),
    ("numeric", "1.000,00", None),
    ("numeric", "1_000", None),
    ("numeric", "0x10", None),
    ("numeric", "12 EUR", None),
    ("numeric", "", None),
    ("numeric", " ", None),
    ("numeric", "NaN", None),
    ("numeric", "NaN1", None),
    ("numeric", "Infinity", None),
    ("numeric", "\u0661\u0662", None),
    ("numeric", "1e400", None),
    ("numeric", "1e999999999", None),
    ("numeric", 10**MAX_DIGITS, None),
    ("numeric", math.nan, None),
    ("numeric", True, None),
    ("numeric", None, None),
    ("numeric", [1], None),
    ("boolean", True, True),
    ("boolean", False, False),
    ("boolean", "yes", True),
    ("boolean", "No", False),
    ("boolean", " TRUE ", True),
    ("boolean", "FALSE", False),
    ("boolean", 1, True),
    ("boolean", 1.0, True),
    ("boolean", "1", True),
    ("boolean", 0, False),
    ("boolean", "0", False),
    ("boolean", "maybe", None),
    ("boolean", "", None),
    ("boolean", 2, None),
    ("boolean", None, None),
    ("boolean", [True], None),
    ("date", "2025-01-02T00:00:01Z", "2025-01-02T00:00:01Z"),
    ("date", "2025-01-02", "2025-01-01T23:00:00Z"),
    ("date", "2025-07-02", "2025-07-01T22:00:00Z"),
    ("date", "2025-01-02T10:00", "2025-01-02T09:00:00Z"),
    ("date", " 2025-01-02T10:00:00.1234Z ", "2025-01-02T10:00:00.123Z"),
    ("date", "2025-01-06T11:00:00+01:00", "2025-01-06T10:00:00Z"),
    ("date", "2025-01-06 11:00:00+0100", "2025-01-06T10:00:00Z"),
    ("date", 1_735_776_000_000, "2025-01-02T00:00:00Z"),
    ("date", 1_735_776_000, "2025-01-02T00:00:00Z"),
    ("date", 1_735_776_000.5, "2025-01-02T00:00:00.500Z"),
    ("date", "1735776000000", "2025-01-02T00:00:00Z"),
    ("date", "1735776000", "2025-01-02T00:00:00Z"),
    ("date", -1_735_776_000, "1914-12-31T00:00:00Z"),
    ("date", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ("date", "soon", None),
    ("date", "", None),
    ("date", "2025", None),
    ("date", "20250106", None),
    ("date", "2025-02-30", None),
    ("date", "2025-01-06T25:00:00Z", None),
    ("date", "06.01.2025", None),
    ("date", "01/06/2025", None),
    ("date", "--123456789", None),
    ("date", "---------", None),
    ("date", "\u00b2" * 10, None),
    ("date", "9" * 5000, None),
    ("date", 10**15, None),
    ("date", math.nan, None),
    ("date", "0001-01-01T00:00:00+23:59", None),
    ("date", True, None),
    ("date", None, None),
    ("date", ["2025-01-02"], None),
    ("list", "b", ["b"]),
    ("list", "a,b", ["a,b"]),
    ("list", ["a", "b"], ["a", "b"]),
    ("list", [1, 2.0, True, "x"], ["1", "2", "true", "x"]),
    ("list", ["a", None, "b"], ["a", "b"]),
    ("list", [], []),
    ("list", 0, ["0"]),
    ("list", False, ["false"]),
    ("list", None, None),
    ("list", {"a": 1}, None),
    ("list", [{"a": 1}], None),
    ("list", [["a"]], None),
    ("list", math.nan, None),
]

MESSAGE: dict[str, Any] = {
    "event": "Order Completed",
    "traits": {"first name": "Jane", "a.b": "dotted", "empty": None, "zero": 0},
    "context": {"traits": {"email": "jane@example.com", "zero": 9}},
    "properties": {
        "items": [{"sku": "s1", "tags": ["a", "b"]}, {"name": "no sku"}, {"sku": "s3", "tags": []}, "no object"],
        "deep": {"er": [[1, 2], [3]]},
        "text": "abc",
    },
}


def shown(value: Any) -> str:
    """Return a value as the id of a case: 1 and "1" differ."""
    return ascii(value)[:60]


@pytest.mark.parametrize(("data_type", "raw", "want"), COERCIONS, ids=shown)
def test_coercion(data_type: str, raw: Any, want: Any) -> None:
    """A raw value is read as the data map's type; what does not fit is absent."""
    assert coercion(data_type, "Europe/Berlin")(raw) == want


@pytest.mark.parametrize(
    ("data_type", "raw", "argument"),
    [
        ("string", "caf\u00e9", "cafe\u0301"),
        ("string", 10.0, "10"),
        ("numeric", "9.90", 9.9),
        ("numeric", "3", 3),
        ("date", "2025-01-06T11:00:00+01:00", "2025-01-06T10:00:00Z"),
        ("date", 1_736_157_600, "2025-01-06T10:00:00Z"),
        ("list", [1, 2], ["1", "2"]),
    ],
    ids=shown,
)
def test_equal_values(data_type: str, raw: Any, argument: Any) -> None:
    """Two ways of writing a value are the same value."""
    read = coercion(data_type, "UTC")

    assert read(raw) == read(argument) is not None


@settings(deadline=None, database=None)
@given(
    st.sampled_from(TYPES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=2),
        max_leaves=4,
    ),
)
def test_coercion_is_total_and_idempotent(data_type: str, raw: Any) -> None:
    """Any JSON value is read without an error, and what was read is read again as itself."""
    read = coercion(data_type, "Europe/Berlin")

    once = read(raw)

    assert read(once) == once


@settings(deadline=None, database=None)
@given(st.text("-+0123456789.:TZWe /", max_size=25))
def test_reading_dates_is_total(text: str) -> None:
    """Text that resembles a date or a number is read without an error."""
    read = coercion("date", "Europe/Berlin")(text)

    assert read is None or (isinstance(read, str) and read.endswith("Z"))


def test_unknown_type() -> None:
    """A type that does not exist is an error."""
    with pytest.raises(KeyError):
        coercion("colour", "UTC")


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("event", ("event",)),
        ("$.event", ("event",)),
        ("properties.items[0].sku", ("properties", "items", 0, "sku")),
        ("properties.items[*].sku", ("properties", "items", EVERY, "sku")),
        ("traits['first name']", ("traits", "first name")),
        ('traits["a.b"]', ("traits", "a.b")),
        ("traits['say \"hi\"']", ("traits", 'say "hi"')),
        ("traits['*']", ("traits", "*")),
        ("traits['0']", ("traits", "0")),
        ("$['event']", ("event",)),
        ("[0][1]", (0, 1)),
        ("a.b-c.d e", ("a", "b-c", "d e")),
        ("traits.\u00fcber", ("traits", "\u00fcber")),
    ],
    ids=shown,
)
def test_paths(path: str, want: tuple[str | int, ...]) -> None:
    """A path consists of names with dots, indexes, `[*]` and quoted names."""
    assert parse_path(path) == want


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", "has 0 steps"),
        ("$", "has 0 steps"),
        (".a", "'.a'"),
        ("a.", "'.'"),
        ("a..b", "'..b'"),
        ("a.[0]", "'.[0]'"),
        ("a[", "'['"),
        ("a[]", "'[]'"),
        ("a[-1]", "'[-1]'"),
        ("a[1:2]", "'[1:2]'"),
        ("a[x]", "'[x]'"),
        ("a[1234567]", "'[1234567]'"),
        ("a['b]", '"[\'b]"'),
        ("a['']", "\"['']\""),
        ("a['b\"]", "'[\\'b\"]'"),
        ("a]b", "']b'"),
        (" a", "' a'"),
        (".".join("a" * (MAX_STEPS + 1)), f"1 to {MAX_STEPS} are allowed"),
    ],
    ids=shown,
)
def test_wrong_paths(path: str, place: str) -> None:
    """A path that cannot be read is refused with the path, the place, and what would be right."""
    with pytest.raises(ValueError, match="write names with dots") as caught:
        parse_path(path)

    assert repr(path) in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("event", "Order Completed"),
        ("missing", None),
        ("event.missing", None),
        ("properties.text.missing", None),
        ("properties.items", MESSAGE["properties"]["items"]),
        ("properties.items[0].sku", "s1"),
        ("properties.items[1].sku", None),
        ("properties.items[9].sku", None),
        ("properties.items[3].sku", None),
        ("properties.items[*].sku", ["s1", "s3"]),
        ("properties.items[*].tags[0]", ["a"]),
        ("properties.items[*].tags[*]", [["a", "b"], []]),
        ("properties.text[*]", None),
        ("properties.text[0]", None),
        ("properties[0]", None),
        ("properties.deep.er[*][0]", [1, 3]),
        ("traits['first name']", "Jane"),
        ("traits['a.b']", "dotted"),
        ("traits.a.b", None),
        ("traits.email", "jane@example.com"),
        ("context.traits['first name']", "Jane"),
        ("traits.zero", 0),
        ("context.traits.zero", 9),
        (["missing", "traits.empty", "traits.zero", "event"], 0),
        (["missing", "traits.empty"], None),
    ],
    ids=shown,
)
def test_reading_a_path(path: str | list[str], want: Any) -> None:
    """A path reads the first value that is there and not null; traits are looked up in both places."""
    assert compile_path(path)(MESSAGE) == want


@pytest.mark.parametrize("path", ["traits.x", "context.traits.x", "traits.x.y", "traits['x']"])
@pytest.mark.parametrize("wrong", [None, "text", 1, [], ["x"], {"traits": "text"}], ids=shown)
def test_reading_a_message_of_another_shape(path: str, wrong: Any) -> None:
    """Where the message has something else than the objects of the path, there is no value."""
    assert compile_path(path)({"traits": wrong, "context": wrong}) is None


@pytest.mark.parametrize(
    ("name", "want"),
    [("email", "jane@example.com"), ("first name", "Jane"), ("['a.b']", None), ("a]b", "odd"), ("a..b", "odder")],
)
def test_traits_by_name(name: str, want: Any) -> None:
    """A trait is read by its path, and by its plain name where that is no path."""
    traits = {**MESSAGE["traits"], "a]b": "odd", "a..b": "odder"}

    assert compile_trait(name)({**MESSAGE, "traits": traits}) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2025-01-06T10:00:00Z", JANUARY_6),
        ("2025-01-06T10:00:00.999Z", JANUARY_6 + 999),
        ("2025-01-06T10:00:00.123456789Z", JANUARY_6 + 123),
        ("2025-01-06T11:00:00+01:00", JANUARY_6),
        ("2025-01-06T10:00:00", JANUARY_6),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("10:00", None),
        ("", None),
        ("yesterday", None),
        ("2025-13-01T00:00:00Z", None),
    ],
)
def test_parse_time(text: str, want: int | None) -> None:
    """ISO 8601 text is read to the millisecond, without an offset as UTC."""
    assert parse_time(text) == want


@pytest.mark.parametrize(
    "milliseconds", [0, -1, 1, JANUARY_6, JANUARY_6 + 999, -62_135_596_800_000, 253_402_300_799_999]
)
def test_iso_time(milliseconds: int) -> None:
    """A time is written in the form that Emarsys takes and read back as itself."""
    text = iso_time(milliseconds)

    assert len(text) == len("2025-01-06T10:00:00.000Z")
    assert parse_time(text) == milliseconds


@pytest.mark.parametrize("name", ["", "Europe/Atlantis", "../etc/passwd", "/etc/passwd", "CEST", "a\x00b"], ids=shown)
def test_unknown_time_zone(name: str) -> None:
    """A name that is no IANA time zone is refused with an example."""
    with pytest.raises(ValueError, match="is no IANA time zone such as Europe/Berlin"):
        zone(name)


@settings(deadline=None, database=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15).filter(lambda x: abs(x) > 1e-30)
)
def test_decimal_text_is_exact(number: float) -> None:
    """The decimal text of a number has no exponent, no needless zero, and is the same number."""
    text = decimal_text(number)
    assert text is not None

    assert float(text) == number
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))


@pytest.mark.parametrize(
    ("value", "want"),
    [("x", "'x'"), ("x" * 100, f"'{'x' * 58}\u2026"), (12, "12"), ({"a": None}, "{'a': None}")],
    ids=shown,
)
def test_shorten(value: Any, want: str) -> None:
    """A value in a message is quoted and cut to a bearable length."""
    assert shorten(value) == want
