"""Requests of many calls keep every limit of Emarsys, and every call is in exactly one of them."""

from __future__ import annotations

import msgspec
import pytest

from emarsys_cdp.emarsys.batch import (
    MAX_CONTACTS,
    MAX_EVENT_BYTES,
    MAX_LIST_CONTACTS,
    MAX_UPSERT_BYTES,
    emarsys_cdp_build_requests,
)
from emarsys_cdp_hooks import Action, AddToList, Delivery, RemoveFromList, Space, TriggerEvent, UpsertContact

SPACE = Space(id="dest-1", host="rudderstack", key_field="3")


def deliveries(actions: list[Action]) -> list[Delivery]:
    """Return the deliveries of calls with one action each; each call is in one of them."""
    found = emarsys_cdp_build_requests(SPACE, [(index, (action,)) for index, action in enumerate(actions)], merge=True)
    assert sorted(index for delivery in found for index in delivery.calls) == list(range(len(actions)))
    return found


def sizes(found: list[Delivery]) -> list[int]:
    """Return the bytes of each body."""
    return [len(msgspec.json.encode(request.body)) for delivery in found for request in delivery.requests]


def contact(number: int, size: int) -> UpsertContact:
    """Return an upsert of a contact with a long text."""
    key = f"p{number}@example.com"
    return UpsertContact("3", key, {"3": key, "10001": "x" * size})


def test_nine_megabytes_are_two_requests() -> None:
    """Emarsys takes 8 MB of contacts."""
    found = deliveries([contact(number, 9_400) for number in range(MAX_CONTACTS)])

    assert len(found) == 2
    assert sum(sizes(found)) > 9_000_000
    assert max(sizes(found)) <= MAX_UPSERT_BYTES


def test_a_contact_that_is_too_large_alone_is_a_request_of_its_own() -> None:
    """What Emarsys says of it is its own affair; the others are not held up."""
    found = deliveries([contact(1, 10), contact(2, MAX_UPSERT_BYTES), contact(3, 10)])

    assert sorted(sizes(found))[-1] > MAX_UPSERT_BYTES
    assert sorted(len(delivery.calls) for delivery in found)[-1] <= 2
    assert [1] in [list(delivery.calls) for delivery in found]


def test_events_keep_the_limit_of_their_request() -> None:
    """1 MB of data, taken as that of the whole request."""
    events = [
        TriggerEvent(
            "1", "3", f"p{number}", f"t{number}", "2026-11-23T10:00:00.000Z", {"global": {"text": "x" * 30_000}}
        )
        for number in range(100)
    ]

    assert max(sizes(deliveries(list(events)))) <= MAX_EVENT_BYTES


@pytest.mark.parametrize(("number", "requests"), [(MAX_LIST_CONTACTS, 1), (MAX_LIST_CONTACTS + 1, 2)])
def test_a_list_takes_ten_thousand_contacts(number: int, requests: int) -> None:
    """More than any other request."""
    assert len(deliveries([AddToList("5", "3", f"p{one}@example.com") for one in range(number)])) == requests


def test_lists_are_left_by_requests_of_their_own() -> None:
    """Who is added and who is removed are two requests, each contact once."""
    keys = ("ada@example.com", "bob@example.com", "ada@example.com")
    added, removed = deliveries([kind("5", "3", key) for kind in (AddToList, RemoveFromList) for key in keys])

    assert [one.requests[0].path for one in (added, removed)] == ["contactlist/5/add", "contactlist/5/delete"]
    assert removed.requests[0].body == {"key_id": "3", "external_ids": ["ada@example.com", "bob@example.com"]}
