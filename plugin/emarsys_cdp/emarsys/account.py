"""
What Emarsys tells of an account: the customer, fields, choices, contact lists, external events. Pure.

Lists are read row by row: one that cannot be used is left out and counted, and the others are read on. Ids come as
text or as numbers, here they are text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from emarsys_cdp.emarsys.fields import UNKNOWN, Field
from emarsys_cdp.emarsys.reply_codes import OK
from emarsys_cdp.emarsys.reply_errors import UnreadableError, read_envelope
from emarsys_cdp_hooks import Json

_ID_DIGITS = 18

T = TypeVar("T")


class Rows(Struct, Generic[T], frozen=True):
    """The rows of a list in Emarsys' order; *skipped* more could not be read."""

    found: tuple[T, ...]
    skipped: int = 0


class Customer(Struct, frozen=True):
    """Whose account it is; the form of `GET /settings` is documented for the *id* only, so the *name* may be ""."""

    id: str
    name: str = ""


class Choices(Struct, frozen=True):
    """Labels to choice ids by the id of their field; *skipped* choices could not be read."""

    of_fields: Mapping[str, Mapping[str, str]]
    skipped: int = 0


class ContactList(Struct, frozen=True):
    """A contact list; *id* is Emarsys' number as text."""

    id: str
    name: str


class ExternalEvent(Struct, frozen=True):
    """An external event; *id* is Emarsys' number as text."""

    id: str
    name: str


def read_customer(body: bytes) -> Customer:
    """
    Return the customer of a reply to `GET /settings`.

    Raises:
        UnreadableError: it has none, or is no reply of success.

    """
    data = _data(body)
    number = _number(data.get("id")) if isinstance(data, dict) else None
    if number is None:
        raise UnreadableError("it names no customer")
    return Customer(number, _text(data.get("name")) or "")


def read_fields(body: bytes) -> Rows[Field]:
    """
    Return the fields of a reply to `GET /field` or `/field/translate/{language}`.

    Emarsys does not tell there which fields are read-only and what their choices are.

    Raises:
        UnreadableError: it has no list of fields, or is no reply of success.

    """
    return _rows(body, _field)


def read_contact_lists(body: bytes) -> Rows[ContactList]:
    """
    Return the contact lists of a reply to `GET /contactlist`.

    Raises:
        UnreadableError: it has no list of them, or is no reply of success.

    """
    return _rows(body, lambda number, name, _: ContactList(number, name))


def read_events(body: bytes) -> Rows[ExternalEvent]:
    """
    Return the external events of a reply to `GET /event`.

    Raises:
        UnreadableError: it has no list of them, or is no reply of success.

    """
    return _rows(body, lambda number, name, _: ExternalEvent(number, name))


def read_choices(body: bytes) -> Choices:
    """
    Return the choices of a reply to `GET /field/choices`; of a label that comes twice the first counts.

    Raises:
        UnreadableError: it has no choices by field, or is no reply of success.

    """
    data = _data(body)
    if not isinstance(data, dict) and data not in (None, "", []):
        raise UnreadableError("its choices are not grouped by field")
    found: dict[str, dict[str, str]] = {}
    skipped = 0
    for name, rows in (data or {}).items():
        field = _number(name)
        if field is None or not isinstance(rows, list):
            skipped += 1
            continue
        labels = found.setdefault(field, {})
        for row in rows:
            choice, label = _named(row, "choice")
            if choice is None or label is None:
                skipped += 1
            else:
                labels.setdefault(label, choice)
    return Choices(found, skipped)


def _rows(body: bytes, make: Callable[[str, str, Mapping[str, Json]], T]) -> Rows[T]:
    """Return what *make* makes of the id, the name and the whole of each row."""
    data = _data(body)
    if not isinstance(data, list):
        if data not in (None, "", {}):
            raise UnreadableError("its data is no list")
        data = []
    found = []
    for row in data:
        number, name = _named(row, "name")
        if number is not None and name is not None:
            found.append(make(number, name, row))
    return Rows(tuple(found), len(data) - len(found))


def _data(body: bytes) -> Any:
    """Return the data of a reply of success, None when it has none."""
    envelope = read_envelope(body)
    if envelope.code != OK:
        raise UnreadableError(f"it has the code {envelope.code}")
    try:
        return msgspec.json.decode(envelope.data) if memoryview(envelope.data) else None
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise UnreadableError("it is not JSON as Emarsys sends it") from error


def _named(row: Json, name: str) -> tuple[str | None, str | None]:
    """Return the id of a row and the text that it has under *name*."""
    return (_number(row.get("id")), _text(row.get(name))) if isinstance(row, dict) else (None, None)


def _field(number: str, name: str, row: Mapping[str, Json]) -> Field:
    kind = _text(row.get("application_type"))
    return Field(number, name, _text(row.get("string_id")), UNKNOWN if kind is None else kind)


def _number(value: Json) -> str | None:
    """Return an id as Emarsys writes it in paths: digits without leading zeros."""
    text = str(value).strip() if type(value) in (int, str) else ""
    return str(int(text)) if text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS else None


def _text(value: Json) -> str | None:
    """Return a name, None where there is none; a name of digits may come as a number."""
    text = str(value).strip() if type(value) in (int, str) else ""
    return text or None
