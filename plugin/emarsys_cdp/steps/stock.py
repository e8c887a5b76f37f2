"""
What a call sends in a space with RudderStack's stock settings and no document.

identify is a contact upsert, group adds to a contact list, track triggers the mapped external event; other types
only update the users table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from emarsys_cdp.document.compile import CompiledMap, CompiledSpace, as_received
from emarsys_cdp.document.stock import StockMapping
from emarsys_cdp.emarsys.field_types import OPT_IN_FIELD
from emarsys_cdp.values.coerce import to_string
from emarsys_cdp.values.paths import compile_trait
from emarsys_cdp.values.text import shorten
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import (
    AddToList,
    Call,
    Decision,
    Filtered,
    Identifiers,
    Json,
    Profile,
    Refused,
    Space,
    TriggerEvent,
    UpsertContact,
    hookimpl,
)

MAX_EVENT_DATA = 1_000_000
"""Largest event data that Emarsys takes, in bytes (event API, since 2023-10-24)."""

INTERACTIONS_DATA = 20_000
"""Event data in bytes that Interactions takes for certain (the lowest of the limits that Emarsys' pages name)."""

_OPT_IN_VALUES = ("1", "2", "")
_OTHER_TYPE = Filtered("the stock settings give this type no meaning; the users table was updated")


class Subject(Struct, frozen=True):
    """
    A call and whom it is about: *key_field* and *key* as Emarsys gets them.

    *options* are the call's own `integrations.EMARSYS`.
    """

    space: CompiledSpace
    stock: StockMapping
    call: Call
    ids: Identifiers
    profile: Profile | None
    options: Mapping[str, Any]
    key_field: str
    key: str


@hookimpl(trylast=True)
def emarsys_cdp_decide_actions(
    space: Space,
    calls: Sequence[Call],
    identifiers: Sequence[Identifiers],
    profiles: Sequence[Profile | None],
) -> list[Decision] | None:
    """Give identify, group and track the meaning they have with the stock settings."""
    if not isinstance(space, CompiledSpace) or space.stock is None:
        return None
    return [
        _decide(space, space.stock, call, ids, profile)
        for call, ids, profile in zip(calls, identifiers, profiles, strict=True)
    ]


def _decide(
    space: CompiledSpace, stock: StockMapping, call: Call, ids: Identifiers, profile: Profile | None
) -> Decision:
    decide = {"identify": _identify, "group": _group, "track": _track}.get(call.type)
    if decide is None:
        return _OTHER_TYPE
    options = _integration_options(call.message)
    key_field, key = _contact(stock, call, ids, profile, options)
    if key is None:
        trait = stock.property_of(key_field)
        found = f"trait {trait} has no usable value" if trait else "no trait is mapped to it in the settings"
        return Refused(f"no key for the contact: its field is {key_field}, {found}, and the users table knows none")
    return decide(Subject(space, stock, call, ids, profile, options, key_field, key))


def _integration_options(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `integrations.EMARSYS` in any case, and in the stock destination's other spelling."""
    integrations = message.get("integrations")
    if isinstance(integrations, dict):
        for name, options in integrations.items():
            if name.lower() in ("emarsys", "emersys") and isinstance(options, dict):
                return options
    return {}


def _contact(
    stock: StockMapping, call: Call, ids: Identifiers, profile: Profile | None, options: Mapping[str, Any]
) -> tuple[str, str | None]:
    """Return key field and key: the identifier that the call asks for, else the person's key of now."""
    custom = options.get("customIdentifierId")
    if custom and str(custom) != stock.key_field:
        field = str(custom)
        trait = stock.property_of(field)
        return field, (to_string(compile_trait(trait)(call.message)) or None) if trait else None
    return stock.key_field, profile.key if profile is not None else ids.key


def _identify(subject: Subject) -> Decision:
    stock = subject.stock
    row: dict[str, Json] = {}
    for data_map in subject.space.maps:
        value = _current(subject, data_map)
        if data_map.field is None or value is None or (stock.discard_empty and value in ("", [], {})):
            continue
        row[data_map.field] = value
    opt_in = row.get(OPT_IN_FIELD)
    if opt_in is not None and str(opt_in) not in _OPT_IN_VALUES:
        return Refused(f"opt-in (field {OPT_IN_FIELD}) is {shorten(opt_in)}: only 1, 2 and '' are taken")
    row[subject.key_field] = subject.key
    contact_list = subject.options.get("contactListId") or stock.default_list
    list_id = str(contact_list) if contact_list else None
    return (UpsertContact(subject.key_field, subject.key, row, list_id=list_id),)


def _current(subject: Subject, data_map: CompiledMap) -> Any:
    """
    Return the value that the call sets, None when a later call has set another one.

    The call that made the person's key known sets as well what had waited for it.
    """
    if subject.profile is None:
        return data_map.read(subject.call.message)
    stored = subject.profile.values.get(data_map.name)
    if stored is None:
        return None
    message_id, version = subject.call.message_id, (stored.event_time, stored.message_id)
    waited = subject.profile.released.get(message_id, {}).get(data_map.name)
    return stored.value if version in ((subject.call.event_time, message_id), waited) else None


def _group(subject: Subject) -> Decision:
    list_id = subject.call.message.get("groupId") or subject.options.get("contactListId") or subject.stock.default_list
    if not list_id or not isinstance(list_id, (str, int)) or not _is_number(str(list_id).strip()):
        return Refused(
            f"groupId {shorten(list_id)} is no contact list: give the list's number as groupId or as "
            "default contact list of the settings"
        )
    return (AddToList(str(list_id).strip(), subject.key_field, subject.key),)


def _track(subject: Subject) -> Decision:
    message = subject.call.message
    event = message["event"]
    event_id = subject.stock.events.get(event)
    if event_id is None:
        return Refused(f"event {shorten(event)} is not mapped to an Emarsys external event: add it to the settings")
    if not _is_number(event_id):
        return Refused(f"event {shorten(event)} is mapped to {shorten(event_id)}: an external event has a number")
    properties = message.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    data = properties.get("data")
    if data is not None and not isinstance(data, dict):
        return Refused(f"properties.data is {shorten(data)}: Emarsys takes an object")
    attachments = _attachments(properties.get("attachment"))
    size = len(msgspec.json.encode((data, attachments)))
    if size > MAX_EVENT_DATA:
        return Refused(f"properties.data and attachment have {size} bytes: Emarsys takes at most {MAX_EVENT_DATA}")
    try:
        data = as_received(data)
    except ValueError as error:
        return Refused(f"properties.data is {error}")
    given = subject.options.get("trigger_id")
    who = subject.ids.who or subject.key
    return (
        TriggerEvent(
            event_id,
            subject.key_field,
            subject.key,
            str(given) if given else trigger_id(subject.space.id, subject.call.message_id, who, event_id),
            iso_time(subject.call.event_time),
            data,
            attachments,
            (f"Interactions: properties.data has {size} bytes, it takes no more than {INTERACTIONS_DATA}",)
            if size > INTERACTIONS_DATA
            else (),
        ),
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _attachments(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(one for one in given if one is not None) if isinstance(given, list) else (given,)


def trigger_id(space: str, message_id: str, who: str, event_id: str) -> str:
    """
    Return the id by which Emarsys knows a repetition: 128 bits of SHA-256 of what makes this trigger this one.

    Without it a retry of the host mails twice.
    """
    parts = "\0".join((space, message_id, who, event_id))
    return sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:32]
