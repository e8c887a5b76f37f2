"""The fields of the fake's account: which there are, which may be keys, and the endpoints that list them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from emarsys_cdp.emarsys.fields import Field, load_system_fields
from emarsys_cdp.testing.fake_emarsys.field_checks import OPT_IN, Check, check_of, scalar
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.records import Json, Stored
from emarsys_cdp.testing.fake_emarsys.replies import (
    INVALID_FIELD,
    INVALID_LANGUAGE,
    INVALID_SOURCE,
    INVALID_VALUE,
    Reply,
    RowRefusal,
    bare,
    ok,
    refuse,
)

EMAIL: Final = "3"
IDS: Final = ("id", "uid")
"""What Emarsys itself numbers contacts by; both are keys and cannot be written."""

EXTRAS: Final = ("predictUserID", "predictSecret")
"""No fields, yet contact updates take them (Update Contacts)."""

_LANGUAGES = (
    "ar bg bp cn cz de dk el en es et fi fr he hi hr hu it jp ko lt lv mk mo mx nl no pl pr ro ru sc sk sl sr sv th tr"
    " uk vi"
)
LANGUAGES: Final = frozenset(_LANGUAGES.split())
"""Language codes of the field endpoints (List Available Fields)."""


class Fields:
    """The system fields and what the account has beside them."""

    def __init__(self, custom: Iterable[Field], options: Options) -> None:
        self._options = options
        self._fields: dict[str, Field] = {}
        self._checks: dict[str, Check] = {}
        for field in (*load_system_fields().fields, *custom):
            self.add(field)

    def add(self, field: Field) -> None:
        """
        Take up one more field, or another one under the same id.

        Raises:
            ValueError: its id is no number.

        """
        if not (field.id.isascii() and field.id.isdigit()):
            raise ValueError(f"{field.id!r} is no id of a field: give a number as text, such as '9001'")
        self._fields[field.id] = field
        self._checks[field.id] = check_of(field, self._options.overlong)

    def get(self, field_id: str) -> Field | None:
        """Return a field."""
        return self._fields.get(field_id)

    def all(self) -> tuple[Field, ...]:
        """Return every field, in the order of their ids."""
        return tuple(sorted(self._fields.values(), key=lambda field: int(field.id)))

    def key(self, name: Json) -> str | None:
        """
        Return the id of the field that a request means by `key_id`, None when it cannot be a key.

        A field is named by its number, as text or not, or by its string id (email).
        """
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            return None
        text = str(name)
        if text in IDS:
            return text
        field = self._fields.get(text) or next((one for one in self._fields.values() if one.string_id == text), None)
        if field is None or field.type in ("multichoice", "interests", "voucher"):
            return None
        indexed = self._options.key_fields
        return field.id if indexed is None or field.id in indexed or field.id == EMAIL else None

    def check_row(self, row: Mapping[str, Json], key_field: str) -> dict[str, Stored]:
        """
        Return the values that a row of a contact request writes, by field id; the value of an id as key is left out.

        Raises:
            RowRefusal: with every problem of the row.

        """
        values: dict[str, Stored] = {}
        problems: list[tuple[int, str]] = []
        for name, value in row.items():
            check = self._checks.get(name)
            try:
                if check is not None:
                    values[name] = check(value)
                elif name != key_field:
                    _check_no_field(name, value)
            except RowRefusal as refusal:
                problems += refusal.problems
        if problems:
            raise RowRefusal(*problems)
        return values


def _check_no_field(name: str, value: Json) -> None:
    """Refuse what stands in a row and is no field, unless contact updates take it."""
    if name in EXTRAS:
        scalar(value, name)
    elif name == "source_id":
        if isinstance(value, bool) or not str(value).lstrip("-").isdigit():
            raise RowRefusal((INVALID_SOURCE, f"Invalid source id: {value}"))
    elif name in IDS:
        raise RowRefusal((INVALID_VALUE, "Cannot set `id` or `uid` on contact creation"))
    elif not name:
        raise RowRefusal((INVALID_FIELD, f"Empty field id for value: {value}"))
    else:
        raise RowRefusal((INVALID_FIELD, f"Invalid field id: {name}"))


def list_fields(fields: Fields, language: str = "en") -> Reply:
    """Answer GET /field and GET /field/translate/{language}; the names are English in every language."""
    _check_language(language)
    return ok(
        [
            {
                "id": int(field.id),
                "name": field.name,
                "application_type": "special" if field.id == OPT_IN else field.type,
                "string_id": field.string_id or "",
            }
            for field in fields.all()
        ]
    )


def list_choices(fields: Fields, field_id: str, language: str = "en") -> Reply:
    """Answer GET /field/{id}/choice and /field/{id}/choice/translate/{language}."""
    _check_language(language)
    field = fields.get(field_id)
    return _no_such_field() if field is None else ok(_choices_of(field))


def list_many_choices(fields: Fields, query: Mapping[str, str]) -> Reply:
    """Answer GET /field/choices?fields={ids}&language={language}."""
    _check_language(query.get("language", "en"))
    found = {name: fields.get(name) for name in query.get("fields", "").split(",")}
    known = {name: _choices_of(field) for name, field in found.items() if field is not None}
    return _no_such_field() if len(known) < len(found) else ok(known)


def _choices_of(field: Field) -> list[dict[str, Any]]:
    labels: dict[str, str] = {}
    for label, choice in field.choices.items():
        labels.setdefault(choice, label)
    return [{"id": choice, "choice": label, "bit_position": n} for n, (choice, label) in enumerate(labels.items())]


def _no_such_field() -> Reply:
    return bare(HTTPStatus.NOT_FOUND, "No such field")


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise refuse(INVALID_LANGUAGE, "Invalid language code")
