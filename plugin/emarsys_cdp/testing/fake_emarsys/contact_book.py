"""The contacts of the fake's account, found by any field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final

from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.records import Contact, DeletedContact, Json, Log, Stored
from emarsys_cdp.testing.fake_emarsys.replies import (
    MORE_CONTACTS,
    NO_CONTACT,
    NO_KEY_VALUE,
    RowRefusal,
    number_of,
)

FIRST_ID: Final = 100_000_001
_UID_LENGTH: Final = 10


class _Row(Struct):
    """A contact that changes."""

    id: int
    uid: str
    fields: dict[str, Stored]
    created: int
    updated: int

    def frozen(self) -> Contact:
        return Contact(self.id, self.uid, dict(self.fields), self.created, self.updated)


class ContactBook:
    """All contacts; an index is made for a field when it is first used as a key, and kept."""

    def __init__(self, keep: int) -> None:
        self._rows: dict[int, _Row] = {}
        self._indexes: dict[str, dict[str, list[int]]] = {"uid": {}}
        self._next = FIRST_ID
        self.deleted: Log[DeletedContact] = Log(keep)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Contact]:
        return (row.frozen() for row in self._rows.values())

    def get(self, contact_id: int) -> Contact:
        """Return a contact by its id."""
        return self._rows[contact_id].frozen()

    def find(self, key_field: str, value: str) -> list[int]:
        """Return the ids of the contacts that have *value* in a field."""
        if key_field == "id":
            number = number_of(value)
            return [number] if number in self._rows else []
        return self._index(key_field).get(value, [])

    def one(self, key_field: str, value: str) -> int:
        """
        Return the id of the only contact that has *value* in a field.

        Raises:
            RowRefusal: there is none, or more than one.

        """
        found = self.find(key_field, value)
        if len(found) == 1:
            return found[0]
        if found:
            raise more_contacts(key_field, value)
        raise RowRefusal((NO_CONTACT, f"No contact found with the external id: {key_field} - {value}"))

    def create(self, values: Mapping[str, Stored], now: int) -> int:
        """Make a contact and return its id."""
        number, self._next = self._next, self._next + 1
        uid = sha256(str(number).encode()).hexdigest()[:_UID_LENGTH]
        self._rows[number] = _Row(number, uid, {}, now, now)
        self._indexes["uid"][uid] = [number]
        self.update(number, values, now)
        return number

    def update(self, contact_id: int, values: Mapping[str, Stored], now: int) -> None:
        """Write values; an empty one empties its field, fields that are not given stay."""
        row = self._rows[contact_id]
        for field, index in self._indexes.items():
            if field in values:
                _take_out(index, row.fields.get(field), contact_id)
                if values[field]:
                    index.setdefault(_key(values[field]), []).append(contact_id)
        for field, value in values.items():
            if value:
                row.fields[field] = value
            else:
                row.fields.pop(field, None)
        row.updated = now

    def delete(self, contact_id: int, key_field: str, now: int) -> None:
        """Remove a contact with all its data, and keep a record of it."""
        contact = self.get(contact_id)
        self.update(contact_id, dict.fromkeys(contact.fields, ""), now)
        _take_out(self._indexes["uid"], contact.uid, contact_id)
        del self._rows[contact_id]
        self.deleted.add(DeletedContact(contact, key_field, now))

    def _index(self, field: str) -> dict[str, list[int]]:
        index = self._indexes.get(field)
        if index is None:
            index = self._indexes[field] = {}
            for row in self._rows.values():
                if field in row.fields:
                    index.setdefault(_key(row.fields[field]), []).append(row.id)
        return index


def _key(value: Stored) -> str:
    return value if isinstance(value, str) else ",".join(value)


def _take_out(index: dict[str, list[int]], value: Stored | None, contact_id: int) -> None:
    if value is None:
        return
    key = _key(value)
    others = [one for one in index.get(key, []) if one != contact_id]
    if others:
        index[key] = others
    else:
        index.pop(key, None)


def more_contacts(key_field: str, value: str) -> RowRefusal:
    """Return the refusal of a key that several contacts have."""
    return RowRefusal((MORE_CONTACTS, f"More contacts found with the external id: {key_field} - {value}"))


def key_text(value: Json, key_field: str) -> str:
    """
    Return a key value as text.

    Raises:
        RowRefusal: there is none, or it is no text and no number.

    """
    if isinstance(value, str) and value:
        return value
    if value is None or value == "":
        raise RowRefusal((NO_KEY_VALUE, f"No value provided for key field: {key_field}"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise RowRefusal((NO_KEY_VALUE, f"Invalid key field value: {key_field}"))
