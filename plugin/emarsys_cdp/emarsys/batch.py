"""
The requests of many calls: merged per endpoint and key field, cut at Emarsys's limits. Pure.

Calls whose requests go to the same addresses form one delivery; the rows of one contact are merged, in the order of
the calls. A call with two requests (contact, then event) is in one delivery that has both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from emarsys_cdp_hooks import Action, AddToList, Delivery, Request, Space, TriggerEvent, UpsertContact, hookimpl

MAX_CONTACTS = 1000
"""Contacts of one upsert or event request (contact and event API)."""

MAX_UPSERT_BYTES = 8_000_000
"""Body of one contact update: 8 MB (contact API), taken as decimal megabytes."""

MAX_LIST_CONTACTS = 10_000
"""Contacts of one list request (contact list API)."""

MAX_EVENT_BYTES = 1_000_000
"""Data of one event request: 1 MB (event API); read as the limit of the request, the stricter way."""

_OVERHEAD = 200
"""Bytes of a body beside its rows: key field, list id, brackets."""

Address: TypeAlias = tuple[Any, ...]
Calls: TypeAlias = Sequence[tuple[int, tuple[Action, ...]]]


@hookimpl(trylast=True)
def emarsys_cdp_build_requests(space: Space, actions: Calls, merge: bool) -> list[Delivery]:  # noqa: ARG001
    """Build the Emarsys requests of the calls' actions."""
    groups: dict[tuple[Address, ...], list[tuple[int, tuple[Action, ...]]]] = {}
    for number, (index, of_call) in enumerate(actions):
        addresses = tuple([_address(action) for action in of_call])
        groups.setdefault(addresses if merge else (*addresses, (number,)), []).append((index, of_call))
    deliveries = [delivery for group in groups.values() for delivery in _deliveries(group)]
    return sorted(deliveries, key=lambda delivery: delivery.calls[0])


def _address(action: Action) -> Address:
    """Return what has to be equal for two actions to share a request."""
    if type(action) is UpsertContact:
        return ("contact", action.key_field, action.create, action.list_id)
    if type(action) is AddToList:
        return ("list", action.key_field, action.list_id)
    assert type(action) is TriggerEvent  # noqa: S101 - the last kind of action
    return ("event", action.key_field, action.event_id)


def _deliveries(group: Calls) -> list[Delivery]:
    """Cut the calls of one group into deliveries that keep every limit."""
    deliveries: list[Delivery] = []
    current = _Builder(len(group[0][1]))
    for index, actions in group:
        if not current.fits(actions):
            deliveries.append(current.delivery())
            current = _Builder(len(actions))
        current.add(index, actions)
    deliveries.append(current.delivery())
    return deliveries


class _Builder:
    """Collects the calls of one delivery: for each of its requests the rows by contact."""

    def __init__(self, requests: int) -> None:
        self._rows: list[dict[str, Any]] = [{} for _ in range(requests)]
        self._sizes = [_OVERHEAD] * requests
        self._first: tuple[Action, ...] = ()
        self._calls: list[int] = []
        self._added: list[int] = []

    def fits(self, actions: tuple[Action, ...]) -> bool:
        """Tell whether every request keeps its limits with this call added."""
        self._added = [_size(action) for action in actions]
        if not self._calls:
            return True
        return all(
            self._fits_one(position, action, size)
            for position, (action, size) in enumerate(zip(actions, self._added, strict=True))
        )

    def _fits_one(self, position: int, action: Action, size: int) -> bool:
        rows = self._rows[position]
        if type(action) is TriggerEvent:
            return (
                action.key not in rows  # each contact once: a person's second event is a request of its own
                and len(rows) < MAX_CONTACTS
                and self._sizes[position] + size <= MAX_EVENT_BYTES
            )
        limit = MAX_LIST_CONTACTS if type(action) is AddToList else MAX_CONTACTS
        return (action.key in rows or len(rows) < limit) and self._sizes[position] + size <= MAX_UPSERT_BYTES

    def add(self, index: int, actions: tuple[Action, ...]) -> None:
        """Add a call that fits."""
        self._first = self._first or actions
        self._calls.append(index)
        for position, action in enumerate(actions):
            self._sizes[position] += self._added[position]
            rows = self._rows[position]
            if type(action) is UpsertContact:
                known = rows.get(action.key)
                rows[action.key] = action.fields if known is None else {**known, **action.fields}
            elif action.key not in rows:
                rows[action.key] = _event_row(action) if type(action) is TriggerEvent else action.key

    def delivery(self) -> Delivery:
        """Return the requests of the calls added."""
        requests = [
            _request(action, list(rows.values()))
            for action, rows in zip(self._first, self._rows, strict=True)
        ]
        return Delivery(tuple(requests), tuple(self._calls))


def _size(action: Action) -> int:
    if type(action) is UpsertContact:
        return len(msgspec.json.encode(action.fields)) + 1
    if type(action) is AddToList:
        return len(action.key) + 3
    return len(msgspec.json.encode(_event_row(action))) + 1


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


def _request(action: Action, rows: list[Any]) -> Request:
    if type(action) is UpsertContact:
        body: dict[str, Any] = {"key_id": action.key_field, "contacts": rows}
        if action.list_id is not None:
            body["contact_list_id"] = action.list_id
        return Request("PUT", f"contact/?create_if_not_exists={int(action.create)}", body)
    if type(action) is AddToList:
        return Request(
            "POST", f"contactlist/{action.list_id}/add", {"key_id": action.key_field, "external_ids": rows}
        )
    assert type(action) is TriggerEvent  # noqa: S101 - the last kind of action
    body = {"key_id": action.key_field, **rows[0]} if len(rows) == 1 else {"key_id": action.key_field, "contacts": rows}
    return Request("POST", f"event/{action.event_id}/trigger", body)
