"""
The HTTP side: which path is whose.

The host's endpoints are answered in this ASGI application itself, because a router in front of them costs more than
the rest of a small request; everything else that is ours is a Starlette application, and what is not ours goes to
the stock transformer. A server that has read a whole request may have it answered without ASGI (`short_way.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from starlette.types import Message, Receive, Scope, Send

from emarsys_cdp.droppable import drop
from emarsys_cdp.hosts.rudderstack.decode import destination_type
from emarsys_cdp.hosts.rudderstack.deletion import is_ours
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.service.operations import operations
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import DropCall, RetryLater

MAX_BODY = 256 * 1024 * 1024
"""Largest request that is read, in bytes."""

PROCESSOR = "/v0/destinations/emarsys"
ROUTER = "/routerTransform"
BATCH = "/batch"
PROXY_V1 = "/v1/destinations/emarsys/proxy"
PROXY_V0 = "/v0/destinations/emarsys/proxy"
DELETE_USERS = "/deleteUsers"
EXACT = (ROUTER, BATCH, DELETE_USERS)
"""Endpoints of ours whose path has capital letters."""

OPERATIONS = ("/health", "/ready", "/metrics", "/ui")
BELOW_OPERATIONS = ("/ui/", "/api/v1/")
DESTINATION_TYPE = "emarsys"

RELOAD_SECONDS = 0.5
"""Documents are looked at this often, so that one is in force everywhere within a second."""

_JSON = (b"content-type", b"application/json")
_VERSION = (b"apiversion", b"2")
"""The header without which a RudderStack server stops working (reference 1.3, rule 5)."""

_RETRY = ((b"x-rudder-should-retry", b"true"), (b"x-rudder-error-reason", b"emarsys-cdp"))

_log = structlog.get_logger("emarsys_cdp.service")


Headers = Iterable[tuple[bytes, bytes]]


class Reply(Struct, frozen=True):
    """What a request of ours is answered with; *headers* beside those that every answer has."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class TooLarge(DropCall):
    """The request's body is larger than is read."""


class App:
    """
    The ASGI application. *open_service* makes the running service when the server starts.

    *new_id* makes ids for requests that bring none.
    """

    def __init__(
        self, open_service: Callable[[], AbstractAsyncContextManager[Service]], new_id: Callable[[], str]
    ) -> None:
        self._open_service = open_service
        self._new_id = new_id
        self._service: Service | None = None
        self._operations = operations(lambda: self._service)
        self._own: Mapping[str, Callable[[Service, bytes], Awaitable[bytes | tuple[int, bytes]]]] = {
            PROCESSOR: lambda service, body: service.rudderstack.processor(body),
            ROUTER: lambda service, body: service.rudderstack.router(body),
            BATCH: lambda service, body: service.rudderstack.batch(body),
            PROXY_V1: lambda service, body: service.proxy.v1(body),
            PROXY_V0: lambda service, body: service.proxy.v0(body),
            DELETE_USERS: lambda service, body: service.deletion.delete(body),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the service between the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        service, path = self._service, scope["path"]
        if service is None:
            await _refuse(send, 503, "the service is starting", _RETRY)
            return
        if path in OPERATIONS or path.startswith(BELOW_OPERATIONS):
            await self._operations(scope, receive, send)
            return
        await self._answer(service, path, scope, receive, send)

    async def _answer(self, service: Service, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = _header(scope["headers"], b"x-request-id") or self._new_id()
        structlog.contextvars.bind_contextvars(request=request_id)
        answer = _Recorder(send, request_id)
        own = path if path in EXACT else path.lower()
        if not _authorized(service, scope["headers"]):
            own = "unauthorized"
            await _send(answer, _UNAUTHORIZED)
        elif own in self._own:
            await self._transform(service, own, scope, receive, answer)
        elif path == "/features":
            await _features(service, scope, answer)
        elif service.upstream is not None:
            own, answer.untouched = "upstream", True
            await service.upstream.forward(scope, receive, answer)
        else:
            own = "other"
            await _refuse(
                answer,
                501,
                f"{scope['method']} {path} is not answered here: set EMARSYS_CDP_UPSTREAM to the stock transformer",
            )
        service.metrics.observe(own, answer.status, time.perf_counter() - started)
        structlog.contextvars.clear_contextvars()

    async def _transform(self, service: Service, path: str, scope: Scope, receive: Receive, send: _Recorder) -> None:
        """Answer a transform endpoint of ours, or hand it on when it is for another destination type."""
        if scope["method"] != "POST":
            await _refuse(send, 501, f"{path} takes POST")
            return
        try:
            body = await _read(receive)
            if service.upstream is not None and not _for_emarsys(path, body):
                send.untouched = True
                await service.upstream.forward(scope, receive, send, body)
                return
            reply = await self._transformed(service, path, body)
        except Exception as error:  # noqa: BLE001 - whatever our fault is, the host keeps its calls
            reply = _refusal(path, error)
        await _send(send, reply)

    async def _transformed(self, service: Service, path: str, body: bytes) -> Reply:
        answer = await self._own[path](service, body)
        status, found = answer if isinstance(answer, tuple) else (200, answer)
        return Reply(status, found, (_VERSION,))

    def directly(self, path: str, headers: Headers, body: bytes) -> Coroutine[Any, Any, Reply] | None:
        """
        Return what answers a POST to a transform endpoint, with all that a request of ours gets.

        None when it has to come over ASGI: the service is starting, or the request is for the stock transformer.
        """
        service = self._service
        if service is None or (service.upstream is not None and not _for_emarsys(path, body)):
            return None
        return self._answer_directly(service, path, headers, body)

    async def _answer_directly(self, service: Service, path: str, headers: Headers, body: bytes) -> Reply:
        started = time.perf_counter()
        request_id = _header(headers, b"x-request-id") or self._new_id()
        structlog.contextvars.bind_contextvars(request=request_id)
        try:
            if _authorized(service, headers):
                reply = await self._transformed(service, path, body)
            else:
                path, reply = "unauthorized", _UNAUTHORIZED
        except Exception as error:  # noqa: BLE001 - whatever our fault is, the host keeps its calls
            reply = _refusal(path, error)
        service.metrics.observe(path, reply.status, time.perf_counter() - started)
        return Reply(reply.status, reply.body, (_JSON, *reply.headers, _id_header(request_id)))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                service = await stack.enter_async_context(self._open_service())
                await _first_look(service)
                self._service = service
            except Exception as error:  # noqa: BLE001 - the server prints it and stops
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            running = (_reload(service), service.sweeps.run(), service.outbox.run(), service.timers.run())
            beside = [asyncio.create_task(one) for one in running]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._service = None
            for task in beside:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        await send({"type": "lifespan.shutdown.complete"})


class _Recorder:
    """Passes an answer on, adds the request id unless it is *untouched*, and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = _id_header(request_id)
        self.status = 0
        self.untouched = False

    async def __call__(self, message: Message) -> None:
        """Pass one ASGI message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.untouched:
                await self._send(message)
                return
            message = {**message, "headers": [*message.get("headers", ()), self._id]}
        await self._send(message)


async def _first_look(service: Service) -> None:
    """Read all documents; while the store does not answer, calls are held back, and it is tried again."""
    try:
        await service.documents.refresh()
    except StoreUnavailable as error:
        _log.error("documents_unreadable", reason=str(error))


async def _reload(service: Service) -> None:
    """Look for changed documents until cancelled; the same reason is told once."""
    told = ""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        try:
            await service.documents.refresh()
            told = ""
        except (OSError, StoreUnavailable) as error:
            if str(error) != told:
                _log.error("documents_unreadable", reason=str(error))
            told = str(error)
        except Exception:  # noqa: BLE001 - the next change has to be seen all the same
            _log.exception("documents_failed")


def _for_emarsys(path: str, body: bytes) -> bool:
    """Tell whether a request is for our destination type, which is in the path or in the body."""
    if path == DELETE_USERS:
        return is_ours(body)
    return path not in (ROUTER, BATCH) or destination_type(body) == DESTINATION_TYPE


def _header(headers: Headers, name: bytes) -> str | None:
    for key, value in headers:
        if key == name:
            return bytes(value).decode("latin-1")[:200]
    return None


def _id_header(request_id: str) -> tuple[bytes, bytes]:
    return b"x-request-id", request_id.encode("latin-1", "replace")


def _authorized(service: Service, headers: Headers) -> bool:
    """Compare the host token, sent as bearer token or as the password of basic authentication."""
    wanted = service.settings.host_token
    if wanted is None:
        return True
    kind, _, given = (_header(headers, b"authorization") or "").partition(" ")
    if kind.lower() == "basic":
        try:
            given = b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), wanted.reveal().encode())


async def _features(service: Service, scope: Scope, send: Send) -> None:
    """Answer what we can do; before the stock transformer has answered once, drop the connection."""
    features = await service.features.answer()
    if features is None:
        if not drop(scope):
            await _refuse(send, 503, "the stock transformer has not answered yet", _RETRY)
        return
    await _send(send, Reply(200, msgspec.json.encode(features)))


async def _read(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RetryLater("the host closed the connection before its request was whole")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY:
            raise TooLarge(f"the request has more than {MAX_BODY} bytes")
        more = message.get("more_body", False)
    return b"".join(pieces)


def _refusal(path: str, error: Exception) -> Reply:
    """Return and log what a request is refused with."""
    reason = str(error)
    if isinstance(error, TooLarge):
        return Reply(413, _as_body(reason), (_VERSION,))
    if isinstance(error, DropCall):
        _log.warning("request_refused", path=path, reason=reason)
        return Reply(400, _as_body(reason), (_VERSION,))
    if isinstance(error, RetryLater):
        _log.error("request_postponed", path=path, reason=reason)
    else:
        _log.exception("request_failed", path=path, exc_info=error)
        reason = f"a fault of emarsys-cdp ({type(error).__name__})"
    return Reply(503, _as_body(reason), _RETRY)


def _as_body(reason: str) -> bytes:
    return msgspec.json.encode({"error": reason})


_UNAUTHORIZED = Reply(503, _as_body("the host token is wrong: see EMARSYS_CDP_HOST_TOKEN"), _RETRY)


async def _refuse(send: Send, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    await _send(send, Reply(status, _as_body(reason), headers))


async def _send(send: Send, reply: Reply) -> None:
    length = (b"content-length", str(len(reply.body)).encode())
    await send({"type": "http.response.start", "status": reply.status, "headers": [_JSON, length, *reply.headers]})
    await send({"type": "http.response.body", "body": reply.body})
