"""A recognisable API Key goes through a whole service in which things fail, and is looked for everywhere."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
import structlog
from tests.support.app import BATCH, PROCESSOR, ROUTER, host_of
from tests.support.delivery import PROXY_V0, PROXY_V1
from tests.support.requests import call, destination, metadata, processor_request
from tests.support.servers import flush
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.hosts.rudderstack import deletion, proxy
from emarsys_cdp.log import configure_logging
from emarsys_cdp.steps import contacts
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp_hooks import Call, Decision

S3CRET = "hunter2+is/the=secret"
TOKEN = "granted-token-of-this-test"  # noqa: S105 - it protects nothing
HOST_TOKEN = "host-token-of-this-test"  # noqa: S105
KEYS: dict[str, dict[str, Any]] = {
    "dest-1": {"apiKey": f"client-1:{S3CRET}"},
    "dest-2": {"apiKey": f"oauth2:refused:{S3CRET}"},
    "dest-3": {"apiKey": f"oauth2:unreachable:{S3CRET}"},
    "dest-4": {"apiKey": f"wsse:customer001:{S3CRET}"},
    "dest-5": {"emersysUsername": "customer002", "emersysUserSecret": S3CRET},
    "dest-6": {"apiKey": S3CRET},
    "dest-7": {"apiKey": f"wsse:{S3CRET}"},
    "dest-8": {"apiKey": f'{{{{ context.key || "client-8:{S3CRET}" }}}}'},
    "dest-9": {"apiKey": {"nested": S3CRET}},
}
"""Settings that work, that are refused, that cannot be used, and that are malformed."""

FORMS = {
    form.encode()
    for text in (S3CRET, f"client-1:{S3CRET}", TOKEN)
    for form in (
        text,
        quote(text, safe=""),
        b64encode(text.encode()).decode(),
        json.dumps(text)[1:-1],
        repr(text)[1:-1],
    )
} | {b64encode(f"client-1:{quote(S3CRET, safe='')}".encode())}
"""The secrets as they may be written down."""


def shown(text: bytes) -> list[bytes]:
    """Return the secrets that stand in some bytes."""
    return [form for form in FORMS if form in text]


def token_endpoint(request: httpx.Request) -> httpx.Response:
    """Grant, refuse or break, by the client that asks; what it says has the secret in it, as a bad endpoint might."""
    given = request.headers["authorization"]
    if given == "Basic " + b64encode(f"refused:{quote(S3CRET, safe='')}".encode()).decode():
        return httpx.Response(401, json={"error": "invalid_client", "seen": given, "secret": S3CRET})
    if given == "Basic " + b64encode(f"unreachable:{quote(S3CRET, safe='')}".encode()).decode():
        raise httpx.ConnectError(f"no way to {S3CRET} with {given}")
    return httpx.Response(200, json={"access_token": TOKEN, "expires_in": 3600})


def emarsys(request: httpx.Request) -> httpx.Response:
    """Answer as an Emarsys that is ill, one way after the other, and repeats what it was sent with."""
    if request.url.host == "auth.emarsys.net":
        return token_endpoint(request)
    seen = f"{request.headers.get('authorization')} {request.headers.get('x-wsse')}"
    match len(request.content) % 5:
        case 0:
            raise httpx.ConnectError(f"no way with {seen}")
        case 1:
            raise httpx.ReadError(f"broke off after {seen}")
        case 2:
            return httpx.Response(503, text=f"overloaded, {seen}")
        case 3:
            return httpx.Response(400, json={"replyCode": 10001, "replyText": f"wrong: {seen}", "data": ""})
    return httpx.Response(401, json={"replyCode": 1, "replyText": f"Credentials are invalid: {seen}", "data": ""})


def break_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a built-in step break on some calls, with an exception that has the settings in it."""
    decide = contacts._decide
    flat = [config for config in KEYS.values() if isinstance(config.get("apiKey", ""), str)]

    def breaking(space: CompiledSpace, one: Call, *more: Any) -> Decision:
        match one.message_id:
            case "m-91":
                raise ValueError(json.dumps(flat))
            case "m-92":
                raise KeyError(repr(flat))
            case "m-93":
                raise RuntimeError(f"redis://user:{quote(S3CRET, safe='')}@host/0 and Bearer {TOKEN}")
            case "m-94":
                raise TypeError(f"cannot use {space.credentials} of {space!r}")
        return decide(space, one, *more)

    monkeypatch.setattr(contacts, "_decide", breaking)


def jobs(path: str) -> bytes:
    """Return a request with calls of every destination, good and bad ones, and those that meet a fault."""
    person = {"userId": "u", "traits": {"email": "known@example.com"}}
    calls = [call("identify", number, **person) for number in (1, 91, 92, 93, 94)]
    calls += [call("erase", 2), call("track", 3, event=5), call("identify", 4, context={"key": S3CRET}, **person)]
    targets = {space: destination(config, space, dynamic=True) for space, config in KEYS.items()}
    inputs = [
        {"message": one, "metadata": metadata(100 * number + index, space), "destination": target}
        for number, (space, target) in enumerate(targets.items())
        for index, one in enumerate(calls)
    ]
    return json.dumps(inputs if path == PROCESSOR else {"input": inputs, "destType": "emarsys"}).encode()


def without_echo(response: httpx.Response) -> bytes:
    """Return what an answer says itself: without the destinations, which come back whole, and the headers to send."""
    try:
        answer = json.loads(response.content)
    except ValueError:
        return response.content
    outputs = answer.get("output", []) if isinstance(answer, dict) else answer
    for output in outputs if isinstance(outputs, list) else ():
        output.pop("destination", None)
        output.get("batchedRequest", output.get("output", {})).pop("headers", None)
    return json.dumps(answer, ensure_ascii=False).encode()


def deliveries() -> list[tuple[str, bytes]]:
    """Return what a host asks us to send and to delete, for every destination; five lengths, five ends."""
    found: list[tuple[str, bytes]] = []
    for number, (space, config) in enumerate(KEYS.items()):
        for length in range(5):
            form = {
                "type": "REST", "method": "PUT",
                "endpoint": "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1",
                "headers": {"Authorization": f"Bearer {TOKEN}", "X-WSSE": f'UsernameToken Username="{S3CRET}"'},
                "body": {"JSON": {"key_id": "3", "contacts": [{"3": "known@example.com", "1": "x" * length}]}},
                "metadata": [metadata(9000 + 10 * number + length, space)],
                "destinationConfig": config,
            }  # fmt: skip
            found.append((PROXY_V1, json.dumps(form).encode()))
        found.append((PROXY_V0, json.dumps({**form, "endpoint": f"https://{S3CRET}@evil.example/"}).encode()))
        job = {"destType": "emarsys", "config": config, "userAttributes": [{"email": "known@example.com"}]}
        found.append(("/deleteUsers", json.dumps([job]).encode()))
    return found


async def life(url: str) -> tuple[list[httpx.Response], bytes]:
    """Live through a service's bad day; return every answer, and the metrics."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(emarsys))
    service = make_service(RedisStore(url), client=client, host_token=Secret(HOST_TOKEN), log_level="debug")
    token = {"authorization": f"Bearer {HOST_TOKEN}"}
    found = []
    async with host_of(service) as host:
        for path in (ROUTER, BATCH, PROCESSOR):
            body = jobs(path)
            loose = body.replace(b'"apiKey"', b'"apiKey":"\xff","apiKey"')
            found += [await host.client.post(path, content=sent, headers=token) for sent in (body, body[:-20], loose)]
            found.append(await host.client.post(path, content=body, headers={"authorization": f"Bearer {S3CRET}"}))
        for space in ("dest-1", "dest-4"):
            body = processor_request(
                [call("identify", 1, userId="u", traits={"email": "known@example.com"})], KEYS[space]
            )
            found.append(await host.send(PROCESSOR, body, token))
        for path, body in deliveries():
            found.append(await host.client.post(path, content=body, headers=token))
        found.append(await host.client.get("/ready"))
        found.append(await host.client.get(f"/unknown/{quote('path')}", headers=token))
        metrics = (await host.client.get("/metrics")).content
    return found, metrics


def stored(url: str) -> dict[bytes, bytes]:
    """Return every key of the store with its value as it rests there."""
    with redis.Redis.from_url(url) as client:
        return {key: client.get(key) for key in client.scan_iter(count=1000)}


def test_no_secret_reaches_a_log_an_error_a_metric_or_the_store(
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the lowest level of logging, with refused keys, broken steps and tracebacks that hold the settings."""
    flush(valkey_url)
    break_with_the_settings(monkeypatch)
    for module in (proxy, deletion):
        monkeypatch.setattr(module, "PATIENCE", 0.0)
    configure_logging("debug")
    structlog.configure(cache_logger_on_first_use=False)
    caplog.set_level(logging.DEBUG)
    answers, metrics = asyncio.run(life(valkey_url))
    out, err = capsys.readouterr()
    rest = stored(valkey_url)

    # The day was as bad as intended, and the search finds what is there.
    assert {200, 400, 429, 500, 501, 503, 504} >= {answer.status_code for answer in answers} >= {200, 400, 501, 503}
    for happened in (
        "rows_not_delivered",
        "batch_failed",
        "call_refused",
        "request_refused",
        "request_postponed",
        "in breaking",
    ):
        assert happened in err
    assert any(b"known@example.com" in value for value in rest.values())
    assert any(b":x:" in key for key in rest)
    assert any(shown(answer.content) for answer in answers)

    assert [found for answer in answers if (found := shown(without_echo(answer)))] == []
    assert shown((out + err).encode()) == []
    assert shown(caplog.text.encode()) == []
    assert shown(metrics) == []
    assert shown(b"\n".join([*rest, *rest.values()])) == []
    assert HOST_TOKEN not in err + out + b"".join(answer.content for answer in answers).decode("utf-8", "replace")
