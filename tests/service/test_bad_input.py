"""Every kind of bad input, in every form of the host's requests: it costs itself, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from msgspec import Struct, field
from tests.support.app import PROCESSOR, ROUTER, answers, by_job, host_of
from tests.support.requests import OAUTH_KEY, call, destination, metadata
from tests.support.world import make_service

from emarsys_cdp.log import configure_logging
from emarsys_cdp.store.memory import MemoryStore

BAD_JOB = 102
MEGABYTES = b'{"type":"track","event":"' + b"x" * 10_000_000 + b'"}'
SECRET = "hunter2-is-the-secret"  # noqa: S105 - searched for, never used
DOCUMENT = {
    "dataMaps": [
        {"name": "email", "path": "traits.email", "type": "string", "field": 3},
        {"name": "member", "path": "traits.member", "type": "string", "field": 1},
        {"name": "points", "path": "traits.points", "type": "numeric", "field": 9001},
        {"name": "deep", "path": "traits.cart.items[3].sku", "type": "string", "field": 2},
    ]
}


class Form(Struct, frozen=True):
    """One of the four forms of a request: an endpoint, plain or compacted."""

    path: str
    compacted: bool


FORMS = [
    pytest.param(Form(path, compacted), id=f"{name}-{'compacted' if compacted else 'plain'}")
    for name, path in (("router", ROUTER), ("processor", PROCESSOR))
    for compacted in (False, True)
]


class Input(Struct, frozen=True):
    """One input as bytes; what is None is left out. *space* names the destination, *config* has its settings."""

    message: bytes | None
    metadata: bytes | None
    space: str = "dest-1"
    config: dict[str, Any] | None = field(default_factory=lambda: dict(OAUTH_KEY))


class Kind(Struct, frozen=True):
    """A kind of bad input, and what the answer says about it."""

    note: str
    says: str
    input: Input


def good(number: int, **traits: Any) -> Input:
    """Return a call that nothing is wrong with."""
    message = call("identify", number, userId=f"user-{number}", traits={"email": f"{number}@example.com", **traits})
    return Input(json.dumps(message).encode(), json.dumps(metadata(100 + number)).encode())


def text_of(form: Form, inputs: Sequence[Input]) -> bytes:
    """Return the request for inputs, put together from their bytes."""
    spaces = {
        one.space: json.dumps(destination(one.config, one.space)).encode() for one in inputs if one.config is not None
    }
    items = []
    for one in inputs:
        parts = {b"message": one.message, b"metadata": one.metadata}
        if not form.compacted:
            parts[b"destination"] = spaces.get(one.space)
        items.append(b"{" + b",".join(b'"%s":%s' % part for part in parts.items() if part[1] is not None) + b"}")
    array = b"[" + b",".join(items) + b"]"
    if form.path == PROCESSOR and not form.compacted:
        return array
    shared = b",".join(b'"%s":%s' % (name.encode(), raw) for name, raw in spaces.items())
    tail = b',"destinations":{%s},"connections":{}' % shared if form.compacted else b""
    return b'{"input":%s,"destType":"emarsys"%s}' % (array, tail)


@pytest.fixture
def post(tmp_path: Path) -> Callable[[str, bytes], httpx.Response]:
    """
    Send one request to a fresh service; the answer has been checked as a host would.

    A service that has seen good calls reads requests in another way: it has to come to the same answer.
    """
    (tmp_path / "default.json").write_text(json.dumps(DOCUMENT))

    async def run(path: str, body: bytes) -> httpx.Response:
        async with host_of(make_service(MemoryStore(), rules_dir=tmp_path)) as host:
            first = await host.send(path, body)
            for form in (Form(path, compacted=False), Form(path, compacted=True)):
                await host.send(path, text_of(form, [good(8), good(9)]))
            assert (await host.send(path, body)).content == first.content
            return first

    return lambda path, body: asyncio.run(run(path, body))


def split(form: Form, response: httpx.Response) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the outputs of the good calls, and those of anybody else."""
    known: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for output in answers(form.path, response):
        entries = output["metadata"] if isinstance(output["metadata"], list) else [output["metadata"]]
        ours = all(entry.get("jobId") in (101, 103) for entry in entries)
        (known if ours else others).append(output)
    return known, others


def bad(note: str, says: str, message: bytes | None) -> Kind:
    """Return a kind whose message is bad."""
    return Kind(note, says, Input(message, json.dumps(metadata(BAD_JOB)).encode()))


def typed(note: str, says: str, **parts: Any) -> Kind:
    """Return a kind whose message is JSON, with other parts than a good one; what is None is left out."""
    message = {**json.loads(good(2).message or b""), **parts}
    return bad(note, says, json.dumps({name: part for name, part in message.items() if part is not None}).encode())


def named(note: str, says: str, raw: bytes | None) -> Kind:
    """Return a kind whose metadata is bad."""
    return Kind(note, says, Input(good(2).message, raw))


def meant(note: str, says: str, config: dict[str, Any] | None) -> Kind:
    """Return a kind whose destination is bad: one with other settings, or none at all."""
    return Kind(note, says, Input(good(2).message, json.dumps(metadata(BAD_JOB, "dest-2")).encode(), "dest-2", config))


def nested(depth: int) -> bytes:
    """Return a call with arrays in arrays."""
    return b'{"type":"identify","userId":"u","traits":' + b"[" * depth + b"]" * depth + b"}"


def without(entry: str) -> bytes:
    """Return the bad job's metadata without an entry."""
    return json.dumps({name: value for name, value in metadata(BAD_JOB).items() if name != entry}).encode()


NO_JSON = "the call is no JSON"
NUMBERED = json.dumps(metadata(BAD_JOB, "dest-2", workspaceId=5)).encode()

COSTING = [
    bad("call that is no JSON", NO_JSON, b'{"type":"identify",}'),
    bad("call cut at the wrong place", NO_JSON, b'{"type":"identify" "userId":"u"}'),
    bad("bare word", NO_JSON, b"undefined"),
    bad("control character in a text", NO_JSON, b'{"type":"identify","userId":"a\x01b"}'),
    bad("10 MB", "the call has 10000027 bytes: at most 1048576", MEGABYTES),
    bad("depth 200", "at most 64 levels are read", nested(200)),
    bad("depth 100,000", "at most 64 levels are read", nested(100_000)),
    bad("NaN", NO_JSON, b'{"type":"identify","userId":"u","traits":{"points":NaN}}'),
    bad("Infinity", NO_JSON, b'{"type":"identify","userId":"u","traits":{"points":Infinity}}'),
    bad("-Infinity", NO_JSON, b'{"type":"identify","userId":"u","traits":{"points":-Infinity}}'),
    bad("lone high surrogate", "surrogate", b'{"type":"identify","userId":"u\\ud800","traits":{"member":"x"}}'),
    bad("lone low surrogate", "surrogate", b'{"type":"identify","userId":"u\\udc00","traits":{"member":"x"}}'),
    bad("lone surrogate at the end", "surrogate", b'{"userId":"u","type":"identify\\ud800"}'),
    bad("invalid UTF-8", NO_JSON, b'{"type":"identify","userId":"u\xff"}'),
    bad("number beyond floats", "Number out of range", b'{"type":"identify","userId":"u","traits":{"points":1e400}}'),
    bad("message an array", "Expected `object`, got `array`", b"[1]"),
    bad("message null", "Expected `object`, got `null`", b"null"),
    bad("message a number", "Expected `object`, got `int`", b"5"),
    bad("message a text", "Expected `object`, got `str`", b'"identify"'),
    bad("no message", "message is missing", None),
    typed("no type", "the call has no type: it must be one of identify, track", type=None),
    typed("unknown type", "type 'erase' is unknown: it must be one of identify, track", type="erase"),
    typed("type a number", "type 7 is unknown: it must be one of identify, track", type=7),
    typed("type an array", "type ['identify'] is unknown", type=["identify"]),
    typed("no event", "the track call has no event", type="track"),
    typed("event a number", "the track call has event 5", type="track", event=5),
    typed("value of another type", "points: 'many' is not of type numeric", traits={"points": "many"}),
    named("no metadata", "metadata is missing", None),
    named("metadata an array", "metadata cannot be read", b"[102]"),
    named("metadata no JSON", "metadata cannot be read", b'{"jobId":102,}'),
    named("lone surrogate in metadata", "metadata", json.dumps(metadata(102)).encode().replace(b"anon-", b"\\ud800")),
    named("no jobId", "jobId", without("jobId")),
    named("jobId as text", "jobId", json.dumps(metadata(102) | {"jobId": "102"}).encode()),
    named("jobId with a fraction", "jobId", json.dumps(metadata(102) | {"jobId": 102.5}).encode()),
    named("jobId beyond 64 bits", "jobId", json.dumps(metadata(102) | {"jobId": 2**63}).encode()),
    named("jobId true", "jobId", json.dumps(metadata(102) | {"jobId": True}).encode()),
    Kind("workspaceId a number", "workspaceId", Input(good(2).message, NUMBERED, "dest-2")),
    meant("no destination", "destination 'dest-2': is missing", None),
    meant("no API Key", "the setting API Key (apiKey) is missing", {}),
    meant("API Key empty", "the setting API Key (apiKey) is missing", {"apiKey": ""}),
    meant("API Key a number", "the setting API Key (apiKey) must be text", {"apiKey": 5}),
    meant("malformed API Key", "the API Key is not of a known form", {"apiKey": SECRET}),
]  # fmt: skip

HARMLESS = [
    typed("path that is not there", "", traits={"email": "2@example.com", "cart": {"items": [1, 2]}}),
    typed("path through a text", "", traits={"email": "2@example.com", "cart": "items"}),
    typed("one value of another type", "'many' is not of type numeric", traits={"email": "2@a.de", "points": "many"}),
    bad("duplicate keys", "", b'{"type":"no","type":"identify","traits":{"email":"1@a.de","email":"2@a.de"}}'),
    named("duplicate keys in metadata", "", json.dumps(metadata(101)).encode()[:-1] + b',"jobId":102}'),
    Kind("destination of another name", "", Input(good(2).message, json.dumps(metadata(102)).encode(), "dest-2")),
    named("metadata of invalid UTF-8", "", json.dumps(metadata(102)).encode().replace(b"anon-", b"\xff")),
]

WRONG_SHAPES = {
    "nothing": b"",
    "no JSON": b"no JSON",
    "cut off": b'{"input":[{"message":{"type":"identify"',
    "more than one value": b"[] []",
    "number": b"5",
    "text": b'"input"',
    "null": b"null",
    "true": b"true",
    "object without input": b'{"destType":"emarsys"}',
    "input a number": b'{"input":5,"destType":"emarsys"}',
    "input an object": b'{"input":{},"destType":"emarsys"}',
    "array of numbers": b"[1,2,3]",
    "array of arrays": b"[[],[]]",
    "100,000 brackets": b"[" * 100_000,
    "invalid UTF-8": b"\xff\xfe[]",
    "NaN": b"NaN",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", COSTING, ids=lambda kind: kind.note)
def test_a_bad_call_costs_itself_and_no_other(
    kind: Kind, form: Form, post: Callable[[str, bytes], httpx.Response]
) -> None:
    """It is refused with what is wrong; the others are answered as if it were not there."""
    undisturbed = post(form.path, text_of(form, [good(1), good(3)]))
    others, (refusal,) = split(form, post(form.path, text_of(form, [good(1), kind.input, good(3)])))

    assert refusal["statusCode"] == 400
    assert kind.says in refusal["error"]
    assert len(refusal["error"]) < 400
    assert others == answers(form.path, undisturbed)


@pytest.mark.parametrize("form", FORMS[::2])
@pytest.mark.parametrize("kind", COSTING, ids=lambda kind: kind.note)
def test_a_bad_call_alone_is_refused(kind: Kind, form: Form, post: Callable[[str, bytes], httpx.Response]) -> None:
    """With no good call beside it the answer is the same refusal, or a 400 where nothing could be read."""
    response = post(form.path, text_of(form, [kind.input]))

    if response.status_code == 200:
        (refusal,) = answers(form.path, response)
        assert refusal["statusCode"] == 400
        assert kind.says in refusal["error"]
    else:
        assert response.status_code == 400
        assert response.json()["error"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", HARMLESS, ids=lambda kind: kind.note)
def test_an_odd_call_is_answered_beside_the_others(
    kind: Kind, form: Form, post: Callable[[str, bytes], httpx.Response]
) -> None:
    """What fits of it is sent; the answer tells what does not; the rows of the others are what they were."""
    undisturbed = by_job(form.path, post(form.path, text_of(form, [good(1), good(3)])))
    found = by_job(form.path, post(form.path, text_of(form, [good(1), kind.input, good(3)])))
    (odd,) = found[BAD_JOB]

    assert odd["statusCode"] == 200
    assert kind.says in odd.get("error", "")
    assert bool(kind.says) == ("error" in odd)
    assert {"3": "2@a.de"} in rows(odd) or {"3": "2@example.com"} in rows(odd)
    for job in (101, 103):
        assert [row for output in undisturbed[job] for row in rows(output) if row in rows(found[job][0])]


def rows(output: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the contacts of an output's request."""
    contacts: list[dict[str, Any]] = (output.get("batchedRequest") or output["output"])["body"]["JSON"]["contacts"]
    return contacts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("9007199254740993", "9007199254740993"),
        ("-9007199254740993", "-9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("123456789012345678901234", "123456789012345678901234"),
        ("0.1", "0.1"),
        ("1e2", "100"),
    ],
)
def test_a_large_number_keeps_its_digits(
    written: str, sent: str, form: Form, post: Callable[[str, bytes], httpx.Response]
) -> None:
    """A number beyond 2^53 reaches its field digit by digit, as text and as a number."""
    traits = b'{"email":"2@example.com","member":%s,"points":%s}' % (written.encode(), written.encode())
    message = b'{"type":"identify","messageId":"m","userId":"u","traits":%s}' % traits
    response = post(form.path, text_of(form, [Input(message, json.dumps(metadata(BAD_JOB)).encode())]))
    (row,) = rows(answers(form.path, response)[0])

    assert row == {"3": "2@example.com", "1": sent, "9001": sent}


@pytest.mark.parametrize("path", [ROUTER, PROCESSOR])
@pytest.mark.parametrize("body", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_a_request_that_cannot_be_read_is_refused_as_a_whole(
    body: bytes, path: str, post: Callable[[str, bytes], httpx.Response]
) -> None:
    """There is nobody to answer in it: a 400 says what was expected."""
    response = post(path, body)

    assert response.status_code == 400
    assert "message, metadata and destination" in response.json()["error"]
    assert len(response.content) < 1000


def test_the_array_of_the_processor_is_no_router_request(post: Callable[[str, bytes], httpx.Response]) -> None:
    """The router asks with an object and reads one: an array is of the wrong shape there."""
    response = post(ROUTER, text_of(Form(PROCESSOR, compacted=False), [good(1)]))

    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (ROUTER, b'{"input":[],"destType":"emarsys"}', {"output": []}),
        (ROUTER, b'{"input":[],"destType":"emarsys","destinations":{},"connections":{}}', {"output": []}),
        (PROCESSOR, b"[]", []),
        (PROCESSOR, b'{"input":[],"destinations":{},"connections":{}}', []),
    ],
)
def test_a_request_for_nothing_is_answered_with_nothing(
    path: str, body: bytes, answer: Any, post: Callable[[str, bytes], httpx.Response]
) -> None:
    """An empty input is no mistake."""
    response = post(path, body)

    assert (response.status_code, response.json()) == (200, answer)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "config",
    [
        {"apiKey": SECRET},
        {"apiKey": f"{SECRET}:with space"},
        {"apiKey": f"wsse:{SECRET}"},
        {"apiKey": f"oauth2:{SECRET}"},
        {"apiKey": f"client:{SECRET}\u00e4"},
        {"apiKey": [SECRET]},
        {"emersysUsername": "user", "emersysUserSecret": f"{SECRET} with spaces"},
        {"emersysUsername": SECRET},
    ],
    ids=str,
)
def test_a_malformed_api_key_is_never_shown(
    config: dict[str, Any],
    form: Form,
    post: Callable[[str, bytes], httpx.Response],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The answer says what is expected; the value stands in the echoed destination only, and in no log."""
    configure_logging("debug")
    structlog.configure(cache_logger_on_first_use=False)
    kind = meant("", "", config)
    _, (refusal,) = split(form, post(form.path, text_of(form, [good(1), kind.input])))
    refusal.pop("destination", None)
    logs = capsys.readouterr().err

    assert refusal["statusCode"] == 400
    assert SECRET not in json.dumps(refusal)
    assert "document_loaded" in logs
    assert SECRET not in logs
