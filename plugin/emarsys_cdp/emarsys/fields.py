"""The fields of an Emarsys account: which there are, of what type, and with which choices. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

import emarsys_cdp_manifests as manifests

UNKNOWN = "unknown"
"""Type of a custom field that was given by its number and is in no list."""

EMAIL_FIELD = "3"
"""Field id of the e-mail address (system field list)."""

_SUGGESTIONS = 3


class Field(Struct, frozen=True):
    """
    One Emarsys field.

    *id* is Emarsys' number as text, *type* its application_type, *choices* maps labels to choice ids; several
    labels may share an id, and a field whose choices are not known has none.
    """

    id: str
    name: str
    string_id: str | None = None
    type: str = UNKNOWN
    read_only: bool = False
    choices: Mapping[str, str] = {}


class FieldCatalogue:
    """The fields that are known, found by id, string id or name."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self._ids = {field.id: field for field in self.fields}
        self._names: dict[str, Field] = {}
        named = [(field.string_id, field) for field in self.fields if field.string_id]
        for name, field in named + [(field.name, field) for field in self.fields]:
            self._names.setdefault(_folded(name), field)

    def find(self, name: str) -> Field | None:
        """
        Return the field with this id, string id or name, in this order of preference.

        Case does not matter; spaces, underscores and hyphens are equal. Digits that are no known id give a
        custom field of type `unknown`, any other unknown name None.
        """
        text = name.strip()
        found = self._ids.get(text) or self._names.get(_folded(text))
        if found is None and text.isascii() and text.isdigit():
            return Field(id=text, name=text)
        return found

    def suggest(self, name: str) -> list[str]:
        """Return the names of the fields whose name or string id is near *name*, nearest first, at most 3."""
        near = difflib.get_close_matches(_folded(name), self._names, n=2 * _SUGGESTIONS)
        return list(dict.fromkeys(self._names[key].name for key in near))[:_SUGGESTIONS]


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


class _Row(Struct, rename="camel"):
    """A field of the shipped file; *choices* names one of its choice sets."""

    id: str
    name: str
    string_id: str | None
    type: str
    read_only: bool
    choices: str | None = None


class _File(Struct, rename="camel"):
    fields: list[_Row]
    choice_sets: dict[str, dict[str, str]]


def load_system_fields() -> FieldCatalogue:
    """Return the shipped catalogue of the system fields that every Emarsys account has."""
    file = msgspec.json.decode(manifests.read("emarsys/system_fields.json"), type=_File)
    return FieldCatalogue(_field(row, file.choice_sets) for row in file.fields)


def _field(row: _Row, choice_sets: Mapping[str, dict[str, str]]) -> Field:
    return Field(
        id=row.id,
        name=row.name,
        string_id=row.string_id,
        type=row.type,
        read_only=row.read_only,
        choices=choice_sets[row.choices] if row.choices else {},
    )
