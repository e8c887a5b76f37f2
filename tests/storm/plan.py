"""
People of a storm: who does what when, and the rules that look at them.

Times are in ms. No timeline is a close thing: what stops something comes `MARGIN` before it is due, the rules wait
`SETTLE` for calls that are late, and nothing that a rule looks at comes after it has fired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from msgspec import Struct

SECOND: Final = 1000
SETTLE: Final = 20 * SECOND
MARGIN: Final = 8 * SECOND
EVENTS: Final[Mapping[int, str]] = {
    9001: "coupon", 9002: "cart", 9003: "hello", 9004: "tips", 9005: "bye", 9006: "thanks", 9007: "reminder",
    9008: "offer", 9009: "review",
}  # fmt: skip
FIELD: Final = "11"
"""What the rules write: the city, a text."""

LIST: Final = 77
LATEST: Final = 300 * SECOND
"""So long after somebody has begun nothing comes any more."""

_Message = dict[str, Any]


class Step(Struct, frozen=True):
    """A call, and when it happens: ms after its person has begun."""

    at: int
    call: _Message


class Person(Struct, frozen=True):
    """Somebody with a story; *story* is its name, the number tells him from all others."""

    number: int
    story: str
    steps: tuple[Step, ...]


def document(transport: str) -> dict[str, Any]:
    """Return the document of a space whose effects leave by *transport*."""
    maps = {
        "ecom_event": "event",
        "cart_id": "properties.cart",
        "value": "properties.value",
        "offer": "properties.offer",
    }
    return {
        "settings": {"settle": f"{SETTLE // SECOND}s"},
        "transport": {"kind": transport},
        "dataMaps": [
            {"name": "email", "path": ["traits.email", "context.traits.email"], "type": "string", "field": "3"},
            *({"name": name, "path": path, "type": "string"} for name, path in maps.items()),
        ],
        "rules": [_coupon(), _cart(), _welcome(), _dunning(), _offer(), _review()],
    }


def _row(seq: int | str, kind: str, event: str | None = None, **parts: Any) -> dict[str, Any]:
    looks = {} if event is None else {"on": "track", "match": f"ecom_event = {event}"}
    return {"seq": seq, "type": kind, **looks, **parts}


def _trigger(event: str) -> dict[str, Any]:
    return {"do": "trigger", "event": event}


def _rule(identifier: str, *rows: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return {"id": identifier, "lifetime": "60s", "conditions": [dict(row) for row in rows], "status": "active", **parts}


def _coupon() -> dict[str, Any]:
    """Return the rule of the original's picture, in seconds; a person without a key is waited for."""
    return _rule(
        "coupon",
        _row(0, "start", "Coupon Entered"),
        _row(0, "exclude", "Order Completed"),
        _row(1, "exit", actions=[_trigger("coupon")]),
        lifetime="16s",
        holdForKey="1h",
    )


def _cart() -> dict[str, Any]:
    return _rule(
        "cart",
        _row(0, "start", "Cart Updated", variables=["cart_id", "value"]),
        _row(0, "exclude", "Cart Ordered"),
        _row(1, "exit", wait="16s", actions=[{"do": "addToList", "list": str(LIST)}, _trigger("cart")]),
        multiple=True,
        transaction="cart_id",
        onRepeatStart="restart",
    )


def _welcome() -> dict[str, Any]:
    return _rule(
        "welcome",
        _row(0, "start", "Signed Up"),
        _row(1, "action", actions=[{"do": "update", "field": FIELD, "value": "new"}, _trigger("hello")]),
        _row(2, "action", wait="6s", actions=[_trigger("tips")]),
        _row(3, "exit", wait="6s", actions=[{"do": "update", "field": FIELD, "value": "known"}, _trigger("bye")]),
        reentry={"maxEntries": 1},
    )


def _dunning() -> dict[str, Any]:
    return _rule(
        "dunning",
        _row(0, "start", "Payment Failed"),
        _row("*", "exclude", "Payment Succeeded", actions=[{"do": "unset", "field": FIELD}, _trigger("thanks")]),
        _row(
            1, "exit", wait="16s", actions=[{"do": "update", "field": FIELD, "value": "unpaid"}, _trigger("reminder")]
        ),
    )


def _offer() -> dict[str, Any]:
    """Return a rule of which everybody gets one at most."""
    return _rule(
        "offer",
        _row(0, "start", "Offer Seen", variables=["offer"]),
        _row(1, "exit", wait="4s", actions=[_trigger("offer")]),
        multiple=True,
        transaction="offer",
        caps=[{"count": 1, "per": "1d"}],
    )


def _review() -> dict[str, Any]:
    return _rule(
        "review",
        _row(0, "start", "Ordered"),
        _row(1, "step", "Shipped", within="40s"),
        _row(2, "exit", wait="6s", actions=[_trigger("review")]),
    )


def _track(event: str, **properties: str) -> _Message:
    return {"type": "track", "event": event, "properties": properties}


def _identify(number: int) -> _Message:
    return {"type": "identify", "userId": f"user-{number}", "traits": {"email": f"person-{number}@example.com"}}


Told = list[tuple[float, _Message]]
"""Seconds and calls; those that name nobody are of the person's userId."""


def _login(number: int) -> Told:
    return [(0, _identify(number))]


def _phone(number: int) -> _Message:
    return {"anonymousId": f"phone-{number}"}


def _laptop(number: int) -> _Message:
    return {"anonymousId": f"laptop-{number}"}


def _forgets(number: int) -> Told:
    return [*_login(number), (1, _track("Coupon Entered")), (9, _track("Coupon Entered"))]


def _orders(number: int) -> Told:
    return [*_login(number), (1, _track("Coupon Entered")), (5, _track("Order Completed"))]


def _orders_elsewhere(number: int) -> Told:
    """Enter a coupon on the phone, order on the laptop, and log in on the phone only afterwards."""
    return [
        (0, _track("Coupon Entered") | _phone(number)),
        (1, _identify(number) | _laptop(number)),
        (3, _track("Order Completed") | _laptop(number)),
        (6, _identify(number) | _phone(number)),
    ]


def _logs_in(number: int) -> Told:
    """Enter a coupon on the phone, known on the laptop, and log in on the phone before it is due."""
    return [
        (0, _track("Coupon Entered") | _phone(number)),
        (1, _identify(number) | _laptop(number)),
        (6, _identify(number) | _phone(number)),
    ]


def _logs_in_late(number: int) -> Told:
    """Be nobody with an address when it is due: it is held, and sent once there is one."""
    return [(0, _track("Coupon Entered") | _phone(number)), (44, _identify(number) | _phone(number))]


def _stays_unknown(number: int) -> Told:
    return [(0, _track("Coupon Entered") | _phone(number))]


def _fills_a_cart(number: int) -> Told:
    return [
        *_login(number),
        *[(2 + 4 * n, _track("Cart Updated", cart=f"c-{number}", value=str(n))) for n in range(3)],
    ]


def _has_two_carts(number: int) -> Told:
    carts = [_track("Cart Updated", cart=f"c-{number}-{n}", value="1") for n in range(2)]
    return [*_login(number), (1, carts[0]), (3, carts[1]), (6, _track("Cart Ordered", cart=f"c-{number}-1"))]


def _signs_up(number: int) -> Told:
    return [*_login(number), (1, _track("Signed Up")), (5, _track("Signed Up"))]


def _pays_late(number: int) -> Told:
    return [*_login(number), (1, _track("Payment Failed")), (7, _track("Payment Succeeded"))]


def _never_pays(number: int) -> Told:
    return [*_login(number), (1, _track("Payment Failed"))]


def _sees_offers(number: int) -> Told:
    return [*_login(number), *[(1 + 3 * n, _track("Offer Seen", offer=f"o-{n}")) for n in range(3)]]


def _receives(number: int) -> Told:
    return [*_login(number), (1, _track("Ordered")), (8, _track("Shipped"))]


def _waits(number: int) -> Told:
    return [*_login(number), (1, _track("Ordered"))]


def _does_everything(number: int) -> Told:
    return sorted(
        [
            *_login(number), *_forgets(number)[1:], *_fills_a_cart(number)[1:], *_signs_up(number)[1:],
            *_sees_offers(number)[1:], *_receives(number)[1:],
        ],
        key=lambda one: one[0],
    )  # fmt: skip


STORIES: Final[Mapping[str, Callable[[int], Told]]] = {
    story.__name__.strip("_").replace("_", " "): story
    for story in (
        _forgets, _orders, _orders_elsewhere, _logs_in, _logs_in_late, _stays_unknown, _fills_a_cart, _has_two_carts,
        _signs_up, _pays_late, _never_pays, _sees_offers, _receives, _waits, _does_everything,
    )
}  # fmt: skip


def make_people(count: int, seed: int, first: int = 1) -> tuple[Person, ...]:
    """Return so many people, each story as often as the others; *first* is the number of the first one."""
    random = Random(seed)  # noqa: S311 - a plan that can be repeated
    stories = [name for _, name in zip(range(count), _endless(random), strict=False)]
    return tuple([Person(number, name, _steps(number, name, random)) for number, name in enumerate(stories, first)])


def _endless(random: Random) -> Any:
    while True:
        yield from random.sample(sorted(STORIES), len(STORIES))


def _steps(number: int, story: str, random: Random) -> tuple[Step, ...]:
    """Return the calls of somebody; one of them the SDK sends again later."""
    calls = [
        Step(int(at * SECOND), _whose(number, call) | {"messageId": f"m-{number}-{index}"})
        for index, (at, call) in enumerate(STORIES[story](number))
    ]
    again = random.choice(calls)
    return (*calls, Step(again.at + random.choice((1, 10, 70)) * SECOND, again.call))


def _whose(number: int, call: _Message) -> _Message:
    return call if call.keys() & {"userId", "anonymousId"} else {**call, "userId": f"user-{number}"}
