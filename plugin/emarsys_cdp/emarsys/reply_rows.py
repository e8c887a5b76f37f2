"""What a request asks of Emarsys: its kind, its rows with their key values, and how to speak of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum, auto
from functools import cached_property
from typing import Any

from emarsys_cdp.emarsys.fields import EMAIL_FIELD
from emarsys_cdp.values.text import decimal_text, nfc, shorten
from emarsys_cdp_hooks import Json, Request

_SHOWN = 60
_WITH_NUMBER = 3
"""Parts of a request that has a number: method, noun, number."""


class Kind(Enum):
    """What a request does with each of its rows."""

    UPSERT = auto()
    CREATE = auto()
    DELETE = auto()
    READ = auto()
    ADD = auto()
    REMOVE = auto()
    TRIGGER = auto()
    OTHER = auto()


_KINDS: Mapping[tuple[str, ...], tuple[Kind, str]] = {
    ("PUT", "contact"): (Kind.UPSERT, "contact.update"),
    ("POST", "contact"): (Kind.CREATE, "contact.create"),
    ("POST", "contact", "delete"): (Kind.DELETE, "contact.delete"),
    ("POST", "contact", "getdata"): (Kind.READ, "contact.getdata"),
    ("POST", "contact", "checkids"): (Kind.READ, "contact.contactid.verify"),
    ("GET", "contactlist"): (Kind.OTHER, "contactlist.list"),
    ("POST", "contactlist"): (Kind.OTHER, "contactlist.create"),
    ("POST", "contactlist", "*", "add"): (Kind.ADD, "contactlist.contact.add"),
    ("POST", "contactlist", "*", "delete"): (Kind.REMOVE, "contactlist.contact.delete"),
    ("GET", "event"): (Kind.OTHER, "externalevent.list"),
    ("GET", "event", "*", "usages"): (Kind.OTHER, "externalevent.usages"),
    ("POST", "event", "*", "trigger"): (Kind.TRIGGER, "externalevent.trigger"),
    ("GET", "field"): (Kind.OTHER, "field.get"),
    ("GET", "field", "translate", "*"): (Kind.OTHER, "field.list"),
    ("GET", "field", "choices"): (Kind.OTHER, "field.multichoice.list"),
    ("GET", "field", "*", "choice"): (Kind.OTHER, "field.singlechoice.get"),
    ("GET", "settings"): (Kind.OTHER, "customer.settings"),
}
"""Kind and endpoint permission by method and path (Endpoint permission settings of the core API reference)."""

_FAILURES: Mapping[Kind, str] = {
    Kind.UPSERT: "{contact} was not written",
    Kind.CREATE: "{contact} was not created",
    Kind.DELETE: "{contact} was not deleted",
    Kind.READ: "{contact} was not read",
    Kind.ADD: "{contact} was not added to contact list {number}",
    Kind.REMOVE: "{contact} was not removed from contact list {number}",
    Kind.TRIGGER: "external event {number} was not triggered for {contact}",
    Kind.OTHER: "{request} was not done",
}


class Rows:
    """The rows of one request; *keys* are their key values in order, *values* the same without repetitions."""

    def __init__(self, request: Request) -> None:
        self._path = request.path.partition("?")[0].strip("/")
        self._parts = (request.method.upper(), *self._path.split("/"))
        self.kind, self.permission = _kind(self._parts)
        body = request.body
        self._key_field = key_text(body.get("key_id", body.get("keyId"))) or EMAIL_FIELD
        self._list = key_text(body.get("contact_list_id")) or (
            "" if len(self._parts) < _WITH_NUMBER else self._parts[2]
        )
        self.keys = tuple(_keys(self.kind, body, self._key_field))
        self.values: Set[str] = dict.fromkeys(self.keys).keys()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def field(self) -> str:
        """The key field as messages show it."""
        return _shown(self._key_field)

    @property
    def contact_list(self) -> str:
        """The number of the request's contact list as messages show it."""
        return _shown(self._list)

    @property
    def address(self) -> str:
        """Method and path as messages show them, without parameters."""
        return f"{self._parts[0]} {_shown(self._path)}"

    def certain(self, written: str | None) -> str | None:
        """
        Return the key value that a reply is certainly about, None if that is open.

        Emarsys writes the value as it was sent. What no row has may differ from it in case and surrounding space
        only; it counts if a single value of the request is like that.
        """
        if written is None or written in self.values:
            return written
        alike = self._alike.get(_folded(written), ())
        return alike[0] if len(alike) == 1 else None

    def possible(self, written: Iterable[str | None]) -> Set[str]:
        """Return the key values that a reply can be about which is not certainly about one: look-alikes, else all."""
        found: set[str] = set()
        for folded in {None if one is None else _folded(one) for one in written}:
            alike = () if folded is None else self._alike.get(folded, ())
            if not alike:
                return self.values
            found.update(alike)
        return found

    def failure(self, key: str) -> str:
        """Return in words what was not done for the rows with a key value."""
        contact = f"contact {shorten(key)}" if key else f"a contact without a value in field {self.field}"
        number = "" if len(self._parts) < _WITH_NUMBER else _shown(self._parts[2])
        return _FAILURES[self.kind].format(contact=contact, number=number, request=self.address)

    @cached_property
    def _alike(self) -> Mapping[str, Sequence[str]]:
        alike: dict[str, list[str]] = {}
        for key in self.values:
            alike.setdefault(_folded(key), []).append(key)
        return alike


def rows_of(request: Request) -> tuple[str, ...]:
    """
    Return the key value of each row in the request's order, "" for a row that lacks it.

    A request that has no list of rows is one row itself: a single upsert or trigger, a question for the fields.
    """
    return Rows(request).keys


def key_text(value: Json) -> str:
    """Return a key value as text, as Emarsys writes it in errors: numbers in digits, choices joined by commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return decimal_text(value) or ""
    if isinstance(value, (list, tuple)):
        return ",".join(["" if isinstance(one, (list, tuple)) else key_text(one) for one in value])
    return ""


def _kind(parts: tuple[str, ...]) -> tuple[Kind, str]:
    for pattern, found in _KINDS.items():
        if len(pattern) == len(parts) and all(one in ("*", part) for one, part in zip(pattern, parts, strict=True)):
            return found
    return Kind.OTHER, ""


def _keys(kind: Kind, body: Mapping[str, Any], key_field: str) -> list[str]:
    if kind in (Kind.UPSERT, Kind.CREATE, Kind.TRIGGER):
        name = "external_id" if kind is Kind.TRIGGER else key_field
        contacts = body.get("contacts")
        if isinstance(contacts, (list, tuple)) and (contacts or name not in body):
            return [key_text(contact.get(name)) if isinstance(contact, Mapping) else "" for contact in contacts]
        return [key_text(body.get(name))]
    values = body.get({Kind.DELETE: key_field, Kind.READ: "keyValues"}.get(kind, "external_ids"))
    values = body.get("external_ids") if values is None else values
    return [key_text(one) for one in values] if isinstance(values, (list, tuple)) else [key_text(values)]


def _folded(key: str) -> str:
    return nfc(key.strip()).casefold()


def _shown(text: str) -> str:
    """Return a part of a request as messages show it: quoted and cut only if it has to be."""
    return text if text.isprintable() and len(text) <= _SHOWN else shorten(text, _SHOWN)
