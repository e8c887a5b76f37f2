"""
The requests of many calls: merged per endpoint and key field, cut at Emarsys's limits. Pure.

Calls whose requests go to the same addresses form one delivery; the rows of one contact are merged, in the order of
the calls. A call with two requests (contact, then event) is in one delivery that has both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from emarsys_cdp_hooks import (
    Action,
    AddToList,
    Delivery,
    RemoveFromList,
    Request,
    Space,
    TriggerEvent,
    UpsertContact,
    hookimpl,
)

MAX_CONTACTS = 1000
"""Contacts of one upsert or event request (contact and event API)."""

MAX_UPSERT_BYTES = 8_000_000
"""Body of one contact update: 8 MB (contact API), taken as decimal megabytes."""

MAX_LIST_CONTACTS = 10_000
"""Contacts of one list request (contact list API)."""

MAX_EVENT_BYTES = 1_000_000
"""Data of one event request: 1 MB (event API); read as the limit of the request, the stricter way."""

_OF_LISTS: Mapping[type, str] = {AddToList: "add", RemoveFromList: "delete"}
"""Ends of the paths of list requests; `delete` removes contacts from the list (contact list API)."""

Address: TypeAlias = tuple[Any, ...]
Calls: TypeAlias = Sequence[tuple[int, tuple[Action, ...]]]


@hookimpl(trylast=True)
def emarsys_cdp_build_requests(space: Space, actions: Calls, merge: bool) -> list[Delivery]:  # noqa: ARG001
    """Build the Emarsys requests of the calls' actions."""
    if merge and _is_one_upsert(actions):
        return _deliveries(actions)
    groups: dict[tuple[Address, ...], list[tuple[int, tuple[Action, ...]]]] = {}
    for number, (index, of_call) in enumerate(actions):
        addresses = (_address(of_call[0]),) if len(of_call) == 1 else tuple([_address(action) for action in of_call])
        groups.setdefault(addresses if merge else (*addresses, (number,)), []).append((index, of_call))
    deliveries = [delivery for group in groups.values() for delivery in _deliveries(group)]
    return sorted(deliveries, key=lambda delivery: delivery.calls[0])


def _is_one_upsert(actions: Calls) -> bool:
    """Tell that all calls update their contacts in the same way, and do nothing else: most batches."""
    first = actions[0][1][0] if actions else None
    if type(first) is not UpsertContact:
        return False
    key_field, create, list_id = first.key_field, first.create, first.list_id
    for _, of_call in actions:
        action = of_call[0]
        if (
            len(of_call) != 1
            or type(action) is not UpsertContact
            or action.key_field != key_field
            or action.create != create
            or action.list_id != list_id
        ):
            return False
    return True


def _address(action: Action) -> Address:
    """Return what has to be equal for two actions to share a request."""
    if type(action) is UpsertContact:
        return ("contact", action.key_field, action.create, action.list_id)
    if type(action) is AddToList:
        return ("list", action.key_field, action.list_id)
    if type(action) is RemoveFromList:
        return ("remove", action.key_field, action.list_id)
    assert type(action) is TriggerEvent  # noqa: S101 - the last kind of action
    return ("event", action.key_field, action.event_id)


def _deliveries(group: Calls) -> list[Delivery]:
    """Cut the calls of one group into deliveries that keep every limit."""
    deliveries: list[Delivery] = []
    start = 0
    while start < len(group):
        end = _end_by_count(group, start)
        deliveries += _cut_by_size(group[start:end])
        start = end
    return deliveries


def _end_by_count(group: Calls, start: int) -> int:
    """Return where the calls from *start* on have to be cut so that no request has too many contacts."""
    if len(group) - start <= MAX_CONTACTS and not any(type(action) is TriggerEvent for action in group[start][1]):
        return len(group)
    keys: list[set[str]] = [set() for _ in group[start][1]]
    for end in range(start, len(group)):
        for action, seen in zip(group[end][1], keys, strict=True):
            if action.key in seen:
                if type(action) is TriggerEvent:
                    return end  # each contact once: a person's second event is a request of its own
            elif len(seen) == (MAX_LIST_CONTACTS if type(action) in _OF_LISTS else MAX_CONTACTS):
                return end
            else:
                seen.add(action.key)
    return len(group)


def _cut_by_size(group: Calls) -> list[Delivery]:
    """Return one delivery, or those of both halves when a body is too large."""
    if len(group[0][1]) == 1:
        requests: tuple[Request, ...] = (_request([of_call[0] for _, of_call in group]),)
    else:
        requests = tuple([_request(actions) for actions in zip(*[of_call for _, of_call in group], strict=True)])
    if len(group) > 1 and any(_is_too_large(request) for request in requests):
        middle = len(group) // 2
        return _cut_by_size(group[:middle]) + _cut_by_size(group[middle:])
    return [Delivery(requests, tuple([index for index, _ in group]))]


def _is_too_large(request: Request) -> bool:
    limit = MAX_EVENT_BYTES if request.path.startswith("event/") else MAX_UPSERT_BYTES
    return len(msgspec.json.encode(request.body)) > limit


def _request(actions: Sequence[Action]) -> Request:
    """Return the request of actions that share an address; the rows of one contact are merged."""
    first = actions[0]
    if type(first) is UpsertContact:
        return _upsert(first, [action for action in actions if type(action) is UpsertContact])
    if isinstance(first, (AddToList, RemoveFromList)):
        keys = list(dict.fromkeys(action.key for action in actions))
        body = {"key_id": first.key_field, "external_ids": keys}
        return Request("POST", f"contactlist/{first.list_id}/{_OF_LISTS[type(first)]}", body)
    assert type(first) is TriggerEvent  # noqa: S101 - the last kind of action
    rows = [_event_row(action) for action in actions]
    of_rows = rows[0] if len(rows) == 1 else {"contacts": rows}
    event_body: dict[str, Any] = {"key_id": first.key_field, **of_rows}
    return Request("POST", f"event/{first.event_id}/trigger", event_body)


def _upsert(first: UpsertContact, actions: Sequence[UpsertContact]) -> Request:
    rows: dict[str, Mapping[str, Any]] = {}
    for action in actions:
        known = rows.get(action.key)
        rows[action.key] = action.fields if known is None else {**known, **action.fields}
    body: dict[str, Any] = {"key_id": first.key_field, "contacts": list(rows.values())}
    if first.list_id is not None:
        body["contact_list_id"] = first.list_id
    return Request("PUT", f"contact/?create_if_not_exists={int(first.create)}", body)


def _event_row(action: Action) -> Mapping[str, Any]:
    assert type(action) is TriggerEvent  # noqa: S101 - called for events only
    row: dict[str, Any] = {"external_id": action.key}
    if action.data is not None:
        row["data"] = action.data
    if action.attachment:
        row["attachment"] = list(action.attachment)
    row["trigger_id"] = action.trigger_id
    row["event_time"] = action.event_time
    return row
