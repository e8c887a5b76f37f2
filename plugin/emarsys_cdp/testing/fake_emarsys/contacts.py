"""PUT /contact and POST /contact: contacts are updated and created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.account import Account, Call, missing, single
from emarsys_cdp.testing.fake_emarsys.contact_book import key_text, more_contacts
from emarsys_cdp.testing.fake_emarsys.fields import IDS
from emarsys_cdp.testing.fake_emarsys.records import Json, ViolationKind
from emarsys_cdp.testing.fake_emarsys.replies import (
    BATCH_TOO_LARGE,
    CONTACT_EXISTS,
    INVALID_CONTACT_LIST,
    INVALID_KEY_FIELD,
    INVALID_PARAMETER,
    NO_CONTACT,
    Refusal,
    Reply,
    RowRefusal,
    ok,
    refuse,
    too_large,
)

MAX_CONTACTS: Final = 1000
"""Contacts of one request (Update Contacts, Create Contact)."""

MAX_UPDATE_BYTES: Final = 8_000_000
"""Body of one update: 8 MB (Update Contacts), taken as decimal megabytes."""

NO_KEY_ID: Final = "<NO_KEY_ID>"
"""Stands for every key value when the key field of a batch is none."""

_ENVELOPE: Final = ("key_id", "contact_list_id", "contacts")


class _Write(Struct, frozen=True):
    """What a request asks for: *update* and *create* contacts by *key_field*, and put them into *list_id*."""

    key_field: str
    update: bool
    create: bool
    list_id: int | None


def update_contacts(account: Account, call: Call) -> Reply:
    """Answer PUT /contact/?create_if_not_exists=0|1, of one contact or of many."""
    if len(call.raw) > MAX_UPDATE_BYTES:
        call.breaches.append(("body_size", f"{len(call.raw)} bytes, at most {MAX_UPDATE_BYTES} in an update"))
        return too_large()
    return _write(account, call, update=True, create=call.query.get("create_if_not_exists") == "1")


def create_contacts(account: Account, call: Call) -> Reply:
    """Answer POST /contact, of one contact or of many."""
    return _write(account, call, update=False, create=True)


def _write(account: Account, call: Call, *, update: bool, create: bool) -> Reply:
    body = call.body()
    rows = rows_of(body, call)
    if "key_id" not in body:
        raise missing("key_id")
    key_field = account.fields.key(body["key_id"])
    if key_field is None or (key_field in IDS and not update):
        return _no_key_field(account, body, is_batch=rows is not None)
    write = _Write(key_field, update, create, contact_list_of(account, body))
    return _write_one(account, call, write, body) if rows is None else _write_many(account, call, write, rows)


def rows_of(body: Mapping[str, Json], call: Call) -> list[Json] | None:
    """
    Return the `contacts` of a request, None when it is of the form for one contact.

    Raises:
        Refusal: there are too many or none, or it is no array.

    """
    rows = body.get("contacts")
    if rows is None:
        return None
    if not isinstance(rows, list):
        raise refuse(INVALID_PARAMETER, "Invalid data format for `contacts`. Array expected")
    if not rows:
        raise missing("contacts")
    check_count(rows, call)
    return rows


def check_count(rows: Sequence[Json], call: Call) -> None:
    """
    Check the number of contacts of a request.

    Raises:
        Refusal: there are more than 1,000.

    """
    if len(rows) > MAX_CONTACTS:
        call.breaches.append(("batch_size", f"{len(rows)} contacts, at most {MAX_CONTACTS}"))
        raise refuse(BATCH_TOO_LARGE, "The request exceeded the maximum batch size of 1,000")


def contact_list_of(account: Account, body: Mapping[str, Json]) -> int | None:
    """
    Return the list that a contact request names, None when it names none.

    Raises:
        Refusal: there is no such list.

    """
    named = body.get("contact_list_id")
    if named is None:
        return None
    list_id = account.lists.find(named)
    if list_id is None:
        raise refuse(INVALID_CONTACT_LIST, f"Invalid contact list id: {named}")
    return list_id


def invalid_key_field(name: Json) -> Refusal:
    """Return the refusal of a key field that there is not, or that cannot be one."""
    return refuse(INVALID_KEY_FIELD, f"Invalid key field id: {name}")


def _no_key_field(account: Account, body: Mapping[str, Json], *, is_batch: bool) -> Reply:
    refusal = invalid_key_field(body["key_id"])
    if not is_batch:
        raise refusal
    errors = account.row_errors()
    errors.add(NO_KEY_ID, RowRefusal((refusal.code, refusal.text)))
    return ok(errors.put_into({"ids": []}))


def _write_one(account: Account, call: Call, write: _Write, body: Mapping[str, Json]) -> Reply:
    row = {name: value for name, value in body.items() if name not in _ENVELOPE}
    try:
        key = key_text(row.get(write.key_field), write.key_field)
        call.check_planned(key)
        shown, number = _write_row(account, call, write, key, row)
    except RowRefusal as refusal:
        raise single(refusal) from refusal
    if write.list_id is not None:
        account.lists.add(write.list_id, [number])
    return ok({"id": shown})


def _write_many(account: Account, call: Call, write: _Write, rows: Sequence[Json]) -> Reply:
    """Write row by row; one key twice is refused for all its rows, and a refused row costs only itself."""
    errors = account.row_errors()
    keyed: list[tuple[str, Mapping[str, Json]]] = []
    for row in rows:
        try:
            keyed.append((_row_key(row, write.key_field), row))
        except RowRefusal as refusal:
            errors.add("", refusal)
    counts = Counter(key for key, _ in keyed)
    call.breaches += _duplicates(write.key_field, counts)
    shown: list[int | str] = []
    written: list[int] = []
    for key, row in keyed:
        try:
            if counts[key] > 1:
                raise more_contacts(write.key_field, key)  # which code Emarsys has for it is not documented
            call.check_planned(key)
            one, number = _write_row(account, call, write, key, row)
        except RowRefusal as refusal:
            errors.add(key, refusal)
        else:
            shown.append(one)
            written.append(number)
    if write.list_id is not None:
        account.lists.add(write.list_id, written)
    return ok(errors.put_into({"ids": shown}))


def _row_key(row: Json, key_field: str) -> str:
    if not isinstance(row, dict):
        raise RowRefusal((INVALID_PARAMETER, "Invalid data format for `contacts`. Object expected"))
    return key_text(row.get(key_field), key_field)


def _duplicates(key_field: str, counts: Mapping[str, int]) -> list[tuple[ViolationKind, str]]:
    """Return the breach of a request that has keys twice; it shows the first of them."""
    found = [key for key, count in counts.items() if count > 1]
    return [("duplicate_key", f"{len(found)} keys in several rows, first {key_field}: {found[0]}")] if found else []


def _write_row(account: Account, call: Call, write: _Write, key: str, row: Mapping[str, Json]) -> tuple[int | str, int]:
    """Write one contact; returns its id as the answer shows it (text when it was known before) and as a number."""
    found = account.contacts.find(write.key_field, key)
    if len(found) > 1:
        raise more_contacts(write.key_field, key)
    if found and not write.update:
        raise RowRefusal((CONTACT_EXISTS, f"Contact with the external id already exists: {write.key_field}"))
    if not found and not write.create:
        raise RowRefusal((NO_CONTACT, f"No contact found with the external id: {write.key_field} - {key}"))
    if not found and write.key_field in IDS:
        raise RowRefusal((INVALID_KEY_FIELD, "Cannot use id or uid as key on contact creation"))
    values = account.fields.check_row(row, write.key_field)
    if found:
        account.contacts.update(found[0], values, call.now)
        return str(found[0]), found[0]
    number = account.contacts.create(values, call.now)
    return number, number
