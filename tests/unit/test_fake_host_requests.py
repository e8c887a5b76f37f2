"""The requests of a FakeHost, byte for byte where it matters: transforms, deliveries, the proxy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emarsys_cdp.testing.conformance_wire import read_request
from emarsys_cdp.testing.fake_host.delivery import Unsendable, readable, wire_of
from emarsys_cdp.testing.fake_host.http_client import Address, Response
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.outcome import read_requests
from emarsys_cdp.testing.fake_host.proxy import proxy_request
from emarsys_cdp.testing.fake_host.requests import Item, processor_request, router_request
from emarsys_cdp.testing.fake_host.verdict import Output
from emarsys_cdp.testing.fake_host.workspace import simple_workspace
from emarsys_cdp_hooks import StopAndFix

SOURCE = simple_workspace({"dest-1": {"b": 1, "apiKey": "k"}, "dest-2": {}}, "wk").sources[0]
REQUEST: dict[str, Any] = {
    "type": "REST",
    "method": "PUT",
    "endpoint": "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1",
    "headers": {"Content-Type": "application/json", "Authorization": "Bearer t"},
    "params": {},
    "body": {
        "JSON": {"key_id": "3", "contacts": [{"3": "a@x.com", "2": 1.0}]},
        "JSON_ARRAY": {},
        "XML": {},
        "FORM": {},
    },
    "files": {},
}


def item(number: int, destination: int = 0, **changes: Any) -> Item:
    """Return a job of a request."""
    target = SOURCE.active[destination]
    record = Record(
        id=number,
        place=(number, 0),
        source=SOURCE.id,
        destination=target.id,
        call={"type": "track", "event": "Order Completed", "messageId": f"m-{number}"},
        message=b'{"type":"track"}',
        order_key="<<>>a<<>>u",
        received="2026-11-23T10:00:00.100Z",
        created="2026-11-23T10:00:01.000Z",
        **changes,
    )
    return Item(record, SOURCE, target, "2026-11-23T10:00:02.123456000Z")


def test_a_plain_router_request() -> None:
    """Every job brings its destination and a connection with nothing in it, and destType comes last."""
    request = json.loads(router_request([item(101, attempts=2, first_attempted="t", dont_batch=True)], compacted=False))

    assert list(request) == ["input", "destType"]
    assert request["destType"] == "emarsys"
    assert request["input"] == [
        {
            "message": {"type": "track"},
            "metadata": {
                "userId": "<<>>a<<>>u",
                "jobId": 101,
                "sourceId": "src-1",
                "sourceCategory": "",
                "destinationId": "dest-1",
                "attemptNum": 2,
                "receivedAt": "2026-11-23T10:00:00.100Z",
                "createdAt": "2026-11-23T10:00:01.000Z",
                "firstAttemptedAt": "t",
                "transformAt": "router",
                "workspaceId": "ws-1",
                "secret": None,
                "workerAssignedTime": "2026-11-23T10:00:02.123456000Z",
                "dontBatch": True,
                "traceparent": "",
            },
            "destination": json.loads(SOURCE.active[0].payload),
            "connection": {
                "sourceId": "",
                "destinationId": "",
                "enabled": False,
                "config": None,
                "processorEnabled": False,
            },
        }
    ]


def test_a_compacted_router_request() -> None:
    """Destinations and connections stand once, beside the jobs."""
    request = json.loads(router_request([item(1), item(2), item(3, 1)], compacted=True))

    assert list(request) == ["input", "destType", "destinations", "connections"]
    assert [list(one) for one in request["input"]] == [["message", "metadata"]] * 3
    assert list(request["destinations"]) == ["dest-1", "dest-2"]
    assert list(request["connections"]) == ["src-1:dest-1", "src-1:dest-2"]


def test_a_processor_request() -> None:
    """An array in the plain form; the metadata is that of events, and there is no destType."""
    plain = json.loads(processor_request([item(55)], compacted=False))
    compacted = json.loads(processor_request([item(55)], compacted=True))

    assert list(plain[0]) == ["message", "metadata", "destination", "connection", "libraries", "credentials"]
    assert list(compacted) == ["input", "destinations", "connections"]
    assert plain[0]["metadata"] == compacted["input"][0]["metadata"]
    assert plain[0]["metadata"] == {
        "jobId": 55,
        "workspaceId": "ws-1",
        "rudderId": "<<>>a<<>>u",
        "receivedAt": "2026-11-23T10:00:00.100Z",
        "messageId": "m-55",
        "eventName": "Order Completed",
        "eventType": "track",
        "sourceId": "src-1",
        "originalSourceId": "",
        "sourceDefinitionId": "sd-1",
        "sourceName": "http",
        "sourceType": "HTTP",
        "sourceCategory": "",
        "destinationId": "dest-1",
        "destinationName": "Emarsys dest-1",
        "destinationType": "EMARSYS",
        "destinationDefinitionId": "def-1",
    }


@pytest.mark.parametrize("compacted", [False, True])
def test_the_checks_can_read_the_requests(compacted: bool) -> None:
    """What the host sends is strict JSON of the form that the checks know, each job with its destination."""
    for body, bare in (
        (router_request([item(1), item(2, 1)], compacted=compacted), False),
        (processor_request([item(1), item(2, 1)], compacted=compacted), True),
    ):
        asked = read_request(body, b"", bare=bare)
        assert asked is not None
        assert asked.strict
        assert [(job.metadata["jobId"], job.destination["ID"]) for job in asked.jobs] == [(1, "dest-1"), (2, "dest-2")]


def wire(**changes: Any) -> tuple[str, str, dict[str, str], bytes | None]:
    """Return what a request becomes on the wire."""
    (request,) = read_requests(json.dumps({**REQUEST, **changes}).encode(), several=True)
    made = wire_of(request)
    return made.method, made.url, dict(made.headers), made.body


def test_a_delivery_is_the_request_with_a_recoded_body() -> None:
    """Method, URL and headers are its own; the JSON body has gone through a Go map."""
    assert wire() == (
        "PUT",
        "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1",
        {"User-Agent": "RudderLabs", "Content-Type": "application/json", "Authorization": "Bearer t"},
        b'{"contacts":[{"2":1,"3":"a@x.com"}],"key_id":"3"}',
    )


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"JSON": {}, "JSON_ARRAY": {"batch": '[ {"b": 1.0} ]'}}, b'[ {"b": 1.0} ]'),
        ({"XML": {"payload": "<a/>"}}, b"<a/>"),
        ({"FORM": {"b": "x y", "a": 2}}, b"a=2&b=x+y"),
        ({"JSON": {}}, None),
        (None, None),
    ],
)
def test_the_first_body_with_something_in_it_is_sent(body: Any, want: bytes | None) -> None:
    """Text bodies are sent to the letter."""
    assert wire(body=body)[3] == want


@pytest.mark.parametrize(
    ("params", "want"),
    [
        ({"b": "x&y", "a": {"n": 1.0}}, "http://x/p?a=%7B%22n%22%3A1%7D&b=x%26y&q=%C3%A4&z="),
        (None, "http://x/p?q=%C3%A4&z="),
    ],
)
def test_params_join_the_query(params: Any, want: str) -> None:
    """All are sorted by name, as Go does, and objects are JSON text."""
    assert wire(endpoint="http://x/p?z&q=ä", params=params)[1] == want


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"body": {"JSON": [1]}}, 500),
        ({"body": {"JSON": None}}, 500),
        ({"body": {"CSV": {"a": 1}}}, 500),
        ({"body": {"JSON_ARRAY": {"batch": [1]}}}, 400),
        ({"method": "PUT it"}, 400),
    ],
)
def test_what_cannot_be_sent_has_a_status(changes: dict[str, Any], status: int) -> None:
    """It is the one that the server gives itself."""
    with pytest.raises(Unsendable) as unsendable:
        wire(**changes)

    assert unsendable.value.status == status


@pytest.mark.parametrize("text", [b"[{}, 1]", b'{"headers": {"a": 1}}', b"null", b'{"body": 5}', b""])
def test_a_request_of_wrong_types_cannot_be_read(text: bytes) -> None:
    """The host answers that with a 599."""
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of msgspec
        read_requests(text, several=True)


def test_an_array_of_requests_is_for_the_router_stage() -> None:
    """At the processor stage each output is one request."""
    text = json.dumps([REQUEST, REQUEST]).encode()

    assert len(read_requests(text, several=True)) == 2
    with pytest.raises(ValueError, match="Expected `object`"):
        read_requests(text, several=False)


@pytest.mark.parametrize(
    ("content_type", "want"),
    [
        ("application/json; charset=utf-8", "{}"),
        ("text/html", "{}"),
        ("image/png", "redacted due to unsupported content-type"),
    ],
)
def test_only_readable_answers_are_kept(content_type: str, want: str) -> None:
    """The server keeps text, JSON and XML."""
    assert readable(Response(200, {"content-type": content_type}, b"{}")) == want


def test_the_proxy_gets_the_request_its_jobs_and_the_settings() -> None:
    """To the letter: order of the names, no user, nothing of the version; the maps have gone through Go."""
    (request,) = read_requests(
        json.dumps({**REQUEST, "version": "1", "endpointPath": "/contact"}).encode(), several=True
    )
    items = [item(102), item(103, attempts=1, dont_batch=True)]
    output = Output(tuple(one.record for one in items), 200, config=b'{"z":1.0,"a":"s"}')

    assert proxy_request(request, output, items, v1=True) == (
        b'{"type":"REST","endpoint":"https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1",'
        b'"endpointPath":"/contact","method":"PUT","userId":"",'
        b'"headers":{"Authorization":"Bearer t","Content-Type":"application/json"},"params":{},'
        b'"body":{"FORM":{},"JSON":{"contacts":[{"2":1,"3":"a@x.com"}],"key_id":"3"},"JSON_ARRAY":{},"XML":{}},'
        b'"files":{},"metadata":['
        b'{"jobId":102,"attemptNum":0,"userId":"","sourceId":"src-1","destinationId":"dest-1","workspaceId":"ws-1",'
        b'"secret":null,"dontBatch":false},'
        b'{"jobId":103,"attemptNum":1,"userId":"","sourceId":"src-1","destinationId":"dest-1","workspaceId":"ws-1",'
        b'"secret":null,"dontBatch":true}],"destinationConfig":{"a":"s","z":1}}'
    )


def test_the_old_proxy_gets_one_job_and_no_settings() -> None:
    """Version 0 has the metadata of the first job; what a request lacks is null or empty."""
    (request,) = read_requests(b'{"method": "GET"}', several=True)
    items = [item(102), item(103)]
    output = Output(tuple(one.record for one in items), 200)

    body = json.loads(proxy_request(request, output, items, v1=False))

    assert body["metadata"]["jobId"] == 102
    assert "destinationConfig" not in body
    assert "endpointPath" not in body
    assert (body["headers"], body["body"], body["type"]) == (None, None, "")


@pytest.mark.parametrize(
    ("url", "token", "base", "authorization"),
    [
        ("http://t:9090", None, "http://t:9090", {}),
        ("http://t:9090/below/", None, "http://t:9090/below", {}),
        ("http://:s%2Fx@t:9090", None, "http://t:9090", {"Authorization": "Basic OnMveA=="}),
        ("https://u:p@[::1]", "token", "https://[::1]", {"Authorization": "Basic dTp0b2tlbg=="}),
    ],
)
def test_the_transformers_address(url: str, token: str | None, base: str, authorization: dict[str, str]) -> None:
    """A token is the password of basic authentication, which a real server takes from the URL."""
    address = Address(url, token)

    assert (address.base, address.authorization) == (base, authorization)


@pytest.mark.parametrize("url", ["", "t:9090", "ftp://t", "http://t:0", "http://t:x", "http://u:hunter2@"])
def test_a_wrong_address_is_told_without_its_password(url: str) -> None:
    """The message says what would be right."""
    with pytest.raises(StopAndFix, match=r"such as http://127\.0\.0\.1:9090") as error:
        Address(url)

    assert "hunter2" not in str(error.value)
