"""Real requests, spoilt at random: whatever comes in, the answer is one that the host takes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import structlog
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.support.app import BATCH, CHECKS, PROCESSOR, ROUTER
from tests.support.requests import API_KEY, OAUTH_KEY, call, processor_request, router_request
from tests.support.world import make_service

from emarsys_cdp.service.assembly import Service
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.testing import expect
from emarsys_cdp_hooks import DropCall
from emarsys_cdp_manifests import read

Json: TypeAlias = Any
Place: TypeAlias = tuple[str | int, ...]

STEADY = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("quick", max_examples=150, deadline=None, database=None, derandomize=True)
settings.register_profile("thorough", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=STEADY)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
"""150 examples of each kind, endpoint and service, the same in every run; thorough: 20,000, others in every run."""

STOCK = {
    "emersysUsername": "customer001",
    "emersysUserSecret": "s3cret",
    "defaultContactList": "77",
    "discardEmptyProperties": True,
    "fieldMapping": [
        {"rudderProperty": "email", "emersysProperty": "3"},
        {"rudderProperty": "a.b", "emersysProperty": "9"},
    ],
    "eventsMapping": [{"from": "Order Completed", "to": "5678"}],
}
DYNAMIC = {**STOCK, "defaultContactList": '{{ traits.list || "77" }}', "apiKey": "{{ context.key || wsse:u:s }}"}
CONFIGS = (API_KEY, OAUTH_KEY, STOCK, DYNAMIC)
SENT: Json = {
    "version": "1", "type": "REST", "method": "PUT", "userId": "", "headers": {}, "params": {}, "files": {},
    "endpoint": "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1",
    "body": {"JSON": {"key_id": "3"}, "JSON_ARRAY": {}, "XML": {}, "FORM": {}},
}  # fmt: skip

ODD: Sequence[Json] = (
    None, True, False, 0, -1, 1.5, 2**53 + 1, -(2**63), 2**64, 10**30, 1e308, float("nan"), float("inf"),
    "", " ", "0", "null", "\0", "\ud800", "é\u0301", "😀" * 70, "x" * 17_000, "{{ a.b || c }}", "{{ || }}",
    "2026-11-23T10:00:00Z", "0001-01-01", "99999999999999999999", "@", "a@b", "identify", "dest-1", "endpoint",
    [], {}, [[]], [{}], [None], {"": None}, {"a": {"b": [1, "x"]}}, ["x"] * 1001, {"endpoint": 1}, SENT,
)  # fmt: skip
"""Values that are put where others were expected."""


def fixed_calls() -> list[Json]:
    """Return a call of every type, with every part that a step looks at."""
    traits = {"email": "a@example.com", "firstName": "A", "a": {"b": 1}, "list": 5, "31": True}
    track = {"event": "Order Completed", "properties": {"data": {"sku": "x"}, "attachment": [{"filename": "f"}]}}
    emarsys = {"EMARSYS": {"contactListId": 12, "customIdentifierId": "9", "trigger_id": "t"}}
    return [
        call("identify", 1, userId="u-1", anonymousId="a-1", traits=traits),
        call("track", 2, userId="u-1", context={"traits": traits, "key": "wsse:u:s"}, **track),
        call("identify", 3, anonymousId="a-1", context={"traits": traits}, integrations=emarsys),
        call("group", 4, userId="u-2", groupId="99", traits=traits),
        call("alias", 5, userId="u-1", previousId="u-0"),
        call("screen", 6, userId="u-2", name="Home", messageId=None),
    ]


def batches() -> list[list[Json]]:
    """Return batches of real calls: our own, and those of the demonstration."""
    return [fixed_calls(), *json.loads(read("demo/calls.json"))["batches"]]


def real_requests(path: str) -> list[bytes]:
    """Return real requests of an endpoint, plain and compacted, with every kind of settings."""
    build: Callable[..., bytes] = processor_request if path == PROCESSOR else router_request
    return [
        build(calls, config, compacted=compacted)
        for calls in batches()
        for config in CONFIGS
        for compacted in (False, True)
    ]


def places(value: Json, at: Place = ()) -> Iterator[Place]:
    """Yield the place of every value inside *value*, but not inside a request, which passes as it came."""
    if value == SENT:
        return
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield (*at, name)
        yield from places(child, (*at, name))


def holder(value: Json, place: Place) -> Json:
    """Return the object or array that holds what is at *place*."""
    for name in place[:-1]:
        value = value[name]
    return value


def put(value: Json, place: Place, odd: Json) -> None:
    """Put another value at *place*."""
    holder(value, place)[place[-1]] = deepcopy(odd)


def cut(value: Json, place: Place, odd: Json) -> None:
    """Take away what is at *place*."""
    del holder(value, place)[place[-1]]


def twice(value: Json, place: Place, odd: Json) -> None:
    """Let what is at *place* stand there twice: a further element, or a further name."""
    inside, name = holder(value, place), place[-1]
    if isinstance(inside, list):
        inside.append(deepcopy(inside[int(name)]))
    else:
        inside[f"{name}2"] = deepcopy(inside[name])


def wrap(value: Json, place: Place, odd: Json) -> None:
    """Put what is at *place* into an array."""
    put(value, place, [holder(value, place)[place[-1]]])


@st.composite
def spoilt_trees(draw: st.DrawFn, requests: Sequence[bytes]) -> bytes:
    """Return a request with one to four values replaced, cut, doubled or wrapped, anywhere in it."""
    value = json.loads(draw(st.sampled_from(requests)))
    for _ in range(draw(st.integers(1, 4))):
        found = list(places(value))
        if found:
            edit = draw(st.sampled_from((put, put, put, cut, twice, wrap)))
            edit(value, draw(st.sampled_from(found)), draw(st.sampled_from(ODD)))
    return json.dumps(value).encode()


@st.composite
def spoilt_bytes(draw: st.DrawFn, requests: Sequence[bytes]) -> bytes:
    """Return a request with one to six bytes flipped, cut out or put in."""
    text = bytearray(draw(st.sampled_from(requests)))
    for _ in range(draw(st.integers(1, 6))):
        position = draw(st.integers(0, len(text) - 1))
        edit = draw(st.sampled_from(("flip", "set", "cut", "insert")))
        if edit == "flip":
            text[position] ^= 1 << draw(st.integers(0, 7))
        elif edit == "set":
            text[position] = draw(st.sampled_from(b'"\\{}[]:,0 \xff\0'))
        elif edit == "cut":
            del text[position : position + draw(st.integers(1, 40))]
        else:
            text[position:position] = bytes([draw(st.sampled_from(b'"\\{}[]:,0 \xff\0'))])
        if not text:
            break
    return bytes(text)


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Write no logs: there would be a line for every bad call."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.fixture(scope="module", params=["default", "document"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Return a service with the documents of the demonstration, and one without any; built once, as it is slow."""
    directory: Path = tmp_path_factory.mktemp("documents")
    if request.param == "document":
        (directory / "default.json").write_bytes(read("demo/document.json"))
    service = make_service(MemoryStore(), rules_dir=directory)
    asyncio.run(service.documents.refresh())
    return service


def answer(service: Service, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body of the answer, over an empty users table."""
    assert isinstance(service.store, MemoryStore)
    service.store.rows.clear()
    service.store.records.clear()
    endpoint = {ROUTER: service.rudderstack.router, BATCH: service.rudderstack.batch}
    try:
        return 200, asyncio.run(endpoint.get(path, service.rudderstack.processor)(body))
    except DropCall as error:
        return 400, str(error).encode()


def judge(service: Service, path: str, body: bytes) -> None:
    """Send a request; nothing may be raised, the host must take the answer, and no call may come for ever."""
    note(f"{path} {body!r}")
    status, reply = answer(service, path, body)

    expect(CHECKS[path](body, status, {"apiVersion": "2"}, reply))
    assert b'"statusCode":500' not in reply, reply


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
def test_a_request_with_odd_values_is_answered(path: str, service: Service) -> None:
    """Values of other types anywhere in the request: every job is answered, and none is asked for again."""
    requests = real_requests(path)

    @PROFILE
    @given(spoilt_trees(requests))
    def run(body: bytes) -> None:
        judge(service, path, body)

    run()


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
def test_a_request_with_broken_bytes_is_answered(path: str, service: Service) -> None:
    """Bytes flipped, cut out or put in: what can be read is answered, the rest is refused."""
    requests = real_requests(path)

    @PROFILE
    @given(spoilt_bytes(requests))
    def run(body: bytes) -> None:
        judge(service, path, body)

    run()


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
def test_most_unspoilt_requests_send_something(path: str, service: Service) -> None:
    """What is spoilt above is worth it: the way to the end of the pipeline is open."""
    replies = [answer(service, path, body) for body in real_requests(path)]
    sending = [status == 200 and b'"statusCode":200' in reply for status, reply in replies]

    assert sum(sending) > len(sending) / 2
