"""What Emarsys takes as the value of a field, by the field's type. Pure; written from its documentation alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final, TypeAlias

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing.fake_emarsys.options import Overlong
from emarsys_cdp.testing.fake_emarsys.records import Json, Stored
from emarsys_cdp.testing.fake_emarsys.replies import INVALID_VALUE, RowRefusal

Check: TypeAlias = Callable[[Json], Stored]
"""Returns what is kept of a value, "" when it empties the field; raises RowRefusal."""

LENGTHS: Final = {"shorttext": 60, "longtext": 255, "url": 255}
"""Characters that fit: https://help.emarsys.com/hc/en-us/articles/115004634729"""

NUMERIC_DIGITS: Final = 24
OPT_IN: Final = "31"
OPT_IN_VALUES: Final = ("1", "2", "")
"""https://dev.emarsys.com/docs/core-api-reference (Update Contacts): 1, 2 or nothing, no words."""

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def check_of(field: Field, overlong: Overlong) -> Check:
    """Return the check of *field*."""
    kind = "optin" if field.id == OPT_IN else field.type
    if field.read_only or kind == "voucher":
        return _unwritable(field)
    if kind in ("multichoice", "interests"):
        return _choices(field)
    by_kind: Mapping[str, Callable[[str], bool]] = {
        "date": _is_date,
        "birthdate": _is_date,
        "numeric": _is_number,
        "singlechoice": _is_choice(field),
        "optin": lambda text: text in OPT_IN_VALUES,
    }
    if kind in by_kind:
        return _scalars(field.id, by_kind[kind], _TEXTS[kind].format(id=field.id), booleans=kind != "optin")
    return _text(field.id, LENGTHS.get(kind), overlong)


_TEXTS: Final = {
    "date": "Invalid date format for field id: {id}",
    "birthdate": "Invalid date format for field id: {id}",
    "numeric": "Invalid data format for field id: {id}. Numeric expected",
    "singlechoice": "Invalid choice id for field id: {id}",
    "optin": "Invalid choice id for field id: {id}",
}


def _refusal(text: str) -> RowRefusal:
    return RowRefusal((INVALID_VALUE, text))


def scalar(value: Json, field_id: str) -> str:
    """
    Return a value as text; None is empty text.

    Raises:
        RowRefusal: it is an array or an object.

    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (int, float)):
        return str(value)
    raise _refusal(f"Invalid data format for field ID: {field_id}. Scalar expected.")


def _text(field_id: str, length: int | None, overlong: Overlong) -> Check:
    def check(value: Json) -> str:
        text = value if type(value) is str else scalar(value, field_id)
        if length is None or len(text) <= length:
            return text
        if overlong == "cut":
            return text[:length]
        raise _refusal(f"Invalid value for field id: {field_id}. At most {length} characters")

    return check


def _scalars(field_id: str, holds: Callable[[str], bool], text: str, *, booleans: bool) -> Check:
    """Return a check of scalars that are refused with *text* unless they are empty or *holds* is true of them."""

    def check(value: Json) -> str:
        found = scalar(value, field_id)
        if (found and not holds(found)) or (isinstance(value, bool) and not booleans):
            raise _refusal(text)
        return found

    return check


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    digits = len(text) - text.count("-") - text.count(".")
    return bool(_NUMBER.fullmatch(text)) and digits <= NUMERIC_DIGITS


def _is_choice(field: Field) -> Callable[[str], bool]:
    """Tell whether a text is one of the choice ids; digits are when the ids are not known."""
    ids = frozenset(field.choices.values())
    return ids.__contains__ if ids else (lambda text: text.isascii() and text.isdigit())


def _choices(field: Field) -> Check:
    is_choice = _is_choice(field)

    def check(value: Json) -> list[str]:
        if not isinstance(value, list):
            raise _refusal(f"Invalid data format for field id: {field.id}. Array expected")
        if not value:
            raise _refusal(f"No choice provided for field id: {field.id}")
        found = [scalar(element, field.id) for element in value]
        if not all(map(is_choice, found)):
            raise _refusal(f"Invalid choice id for field id: {field.id}")
        return list(dict.fromkeys(found))

    return check


def _unwritable(field: Field) -> Check:
    text = (
        "Invalid field type: voucher. The value of vouchers cannot be changed."
        if field.type == "voucher"
        else f"Invalid field id: {field.id}"
    )

    def check(value: Json) -> str:  # noqa: ARG001 - the signature of checks
        raise _refusal(text)

    return check
