"""The clock by the JSON API, and which parts of the service go by a virtual one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import fastjsonschema
import httpx
import pytest
from tests.support.app import ROUTER, Host, answers, host_of
from tests.support.documents import EVENT, document, rule
from tests.support.requests import call, router_request
from tests.support.stores import on
from tests.support.world import NOW, make_service, milliseconds

from emarsys_cdp.credentials import Secret
from emarsys_cdp.effect import Effect
from emarsys_cdp.outbox.fates import Again, Done
from emarsys_cdp.outbox.transport import Leased, Tried
from emarsys_cdp.service.virtual_time import VirtualClock, translated
from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.outbox import WAITING, EffectRef, StoredEffect
from emarsys_cdp_hooks import RetryLater

T = TypeVar("T")

TOKEN: Final = "the token of these tests"  # noqa: S105 - it protects nothing
CLOCK: Final = "/api/v1/clock"
DOCUMENT: Final = "/api/v1/spaces/dest-1/document"
EMAIL: Final = {"name": "email", "path": "traits.email", "type": "string", "field": "3"}


def ask(use: Callable[[Host], Awaitable[T]], store: Store | None = None, clock: str = "virtual") -> T:
    """Use a running service, in memory unless a store is given."""
    found = store or MemoryStore()

    async def main(store: Store) -> T:
        async with host_of(make_service(store, admin_token=Secret(TOKEN), clock=clock)) as host:
            host.client.headers["Authorization"] = f"Bearer {TOKEN}"
            return await use(host)

    return on(lambda: found, main)


def moved(*bodies: Any, clock: str = "virtual") -> list[httpx.Response]:
    """Return the answers to moves of the clock, and last the one that tells the time."""

    async def use(host: Host) -> list[httpx.Response]:
        posts = [await host.client.post(CLOCK, json=body) for body in bodies]
        return [*posts, await host.client.get(CLOCK)]

    return ask(use, clock=clock)


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    """Return places and messages of a refusal."""
    return [(one["place"], one["message"]) for one in response.json()["errors"]]


@pytest.mark.parametrize(
    ("body", "now"),
    [
        ({"advance": "48h"}, "2026-11-25T10:00:05.000Z"),
        ({"advance": 1.5}, "2026-11-23T11:30:05.000Z"),
        ({"advance": "0s"}, NOW),
        ({"to": "2026-11-23T10:00:05Z"}, NOW),
        ({"to": "2026-12-24T19:00:00+01:00"}, "2026-12-24T18:00:00.000Z"),
    ],
)
def test_it_is_moved_by_a_span_or_to_a_time(body: Any, now: str) -> None:
    """The answer tells the time, which is that of whoever asks afterwards, and that nothing has fired."""
    post, get = moved(body)

    assert (post.status_code, post.json()) == (200, {"now": now, "fired": 0})
    assert get.json() == {"clock": "virtual", "now": now}


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ([], "body", "must be an object"),
        ({}, "body", "must say how far"),
        ({"advance": "1h", "to": NOW}, "body", "must say how far"),
        ({"back": "1h"}, "body.back", "known are advance, to"),
        ({"advance": "-5h"}, "body.advance", "is no duration"),
        ({"advance": -1}, "body.advance", "is no duration"),
        ({"advance": True}, "body.advance", "is no duration"),
        ({"advance": "999999999w"}, "body.advance", "further off than 3660 days"),
        ({"advance": 1e300}, "body.advance", "is no duration"),
        ({"to": "2026-11-23T10:00:04.999Z"}, "body.to", f"time does not go backwards: it is {NOW}"),
        ({"to": "9999-12-31T00:00:00Z"}, "body.to", "further off than 3660 days"),
        ({"to": "tomorrow"}, "body.to", "is no time: write for instance"),
        ({"to": 5}, "body.to", "is no time"),
    ],
)
def test_a_wrong_move_is_refused(body: Any, place: str, message: str) -> None:
    """With its place, and what would be right; the time stays as it is."""
    post, get = moved(body)
    ((where, said),) = errors(post)

    assert (post.status_code, where) == (400, place)
    assert message in said
    assert get.json()["now"] == NOW


def test_the_clock_of_the_system_is_not_moved() -> None:
    """It is shown; the refusal says how to get one that can be moved."""
    post, get = moved({"advance": "48h"}, clock="system")

    assert post.status_code == 409
    assert "EMARSYS_CDP_CLOCK=virtual" in errors(post)[0][1]
    assert get.json() == {"clock": "system", "now": NOW}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nobody_moves_it_without_the_token(method: str) -> None:
    """As with everything else of the API."""

    async def use(host: Host) -> int:
        del host.client.headers["Authorization"]
        return (await host.client.request(method, CLOCK, json={"advance": "48h"})).status_code

    assert ask(use) == 401


def test_readiness_shows_a_virtual_clock() -> None:
    """One that is the system's is not worth a word."""

    async def ready(host: Host) -> Any:
        return (await host.client.get("/ready")).json()

    assert ask(ready) == {"status": "ready", "emarsys": [], "clock": "virtual", "now": NOW}
    assert ask(ready, clock="system") == {"status": "ready", "emarsys": []}


def test_answers_are_as_described() -> None:
    """What comes out fits the schemas of the description."""

    async def use(host: Host) -> Any:
        return (await host.client.get("/api/v1/openapi.json")).json()

    parts = json.loads(json.dumps(ask(use)["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/"))
    post, get = moved({"advance": "1h"})
    for name, body in (("Move", {"advance": "1h"}), ("Moved", post.json()), ("Clock", get.json())):
        fastjsonschema.compile({"$ref": f"#/$defs/{name}", "$defs": parts})(body)


def test_the_time_of_an_earlier_run_goes_on(make_store: Callable[[], Store]) -> None:
    """What is in the store would be of the future otherwise."""

    async def use(store: Store) -> list[int]:
        first, second = (make_service(store, clock="virtual") for _ in range(2))
        assert first.virtual is not None
        assert second.virtual is not None
        await first.virtual.advance(first.clock() + 5000)
        await second.virtual.resume()
        return [one.clock() - milliseconds(NOW) for one in (first, second)]

    assert on(make_store, use) == [5000, 5000]


def test_signatures_do_not_go_by_it() -> None:
    """Emarsys compares the time of a signature with its own clock."""

    async def use(host: Host) -> str:
        await host.client.post(CLOCK, json={"advance": "48h"})
        body = router_request([call("identify", userId="u", traits={"email": "a@example.com"})])
        output = answers(ROUTER, await host.send(ROUTER, body))[0]
        return str(output["batchedRequest"]["headers"]["X-WSSE"])

    assert f'Created="{NOW[:19]}' in ask(use)


async def publish(host: Host, *rules: Mapping[str, Any]) -> None:
    """Publish a document with rules."""
    content = document(*rules, maps=(EVENT, EMAIL))
    response = await host.client.put(DOCUMENT, headers={"If-Match": '"0"'}, json=content)
    assert response.status_code == 200, response.text


def test_time_stops_at_every_timer(make_store: Callable[[], Store]) -> None:
    """Rules of 24 h and 48 h fire at their times, not at the end of a move of 30 days, when they would be too late."""
    person = call("identify", 1, userId="u", traits={"email": "a@example.com"})
    coupon = call("track", 2, userId="u", event="Coupon Entered")

    async def use(store: Store) -> list[int]:
        async with host_of(make_service(store, admin_token=Secret(TOKEN), clock="virtual")) as host:
            host.client.headers["Authorization"] = f"Bearer {TOKEN}"
            await publish(host, rule("day", lifetime="24h"), rule("two-days", lifetime="48h"))
            await host.send(ROUTER, router_request([person, coupon]))
            spans = ("23h", "2h", "0s", "30d")
            return [(await host.client.post(CLOCK, json={"advance": one})).json()["fired"] for one in spans]

    assert on(make_store, use) == [0, 1, 0, 1]


EFFECT: Final = Effect(
    "e", "dest-1", "AAAAAAAAAAAA", "rule", 1, "i", "exit", "trigger", {}, {}, "3", "a@x.com", 0, 0, "p", 0
)
LEASED: Final = Leased(StoredEffect(EffectRef(0, "e"), WAITING, b""), EFFECT)


class Elsewhere:
    """A transport whose other side answers as it is told to."""

    ordered = True

    def __init__(self, answer: Done | Again | RetryLater) -> None:
        self._answer = answer

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:  # noqa: ARG002 - the protocol's
        """Answer."""
        if isinstance(self._answer, RetryLater):
            raise self._answer
        return [Tried(one.effect, self._answer) for one in leased]


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (Done(), Done()),
        (Again("busy"), Again("busy")),
        (Again("busy", 1_060), Again("busy", 7_060)),
        (Again("busy", 900), Again("busy", 7_000)),
    ],
)
def test_times_of_the_other_side_are_translated(answer: Done | Again, fate: Done | Again) -> None:
    """Emarsys says when to come again by its own clock, which has gone on or stayed behind meanwhile."""
    way = translated(lambda _: Elsewhere(answer), lambda: 1_000, VirtualClock(7_000))("dest-1")

    assert way.ordered
    assert asyncio.run(way.send("dest-1", [LEASED])) == [Tried(EFFECT, fate)]


def test_the_time_of_a_refusal_is_translated() -> None:
    """The same when nothing was sent at all."""
    way = translated(lambda _: Elsewhere(RetryLater("down", 1_060)), lambda: 1_000, VirtualClock(7_000))("dest-1")

    with pytest.raises(RetryLater, match="down") as refused:
        asyncio.run(way.send("dest-1", [LEASED]))
    assert refused.value.at == 7_060
