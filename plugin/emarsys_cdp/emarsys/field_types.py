"""
Values of data maps as Emarsys fields take them, by field type. Pure; the converters run for each event.

Everything is sent as text, multiple choices as an array of texts. "" empties a field on purpose; a value that
does not fit raises ValueError with what was found and what would be right, and nothing is cut off silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import TypeAlias

from emarsys_cdp.emarsys.fields import UNKNOWN, Field
from emarsys_cdp.values.text import parse_decimal, shorten
from emarsys_cdp.values.times import zone
from emarsys_cdp_hooks import FieldType, Json, Value

Convert: TypeAlias = Callable[[Value, str], Json]
"""(value, time zone of the space) to the value to send."""

# Limits: https://help.emarsys.com/hc/en-us/articles/115004634729
SHORT_TEXT_LENGTH = 60
LONG_TEXT_LENGTH = 255
URL_LENGTH = 255
NUMERIC_DIGITS = 24

OPT_IN_FIELD = "31"
"""Of type special in Emarsys, yet it takes 1, 2 or nothing: https://help.emarsys.com/hc/en-us/articles/115004637665"""

_OPT_IN = {"1": "1", "true": "1", "yes": "1", "2": "2", "false": "2", "no": "2", "": ""}
_YES = ("true", "yes", "y")
_NO = ("false", "no", "n")
_SHOWN_CHOICES = 5
_DATE_LENGTH = len("2025-01-06")


def built_in_field_types() -> tuple[FieldType, ...]:
    """Return the field types of Emarsys, and `unknown` for custom fields that are given by number only."""
    return (
        FieldType("shorttext", _limited_text(SHORT_TEXT_LENGTH), f"text, at most {SHORT_TEXT_LENGTH} characters"),
        FieldType("longtext", _limited_text(LONG_TEXT_LENGTH), f"text, at most {LONG_TEXT_LENGTH} characters"),
        FieldType("largetext", _convert_text, "text of any length"),
        FieldType("url", _limited_text(URL_LENGTH), f"web address, at most {URL_LENGTH} characters"),
        FieldType("numeric", _convert_numeric, f"number, at most {NUMERIC_DIGITS} digits"),
        FieldType("date", _convert_date, "calendar date in the time zone of the space"),
        FieldType("birthdate", _convert_date, "calendar date in the time zone of the space"),
        FieldType("singlechoice", _convert_choice, "one choice, by id or label"),
        FieldType("multichoice", _convert_choices, "one or several choices, by id or label"),
        FieldType("interests", _convert_choices, "one or several interests, by id or label"),
        FieldType("special", _convert_text, "text of any length"),
        FieldType("optin", _convert_opt_in, "opt-in: true, false or empty"),
        FieldType("fax", _convert_text, "fax number"),
        FieldType("voucher", _refuse_voucher, "voucher codes; cannot be written"),
        FieldType(UNKNOWN, _convert_unknown, "text as it is, lists as arrays"),
    )


def converter(field: Field, types: Mapping[str, FieldType], override: str | None = None) -> Convert:
    """
    Return the function that makes a data map's value into what *field* takes.

    *types* maps names to field types and has at least the built-in ones. *override* is the field type that a
    data map asks for instead of the field's own. A choice field is given its choices here.

    Raises:
        ValueError: there is no field type *override*.

    """
    convert = _field_type(field, types, override).convert
    if convert is _convert_choice:
        return _choice_of(_choice_finder(field.choices))
    if convert is _convert_choices:
        return _choices_of(_choice_finder(field.choices))
    return convert


def check_writable(field: Field) -> str | None:
    """Return why no value can be written to *field*, or None when it can."""
    if field.read_only:
        return f"Emarsys field {field.id} ({field.name}) is read-only; choose a field that can be written"
    if field.type == "voucher":
        return f"Emarsys field {field.id} ({field.name}) is a voucher field; choose a field that can be written"
    return None


def _field_type(field: Field, types: Mapping[str, FieldType], override: str | None) -> FieldType:
    if override is None:
        name = "optin" if field.id == OPT_IN_FIELD else field.type
        return types.get(name) or types[UNKNOWN]
    if override not in types:
        raise ValueError(f"{shorten(override)} is no field type; there are {', '.join(sorted(types))}")
    return types[override]


def _text(value: Value) -> str:
    """Text of any value: booleans as words, lists joined, None as empty text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if _is_texts(value):
        return ", ".join(value)
    raise ValueError(f"{shorten(value)} is no text; give a text, a number, a boolean or a list of texts")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(element, str) for element in value)


def _convert_text(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
    return value if type(value) is str else _text(value)


def _limited_text(limit: int) -> Convert:
    def convert(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
        text = value if type(value) is str else _text(value)
        if len(text) > limit:
            raise ValueError(f"{shorten(text)} has {len(text)} characters; at most {limit} fit into this field")
        return text

    return convert


def _convert_unknown(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
    if type(value) is str:
        return value
    if isinstance(value, list) and _is_texts(value):
        return _not_empty(value)
    return _text(value)


def _not_empty(value: list[str]) -> list[str]:
    if not value:
        raise ValueError("the list is empty, which Emarsys refuses; give at least one choice")
    return value


def _convert_numeric(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    number = parse_decimal(value) if isinstance(value, str) else None
    if number is None:
        raise ValueError(f"{shorten(value)} is no number; give decimal text such as 12.5")
    digits = len(number) - number.count("-") - number.count(".")
    if digits > NUMERIC_DIGITS:
        raise ValueError(f"{shorten(value)} has {digits} digits; at most {NUMERIC_DIGITS} fit into this field")
    return number


def _convert_date(value: Value, timezone: str) -> Json:
    if value is None or value == "":
        return ""
    day = _day(value.strip(), timezone) if isinstance(value, str) else None
    if day is None:
        raise ValueError(f"{shorten(value)} is no date; give YYYY-MM-DD or ISO 8601 as 2025-01-06T10:00:00Z")
    return day.isoformat()


def _day(text: str, timezone: str) -> date | None:
    """Return the calendar date in a time zone; text without an offset is local there already."""
    if text[4:5] != "-":
        return None
    place = zone(timezone)
    try:
        if len(text) == _DATE_LENGTH:
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is None else moment.astimezone(place)).date()
    except (ValueError, OverflowError):
        return None


def _convert_opt_in(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
    if isinstance(value, bool):
        return "1" if value else "2"
    text = "" if value is None else value
    found = _OPT_IN.get(text.strip().casefold()) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{shorten(value)} is no opt-in value; give true, 1 or yes, or false, 2 or no, or empty text")
    return found


def _refuse_voucher(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
    raise ValueError(f"{shorten(value)} cannot be written to a voucher field; choose another field")


def _convert_choice(value: Value, timezone: str) -> Json:
    """Single choice without a field; `converter` puts one with the field's choices in its place."""
    return _choice_of(_choice_finder({}))(value, timezone)


def _convert_choices(value: Value, timezone: str) -> Json:
    """Multiple choice without a field; `converter` puts one with the field's choices in its place."""
    return _choices_of(_choice_finder({}))(value, timezone)


def _choice_of(find: Callable[[object], str]) -> Convert:
    def convert(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
        return "" if value is None or value == "" else find(value)

    return convert


def _choices_of(find: Callable[[object], str]) -> Convert:
    def convert(value: Value, timezone: str) -> Json:  # noqa: ARG001 - the signature of field types
        if isinstance(value, list):
            return list(dict.fromkeys(map(find, _not_empty(value))))
        return _not_empty([] if value is None or value == "" else [find(value)])

    return convert


def _choice_finder(choices: Mapping[str, str]) -> Callable[[object], str]:
    """Return the function that finds the choice id of an id, a label or a boolean."""
    if not choices:
        return _only_digits
    ids = _choice_ids(choices)
    permitted = _permitted(choices)

    def find(value: object) -> str:
        found = ids.get(_choice_key(value))
        if found is None and isinstance(value, str) and value.isascii() and value.isdigit():
            return value  # an account may have choices that the shipped list lacks
        if found is None:
            raise ValueError(f"{shorten(value)} is no choice of this field; give one such as {permitted}")
        return found

    return find


def _only_digits(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{shorten(value)} is no choice id; the labels of this field are not known, give digits")
    return text


def _choice_key(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip().casefold() if isinstance(value, str) else ""


def _choice_ids(choices: Mapping[str, str]) -> dict[str, str]:
    """Map labels, and ids, which win, to ids; choices for yes and no are found by all their words."""
    ids = {_choice_key(label): choice for label, choice in choices.items()}
    yes, no = _first_known(ids, _YES), _first_known(ids, _NO)
    if yes and no:
        ids = dict.fromkeys(_YES, yes) | dict.fromkeys(_NO, no) | ids
    return ids | {choice: choice for choice in choices.values()}


def _first_known(ids: Mapping[str, str], words: tuple[str, ...]) -> str | None:
    return next((ids[word] for word in words if word in ids), None)


def _permitted(choices: Mapping[str, str]) -> str:
    """Return the first label of some choices with their ids, as an error message shows them."""
    labels: dict[str, str] = {}
    for label, choice in choices.items():
        labels.setdefault(choice, label)
    shown = [f"{label} ({choice})" for choice, label in list(labels.items())[:_SHOWN_CHOICES]]
    return ", ".join(shown) + (", …" if len(labels) > _SHOWN_CHOICES else "")
