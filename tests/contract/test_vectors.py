"""Every vector of `vectors/rudderstack` through the whole service, on every store; tests/README.md has their form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace
from tests.support.app import BATCH, PROCESSOR, ROUTER, Host, answers, host_of
from tests.support.requests import call, destination, metadata
from tests.support.world import NOW, fixed_world, make_service, token_endpoint

from emarsys_cdp.store import Store
from emarsys_cdp.store.record import unpack

Json: TypeAlias = Any
VECTORS = Path(__file__).parent / "vectors" / "rudderstack"
PATHS = {"router": ROUTER, "batch": BATCH, "processor": PROCESSOR}
EMARSYS = "https://api.emarsys.net"
FIRST_JOB = 101
SECRETS = ("apiKey", "emersysUserSecret")
CONNECTION = {"sourceId": "", "destinationId": "", "enabled": False, "config": None, "processorEnabled": False}
"""A connection as the host gives nearly all of them: with nothing in it."""


class Call(Struct, forbid_unknown_fields=True):
    """One input: a call with its own parts only, a request of the processor stage (*made*), or neither."""

    to: str | None = None
    message: dict[str, Json] | None = None
    made: dict[str, Json] | None = None
    metadata: dict[str, Json] = {}
    repeat: int = 1


class Request(Struct, forbid_unknown_fields=True):
    """A request of the host; *connections* replaces the zero connections of the compacted form, null removes them."""

    calls: list[Call]
    form: Literal["plain", "compacted"] = "plain"
    destinations: dict[str, dict[str, Json]] = {}
    connections: dict[str, Json] | UnsetType | None = UNSET


class Output(Struct, forbid_unknown_fields=True):
    """One output: its jobs (`[101, "...", 103]` is a range), what is sent for them, and parts of the error's text."""

    jobs: list[int | str]
    status: int
    requests: list[dict[str, Json]] = []
    error: str | list[str] | None = None


class Want(Struct, forbid_unknown_fields=True):
    """The answer: outputs, or the status and a part of the error of a request that is refused as a whole."""

    outputs: list[Output] | None = None
    status: int = 200
    error: str = ""


class User(Struct, forbid_unknown_fields=True):
    """A row of the users table."""

    user: str | None
    key: str | None
    anons: list[str]
    values: dict[str, Json]
    space: str = "dest-1"


class Vector(Struct, forbid_unknown_fields=True):
    """A behaviour: what comes in after what was before, and what has to come out."""

    note: str
    endpoint: Literal["router", "batch", "processor"]
    want: Want
    request: Request | None = None
    raw: str | None = None
    now: str = NOW
    document: dict[str, Json] | None = None
    before: list[Request] = []
    users: list[User] | None = None


def read(path: Path) -> Vector:
    """Return the vector in a file; a name that no vector has is an error."""
    return msgspec.json.decode(path.read_bytes(), type=Vector)


VECTORS_BY_NAME = {path.stem: read(path) for path in sorted(VECTORS.glob("*.json"))}
every_vector = pytest.mark.parametrize(
    "vector", [pytest.param(vector, id=vector.note) for vector in VECTORS_BY_NAME.values()]
)
every_request = pytest.mark.parametrize(
    "vector",
    [pytest.param(vector, id=vector.note) for vector in VECTORS_BY_NAME.values() if vector.request is not None],
)


@every_vector
def test_vector(vector: Vector, make_store: Callable[[], Store], tmp_path: Path) -> None:
    """The host takes the answer, and it is the one that the vector wants; the users table is as it says."""

    async def exchange(host: Host, store: Store) -> None:
        *earlier, body = _bodies(vector)
        for one in earlier:
            await host.send(PATHS[vector.endpoint], one)
        response = await host.send(PATHS[vector.endpoint], body)

        _compare(vector, response)
        if vector.users is not None:
            assert await _users(store) == _text_of_users(vector.users)

    _with_host(vector, make_store, tmp_path, exchange)


@every_request
def test_the_answer_to_a_retry_is_the_same(vector: Vector, make_store: Callable[[], Store], tmp_path: Path) -> None:
    """A request that comes a second time, with nothing in between, gets the same answer and changes nothing."""

    async def exchange(host: Host, store: Store) -> None:
        bodies = _bodies(vector)
        first = [await host.send(PATHS[vector.endpoint], body) for body in bodies][-1]
        users = await _users(store)
        second = await host.send(PATHS[vector.endpoint], bodies[-1])

        assert second.status_code == first.status_code
        assert _text(_without_nonces(second.json())) == _text(_without_nonces(first.json()))
        assert await _users(store) == users

    _with_host(vector, make_store, tmp_path, exchange)


def _with_host(
    vector: Vector, make_store: Callable[[], Store], directory: Path, exchange: Callable[[Host, Store], Any]
) -> None:
    """Run *exchange* with a host of a service that stands at the vector's time and has its document."""
    settings: dict[str, Any] = {}
    if vector.document is not None:
        (directory / "default.json").write_text(json.dumps(vector.document))
        settings["rules_dir"] = directory

    async def run() -> None:
        store = make_store()
        async with token_endpoint() as client:
            service = make_service(store, world=fixed_world(vector.now), client=client, **settings)
            async with host_of(service) as host:
                if vector.document is not None:
                    assert service.documents.get("dest-1") is not None, "the document of the vector has problems"
                await exchange(host, store)

    asyncio.run(run())


def _bodies(vector: Vector) -> list[bytes]:
    """Return the requests before, and the request itself; calls and jobs are counted through all of them."""
    if vector.request is None:
        assert vector.raw is not None, "a vector has a request or a raw body"
        return [vector.raw.encode()]
    numbers = count(1)
    wanted = vector.request
    earlier = [replace(one, destinations=one.destinations or wanted.destinations) for one in vector.before]
    return [_body(vector.endpoint, one, numbers) for one in (*earlier, wanted)]


def _body(endpoint: str, request: Request, numbers: Iterator[int]) -> bytes:
    destinations = {space: _destination(space, given) for space, given in request.destinations.items()}
    inputs = [
        (_input(endpoint, one, space, next(numbers)), destinations[space])
        for one in request.calls
        for space in [one.to or next(iter(destinations))] * one.repeat
    ]
    kind = {} if endpoint == "processor" else {"destType": "emarsys"}
    if request.form == "compacted":
        parts = {"destinations": destinations, **_connections(request)}
        return json.dumps({"input": [one for one, _ in inputs], **kind, **parts}).encode()
    plain = [{**one, "destination": target, "connection": CONNECTION} for one, target in inputs]
    return json.dumps({"input": plain, **kind} if kind else plain).encode()


def _connections(request: Request) -> dict[str, Json]:
    if request.connections is UNSET:
        return {"connections": {f"src-1:{space}": CONNECTION for space in request.destinations}}
    return {} if request.connections is None else {"connections": request.connections}


def _destination(space: str, given: Mapping[str, Json]) -> dict[str, Json]:
    """Return a destination; *given* is its Config, or has it under `config` beside `dynamic` and other changes."""
    if "config" not in given:
        return destination(given, space)
    target = destination(given["config"], space, dynamic=given.get("dynamic") is True)
    if given.get("dynamic", False) is None:
        del target["hasDynamicConfig"]
    return {**target, **given.get("changes", {})}


def _input(endpoint: str, one: Call, space: str, number: int) -> dict[str, Json]:
    job = FIRST_JOB - 1 + number
    of_job = metadata(job, space) if endpoint != "processor" else _processor_metadata(job, space, number)
    given: dict[str, Json] = {"metadata": of_job | one.metadata}
    if one.made is not None:
        given["message"] = one.made
    elif one.message is not None:
        message = call("", number, **_filled(one.message, number))
        given["message"] = message if "type" in one.message else {k: v for k, v in message.items() if k != "type"}
    return given


def _processor_metadata(job: int, space: str, number: int) -> dict[str, Json]:
    return {
        "jobId": job,
        "workspaceId": "ws-1",
        "rudderId": f"<<>>anon-{number}<<>>user-{number}",
        "receivedAt": "2026-11-23T10:00:00.100Z",
        "messageId": f"m-{number}",
        "sourceId": "src-1",
        "sourceCategory": "",
        "destinationId": space,
        "destinationName": f"Emarsys {space}",
        "destinationType": "EMARSYS",
        "destinationDefinitionId": "def-1",
    }


def _filled(value: Json, number: int) -> Json:
    """Return a value with `{n}` in texts replaced, and `{"repeat": n, "text": ...}` or `"of"` written out."""
    if isinstance(value, str):
        return value.replace("{n}", str(number))
    if isinstance(value, list):
        return [filled for one in value for filled in _elements(one, number)]
    if isinstance(value, dict) and value.keys() == {"repeat", "text"}:
        return value["text"] * value["repeat"]
    return {name: _filled(one, number) for name, one in value.items()} if isinstance(value, dict) else value


def _elements(one: Json, number: int) -> list[Json]:
    if isinstance(one, dict) and one.keys() == {"repeat", "of"}:
        return [_filled(one["of"], index) for index in range(1, one["repeat"] + 1)]
    return [_filled(one, number)]


def _compare(vector: Vector, response: httpx.Response) -> None:
    want = vector.want
    assert response.status_code == want.status, response.text
    if want.outputs is None:
        assert want.error in response.json()["error"]
        return
    seen = answers(PATHS[vector.endpoint], response)
    assert len(seen) == len(want.outputs), response.text
    if vector.endpoint != "processor":  # elsewhere the order is free
        seen = sorted(seen, key=lambda output: min(entry["jobId"] for entry in output["metadata"]))
    pairs = zip(seen, want.outputs, strict=True)
    shown = [_shown(output, wanted) for output, wanted in pairs]
    assert _text(shown) == _text([_wanted(output) for output in want.outputs])
    _no_secrets(vector, seen)


def _wanted(output: Output) -> dict[str, Json]:
    return {
        "jobs": _jobs(output.jobs),
        "status": output.status,
        "requests": _filled(output.requests, 0),
        "error": output.error,
    }


def _jobs(jobs: list[int | str]) -> list[int]:
    if jobs[1:2] == ["..."]:
        return list(range(int(jobs[0]), int(jobs[2]) + 1))
    return [int(job) for job in jobs]


def _shown(output: Mapping[str, Json], wanted: Output) -> dict[str, Json]:
    """Return an output in the words of a vector; of the requests only those parts that the vector names."""
    entries = output["metadata"] if isinstance(output["metadata"], list) else [output["metadata"]]
    made = output.get("batchedRequest", output.get("output"))
    requests = [] if made is None else made if isinstance(made, list) else [made]
    names = [{"method", "path", "body", *request} for request in wanted.requests]
    names += [{"method", "path", "body"}] * (len(requests) - len(names))
    error = output.get("error") or None
    parts = [wanted.error] if isinstance(wanted.error, str) else wanted.error or []
    assert output.get("batched", False) == (len(entries) > 1)
    return {
        "jobs": [entry["jobId"] for entry in entries],
        "status": output["statusCode"],
        "requests": [_request(*pair) for pair in zip(requests, names, strict=False)],
        "error": wanted.error if error and parts and all(part in error for part in parts) else error,
    }


def _request(made: Mapping[str, Json], names: set[str]) -> dict[str, Json]:
    assert made["endpoint"].startswith(f"{EMARSYS}/")
    address = urlsplit(made["endpoint"])
    path = f"{address.path}?{address.query}" if address.query else address.path
    seen = {**made, "path": path, "body": made["body"]["JSON"]}
    return {name: seen.get(name) for name in names}


def _no_secrets(vector: Vector, outputs: list[dict[str, Json]]) -> None:
    """Whatever goes wrong, no error shows a secret of the settings."""
    given = {} if vector.request is None else vector.request.destinations
    configs = [destination_.get("config", destination_) for destination_ in given.values()]
    secrets = [str(config[name]) for config in configs for name in SECRETS if config.get(name)]
    for output in outputs:
        said = _text([output.get("error"), output.get("statTags")])
        assert not [secret for secret in secrets if secret in said]


async def _users(store: Store) -> list[str]:
    rows = []
    async for _, stored in store.scan():
        record = unpack(stored)[1]
        if record.redirect is not None:
            continue  # it became part of another person
        anons = sorted(device.value for device in record.devices)
        values = {name: value.value for name, value in record.values.items()}
        rows.append(User(record.user, record.key, anons, values, record.space))
    return _text_of_users(rows)


def _text_of_users(users: list[User]) -> list[str]:
    return sorted(json.dumps(msgspec.to_builtins(user), sort_keys=True) for user in users)


def _without_nonces(value: Json) -> Json:
    """Return an answer without the one thing that is new in every answer."""
    if isinstance(value, dict):
        return {name: _without_nonces(one) for name, one in value.items() if name != "X-WSSE"}
    return [_without_nonces(one) for one in value] if isinstance(value, list) else value


def _text(value: Json) -> str:
    """Return JSON to compare: unlike values, it tells 1 from true."""
    return json.dumps(value, indent=1, sort_keys=True)
