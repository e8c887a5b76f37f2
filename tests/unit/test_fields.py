from __future__ import annotations

from typing import Any

import pytest

from emarsys_cdp.emarsys.field_types import built_in_field_types, check_writable, converter
from emarsys_cdp.emarsys.fields import Field, FieldCatalogue, load_system_fields
from emarsys_cdp_hooks import FieldType, Json, Value

TYPES = {field_type.name: field_type for field_type in built_in_field_types()}
TEXTS = ["shorttext", "longtext", "largetext", "url", "fax", "special"]
CHOICES = ["singlechoice", "multichoice", "interests"]
NAMES = {*TEXTS, *CHOICES, "numeric", "date", "birthdate", "optin", "voucher", "unknown"}

SIZE = {"Small": "1", "Medium": "2", "Large": "3", "S": "1"}
YES_NO = {"Yes": "7", "No": "8"}
NUMBERED = {"2": "1", "3": "2"}

NEW_YEAR = "2024-12-31T23:30:00.000Z"


@pytest.fixture(scope="module")
def catalogue() -> FieldCatalogue:
    """Return the shipped catalogue."""
    return load_system_fields()


def field(kind: str, choices: dict[str, str] | None = None, number: str = "9001") -> Field:
    """Return a field of a type."""
    return Field(id=number, name="Test", type=kind, choices=choices or {})


def convert(value: Any, of: Field, timezone: str = "Europe/Berlin", override: str | None = None) -> Json:
    """Return what is sent to a field for a value."""
    return converter(of, TYPES, override)(value, timezone)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("3", "3"),
        (" 3 ", "3"),
        ("email", "3"),
        ("EMAIL", "3"),
        ("first_name", "1"),
        ("First name", "1"),
        ("first-name", "1"),
        ("FIRST  NAME", "1"),
        ("Opt-in", "31"),
        ("opt in", "31"),
        ("optin", "31"),
        ("Country", "14"),
        ("Country or region", "14"),
        ("company_country", "45"),
        ("0", "0"),
    ],
)
def test_find(catalogue: FieldCatalogue, name: str, number: str) -> None:
    """A system field is found by id, string id or name, whatever the case and the separators."""
    found = catalogue.find(name)

    assert found is not None
    assert found.id == number


def test_find_custom_field(catalogue: FieldCatalogue) -> None:
    """Digits that are in no list give a custom field of unknown type that can be written."""
    found = catalogue.find("9001")

    assert found == Field(id="9001", name="9001", string_id=None, type="unknown", read_only=False, choices={})


@pytest.mark.parametrize("name", ["", " ", "shoe size", "-3", "3.5", "²"])
def test_find_nothing(catalogue: FieldCatalogue, name: str) -> None:
    """A name that is in no list is not found."""
    assert catalogue.find(name) is None


def test_find_prefers_string_id() -> None:
    """A string id wins over an equal name of another field, whatever the order of the list."""
    named, meant = Field(id="9001", name="Colour"), Field(id="9002", name="Other", string_id="colour")

    assert FieldCatalogue([named, meant]).find("colour") is meant


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("emial", "Email"),
        ("firstname", "First name"),
        ("Cuontry", "Country or region"),
        ("zipcode", "ZIP code"),
    ],
)
def test_suggest(catalogue: FieldCatalogue, name: str, near: str) -> None:
    """A misspelt name gets the nearest field names as suggestions, each once."""
    suggestions = catalogue.suggest(name)

    assert near in suggestions
    assert len(set(suggestions)) == len(suggestions) <= 3


def test_suggest_nothing(catalogue: FieldCatalogue) -> None:
    """A name that is like no field gets no suggestion."""
    assert catalogue.suggest("qqqqqqqq") == []


def test_system_fields_are_complete(catalogue: FieldCatalogue) -> None:
    """The shipped catalogue has the fields 0 to 48, each once."""
    assert [found.id for found in catalogue.fields] == [str(number) for number in range(49)]


def test_system_fields_have_known_types(catalogue: FieldCatalogue) -> None:
    """Every type of the shipped catalogue is a built-in field type."""
    assert {found.type for found in catalogue.fields} <= TYPES.keys()


def test_only_choice_fields_have_choices(catalogue: FieldCatalogue) -> None:
    """Shipped choices belong to single-choice fields and to opt-in, and their ids are digits."""
    with_choices = [found for found in catalogue.fields if found.choices]

    assert {found.id for found in with_choices} == {"5", "6", "8", "14", "26", "31", "45", "46"}
    assert {found.type for found in with_choices} == {"singlechoice", "optin"}
    assert all(choice.isdigit() for found in with_choices for choice in found.choices.values())


@pytest.mark.parametrize("name", ["country", "company_country"])
@pytest.mark.parametrize(
    ("value", "choice"),
    [("DE", "65"), ("de", "65"), ("Germany", "65"), ("65", "65"), ("NO", "129"), ("United States", "185")],
)
def test_countries(catalogue: FieldCatalogue, name: str, value: str, choice: str) -> None:
    """A country is given by its ISO 3166 alpha-2 code, its English name or its choice id."""
    country = catalogue.find(name)

    assert country is not None
    assert convert(value, country) == choice


def test_no_is_norway_not_false(catalogue: FieldCatalogue) -> None:
    """A boolean is no country, although NO is one."""
    country = catalogue.find("country")

    assert country is not None
    with pytest.raises(ValueError, match="False is no choice of this field; give one such as AF"):
        convert(False, country)


def test_built_in_names() -> None:
    """The built-in field types are the application types of Emarsys, opt-in and unknown, each described."""
    assert TYPES.keys() == NAMES
    assert len(built_in_field_types()) == len(NAMES)
    assert all(field_type.description for field_type in built_in_field_types())


@pytest.mark.parametrize("kind", [*TEXTS, "unknown"])
@pytest.mark.parametrize(
    ("value", "sent"),
    [("Jane", "Jane"), (" a ", " a "), (True, "true"), (False, "false"), ("", ""), (None, "")],
)
def test_text(kind: str, value: Value, sent: str) -> None:
    """Text is sent as it is, a boolean as a word, None as empty text."""
    assert convert(value, field(kind)) == sent


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(("value", "sent"), [(["a", "b"], "a, b"), (["a"], "a"), ([], "")])
def test_text_of_list(kind: str, value: Value, sent: str) -> None:
    """A list goes into a text field joined by commas."""
    assert convert(value, field(kind)) == sent


@pytest.mark.parametrize(("kind", "limit"), [("shorttext", 60), ("longtext", 255), ("url", 255)])
def test_text_fills_field(kind: str, limit: int) -> None:
    """Text as long as the limit is sent whole."""
    assert convert("ä" * limit, field(kind)) == "ä" * limit


@pytest.mark.parametrize(("kind", "limit"), [("shorttext", 60), ("longtext", 255), ("url", 255)])
def test_text_too_long(kind: str, limit: int) -> None:
    """Text above the limit is refused with its length and the limit, not cut off."""
    with pytest.raises(ValueError, match=f"has {limit + 1} characters; at most {limit} fit"):
        convert("a" * (limit + 1), field(kind))


def test_joined_list_too_long() -> None:
    """The limit holds for the joined text of a list."""
    with pytest.raises(ValueError, match="has 61 characters"):
        convert(["a" * 30, "b" * 29], field("shorttext"))


def test_large_text_has_no_limit() -> None:
    """Large text takes text of any length."""
    assert convert("a" * 100_000, field("largetext")) == "a" * 100_000


@pytest.mark.parametrize("value", [{"a": 1}, 5, [1, 2], [None]])
@pytest.mark.parametrize("kind", sorted(NAMES - {"voucher"}))
def test_foreign_json(kind: str, value: Json) -> None:
    """JSON of an extension that no data map yields is refused as a value, never a crash."""
    with pytest.raises(ValueError, match=" is no "):
        convert(value, field(kind))


def test_unknown_sends_lists_as_arrays() -> None:
    """A custom field that is known by number only gets a list as an array."""
    assert convert(["1", "3"], field("unknown")) == ["1", "3"]


@pytest.mark.parametrize("kind", ["unknown", "multichoice", "interests"])
def test_empty_list(kind: str) -> None:
    """An empty array is refused, as Emarsys does."""
    with pytest.raises(ValueError, match="Emarsys refuses"):
        convert([], field(kind, SIZE))


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("12", "12"),
        ("-1.5", "-1.5"),
        (" 12.50 ", "12.5"),
        ("007", "7"),
        ("1e2", "100"),
        ("0", "0"),
        ("9" * 24, "9" * 24),
        ("-" + "9" * 20 + ".1234", "-" + "9" * 20 + ".1234"),
        (True, "1"),
        (False, "0"),
        ("", ""),
        (None, ""),
    ],
)
def test_numeric(value: Value, sent: str) -> None:
    """A number is sent as its shortest decimal text, a boolean as 1 or 0."""
    assert convert(value, field("numeric")) == sent


@pytest.mark.parametrize("value", ["twelve", "1,200", "12 EUR", "NaN", "Infinity", "0x1F", "1_000", " ", ["1"]])
def test_no_number(value: Value) -> None:
    """What is no number is refused."""
    with pytest.raises(ValueError, match="is no number; give decimal text"):
        convert(value, field("numeric"))


def test_too_many_digits() -> None:
    """A number of more than 24 digits is refused, with their count."""
    with pytest.raises(ValueError, match="has 25 digits; at most 24"):
        convert("1" * 25, field("numeric"))


@pytest.mark.parametrize("kind", ["date", "birthdate"])
@pytest.mark.parametrize(
    ("value", "timezone", "sent"),
    [
        ("1990-05-01", "America/New_York", "1990-05-01"),
        (" 1990-05-01 ", "UTC", "1990-05-01"),
        (NEW_YEAR, "UTC", "2024-12-31"),
        (NEW_YEAR, "Europe/Berlin", "2025-01-01"),
        (NEW_YEAR, "America/New_York", "2024-12-31"),
        ("1990-05-01T04:00:00.000Z", "America/New_York", "1990-05-01"),
        ("1990-05-01T03:59:59.999Z", "America/New_York", "1990-04-30"),
        ("2024-07-01T22:30:00Z", "Europe/Berlin", "2024-07-02"),
        ("2025-01-01T00:30:00+02:00", "UTC", "2024-12-31"),
        ("2025-01-01T00:30:00", "Asia/Tokyo", "2025-01-01"),
        ("2025-01-01 00:30", "Asia/Tokyo", "2025-01-01"),
        ("", "UTC", ""),
        (None, "UTC", ""),
    ],
)
def test_date(kind: str, value: Value, timezone: str, sent: str) -> None:
    """A date is the calendar date in the space's time zone; without an offset it is local already."""
    assert convert(value, field(kind), timezone) == sent


@pytest.mark.parametrize("kind", ["date", "birthdate"])
@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "2025-02-30",
        "01.05.1990",
        "1736157600",
        "20250106",
        "2025-1-6",
        "0001-01-01T00:00Z",
        True,
        ["2025-01-06"],
    ],
)
def test_no_date(kind: str, value: Value) -> None:
    """What is no date, or no date of the calendar, is refused."""
    with pytest.raises(ValueError, match=r"is no date; give YYYY-MM-DD"):
        convert(value, field(kind), "America/New_York")


def test_date_in_unknown_zone() -> None:
    """A time zone that does not exist is named."""
    with pytest.raises(ValueError, match="'Mars/Olympus' is no IANA time zone"):
        convert(NEW_YEAR, field("date"), "Mars/Olympus")


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, "1"),
        ("1", "1"),
        ("true", "1"),
        ("Yes", "1"),
        (False, "2"),
        ("2", "2"),
        ("FALSE", "2"),
        ("no", "2"),
        ("", ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("kind", ["optin", "special", "singlechoice"])
def test_opt_in(kind: str, value: Value, sent: str) -> None:
    """Field 31 takes 1, 2 or nothing, whatever type the account's list gives it."""
    assert convert(value, field(kind, number="31")) == sent


@pytest.mark.parametrize("value", ["0", "3", "maybe", ["1"]])
def test_no_opt_in(value: Value) -> None:
    """What says neither yes nor no is refused, 0 too."""
    with pytest.raises(ValueError, match="is no opt-in value; give true, 1 or yes"):
        convert(value, field("optin"))


@pytest.mark.parametrize(
    ("choices", "value", "sent"),
    [
        (SIZE, "2", "2"),
        (SIZE, "Medium", "2"),
        (SIZE, " MEDIUM ", "2"),
        (SIZE, "s", "1"),
        (SIZE, "", ""),
        (SIZE, None, ""),
        (YES_NO, True, "7"),
        (YES_NO, False, "8"),
        (YES_NO, "true", "7"),
        (YES_NO, "no", "8"),
        ({"True": "1", "False": "0"}, True, "1"),
        (NUMBERED, "2", "2"),
        (NUMBERED, "3", "2"),
        ({}, "12", "12"),
        ({}, "", ""),
    ],
)
def test_single_choice(choices: dict[str, str], value: Value, sent: str) -> None:
    """A choice is sent by its id; it is given by id, which wins, by label, or by a boolean for yes and no."""
    assert convert(value, field("singlechoice", choices)) == sent


@pytest.mark.parametrize("value", ["Huge", True, ["Small"]])
def test_unknown_choice(value: Value) -> None:
    """What is no choice of the field is refused, with some that are."""
    with pytest.raises(ValueError, match=r"is no choice of this field; give one such as Small \(1\), Medium \(2\)"):
        convert(value, field("singlechoice", SIZE))


def test_unknown_choice_shows_some() -> None:
    """The message shows five choices of many."""
    many = {f"c{number}": str(number) for number in range(1, 300)}

    with pytest.raises(ValueError, match=r"c5 \(5\), …$"):
        convert("x", field("singlechoice", many))


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("value", ["Small", True, "1.5", "²"])
def test_label_without_choices(kind: str, value: Value) -> None:
    """A field whose choices are not known takes ids only."""
    with pytest.raises(ValueError, match="is no choice id; the labels of this field are not known"):
        convert(value, field(kind))


@pytest.mark.parametrize("kind", ["multichoice", "interests"])
@pytest.mark.parametrize(
    ("choices", "value", "sent"),
    [
        (SIZE, ["Small", "3"], ["1", "3"]),
        (SIZE, ["S", "Small"], ["1"]),
        (SIZE, "Large", ["3"]),
        (YES_NO, True, ["7"]),
        ({}, ["4", "5"], ["4", "5"]),
    ],
)
def test_multiple_choice(kind: str, choices: dict[str, str], value: Value, sent: list[str]) -> None:
    """Multiple choices are an array of ids, a single one too, each once."""
    assert convert(value, field(kind, choices)) == sent


@pytest.mark.parametrize("value", [None, ""])
def test_empty_multiple_choice(value: Value) -> None:
    """Emptying a multiple choice is refused: Emarsys takes no empty array."""
    with pytest.raises(ValueError, match="Emarsys refuses"):
        convert(value, field("multichoice", SIZE))


def test_unknown_choice_in_list() -> None:
    """One unknown choice in a list is named."""
    with pytest.raises(ValueError, match="'Huge' is no choice"):
        convert(["Small", "Huge"], field("multichoice", SIZE))


def test_voucher_is_refused() -> None:
    """A voucher field takes no value."""
    with pytest.raises(ValueError, match="cannot be written to a voucher field"):
        convert("V-1", field("voucher"))


def test_messages_shorten_the_value() -> None:
    """A message shows at most 60 characters of the value."""
    with pytest.raises(ValueError, match="is no number") as caught:
        convert("x" * 1000, field("numeric"))

    assert str(caught.value).count("x") < 60


def test_override() -> None:
    """The field type of a data map wins over the field's own."""
    assert convert(NEW_YEAR, field("unknown"), override="date") == "2025-01-01"


def test_unknown_override() -> None:
    """A field type that does not exist is refused when the converter is built, with those that do."""
    with pytest.raises(ValueError, match="'colour' is no field type; there are birthdate, date"):
        converter(field("unknown"), TYPES, "colour")


def test_new_type_of_emarsys() -> None:
    """A field whose application type is not known here is treated as an unknown field."""
    assert convert(["a"], field("hologram")) == ["a"]


def test_type_of_an_extension() -> None:
    """A field type of an extension is used for its name, also in place of a built-in one with choices."""
    types = TYPES | {"singlechoice": FieldType("singlechoice", lambda value, timezone: f"{value} in {timezone}")}

    assert converter(field("singlechoice", SIZE), types)("Small", "UTC") == "Small in UTC"


@pytest.mark.parametrize(("kind", "value", "sent"), [("singlechoice", "4", "4"), ("multichoice", "4", ["4"])])
def test_choice_type_without_field(kind: str, value: Value, sent: Json) -> None:
    """The choice types used without a field take ids."""
    assert TYPES[kind].convert(value, "UTC") == sent


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (
            Field("27", "Visits", read_only=True),
            "Emarsys field 27 (Visits) is read-only; choose a field that can be written",
        ),
        (
            Field("9", "Code", type="voucher"),
            "Emarsys field 9 (Code) is a voucher field; choose a field that can be written",
        ),
        (Field("3", "Email", type="longtext"), None),
    ],
)
def test_check_writable(of: Field, sentence: str | None) -> None:
    """A field that cannot be written says why."""
    assert check_writable(of) == sentence
