"""What goes into a FakeHost and what it tells: gateway, features, destinations, settings, views."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import msgspec
import pytest
from tests.support.scripted import CONFIG, FEATURES, LONGEST, PROCESSOR, Reply, World, ok, track

from emarsys_cdp.testing import AsyncFakeHost, FakeHost, Job, JobState, NotDrained, Refused, expect
from emarsys_cdp.testing.fake_host.transform import HostRule
from emarsys_cdp_hooks import StopAndFix


@pytest.fixture
def world() -> Iterator[World]:
    """Run a transformer and a destination."""
    with ExitStack() as stack:
        yield World(stack)


def test_a_call_over_http_goes_all_the_way(world: World) -> None:
    """Posted as an SDK does, transformed, and delivered with its method, URL, headers and a sorted body."""
    host = world.host()
    sent = httpx.post(f"{host.url}/v1/track", json={"event": "e", "anonymousId": "a"}, auth=("write-key", ""))
    host.drain(LONGEST)
    (job,), (asked,) = host.jobs, world.sink.asked

    assert (sent.status_code, sent.text) == (200, "OK")
    assert (asked.method, asked.path, asked.body) == ("PUT", "/contact?create=1", b'{"events":["e"],"z":1}')
    assert (asked.headers["x-test"], asked.headers["user-agent"]) == ("t", "RudderLabs")
    assert (job.state, job.status, job.error, job.attempts) == (JobState.DELIVERED, 200, "body 200", 1)
    assert (job.order_key, job.call["type"], job.final) == ("<<>>a<<>>", "track", True)
    assert len(job.transforms) == len(job.deliveries) == 1
    assert world.transforms()[0].json["input"][0]["message"] == job.call
    expect(host.breaches)


def test_calls_come_in_all_forms(world: World) -> None:
    """Each type has its path, batches keep the types of their calls, bodies may be gzip, a header joins the key."""
    host = world.host()
    kinds = ["track", "identify", "page", "screen", "group", "alias"]
    world.script.transform = {event: [298] for event in (*kinds, "b", "i")}
    with httpx.Client(base_url=host.url, auth=("write-key", "")) as client:
        for kind in kinds:
            assert client.post(f"/v1/{kind}", json={"userId": "u", "event": kind}).text == "OK"
        batch = gzip.compress(json.dumps({"batch": [track("b"), {**track("i"), "type": "identify"}]}).encode())
        headers = {"Content-Encoding": "gzip", "AnonymousId": "h"}
        assert client.post("/v1/import", content=batch, headers=headers).text == "OK"
    host.drain(LONGEST)

    assert [job.call["type"] for job in host.jobs] == [*kinds, "track", "identify"]
    assert [job.order_key for job in host.jobs][-2:] == ["h<<>>u<<>>u"] * 2
    assert {job.state for job in host.jobs} == {JobState.FILTERED}


@pytest.mark.parametrize(
    ("path", "key", "body", "status", "text"),
    [
        ("track", "", b"{}", 401, "Failed to read writeKey from header"),
        ("track", "other", b"{}", 401, "Invalid Write Key"),
        ("track", "write-key", b"{", 400, "Invalid JSON"),
        ("track", "write-key", b"[" * 100_000, 400, "Invalid JSON"),
        ("track", "write-key", b"5", 400, "Event is not a valid rudder event"),
        ("track", "write-key", b"{}", 400, "Request neither has anonymousId nor userId"),
        ("batch", "write-key", b'{"batch": []}', 400, "Empty batch payload"),
        ("batch", "write-key", b'{"batch": [{"userId": "u"}, {}]}', 400, "Request neither has anonymousId nor userId"),
        ("track", "write-key", b" " * 5_000_000, 413, "Request size exceeds max limit"),
    ],
)
def test_what_the_gateway_refuses_is_not_taken(
    world: World, path: str, key: str, body: bytes, status: int, text: str
) -> None:
    """The whole request is refused, with RudderStack's words."""
    host = world.host()
    auth = (key, "") if key else None
    answer = httpx.post(f"{host.url}/v1/{path}", content=body, auth=auth)

    assert (answer.status_code, answer.text) == (status, f"{text}\n")
    assert host.jobs == []


def test_calls_without_http_are_refused_as_a_whole(world: World) -> None:
    """`send` takes all of them or none."""
    host = world.host()
    for calls, key in (([track("e"), {}], None), ([track("e")], "other"), ([track("e", n=float("nan"))], None)):
        with pytest.raises(Refused):
            host.send(calls, write_key=key)

    assert host.jobs == []


def test_nothing_is_done_before_the_features_are_known(world: World) -> None:
    """As long as the transformer refuses connections, calls are taken and wait; `drain` says for what."""
    world.transformer.stop()
    host = world.host()
    host.send([track("e")])
    with pytest.raises(NotDrained, match=r"1 of 1 jobs .*\n  GET /features: no connection.*\n  1 waiting .*jobs 1"):
        host.drain(0.1)

    world.serve(world.script.answer, world.transformer.port)
    host.drain(LONGEST)
    assert world.destination.events == ["e"]


@pytest.mark.parametrize(
    ("features", "asked", "compacted"),
    [
        (ok(FEATURES), True, True),
        (ok(FEATURES), False, False),
        (ok({**FEATURES, "supportDestTransformCompactedPayloadV1": False}), True, False),
    ],
)
def test_the_form_is_the_transformers_and_the_options_choice(
    world: World, features: Reply, asked: bool, compacted: bool
) -> None:
    """Compacted only where both want it; the header says so."""
    world.script.features = features
    host = world.host(compacted=asked)
    host.send([track("e")])
    host.drain(LONGEST)
    (request,) = world.transforms()

    assert ("destinations" in request.json) is compacted
    assert request.headers.get("x-content-format") == ("json+compactedv1" if compacted else None)
    assert request.headers["x-feature-filter-code"] == request.headers["x-feature-gzip-support"] == "?1"
    assert request.headers["connection"] == "close"
    expect(host.breaches)


@pytest.mark.parametrize(
    ("features", "breaches", "failed"),
    [
        (Reply(404), [], False),
        (Reply(503), [HostRule.FEATURES], False),
        (ok({"routerTransform": {}}), [HostRule.SOURCE_TRANSFORM], True),
    ],
    ids=["404", "503", "a flag missing"],
)
def test_without_features_calls_go_through_the_processor(
    world: World, features: Reply, breaches: list[str], failed: bool
) -> None:
    """A destination that the features do not name is silently transformed there, in the plain form."""
    world.script.features = features
    host = world.host()
    host.send([track("e")])
    host.drain(LONGEST)

    assert isinstance(world.transforms(PROCESSOR)[0].json, list)
    assert world.destination.events == ["e"]
    assert [breach.rule for breach in host.breaches] == breaches
    assert host.failed is failed


def test_calls_go_to_every_destination_that_wants_them(world: World) -> None:
    """Each has jobs, workers and settings of its own; what one does not want is filtered without a request."""
    definition = {"name": "EMARSYS", "displayName": "Emarsys", "config": {"transformAtV1": "router"}}
    only_identify = {**definition, "config": {**definition["config"], "supportedMessageTypes": ["identify"]}}  # type: ignore[dict-item]
    host = world.host(
        [
            {"id": "a", "config": {"n": 1}, "destinationDefinition": definition},
            {"id": "b", "config": {"n": 2}, "destinationDefinition": only_identify},
        ]
    )
    jobs = host.send([track("e"), track("off", integrations={"All": False})])
    host.drain(LONGEST)

    assert jobs == [1, 2, 3, 4]
    assert [(job.destination, job.state) for job in host.jobs] == [
        ("a", JobState.DELIVERED),
        ("b", JobState.FILTERED),
        ("a", JobState.FILTERED),
        ("b", JobState.FILTERED),
    ]
    assert world.destination.events == ["e"]
    assert host.jobs[0].error == ""  # the answer is kept only where the definition says so
    (asked,) = world.transforms()
    assert asked.json["destinations"]["a"]["Config"] == {"n": 1}


def test_settings_change_while_it_runs(world: World) -> None:
    """The next request has the new ones."""
    host = world.host()
    host.send([track("e1")])
    host.drain(LONGEST)
    host.configure("dest-1", {"apiKey": "other"})
    host.send([track("e2")])
    host.drain(LONGEST)

    configs = [asked.json["destinations"]["dest-1"]["Config"] for asked in world.transforms()]
    assert configs == [CONFIG, {"apiKey": "other"}]


def test_a_token_goes_to_the_transformer_only(world: World) -> None:
    """As the password of basic authentication, which is how a real server can be told."""
    host = world.host(host_token="hunter2")  # noqa: S106 - of this test
    host.send([track("e")])
    host.drain(LONGEST)
    basic = f"Basic {base64.b64encode(b':hunter2').decode()}"

    assert {asked.headers["authorization"] for asked in world.transformer.asked} == {basic}
    assert "authorization" not in world.sink.asked[0].headers


def test_other_processes_can_ask(world: World) -> None:
    """What became of the calls, over HTTP."""
    world.script.transform = {"x": [400]}
    host = world.host(workers=1)
    host.send([track("e"), track("x")])
    host.drain(LONGEST)
    with httpx.Client(base_url=f"{host.url}/_fake") as client:
        jobs = msgspec.json.decode(client.get("/jobs").content, type=list[Job])
        aborted = msgspec.json.decode(client.get("/jobs?state=aborted").content, type=list[Job])

        assert jobs == host.jobs
        assert [job.call["event"] for job in aborted] == ["x"]
        assert client.get("/counts").json() == host.counts()
        assert [one["jobs"] for one in client.get("/deliveries").json()] == [[1]]
        assert client.get("/breaches").json() == client.get("/overtakings").json() == []


def test_a_host_that_has_stopped_can_still_be_asked(world: World) -> None:
    """What it has seen stays."""
    with FakeHost(world.transformer.url, {"d": CONFIG}, proxy=False) as host:
        host.send([track("e")])
        host.drain(LONGEST)

    assert [job.state for job in host.jobs] == [JobState.DELIVERED]
    assert host.counts()["delivered"] == 1
    with pytest.raises(RuntimeError, match="does not run"):
        host.drain()
    with pytest.raises(RuntimeError, match="only once"):
        host.start()


def test_it_runs_in_a_loop_of_ones_own(world: World) -> None:
    """The same host for asynchronous code."""

    async def run() -> list[Job]:
        async with AsyncFakeHost(world.transformer.url, {"d": CONFIG}, proxy=False) as host:
            host.send([track("e")])
            assert (await host.drain(LONGEST))["delivered"] == 1
            return host.jobs

    assert [job.call["event"] for job in asyncio.run(run())] == ["e"]


def test_what_it_cannot_start_with_is_told(world: World) -> None:
    """A port that is taken, no destinations, options that make no sense."""
    with pytest.raises(StopAndFix, match=f"cannot listen on 127.0.0.1:{world.sink.port}"):
        world.host(port=world.sink.port)
    with pytest.raises(StopAndFix, match="either destinations or a workspace"):
        FakeHost(world.transformer.url)
    with pytest.raises(ValueError, match="workers and batch"):
        world.host(workers=0)
    with pytest.raises(RuntimeError, match="with FakeHost"):
        FakeHost(world.transformer.url, {"d": CONFIG}).send([track("e")])


def test_many_calls_are_merged_and_none_is_lost(world: World) -> None:
    """Five thousand, merged to a few requests, are all delivered, none twice."""
    world.script.merged = {f"e{n}" for n in range(5_000)}
    host = world.host(batch=200)
    host.send([track(f"e{n}", f"u{n % 700}") for n in range(5_000)])
    host.drain(60)

    assert Counter(world.destination.events) == Counter(world.script.merged)
    expect(host.breaches)
