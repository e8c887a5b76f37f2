"""The host's verdict: a good answer has no breach, and each rule finds the answer that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from typing import Any, TypeAlias

import pytest
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.testing import (
    Breach,
    Rule,
    check_batch_answer,
    check_processor_answer,
    check_router_answer,
    expect,
)

Json: TypeAlias = Any
FORMS = ("plain", "compacted")
ROUTER = ("router", "batch")
PROCESSOR = ("processor",)
EVERY = (*ROUTER, *PROCESSOR)
CHECKS = {"router": check_router_answer, "batch": check_batch_answer, "processor": check_processor_answer}


class Exchange(Struct, frozen=True):
    """A request of the host and the answer to it."""

    request: bytes
    status: int
    headers: dict[str, str]
    body: bytes


Edit: TypeAlias = Callable[[Json], Json]
Wire: TypeAlias = Callable[[Exchange], Exchange]


class Case(Struct, frozen=True):
    """One change of a good answer: *edit* changes its outputs, *wire* what goes over the line."""

    note: str
    rules: frozenset[Rule]
    edit: Edit
    wire: Wire
    endpoints: tuple[str, ...]
    byte_for_byte: bool


def case(
    note: str,
    rules: Rule | set[Rule],
    edit: Edit = lambda outputs: outputs,
    *,
    wire: Wire = lambda exchange: exchange,
    endpoints: tuple[str, ...] = ROUTER,
    byte_for_byte: bool = True,
) -> Case:
    """Return a case for one rule or several."""
    wanted = frozenset({rules} if isinstance(rules, Rule) else rules)
    return Case(note, wanted, edit, wire, endpoints, byte_for_byte)


event = partial(case, endpoints=PROCESSOR)
every = partial(case, endpoints=EVERY)


def put(*path: str | int, value: Json) -> Edit:
    """Return an edit that sets the value at *path*, or changes it, where *value* is a function."""

    def edit(outputs: Json) -> Json:
        place = reduce(getitem, path[:-1], outputs)
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value
        return outputs

    return edit


def cut(*path: str | int) -> Edit:
    """Return an edit that takes away what is at *path*."""

    def edit(outputs: Json) -> Json:
        del reduce(getitem, path[:-1], outputs)[path[-1]]
        return outputs

    return edit


def answer(**fields: Any) -> Wire:
    """Return a change of the status, the headers, the body or the request."""
    return lambda exchange: replace(exchange, **fields)


def swap(old: bytes, new: bytes) -> Wire:
    """Return a change of bytes in the body, once."""

    def change(exchange: Exchange) -> Exchange:
        assert old in exchange.body
        return replace(exchange, body=exchange.body.replace(old, new, 1))

    return change


def go_json(value: Json) -> bytes:
    """Write JSON as a Go host writes it: compact, with `<` and `>` escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").encode()


def destination(name: str) -> Json:
    """Return a destination as the host sends it."""
    definition = {"ID": "def-1", "Name": "EMARSYS", "Config": {"transformAtV1": "router"}}
    config = {"apiKey": f"wsse:customer:{name}-s3cret", "limit": 5}
    return {
        "ID": name, "Name": f"Emarsys {name}", "DestinationDefinition": definition, "Config": config,
        "Enabled": True, "WorkspaceID": "ws-1", "Transformations": None, "hasDynamicConfig": False,
    }  # fmt: skip


def router_metadata(job: int, dest: str) -> Json:
    """Return the metadata of a router job."""
    return {
        "userId": f"<<>>anon<<>>user-{job}", "jobId": job, "sourceId": "src-1", "destinationId": dest,
        "attemptNum": 0, "secret": None, "workerAssignedTime": "2026-11-23T10:00:02.123456789Z",
        "dontBatch": False,
    }  # fmt: skip


def event_metadata(job: int, message: str) -> Json:
    """Return the metadata of an event; the events of one gateway job share its jobId."""
    return {"jobId": job, "messageId": message, "destinationId": "dest-1", "rudderId": "<<>>anon<<>>user"}


ROUTER_JOBS = [
    router_metadata(job, dest)
    for job, dest in ((101, "dest-1"), (102, "dest-1"), (103, "dest-2"), (104, "dest-1"), (105, "dest-1"))
]
EVENTS = [event_metadata(55, "m-1"), event_metadata(55, "m-2"), event_metadata(56, "m-3")]


def request_of(metadata: list[Json], form: str, endpoint: str) -> bytes:
    """Return the request of the host for jobs or events, in one of its two forms."""
    inputs = [{"message": {"type": "track"}, "metadata": given} for given in metadata]
    names = {given["destinationId"]: destination(given["destinationId"]) for given in metadata}
    if form == "compacted":
        return go_json({"input": inputs, "destType": "emarsys", "destinations": names})
    whole = [given | {"destination": names[given["metadata"]["destinationId"]]} for given in inputs]
    return go_json(whole if endpoint == "processor" else {"input": whole, "destType": "emarsys"})


def sent() -> Json:
    """Return a request that the host can send."""
    return {
        "version": "1", "type": "REST", "method": "PUT", "userId": "", "headers": {"X-WSSE": "token"},
        "endpoint": "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1", "params": {},
        "body": {"JSON": {"key_id": "3"}, "JSON_ARRAY": {}, "XML": {}, "FORM": {}}, "files": {},
    }  # fmt: skip


def router_outputs() -> Json:
    """Return a delivery of two jobs, one for another destination, a refusal and a filtered call."""
    one, two, three, four, five = json.loads(json.dumps(ROUTER_JOBS))
    refusal = {"statusCode": 400, "error": "no such event", "statTags": {"errorType": "aborted"}}
    made: list[Json] = [
        {"batchedRequest": sent(), "metadata": [one, two], "batched": True, "statusCode": 200},
        {"batchedRequest": sent(), "metadata": [three], "batched": False, "statusCode": 200},
        {"metadata": [four], "batched": False, **refusal},
        {"metadata": [five], "batched": False, "statusCode": 298},
    ]
    return [output | {"destination": destination(output["metadata"][0]["destinationId"])} for output in made]


def event_outputs() -> Json:
    """Return a delivery, a filtered event and a refusal."""
    one, two, three = json.loads(json.dumps(EVENTS))
    return [
        {"output": sent(), "metadata": one, "statusCode": 200},
        {"metadata": two, "statusCode": 298, "error": "not supported"},
        {"metadata": three, "statusCode": 400, "error": "no identifier", "statTags": {}},
    ]


def exchange_of(given: Case, form: str, endpoint: str) -> Exchange:
    """Return a good exchange, with the change of the case made."""
    at_processor = endpoint == "processor"
    outputs = given.edit(event_outputs() if at_processor else router_outputs())
    request = request_of(EVENTS if at_processor else ROUTER_JOBS, form, endpoint)
    body = go_json({"output": outputs} if endpoint == "router" else outputs)
    return given.wire(Exchange(request, 200, {"apiVersion": "2"}, body))


def verdict(given: Case, form: str, endpoint: str) -> tuple[Breach, ...]:
    """Return what the check of the endpoint finds."""
    made = exchange_of(given, form, endpoint)
    check = CHECKS[endpoint]
    return check(made.request, made.status, made.headers, made.body, byte_for_byte=given.byte_for_byte)


def respaced(exchange: Exchange) -> Exchange:
    """Return the same answer, encoded by another writer."""
    return replace(exchange, body=json.dumps(json.loads(exchange.body), indent=1).encode())


def in_one(outputs: Json) -> Json:
    """Move the job of another destination into the first output."""
    outputs[0]["metadata"] += outputs.pop(1)["metadata"]
    return outputs


def body_of(**formats: Json) -> Json:
    """Return the body of a request with other formats."""
    return {"JSON": {}, "JSON_ARRAY": {}, "XML": {}, "FORM": {}} | formats


R = Rule
FIRST = (0, "batchedRequest")
JOB = (0, "metadata", 0)
BODY = (*FIRST, "body")
TARGET = (0, "destination")
NO_ANSWER = {R.METADATA, R.VERBATIM, R.ANSWERED}
WRONG_ECHO = {R.TYPES, R.METADATA, R.VERBATIM}
LEFT_OUT = {R.EVERY_JOB, R.VERBATIM}
WRONG_TARGET = {R.TYPES, R.DESTINATION}
NEVER = {"X-Rudder-Should-Retry": "no"}
EMPTY: Json = {"metadata": []}
NOBODY = router_metadata(9, "dest-1")
STATUS = b'"statusCode":200'
LONE = b'"error":"\\ud800'
RETRY = {"x-rudder-should-retry": "true"}
IN_HALF = go_json({"input": [{"message": "\x00", "metadata": ROUTER_JOBS[0]}]})[:-9]
NO_JOB = go_json({"input": [{"metadata": {}, "destination": destination("dest-1")}]})
LOOSE = request_of(EVENTS, "compacted", "processor").replace(b'"track"', b'"\\ud800"')

ACCEPTED = [
    every("good", set(Rule) - {R.NOT_FOUND, R.WHOLE_STATUS, R.SHOULD_RETRY}),
    every("header name in lower case", R.API_VERSION, wire=answer(headers={"apiversion": "2"})),
    every("paired surrogates", R.STRICT_JSON, wire=swap(b'"error":"', b'"error":"\\ud83d\\ude00')),
    every("error null", R.TYPES, put(0, "error", value=None)),
    case("no batched", R.TYPES, cut(0, "batched")),
    case("empty statTags", R.TYPES, put(2, "statTags", value={})),
    every("another writer", R.VERBATIM, wire=respaced, byte_for_byte=False),
    case("number as another number", R.DESTINATION, put(*TARGET, "Config", "limit", value=5.0)),
    case("free order", R.EVERY_JOB, lambda outputs: outputs[::-1]),
    case("twice in one metadata", R.EVERY_JOB, put(0, "metadata", value=lambda jobs: jobs * 2)),
    case("several requests", R.HAS_REQUEST, put(*FIRST, value=[sent(), sent()])),
    case("299 needs no request", R.HAS_REQUEST, put(3, "statusCode", value=299)),
    case("no userId", R.SENDABLE, cut(*FIRST, "userId")),
    case("no files", R.SENDABLE, cut(*FIRST, "files")),
    case("no body", R.BODY, put(*BODY, value=body_of())),
    case("array as text", R.BODY, put(*BODY, value=body_of(JSON_ARRAY={"batch": "[]"}))),
    event("filtered without an error", R.ERROR, cut(1, "error")),
    case("job retried later", R.NOT_LOST, put(2, "statusCode", value=500)),
    case("whole request failed", R.NOT_FOUND, wire=answer(status=500, headers={}, body=b"down")),
    every("unreadable request", R.REQUEST, wire=answer(status=400, request=IN_HALF)),
    event("request of the wrong shape", R.WHOLE_STATUS, wire=answer(status=400, request=NO_JOB)),
    event("request loosely read", R.REQUEST, wire=answer(request=LOOSE)),
    event("request loosely written", R.WHOLE_STATUS, wire=answer(status=400, request=LOOSE)),
    event("asks for a retry", R.SHOULD_RETRY, wire=answer(status=503, headers=RETRY)),
    event("one to many", R.ORDER, lambda outputs: [outputs[0], *outputs]),
]  # fmt: skip

REFUSED = [
    every("no apiVersion", R.API_VERSION, wire=answer(headers={})),
    every("another apiVersion", R.API_VERSION, wire=answer(headers={"apiVersion": "1"})),
    every("cut off", R.STRICT_JSON, wire=answer(body=b'[{"metadata":')),
    every("name twice", R.STRICT_JSON, wire=swap(STATUS, STATUS + b',"statusCode":200')),
    every("NaN", R.STRICT_JSON, wire=swap(STATUS, STATUS + b',"x":NaN')),
    every("number too large", R.STRICT_JSON, wire=swap(STATUS, STATUS + b',"x":1e999')),
    every("lone surrogate", R.STRICT_JSON, wire=swap(b'"error":"', LONE)),
    every("no UTF-8", R.STRICT_JSON, wire=swap(b'"error":"', b'"error":"\xff')),
    every("too deep", R.STRICT_JSON, wire=answer(body=b"[" * 100_000)),
    every("object for array", R.SHAPE, wire=answer(body=b'{"output":{}}')),
    every("output no object", R.SHAPE, lambda outputs: [*outputs, None]),
    case("jobId 101.0", {R.TYPES, *LEFT_OUT}, put(*JOB, "jobId", value=101.0)),
    case("jobId text", {R.TYPES, *LEFT_OUT}, put(*JOB, "jobId", value="101")),
    event("jobId 55.0", {R.TYPES, *NO_ANSWER}, put(0, "metadata", "jobId", value=55.0)),
    case("attemptNum 0.0", {R.TYPES, R.VERBATIM}, put(*JOB, "attemptNum", value=0.0)),
    case("no RFC 3339", WRONG_ECHO, put(*JOB, "workerAssignedTime", value="23 Nov 2026")),
    case("no such day", WRONG_ECHO, put(*JOB, "workerAssignedTime", value="2026-13-01T10:00:02Z")),
    case("metadata of text", {R.TYPES, *LEFT_OUT}, put(*JOB, value="101")),
    every("statusCode 200.0", R.TYPES, put(0, "statusCode", value=200.0)),
    every("no statusCode", R.TYPES, cut(0, "statusCode")),
    case("statusCode beyond 64 bits", {R.TYPES}, put(3, "statusCode", value=2**63)),
    every("error an object", R.TYPES, put(2, "error", value={"message": "no"})),
    every("statTags of numbers", R.TYPES, put(2, "statTags", value={"retry": 1})),
    every("statTags an array", R.TYPES, put(2, "statTags", value=[])),
    case("batched text", R.TYPES, put(0, "batched", value="true")),
    case("headers of numbers", R.TYPES, put(*FIRST, "headers", "X-Size", value=1)),
    case("params text", R.TYPES, put(*FIRST, "params", value="a=b")),
    case("userId null", R.TYPES, put(*FIRST, "userId", value=None)),
    case("body text", R.TYPES, put(*BODY, value="{}")),
    event("output without userId", R.TYPES, cut(0, "output", "userId")),
    case("Config text", WRONG_TARGET, put(*TARGET, "Config", value="{}")),
    case("Enabled text", WRONG_TARGET, put(*TARGET, "Enabled", value="true")),
    case("hasDynamicConfig null", WRONG_TARGET, put(*TARGET, "hasDynamicConfig", value=None)),
    every("unreadable request, 200", R.REQUEST, wire=answer(request=IN_HALF)),
    every("request of the wrong shape, 200", R.REQUEST, wire=answer(request=NO_JOB)),
    case("metadata value", {R.METADATA, R.VERBATIM}, put(*JOB, "userId", value="user-1")),
    case("metadata true for 0", {R.METADATA, R.VERBATIM}, put(*JOB, "dontBatch", value=0)),
    case("metadata entry missing", {R.METADATA, R.VERBATIM}, cut(*JOB, "secret")),
    case("metadata entry added", {R.METADATA, R.VERBATIM}, put(*JOB, "note", value="x")),
    event("event metadata value", {R.METADATA, R.VERBATIM}, put(0, "metadata", "rudderId", value="x")),
    event("event metadata missing", NO_ANSWER, cut(0, "metadata")),
    event("event metadata of nobody", NO_ANSWER, put(0, "metadata", "messageId", value="m-9")),
    every("another writer, bytes wanted", R.VERBATIM, wire=respaced),
    case("destination value", R.DESTINATION, put(*TARGET, "Name", value="Emarsys")),
    case("destination entry missing", R.DESTINATION, cut(*TARGET, "Transformations")),
    case("destination nested value", R.DESTINATION, put(*TARGET, "DestinationDefinition", "Name", value="")),
    case("no destination", R.DESTINATION, cut(2, "destination")),
    case("another destination", R.ONE_DESTINATION, put(*TARGET, value=destination("dest-2"))),
    case("two destinations in one output", R.ONE_DESTINATION, in_one),
    case("job left out", LEFT_OUT, lambda outputs: outputs[:3]),
    case("job in two outputs", R.EVERY_JOB, lambda outputs: [*outputs, outputs[2]]),
    case("nothing answered", LEFT_OUT, lambda outputs: outputs[:0]),
    case("job of nobody", R.FOREIGN_JOB, put(2, "metadata", value=lambda jobs: [*jobs, NOBODY])),
    case("metadata empty", {R.EMPTY_METADATA, R.EVERY_JOB, R.VERBATIM}, put(3, "metadata", value=[])),
    case("metadata of nothing added", R.EMPTY_METADATA, lambda outputs: [*outputs, outputs[0] | EMPTY]),
    case("metadata object", {R.EMPTY_METADATA, R.EVERY_JOB}, put(2, "metadata", value=lambda jobs: jobs[0])),
    every("404", R.NOT_FOUND, wire=answer(status=404)),
    every("404 for an unreadable request", R.NOT_FOUND, wire=answer(status=404, request=IN_HALF)),
    case("200 without a request", R.HAS_REQUEST, cut(*FIRST)),
    case("200 with null", R.HAS_REQUEST, put(*FIRST, value=None)),
    case("200 with no requests", R.HAS_REQUEST, put(*FIRST, value=[])),
    case("200 with text among requests", R.HAS_REQUEST, put(*FIRST, value=[sent(), "x"])),
    event("event without a request", R.HAS_REQUEST, cut(0, "output")),
    event("event with two requests", R.HAS_REQUEST, put(0, "output", value=[sent(), sent()])),
    case("type GRAPHQL", R.SENDABLE, put(*FIRST, "type", value="GRAPHQL")),
    case("no type in the second request", R.SENDABLE, put(*FIRST, value=[sent(), sent() | {"type": None}])),
    event("event of no type", R.SENDABLE, cut(0, "output", "type")),
    case("files", R.SENDABLE, put(*FIRST, "files", value={"a": "b"})),
    case("files an array", R.SENDABLE, put(*FIRST, "files", value=[])),
    case("no method", R.SENDABLE, cut(*FIRST, "method")),
    case("method an array", R.SENDABLE, put(*FIRST, "method", value=["PUT"])),
    *[case(f"endpoint {value!r}", R.SENDABLE, put(*FIRST, "endpoint", value=value))
      for value in (None, 5, "", "/a", "ftp://a.b", "https://", "http://[a", "https://a.b/c d", "http://a:x/")],
    case("no FORM", R.BODY, cut(*BODY, "FORM")),
    case("FORM null", R.BODY, put(*BODY, "FORM", value=None)),
    case("JSON an array", R.BODY, put(*BODY, "JSON", value=[{}])),
    case("unknown body", R.BODY, put(*BODY, "TEXT", value={})),
    case("two bodies", R.BODY, put(*BODY, "FORM", value={"a": "b"})),
    case("array no text", R.BODY, put(*BODY, value=body_of(JSON_ARRAY={"batch": []}))),
    case("XML no text", R.BODY, put(*BODY, value=body_of(XML={"payload": None}))),
    *[every(f"error {value!r}", R.ERROR, put(2, "error", value=value)) for value in ("", None)],
    every("no error", R.ERROR, cut(2, "error")),
    event("event left out", {R.ANSWERED, R.VERBATIM}, lambda outputs: outputs[1:]),
    event("another order", R.ORDER, lambda outputs: [outputs[1], outputs[0], outputs[2]]),
    *[event(f"event {status}", R.NOT_LOST, put(2, "statusCode", value=status))
      for status in (0, 204, 299, 302, 408, 429, 500, 503)],
    *[event(f"whole {status}", R.WHOLE_STATUS, wire=answer(status=status))
      for status in (204, 302, 400, 401, 413, 429, 500, 502)],
    event("whole 429 for an unreadable request", R.WHOLE_STATUS, wire=answer(status=429, request=IN_HALF)),
    event("503 alone", R.SHOULD_RETRY, wire=answer(status=503)),
    event("503, do not retry", R.SHOULD_RETRY, wire=answer(status=503, headers=NEVER)),
]  # fmt: skip


def runs(cases: list[Case]) -> list[Any]:
    """Every case at each of its endpoints, in both forms of the request."""
    return [
        pytest.param(given, form, endpoint, id=f"{endpoint}-{form}-{given.note}")
        for given in cases
        for endpoint in given.endpoints
        for form in FORMS
    ]


@pytest.mark.parametrize(("given", "form", "endpoint"), runs(ACCEPTED))
def test_an_answer_that_the_host_takes_has_no_breach(given: Case, form: str, endpoint: str) -> None:
    """What the host accepts is accepted, in both forms of the request."""
    expect(verdict(given, form, endpoint))


@pytest.mark.parametrize(("given", "form", "endpoint"), runs(REFUSED))
def test_a_broken_answer_breaks_its_rules_and_no_other(given: Case, form: str, endpoint: str) -> None:
    """One broken thing is found as what it is."""
    assert given.rules == {breach.rule for breach in verdict(given, form, endpoint)}


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_is_seen_to_accept_and_to_refuse(rule: Rule) -> None:
    """No check is there that cannot fail."""
    assert any(rule in given.rules for given in ACCEPTED)
    assert any(rule in given.rules for given in REFUSED)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("statusCode 200.0", "output[0].statusCode must be an integer, is 200.0"),
        ("metadata value", 'output[0].metadata[0].userId is "user-1", in the request "<<>>anon<<>>user-101"'),
        ("job in two outputs", "jobId 104 must be in one output, is in output[2], output[4]"),
        ("no type in the second request", 'output[0].batchedRequest[1].type must be "REST", is null'),
        ("headers of numbers", "output[0].batchedRequest.headers.X-Size must be a string, is 1"),
    ],
)
def test_a_breach_names_the_place_and_the_value(note: str, message: str) -> None:
    """A reader finds the fault without looking through the answer."""
    given = next(given for given in REFUSED if given.note == note)

    assert message in [breach.message for breach in verdict(given, "compacted", "router")]


def test_a_setting_is_not_shown() -> None:
    """The API Key of a destination does not reach a message, wherever it stands wrong."""
    given = case("key", Rule.DESTINATION, put(*TARGET, "Config", "apiKey", value="wsse:a:s3cret"))
    breaches = verdict(given, "plain", "router")

    assert [breach.rule for breach in breaches] == [Rule.DESTINATION]
    assert "Config.apiKey" in breaches[0].message
    assert "s3cret" not in breaches[0].message


def test_all_breaches_are_listed_one_a_line() -> None:
    """Expect reports everything that is wrong at once."""
    with pytest.raises(AssertionError) as failure:
        expect((Breach("1.3-3 every jobId once", "jobId 1"), Breach("1.1 strict types", "jobId 2")))

    assert str(failure.value) == "1.3-3 every jobId once: jobId 1\n1.1 strict types: jobId 2"


def test_no_breaches_are_fine() -> None:
    """Expect returns where nothing was found."""
    expect(())
