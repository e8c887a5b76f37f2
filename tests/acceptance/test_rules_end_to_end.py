"""The rule of the original's picture from a call to Emarsys: the command `serve`, a host and Emarsys, all over HTTP."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from tests.support.command import LONGEST, Service, Start, starting
from tests.support.world import milliseconds

from emarsys_cdp.testing import FakeEmarsys, FakeHost, JobState, expect
from emarsys_cdp.testing.fake_emarsys.records import AcceptedEvent
from emarsys_cdp.values.times import iso_time

SPACE: Final = "shop"
DOCUMENT: Final[Mapping[str, Any]] = json.loads(Path(__file__).with_name("picture_rule.json").read_text())
EVENT_ID, EVENT = 1234, "segment.com test event"
TOKEN: Final = "the-admin-token-of-the-test"  # noqa: S105
WRITE_KEY: Final = "write-key"
HOUR: Final = 3_600_000


COUPON: Final = {"type": "track", "event": "Coupon Entered"}
ORDER: Final = {"type": "track", "event": "Order Completed"}


def identify(user: str, **parts: Any) -> dict[str, Any]:
    """Return the call that tells the address of somebody, `<user>@example.com` in Emarsys."""
    return {"type": "identify", "userId": user, "traits": {"email": f"{user.title()}@Example.com"}, **parts}


class World:
    """The service, its host and Emarsys; *began* is the time (ms since 1970 UTC) at which the test began."""

    def __init__(self, start: Start, settings: dict[str, str], emarsys: FakeEmarsys) -> None:
        self.settings = settings
        self.service: Service = start(**settings)
        self.emarsys = emarsys
        self.began = self.now = milliseconds(self.api("GET", "clock").json()["now"])
        self.host: FakeHost

    def api(self, method: str, path: str, **parts: Any) -> httpx.Response:
        """Ask the JSON API."""
        headers = {"Authorization": f"Bearer {TOKEN}", **parts.pop("headers", {})}
        url = f"{self.service.url()}/api/v1/{path}"
        return httpx.request(method, url, headers=headers, timeout=LONGEST, trust_env=False, **parts)

    def publish(self) -> None:
        """Publish the picture's rule."""
        path = f"spaces/{SPACE}/document"
        etag = self.api("GET", path).headers["ETag"]
        published = self.api("PUT", path, headers={"If-Match": etag}, json=DOCUMENT)
        assert published.status_code == 200, published.text

    def send(self, *calls: Mapping[str, Any]) -> list[int]:
        """Have the host transform and deliver calls of now; return their jobs."""
        jobs = self.host.send(calls)
        self.host.drain(LONGEST)
        return jobs

    def wait(self, span: str) -> int:
        """Let time go by, and the host deliver what it got meanwhile; return how many effects there were."""
        answer = self.api("POST", "clock", json={"advance": span})
        assert answer.status_code == 200, answer.text
        self.now = milliseconds(answer.json()["now"])
        self.host.drain(LONGEST)
        return int(answer.json()["fired"])

    def events(self, *users: str) -> list[AcceptedEvent]:
        """Return what Emarsys was told of people, repeats too; nothing may have gone wrong on the way."""
        expect(self.host.breaches)
        assert self.emarsys.violations == ()
        assert self.emarsys.crashes == ()
        keys = [f"{user}@example.com" for user in users]
        return [one for one in (*self.emarsys.events, *self.emarsys.repeats) if one.external_id in keys]

    def hours(self, event: AcceptedEvent) -> float:
        """Return how many hours after the beginning an event's own time is."""
        assert event.event_time is not None
        return (milliseconds(event.event_time) - self.began) / HOUR


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def world_of(start: Start, transport: str) -> Iterator[World]:
    """Run everything; effects of rules leave directly, or by the ingestion of the host."""
    with ExitStack() as stack:
        emarsys = stack.enter_context(FakeEmarsys(external_events={EVENT_ID: EVENT}))
        port = free_port()
        settings = {
            "EMARSYS_CDP_CLOCK": "virtual",
            "EMARSYS_CDP_ADMIN_TOKEN": TOKEN,
            "EMARSYS_CDP_API_BASE": emarsys.api_base,
            "EMARSYS_CDP_TOKEN_URL": emarsys.token_url,
        }
        if transport == "host":
            settings["EMARSYS_CDP_INGEST_URL"] = f"http://127.0.0.1:{port}"
            settings["EMARSYS_CDP_INGEST_WRITE_KEY"] = WRITE_KEY
        world = World(start, settings, emarsys)
        destinations = {SPACE: {"apiKey": emarsys.api_key}}
        url = world.service.url()
        world.host = stack.enter_context(
            FakeHost(url, destinations, port=port, write_key=WRITE_KEY, clock=lambda: world.now / 1000)
        )
        world.publish()
        yield world


@pytest.fixture(params=["direct", "host"], scope="module")
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run everything, with each of the transports."""
    with starting(tmp_path_factory.mktemp(request.param)) as start, world_of(start, request.param) as world:
        yield world


@pytest.fixture
def world(running: World) -> World:
    """Return the running world; the test begins at the time that it is."""
    running.began = running.now
    return running


def test_it_fires_48_hours_after_the_coupon(world: World) -> None:
    """No call comes any more; Emarsys is told once, two minutes (settle) later, of the time at which it was due."""
    world.send(identify("jane"), {**COUPON, "userId": "jane"})
    early = world.wait("48h"), world.wait("119s")

    assert (early, world.events("jane")) == ((0, 0), [])
    assert world.wait("1s") == 1
    (event,) = world.events("jane")
    assert (event.event_id, event.name, event.key_field) == (EVENT_ID, EVENT, "3")
    assert (event.external_id, world.hours(event)) == ("jane@example.com", 48)
    assert re.fullmatch("[0-9a-f]{32}", event.trigger_id or "")
    assert (world.wait("90d"), world.events("jane")) == (0, [event])


def test_an_order_before_the_login_stops_it(world: World) -> None:
    """It came a minute before the end, on a device that is found to be the same person's after the end."""
    world.send(identify("ada", anonymousId="laptop"), {**COUPON, "userId": "ada", "anonymousId": "laptop"})
    world.wait("47h")
    world.wait("59m")
    world.send({**ORDER, "anonymousId": "phone"})
    world.wait("2m")
    world.send(identify("ada", anonymousId="phone"))

    assert (world.wait("90d"), world.events("ada")) == (0, [])


def test_an_order_of_somebody_else_does_not_stop_it(world: World) -> None:
    """It is the same, but the login is another person's."""
    world.send(identify("bob", anonymousId="desk"), {**COUPON, "userId": "bob", "anonymousId": "desk"})
    world.wait("47h")
    world.wait("59m")
    world.send({**ORDER, "anonymousId": "pad"})
    world.wait("2m")
    world.send(identify("eve", anonymousId="pad"))

    assert world.wait("1m") == 1
    assert [world.hours(event) for event in world.events("bob", "eve")] == [48]


def test_calls_that_the_host_repeats_fire_nothing_again(world: World) -> None:
    """Neither while the rule waits nor after it has fired; the calls are answered as any others."""
    times = {"originalTimestamp": iso_time(world.began), "sentAt": iso_time(world.began)}
    calls = [identify("kim", messageId="m1") | times, {**COUPON, "userId": "kim", "messageId": "m2"} | times]
    jobs = world.send(*calls)
    world.wait("24h")
    jobs += world.send(*calls)
    fired = world.wait("25h")
    jobs += world.send(*calls)

    assert (fired, world.wait("72h")) == (1, 0)
    assert [world.hours(event) for event in world.events("kim")] == [48]
    assert {job.state for job in world.host.jobs if job.id in jobs} <= {JobState.DELIVERED, JobState.FILTERED}


def test_somebody_unknown_is_told_when_they_are_known(world: World) -> None:
    """The rule ends without an address to send to; the identify that brings one sends it, with the time of its end."""
    world.send({**COUPON, "anonymousId": "kiosk"})
    held = world.wait("50h")
    world.send(identify("lea", anonymousId="kiosk"))
    world.wait("0s")

    assert held == 0
    assert [world.hours(event) for event in world.events("lea")] == [48]


def test_everybody_has_times_of_their_own(world: World) -> None:
    """However far the clock is moved at once, each effect leaves at its time, and in the order of the times."""
    for name in ("first", "second"):
        world.send(identify(name), {**COUPON, "userId": name})
        world.wait("1h")

    assert world.wait("30d") == 2
    assert [(event.external_id, world.hours(event)) for event in world.events("first", "second")] == [
        ("first@example.com", 48),
        ("second@example.com", 49),
    ]


def test_an_effect_that_the_host_hands_back_again_is_sent_once(tmp_path: Path) -> None:
    """A second job with the same effect is left out; a job with an effect that never was is refused."""
    with starting(tmp_path) as start, world_of(start, "host") as world:
        world.send(identify("jane"), {**COUPON, "userId": "jane"})
        world.wait("49h")
        (given,) = [job for job in world.host.jobs if job.call.get("event") == "Emarsys CDP Effect"]
        forged = {**given.call, "properties": {**given.call["properties"], "effect": "0" * 32}}
        again, wrong = world.send(given.call, forged)
        states = {job.id: job.state for job in world.host.jobs}

        assert [states[one] for one in (given.id, again, wrong)] == ["delivered", "filtered", "aborted"]
        assert [world.hours(event) for event in world.events("jane")] == [48]


def test_the_clock_goes_on_after_a_crash(tmp_path: Path) -> None:
    """The next run begins where time had come to, and what was to fire fires."""
    with starting(tmp_path) as start, world_of(start, "direct") as world:
        world.send(identify("jane"), {**COUPON, "userId": "jane"})
        world.wait("47h")
        world.service.stop(signal.SIGKILL)
        world.service = start(**world.settings)

        assert world.api("GET", "clock").json() == {"clock": "virtual", "now": iso_time(world.began + 47 * HOUR)}
        assert world.wait("62m") == 1
        assert [world.hours(event) for event in world.events("jane")] == [48]
