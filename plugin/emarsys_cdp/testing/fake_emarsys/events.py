"""GET and POST /event, GET /event/{id}/usages, POST /event/{id}/trigger."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from emarsys_cdp.testing.fake_emarsys.account import Account, Call, missing, single
from emarsys_cdp.testing.fake_emarsys.contact_book import key_text
from emarsys_cdp.testing.fake_emarsys.contact_queries import require_key_field
from emarsys_cdp.testing.fake_emarsys.contacts import rows_of
from emarsys_cdp.testing.fake_emarsys.lists import shown_time
from emarsys_cdp.testing.fake_emarsys.records import AcceptedEvent, EventDefinition, Json
from emarsys_cdp.testing.fake_emarsys.replies import (
    EVENT_DATA_NO_JSON,
    EVENT_DATA_NO_OBJECT,
    EVENT_ID_INVALID,
    EVENT_NAME_EXISTS,
    EVENT_TIME_INVALID,
    EVENT_TOO_LARGE,
    EVENT_UNKNOWN,
    EVENT_WITHOUT_NAME,
    INVALID_PARAMETER,
    NOTHING_TRIGGERED,
    Reply,
    RowRefusal,
    number_of,
    ok,
    refuse,
)

MAX_EVENT_BYTES: Final = 1_000_000
"""Payload: 1 MB since 2023-10-24 (Trigger an External Event); taken of the whole request, the stricter reading."""

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", re.ASCII)
"""The only two forms of event_time (Trigger an External Event)."""


def list_events(account: Account, call: Call) -> Reply:  # noqa: ARG001 - the signature of endpoints
    """Answer GET /event."""
    return ok([{"id": one.id, "name": one.name, "created": shown_time(one.created)} for one in account.events])


def create_event(account: Account, call: Call) -> Reply:
    """Answer POST /event; a new event starts nothing yet."""
    name = call.body().get("name")
    if not isinstance(name, str) or not name.strip():
        raise refuse(EVENT_WITHOUT_NAME, "Parameter name is required.")
    if account.events.has_name(name):
        raise refuse(EVENT_NAME_EXISTS, "An external event with this name already exists.")
    definition = account.events.define(name, call.now, connected=False)
    return ok({"id": definition.id, "name": definition.name})


def event_usages(account: Account, call: Call) -> Reply:
    """Answer GET /event/{id}/usages."""
    event = _definition(account, call.parameters[0])
    usages: dict[str, Any] = {
        "program_ids": event.program_ids,
        "email_ids": event.email_ids,
        "interactions_program_ids": event.interactions_program_ids,
    }
    return ok(usages)


def trigger_event(account: Account, call: Call) -> Reply:
    """Answer POST /event/{id}/trigger, for one contact or for many."""
    event = _definition(account, call.parameters[0])
    if len(call.raw) > MAX_EVENT_BYTES:
        call.breaches.append(("body_size", f"{len(call.raw)} bytes, at most {MAX_EVENT_BYTES} in a trigger"))
        raise refuse(EVENT_TOO_LARGE, "Event data size above limit.")
    body = call.body()
    if "key_id" not in body:
        raise missing("key_id")
    key_field = require_key_field(account, body["key_id"])
    rows = rows_of(body, call)
    for row in [body] if rows is None else rows:
        _check_row(row)
    if not _connections(event) and not account.options.interactions:
        raise refuse(NOTHING_TRIGGERED, "No program or campaign is triggered.")
    if rows is None:
        return _trigger_one(account, call, event, key_field, body)
    return _trigger_many(account, call, event, key_field, rows)


def _definition(account: Account, text: str) -> EventDefinition:
    number = number_of(text)
    if number is None:
        raise refuse(EVENT_ID_INVALID, f"Event ID: {text} is invalid.")
    event = account.events.get(number)
    if event is None:
        raise refuse(EVENT_UNKNOWN, "Invalid event ID for customer.")
    return event


def _check_row(row: Json) -> None:
    """Check what makes Emarsys refuse the whole request, so that nothing is triggered."""
    if not isinstance(row, dict):
        raise refuse(INVALID_PARAMETER, "Invalid data format for `contacts`. Object expected")
    time, trigger_id = row.get("event_time"), row.get("trigger_id")
    if time is not None and not (isinstance(time, str) and _is_time(time)):
        raise refuse(EVENT_TIME_INVALID, "Invalid event time format.")
    if trigger_id is not None and not isinstance(trigger_id, str):
        raise refuse(INVALID_PARAMETER, f"Invalid value for `trigger_id`: `{trigger_id}`")
    _check_data(row.get("data"))


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_data(data: Json) -> None:
    if isinstance(data, str):
        try:
            msgspec.json.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise refuse(EVENT_DATA_NO_JSON, "Event data is not valid JSON.") from error
    if data is not None and not isinstance(data, dict):
        raise refuse(EVENT_DATA_NO_OBJECT, "Event data is not an object.")


def _connections(event: EventDefinition) -> dict[str, bool]:
    """Return what an event is connected to, empty when it is to nothing."""
    found = {
        "email": bool(event.email_ids),
        "acProgram": bool(event.program_ids),
        "interactionsProgram": bool(event.interactions_program_ids),
    }
    return found if any(found.values()) else {}


def _trigger_one(
    account: Account, call: Call, event: EventDefinition, key_field: str, row: Mapping[str, Json]
) -> Reply:
    try:
        accepted = _accepted(account, call, event, key_field, row)
    except RowRefusal as refusal:
        raise single(refusal) from refusal
    account.events.accept([accepted])
    return ok(_connected(account, event, {}))


def _trigger_many(
    account: Account, call: Call, event: EventDefinition, key_field: str, rows: Sequence[Mapping[str, Json]]
) -> Reply:
    errors = account.row_errors()
    ids: list[str] = []
    for row in rows:
        try:
            accepted = _accepted(account, call, event, key_field, row)
        except RowRefusal as refusal:
            errors.add(str(row.get("external_id") or ""), refusal)
        else:
            account.events.accept([accepted])
            ids.append(str(accepted.contact_id))
    empty = account.options.batch_data == "empty" and not errors
    return ok(_connected(account, event, {} if empty else errors.put_into({"ids": ids})))


def _connected(account: Account, event: EventDefinition, data: dict[str, Json]) -> dict[str, Json]:
    """Return *data* with what the event is connected to, which only accounts with Interactions are told."""
    return {**data, "connectedTo": _connections(event) or False} if account.options.interactions else data


def _accepted(
    account: Account, call: Call, event: EventDefinition, key_field: str, row: Mapping[str, Json]
) -> AcceptedEvent:
    key = key_text(row.get("external_id"), key_field)
    call.check_planned(key)
    trigger_id = row.get("trigger_id")
    return AcceptedEvent(
        event_id=event.id,
        name=event.name,
        key_field=key_field,
        external_id=key,
        contact_id=account.contacts.one(key_field, key),
        data=row.get("data"),
        event_time=row.get("event_time"),
        trigger_id=trigger_id,
        attachment=row.get("attachment"),
        repeated=account.events.is_repeated(event.id, trigger_id),
        request=call.number,
        time=call.now,
    )
