"""The calls of a soak, and what has to come of them: computed straight, in one pass, by event time and messageId."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from msgspec import Struct

from emarsys_cdp.values.times import iso_time

DOCUMENT_SPACE: Final = "dest-document"
STOCK_SPACE: Final = "dest-stock"

PAGE_FIELD: Final = "10001"
"""A custom field that page and screen calls set."""

EVENT_ID: Final = 9001
DOCUMENT: Final[Mapping[str, Any]] = {
    "dataMaps": [
        {"name": "email", "path": "traits.email", "type": "string", "field": "3"},
        {"name": "first", "path": "traits.firstName", "type": "string", "field": "1"},
        {"name": "last", "path": "traits.lastName", "type": "string", "field": "2"},
        {"name": "city", "path": "traits.city", "type": "string", "field": "11"},
        {"name": "page", "path": "properties.title", "type": "string", "field": PAGE_FIELD, "fieldType": "shorttext"},
    ]
}
STOCK_SETTINGS: Final[Mapping[str, Any]] = {
    "emersysCustomIdentifier": "3",
    "fieldMapping": [
        {"rudderProperty": "email", "emersysProperty": "3"},
        {"rudderProperty": "firstName", "emersysProperty": "1"},
        {"rudderProperty": "city", "emersysProperty": "11"},
    ],
    "eventsMapping": [{"from": "Order Completed", "to": str(EVENT_ID)}],
}
_TRAITS: Final = {"firstName": "1", "lastName": "2", "city": "11"}
_STOCK_FIELDS: Final = ("1", "11")


class Plan(Struct, frozen=True):
    """
    Calls in the order of their arrival and what they have to leave behind.

    *contacts* has the fields of each contact by its e-mail address, *events* the orders whose calls trigger an
    external event, *before* the contacts that have to be there from the start, since the stock settings let an event
    arrive before its contact.
    """

    calls: tuple[dict[str, Any], ...]
    contacts: Mapping[str, Mapping[str, str]]
    events: frozenset[str]
    before: tuple[str, ...]


def make_plan(number: int, seed: int, now: int) -> Plan:
    """Return a plan of *number* calls that happened within the hour before *now* (ms since 1970 UTC)."""
    random = Random(seed)  # noqa: S311 - a plan that can be repeated
    people = max(1, number // 10)
    moments = sorted(random.sample(range(3_600_000), number))
    calls = [_call(random, index, random.randrange(people), now - 3_600_000 + at) for index, at in enumerate(moments)]
    of_document, of_stock = ([call for call in calls if is_stock(call) is stock] for stock in (False, True))
    return Plan(
        tuple(_disordered(random, calls)),
        {**_left(of_document, (*_TRAITS.values(), PAGE_FIELD)), **_left_by_stock(of_stock)},
        frozenset(call["properties"]["data"]["global"]["order"] for call in of_stock if call["type"] == "track"),
        tuple({email_of(call): None for call in of_stock}),
    )


def is_stock(call: Mapping[str, Any]) -> bool:
    """Tell whether a call goes to the destination with the stock settings: those of every other person."""
    return int(call["userId"].removeprefix("user-")) % 2 == 1


def email_of(call: Mapping[str, Any]) -> str:
    """Return the e-mail address that a call carries."""
    address: str = (call.get("traits") or call["context"]["traits"])["email"]
    return address


def _call(random: Random, index: int, person: int, time: int) -> dict[str, Any]:
    kind = random.choices(("identify", "track", "page", "screen"), (50, 25, 15, 10))[0]
    traits = {"email": f"person-{person}@example.com"}
    call: dict[str, Any] = {
        "type": kind,
        "messageId": f"m-{index}-{random.randrange(10**6)}",
        "userId": f"user-{person}",
        "timestamp": iso_time(time),
        "originalTimestamp": iso_time(time),
    }
    if random.random() < 0.7:  # else another device, or the server: another order key at the host
        call["anonymousId"] = f"device-{person}-{random.randrange(3)}"
    if kind == "identify":
        call["traits"] = {**traits, **{name: f"{name} {index}" for name in _TRAITS if random.random() < 0.6}}
        return call
    if kind == "track":
        call |= {"event": "Order Completed", "properties": {"data": {"global": {"order": str(index)}}}}
    else:
        call |= {"name": "Home", "properties": {"title": f"title {index}"}}
    return {**call, "context": {"traits": traits}}


def _disordered(random: Random, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls as they arrive: some come late, and a few are sent twice by the SDK."""
    delayed = [
        (index + (random.expovariate(1 / 200) if random.random() < 0.2 else 0), call)
        for index, call in enumerate(calls)
    ]
    arrived = [call for _, call in sorted(delayed, key=lambda pair: pair[0])]
    again = [call for call in calls if random.random() < 0.01]
    for call in again:
        arrived.insert(random.randrange(len(arrived) + 1), call)
    return arrived


def _left(calls: Sequence[dict[str, Any]], fields: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the fields that calls, in the order of event time and messageId, leave at each contact."""
    contacts: dict[str, dict[str, str]] = {}
    for call in sorted(calls, key=lambda one: (one["timestamp"], one["messageId"])):
        traits = call.get("traits") or call["context"]["traits"]
        contact = contacts.setdefault(traits["email"], {"3": traits["email"]})
        values = {field: traits[name] for name, field in _TRAITS.items() if name in traits}
        if call["type"] in ("page", "screen"):
            values[PAGE_FIELD] = call["properties"]["title"]
        contact.update({field: value for field, value in values.items() if field in fields})
    return contacts


def _left_by_stock(calls: Sequence[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return what the stock settings leave: of identify calls alone, at contacts that are there from the start."""
    identified = _left([call for call in calls if call["type"] == "identify"], _STOCK_FIELDS)
    return {address: identified.get(address, {"3": address}) for address in map(email_of, calls)}
