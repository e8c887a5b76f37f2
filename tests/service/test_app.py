"""The application over HTTP: which path is whose, who may ask, and what one fault costs."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
import structlog
from tests.support.app import BATCH, PROCESSOR, ROUTER, Host, answers, by_job, host_of, make_app
from tests.support.requests import OAUTH_KEY, call, destination, metadata, processor_request, router_request
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret
from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.service import app as app_module
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.steps import contacts
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp_hooks import Call, Decision, Filtered, hookimpl

TRANSFORMS = (ROUTER, BATCH, PROCESSOR)
HOST_TOKEN = "token-of-the-host"  # noqa: S105 - it protects nothing


def person(number: int, **traits: Any) -> dict[str, Any]:
    """Return an identify call of a person of their own."""
    return call("identify", number, userId=f"user-{number}", traits={"email": f"{number}@example.com", **traits})


def request_of(path: str, calls: Sequence[Any], config: Mapping[str, Any] | None = None) -> bytes:
    """Return the request of an endpoint for calls of one destination."""
    return (processor_request if path == PROCESSOR else router_request)(calls, config)


def store_of(service: Service) -> MemoryStore:
    """Return the store of a service, which is one in memory here."""
    assert isinstance(service.store, MemoryStore)
    return service.store


async def one(service: Service, method: str, path: str, **more: Any) -> httpx.Response:
    """Send one request to the application of a service."""
    async with host_of(service) as host:
        return await host.client.request(method, path, **more)


def test_every_transform_is_answered_with_its_version() -> None:
    """A 200 of a transform without apiVersion 2 would end the host's process."""

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(MemoryStore())) as host:
            return [await host.send(path, request_of(path, [person(1)])) for path in TRANSFORMS]

    for path, response in zip(TRANSFORMS, asyncio.run(run()), strict=True):
        (output,) = answers(path, response)

        assert response.headers["apiversion"] == "2"
        assert response.headers["content-type"] == "application/json"
        assert output["statusCode"] == 200


def test_the_name_of_the_processor_s_path_is_taken_in_any_case() -> None:
    """The host writes the type in lower case; a person who tries it by hand may not."""

    async def run() -> httpx.Response:
        async with host_of(make_service(MemoryStore())) as host:
            return await host.client.post("/v0/destinations/EMARSYS", content=request_of(PROCESSOR, [person(1)]))

    assert asyncio.run(run()).json()[0]["statusCode"] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", TRANSFORMS)
def test_a_transform_takes_post_only(path: str, method: str) -> None:
    """Another method is answered with 501, which no host takes for the end of a job."""
    response = asyncio.run(one(make_service(MemoryStore()), method, path))

    assert response.status_code == 501
    assert method == "HEAD" or "POST" in response.json()["error"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/", "/favicon.ico", "/health/", "/deleteUsers/", "/customTransform", "/v0/destinations/webhook",
        "/v1/destinations/webhook/proxy", "/v0/destinations/emarsys/", "/routerTransform/x", "/ROUTERTRANSFORM",
    ],
)  # fmt: skip
def test_an_unknown_path_is_never_404(path: str, method: str) -> None:
    """A 404 would abort the host's jobs for good; a 501 says what is missing."""
    response = asyncio.run(one(make_service(MemoryStore()), method, path))

    assert response.status_code == 501
    assert path in response.json()["error"]
    assert "EMARSYS_CDP_UPSTREAM" in response.json()["error"]


def test_the_features_are_answered_alone() -> None:
    """Without a stock transformer the host learns all it needs from us."""
    response = asyncio.run(one(make_service(MemoryStore()), "GET", "/features"))

    assert response.status_code == 200
    assert response.json()["routerTransform"] == {"EMARSYS": True}
    assert response.json()["upgradedToSourceTransformV2"] is True


@pytest.mark.parametrize(("path", "status"), [("/health", "ok"), ("/ready", "ready")])
def test_a_service_that_works_says_so(path: str, status: str) -> None:
    """Health and readiness are JSON with a status."""
    response = asyncio.run(one(make_service(MemoryStore()), "GET", path))

    assert (response.status_code, response.json()["status"]) == (200, status)


def test_before_its_start_everything_is_asked_to_come_again() -> None:
    """A host that is quicker than the store loses nothing."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=make_app(make_service(MemoryStore())))
        async with httpx.AsyncClient(transport=transport, base_url="http://emarsys-cdp") as client:
            return await Host(client).send(PROCESSOR, request_of(PROCESSOR, [person(1)]))

    response = asyncio.run(run())

    assert (response.status_code, response.json()["error"]) == (503, "the service is starting")


def test_metrics_count_what_became_of_the_calls() -> None:
    """By type and outcome, and the requests by their kind."""

    async def run() -> dict[str, float]:
        calls = [person(1), person(2), call("track", 3, userId="user-1"), {"type": "erase"}, call("page", 4)]
        async with host_of(make_service(MemoryStore())) as host:
            await host.send(ROUTER, request_of(ROUTER, calls))
            await host.send(ROUTER, b"no JSON")
            counted = [("identify", "request"), ("track", "refused"), ("other", "refused"), ("page", "filtered")]
            found = {
                f"{kind} {outcome}": await host.metric(
                    "emarsys_cdp_calls_total", host="rudderstack", type=kind, outcome=outcome
                )
                for kind, outcome in counted
            }
            found["contact"] = await host.metric("emarsys_cdp_requests_total", kind="contact")
            for status in ("200", "400"):
                found[status] = await host.metric("emarsys_cdp_http_seconds_count", path=ROUTER, status=status)
            return found

    assert asyncio.run(run()) == {
        "identify request": 2, "track refused": 1, "other refused": 1, "page filtered": 1,
        "contact": 1, "200": 1, "400": 1,
    }  # fmt: skip


def test_metrics_hold_no_person_no_path_and_no_secret() -> None:
    """Labels are of fixed sets: what comes from outside does not reach them."""

    async def run() -> str:
        async with host_of(make_service(MemoryStore(), host_token=Secret(HOST_TOKEN))) as host:
            headers = {"authorization": f"Bearer {HOST_TOKEN}"}
            calls = [person(1), call("user-9@example.com"), {"type": "identify"}]
            await host.send(ROUTER, request_of(ROUTER, calls, OAUTH_KEY), headers)
            await host.client.get("/user-9@example.com", headers=headers)
            return (await host.client.get("/metrics")).text

    text = asyncio.run(run())

    assert 'type="other"' in text
    for hidden in ("example.com", "user-", "dest-1", "m-1", OAUTH_KEY["apiKey"], "s3cret", HOST_TOKEN):
        assert hidden not in text


def test_the_id_of_a_request_is_kept_or_made() -> None:
    """Whoever looks for a request finds it in the log by the id in its answer."""

    async def run() -> list[str]:
        async with host_of(make_service(MemoryStore())) as host:
            body = request_of(ROUTER, [person(1)])
            given = await host.send(ROUTER, body, {"x-request-id": "given-by-the-host"})
            made = [await host.send(ROUTER, body), await host.send(ROUTER, b"no JSON")]
            return [response.headers["x-request-id"] for response in (given, *made)]

    assert asyncio.run(run()) == ["given-by-the-host", "request-1", "request-2"]


def test_the_id_of_a_request_is_in_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line that is written for a request carries its id, and no line of the next one does."""

    async def run() -> None:
        async with host_of(make_service(MemoryStore())) as host:
            for name in ("first", "second"):
                await host.send(ROUTER, b"no JSON", {"x-request-id": name})

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()])
    asyncio.run(run())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [line["request"] for line in lines if line["event"] == "request_refused"] == ["first", "second"]


def basic(password: str) -> dict[str, str]:
    """Return a header of basic authentication."""
    return {"authorization": "Basic " + b64encode(f"any:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {HOST_TOKEN}"}, {"authorization": f"bearer {HOST_TOKEN}"}, basic(HOST_TOKEN)]
)
@pytest.mark.parametrize("path", TRANSFORMS)
def test_a_host_with_the_token_is_answered(path: str, headers: dict[str, str]) -> None:
    """It is sent as a bearer token, or as the password in the transformer's URL."""

    async def run() -> httpx.Response:
        async with host_of(make_service(MemoryStore(), host_token=Secret(HOST_TOKEN))) as host:
            return await host.send(path, request_of(path, [person(1)]), headers)

    assert answers(path, asyncio.run(run()))[0]["statusCode"] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": ""}, {"authorization": HOST_TOKEN}, {"authorization": "Bearer"},
        {"authorization": f"Bearer {HOST_TOKEN}x"}, {"authorization": f"Digest {HOST_TOKEN}"},
        {"authorization": "Basic %%%"}, {"authorization": "Basic //79"}, basic("wrong"), basic(""),
        {"authorization": b"Bearer \xff\xfe".decode("latin-1")},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", TRANSFORMS)
def test_a_host_without_the_token_loses_nothing(path: str, headers: dict[str, str]) -> None:
    """It gets a 503 and asks again; until somebody mends the setting nothing is read or stored."""
    service = make_service(MemoryStore(), host_token=Secret(HOST_TOKEN))

    async def run() -> httpx.Response:
        async with host_of(service) as host:
            wire = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            return await host.client.post(path, content=request_of(path, [person(1)]), headers=wire)

    response = asyncio.run(run())

    assert response.status_code == 503
    assert response.headers["x-rudder-should-retry"] == "true"
    assert "EMARSYS_CDP_HOST_TOKEN" in response.json()["error"]
    assert HOST_TOKEN not in response.text
    assert store_of(service).records == {}


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_who_looks_after_the_service_needs_no_token(path: str) -> None:
    """Probes have none to send, and there is nothing to learn from their answers."""
    response = asyncio.run(one(make_service(MemoryStore(), host_token=Secret(HOST_TOKEN)), "GET", path))

    assert response.status_code == 200


def test_a_body_beyond_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused with 413; one that just fits is answered."""
    body = request_of(ROUTER, [person(1)])

    async def run() -> list[int]:
        async with host_of(make_service(MemoryStore())) as host:
            found = []
            for limit in (len(body), len(body) - 1):
                monkeypatch.setattr(app_module, "MAX_BODY", limit)
                found.append((await host.send(ROUTER, body)).status_code)
            return found

    assert asyncio.run(run()) == [200, 413]


def test_one_request_may_be_for_several_destinations() -> None:
    """Each call is answered with its own destination's settings, and people of two spaces never meet."""
    service = make_service(MemoryStore())
    inputs = [
        {"message": person(1), "metadata": metadata(job, space), "destination": destination(config, space)}
        for job, space, config in (
            (1, "dest-1", None), (2, "dest-2", {"apiKey": "wsse:other:s3cret"}), (3, "dest-1", None), (4, "dest-3", {}),
        )
    ]  # fmt: skip

    async def run() -> httpx.Response:
        async with host_of(service) as host:
            return await host.send(ROUTER, json.dumps({"input": inputs, "destType": "emarsys"}).encode())

    found = by_job(ROUTER, asyncio.run(run()))

    assert found[1] == found[3]
    assert 'Username="customer001"' in found[1][0]["batchedRequest"]["headers"]["X-WSSE"]
    assert 'Username="other"' in found[2][0]["batchedRequest"]["headers"]["X-WSSE"]
    assert [output["destination"]["ID"] for job in (1, 2, 4) for output in found[job]] == ["dest-1", "dest-2", "dest-3"]
    assert found[4][0]["statusCode"] == 400
    assert len(store_of(service).records) == 2


class RaisesForOne:
    """An extension that breaks on one call, and would filter every other."""

    @hookimpl
    def emarsys_cdp_decide_actions(self, calls: Sequence[Call]) -> list[Decision]:
        """Break on the second call."""
        if any(one.message_id == "m-2" for one in calls):
            raise ZeroDivisionError
        return [Filtered("by the extension")] * len(calls)


@pytest.mark.parametrize("path", TRANSFORMS)
def test_an_extension_that_breaks_is_passed_over(path: str) -> None:
    """The batch is answered as if it were not installed."""
    manager = build_plugin_manager([])
    manager.register(RaisesForOne(), name="raises-for-one")
    body = request_of(path, [person(1), person(2), person(3)], OAUTH_KEY)

    async def run(service: Service) -> bytes:
        async with host_of(service) as host:
            return (await host.send(path, body)).content

    with_it = asyncio.run(run(make_service(MemoryStore(), manager=manager)))

    assert with_it == asyncio.run(run(make_service(MemoryStore())))


def break_for(monkeypatch: pytest.MonkeyPatch, message_id: str) -> None:
    """Let a built-in step break on one call."""
    decide = contacts._decide

    def breaking(space: Any, one: Call, *more: Any) -> Decision:
        if one.message_id == message_id:
            raise ZeroDivisionError(f"secret of {one.message_id}")
        return decide(space, one, *more)

    monkeypatch.setattr(contacts, "_decide", breaking)


@pytest.mark.parametrize("path", [ROUTER, BATCH])
def test_a_fault_of_ours_costs_the_call_that_meets_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That call comes again; the others are sent, each as alone."""
    break_for(monkeypatch, "m-2")
    body = request_of(path, [person(1), person(2), person(3)], OAUTH_KEY)

    async def run() -> httpx.Response:
        async with host_of(make_service(MemoryStore())) as host:
            return await host.send(path, body)

    found = by_job(path, asyncio.run(run()))

    assert [found[job][0]["statusCode"] for job in (101, 102, 103)] == [200, 500, 200]
    assert found[102][0]["error"] == "a fault of emarsys-cdp (ZeroDivisionError); its log says more"
    assert found[101][0]["batchedRequest"]["body"]["JSON"]["contacts"] == [{"3": "1@example.com"}]


def test_a_fault_of_ours_at_the_processor_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status for the one call would be its end there, so the request comes again until the fault is mended."""
    break_for(monkeypatch, "m-2")
    body = request_of(PROCESSOR, [person(1), person(2), person(3)])

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(MemoryStore())) as host:
            broken = await host.send(PROCESSOR, body)
            monkeypatch.undo()
            return [broken, await host.send(PROCESSOR, body)]

    broken, mended = asyncio.run(run())

    assert broken.status_code == 503
    assert "secret" not in broken.text
    assert [output["statusCode"] for output in answers(PROCESSOR, mended)] == [200, 200, 200]


def test_requests_at_the_same_time_share_one_token_and_get_their_own_answers() -> None:
    """Fifty requests at once: one token, and nobody's call in another's answer."""
    fetches: list[httpx.Request] = []

    def fetch(request: httpx.Request) -> httpx.Response:
        fetches.append(request)
        return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})

    client = httpx.AsyncClient(transport=httpx.MockTransport(fetch))

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(MemoryStore(), client=client)) as host:
            bodies = [request_of(ROUTER, [person(number)], OAUTH_KEY) for number in range(50)]
            return await asyncio.gather(*(host.send(ROUTER, body) for body in bodies))

    for number, response in enumerate(asyncio.run(run())):
        (output,) = answers(ROUTER, response)

        assert output["batchedRequest"]["body"]["JSON"]["contacts"] == [{"3": f"{number}@example.com"}]
    assert len(fetches) == 1
