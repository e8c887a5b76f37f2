"""The HTTP side of a host: its ingestion endpoints, and what it tells other processes about a run."""

from __future__ import annotations

import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp.testing.fake_host.calls import Refused, invalid_json
from emarsys_cdp.testing.fake_host.values import Delivery, Job, Overtaking, SeenBreach

KINDS: Final = ("track", "identify", "page", "screen", "group", "alias")
BATCHES: Final = ("batch", "import")

MAX_BODY: Final = 4_000 * 1024
"""Gateway.maxReqSizeInKB."""


class Host(Protocol):
    """What the gateway needs of a host."""

    def take(self, calls: Iterable[Json], write_key: str, *, address: str = ..., header: str = ...) -> list[int]:
        """Take calls. Raises Refused."""

    @property
    def jobs(self) -> list[Job]:
        """Return all jobs."""

    @property
    def deliveries(self) -> list[Delivery]:
        """Return all deliveries."""

    @property
    def breaches(self) -> list[SeenBreach]:
        """Return all breaches."""

    @property
    def overtakings(self) -> list[Overtaking]:
        """Return all overtakings."""

    def counts(self) -> dict[str, int]:
        """Return the numbers of the run."""


def gateway(host: Host) -> Starlette:
    """Return the application over *host*."""
    views: dict[str, Callable[[Request], object]] = {
        "jobs": lambda request: _jobs(host, request),
        "deliveries": lambda _: host.deliveries,
        "counts": lambda _: host.counts(),
        "breaches": lambda _: host.breaches,
        "overtakings": lambda _: host.overtakings,
    }
    routes = [
        *[Route(f"/v1/{kind}", _ingestion(host, kind), methods=["POST"]) for kind in (*KINDS, *BATCHES)],
        *[Route(f"/_fake/{name}", _shown(view), methods=["GET"]) for name, view in views.items()],
        Route("/health", _health, methods=["GET"]),
    ]
    return Starlette(routes=routes)


async def _health(_: Request) -> Response:
    return PlainTextResponse("OK")


def _shown(view: Callable[[Request], object]) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        return Response(msgspec.json.encode(view(request)), media_type="application/json")

    return show


def _jobs(host: Host, request: Request) -> list[Job]:
    """Return the jobs of a state, where the query names one."""
    state = request.query_params.get("state")
    return [job for job in host.jobs if state in (None, job.state)]


def _ingestion(host: Host, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def ingest(request: Request) -> Response:
        try:
            write_key = _write_key(request)
            calls = _calls(await _body(request), kind)
            address = request.client.host if request.client else ""
            host.take(calls, write_key, address=address, header=request.headers.get("AnonymousId", ""))
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status)
        return PlainTextResponse("OK")

    return ingest


def _write_key(request: Request) -> str:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        key = b64decode(given, validate=True).decode().partition(":")[0] if kind.lower() == "basic" else ""
    except ValueError:
        key = ""
    if not key:
        raise Refused(HTTPStatus.UNAUTHORIZED, "Failed to read writeKey from header")
    return key


async def _body(request: Request) -> bytes:
    body = await request.body()
    if request.headers.get("Content-Encoding", "").lower() == "gzip":
        try:
            body = zlib.decompress(body, wbits=31)
        except zlib.error as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "Failed to read body from request") from error
    if len(body) > MAX_BODY:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request size exceeds max limit")
    return body


def _calls(body: bytes, kind: str) -> list[Json]:
    """Return the calls of a request, their types set where the path says it."""
    try:
        content = go_json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_json() from error
    if not isinstance(content, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "Event is not a valid rudder event")
    if kind not in BATCHES:
        return [{**content, "type": kind}]
    calls = content.get("batch")
    if not isinstance(calls, list) or not calls:
        raise Refused(HTTPStatus.BAD_REQUEST, "Empty batch payload")
    return calls
