"""POST /contact/getdata, /contact/checkids and /contact/delete: contacts are read, looked up and removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from emarsys_cdp.testing.fake_emarsys.account import Account, Call, missing, single
from emarsys_cdp.testing.fake_emarsys.contact_book import key_text
from emarsys_cdp.testing.fake_emarsys.contacts import check_count, contact_list_of, invalid_key_field
from emarsys_cdp.testing.fake_emarsys.fields import EMAIL
from emarsys_cdp.testing.fake_emarsys.records import Json
from emarsys_cdp.testing.fake_emarsys.replies import (
    ARRAY_EXPECTED,
    IDS_TOO_MANY,
    INVALID_FIELD,
    NO_CONTACT,
    Reply,
    RowErrors,
    RowRefusal,
    ok,
    refuse,
)

MAX_IDS: Final = 1000
"""External ids of checkids; at getdata and delete it is the batch size (documentation of each)."""


def require_key_field(account: Account, name: Json) -> str:
    """
    Return the id of the key field that a request names.

    Raises:
        Refusal: there is no such field, or it cannot be a key.

    """
    key_field = account.fields.key(name)
    if key_field is None:
        raise invalid_key_field(name)
    return key_field


def find_rows(
    values: list[Json], key_field: str, errors: RowErrors, find: Callable[[str], int]
) -> list[tuple[str, int]]:
    """Return key value and contact of each of *values* that *find* finds; why not goes into *errors*."""
    found = []
    for value in values:
        key = ""
        try:
            key = key_text(value, key_field)
            found.append((key, find(key)))
        except RowRefusal as refusal:
            errors.add(key, refusal)
    return found


def get_data(account: Account, call: Call) -> Reply:
    """Answer POST /contact/getdata; `result` is false when no contact was found."""
    body = call.body()
    if "keyId" not in body:
        raise missing("keyId")
    key_field = require_key_field(account, body["keyId"])
    values = _array(body, "keyValues")
    check_count(values, call)
    names = _field_names(account, body.get("fields"))
    errors = RowErrors(account.options.row_errors or "array", account.options.no_errors)

    def find(key: str) -> int:
        call.check_planned(key)
        try:
            return account.contacts.one(key_field, key)
        except RowRefusal as refusal:
            raise _short(refusal, key_field) from refusal

    found = find_rows(values, key_field, errors, find)
    result = [_shown(account, number, names) for _, number in found]
    return ok(errors.put_into({"result": result or False}))


def _short(refusal: RowRefusal, key_field: str) -> RowRefusal:
    """Return the words of getdata for a contact that is not there: without the value."""
    if refusal.problems[0][0] == NO_CONTACT:
        return RowRefusal((NO_CONTACT, f"No contact found with the external id: {key_field}"))
    return refusal


def _field_names(account: Account, given: Json) -> list[str]:
    """Return the fields that are asked for, all when none is named."""
    if given is None:
        return [field.id for field in account.fields.all()]
    if not isinstance(given, list):
        raise refuse(ARRAY_EXPECTED, "Invalid data format. Array expected")
    for name in given:
        if account.fields.get(str(name)) is None:
            raise refuse(INVALID_FIELD, f"Invalid field id: {name}")
    return [str(name) for name in given]


def _shown(account: Account, number: int, names: list[str]) -> dict[str, Json]:
    contact = account.contacts.get(number)
    return {**{name: contact.fields.get(name) for name in names}, "id": contact.id, "uid": contact.uid}


def check_ids(account: Account, call: Call) -> Reply:
    """Answer POST /contact/checkids: key values to contact ids."""
    body = call.body()
    if "key_id" not in body:
        raise missing("key_id")
    key_field = require_key_field(account, body["key_id"])
    values = scalar_or_array(body, "external_ids")
    if len(values) > MAX_IDS:
        call.breaches.append(("batch_size", f"{len(values)} external ids, at most {MAX_IDS}"))
        raise refuse(IDS_TOO_MANY, "The list of external ids exceeds the maximum size.")
    errors = account.row_errors()

    def find(key: str) -> int:
        call.check_planned(key)
        if body.get("get_multiple_ids") and (several := account.contacts.find(key_field, key)):
            return several[0]
        return account.contacts.one(key_field, key)

    ids: dict[str, Any] = {}
    for key, number in find_rows(values, key_field, errors, find):
        several = map(str, account.contacts.find(key_field, key))
        ids[key] = list(several) if body.get("get_multiple_ids") else str(number)
    return ok(errors.put_into({"ids": ids}))


def delete_contacts(account: Account, call: Call) -> Reply:
    """
    Answer POST /contact/delete; contacts that share a key value are not deleted.

    Emarsys answers a single contact that is not there with HTTP 400; what it calls the number of deleted contacts is
    not documented.
    """
    body = call.body()
    named = body.get("key_id", EMAIL)
    key_field = require_key_field(account, named)
    values = _array(body, key_field if key_field in body else str(named))
    check_count(values, call)
    contact_list_of(account, body)
    errors = account.row_errors()

    def find(key: str) -> int:
        call.check_planned(key)
        return account.contacts.one(key_field, key)

    if len(values) == 1:
        try:
            find(key_text(values[0], key_field))
        except RowRefusal as refusal:
            raise single(refusal) from refusal
    numbers = dict.fromkeys(number for _, number in find_rows(values, key_field, errors, find))
    for number in numbers:
        account.contacts.delete(number, key_field, call.now)
        account.lists.forget(number)
    return ok(errors.put_into({"deleted_contacts": len(numbers)}))


def _array(body: Mapping[str, Json], name: str) -> list[Json]:
    values = body.get(name)
    if values is None:
        raise missing(name)
    if not isinstance(values, list):
        raise refuse(ARRAY_EXPECTED, "Invalid data format. Array expected")
    return values


def scalar_or_array(body: Mapping[str, Json], name: str) -> list[Json]:
    """
    Return external ids, which may be one or many.

    Raises:
        Refusal: there are none, or they are an object.

    """
    values = body.get(name)
    if values is None:
        raise missing(name)
    if isinstance(values, dict):
        raise refuse(ARRAY_EXPECTED, "Invalid datatype for the list of external ids. Array expected")
    return values if isinstance(values, list) else [values]
