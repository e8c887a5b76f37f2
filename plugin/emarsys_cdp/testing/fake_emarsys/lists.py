"""GET and POST /contactlist, POST /contactlist/{id}/add and /delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from emarsys_cdp.testing.fake_emarsys.account import Account, Call, missing
from emarsys_cdp.testing.fake_emarsys.contact_queries import find_rows, require_key_field
from emarsys_cdp.testing.fake_emarsys.fields import EMAIL
from emarsys_cdp.testing.fake_emarsys.records import Json
from emarsys_cdp.testing.fake_emarsys.replies import (
    LIST_NAME_EXISTS,
    LIST_NO_ARRAY,
    LIST_TOO_LARGE,
    LIST_UNKNOWN,
    LIST_WITHOUT_NAME,
    UNROUTED,
    Refusal,
    Reply,
    RowErrors,
    number_of,
    ok,
    refuse,
)

MAX_LIST_CONTACTS: Final = 10_000
"""External ids of one request (Create a Contact List, Add Contacts, Remove Contacts)."""


def shown_time(milliseconds: int) -> str:
    """Return a time as Emarsys' answers show it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def list_lists(account: Account, call: Call) -> Reply:  # noqa: ARG001 - the signature of endpoints
    """Answer GET /contactlist; ids are text here."""
    return ok(
        [{"id": str(one.id), "name": one.name, "created": shown_time(one.created), "type": 0} for one in account.lists]
    )


def create_list(account: Account, call: Call) -> Reply:
    """Answer POST /contactlist; `errors` is not there when the list is created empty."""
    body = call.body()
    name = body.get("name")
    if not isinstance(name, str) or not name.strip():
        raise refuse(LIST_WITHOUT_NAME, "List name is not set.")
    key_field = require_key_field(account, body.get("key_id", EMAIL))
    values = _external_ids(body, call) if body.get("external_ids") is not None else []
    if account.lists.has_name(name):
        raise refuse(LIST_NAME_EXISTS, "Contact list with the requested name already exists.")
    errors = account.row_errors()
    contacts = _contacts(account, call, values, key_field, errors)
    number = account.lists.create(name, str(body.get("description") or ""), call.now)
    account.lists.add(number, contacts)
    return ok(errors.put_into({"id": number}) if values else {"id": number})


def add_to_list(account: Account, call: Call) -> Reply:
    """Answer POST /contactlist/{id}/add."""
    list_id, contacts, errors = _of_list(account, call)
    return ok(errors.put_into({"inserted_contacts": account.lists.add(list_id, contacts)}))


def remove_from_list(account: Account, call: Call) -> Reply:
    """Answer POST /contactlist/{id}/delete: contacts leave the list, nobody is deleted."""
    list_id, contacts, errors = _of_list(account, call)
    return ok(errors.put_into({"deleted_contacts": account.lists.remove(list_id, contacts)}))


def _of_list(account: Account, call: Call) -> tuple[int, list[int], RowErrors]:
    list_id = _list_id(account, call.parameters[0])
    body = call.body()
    key_field = require_key_field(account, body.get("key_id", EMAIL))
    errors = account.row_errors()
    return list_id, _contacts(account, call, _external_ids(body, call), key_field, errors), errors


def _list_id(account: Account, text: str) -> int:
    if number_of(text) is None:
        raise invalid_action(text)
    list_id = account.lists.find(text)
    if list_id is None:
        raise refuse(LIST_UNKNOWN, "No contact list found with the specified ID.")
    return list_id


def invalid_action(text: str) -> Refusal:
    """Return the refusal of a part of a path that is neither an id nor an action."""
    return refuse(UNROUTED, f"Action {text} is invalid.")


def _external_ids(body: Mapping[str, Json], call: Call) -> list[Json]:
    values = body.get("external_ids")
    if values is None:
        raise missing("external_ids")
    if isinstance(values, dict):
        raise refuse(LIST_NO_ARRAY, "Invalid datatype for the list of external IDs. Array expected.")
    found = values if isinstance(values, list) else [values]
    if len(found) > MAX_LIST_CONTACTS:
        call.breaches.append(("batch_size", f"{len(found)} external ids, at most {MAX_LIST_CONTACTS}"))
        raise refuse(LIST_TOO_LARGE, "The list of external IDs exceeds the maximum size.")
    return found


def _contacts(account: Account, call: Call, values: list[Json], key_field: str, errors: RowErrors) -> list[int]:
    def find(key: str) -> int:
        call.check_planned(key)
        return account.contacts.one(key_field, key)

    return [number for _, number in find_rows(values, key_field, errors, find)]
