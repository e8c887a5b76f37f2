"""Reading a request, whole and within bounds, and sending an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.types import Receive, Scope, Send

from emarsys_cdp.testing.fake_emarsys.replies import Reply

MAX_BODY: Final = 10_000_000
"""Body of any request: 10 MB (guide "Miscellaneous"), taken as decimal megabytes."""


class Incoming(Struct, frozen=True):
    """A request as it came. *raw* is empty when the body was larger than 10 MB, *complete* False when it broke off."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    raw: bytes
    size: int
    complete: bool

    @property
    def is_too_large(self) -> bool:
        """Whether the body was above the limit of all requests."""
        return self.size > MAX_BODY

    def parameters(self) -> dict[str, str]:
        """Return the query's parameters."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


async def read(scope: Scope, receive: Receive) -> Incoming:
    """Return a request; of a body that is too large no more is read than shows it."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    told = headers.get("content-length", "0")
    size = int(told) if told.isascii() and told.isdigit() else 0
    raw, complete = (b"", True) if size > MAX_BODY else await _body(receive)
    return Incoming(
        scope["method"],
        scope["path"],
        scope["query_string"].decode("latin-1"),
        headers,
        raw if len(raw) <= MAX_BODY else b"",
        max(size, len(raw)),
        complete,
    )


async def _body(receive: Receive) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts), False
        part: bytes = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MAX_BODY or not message.get("more_body", False):
            return b"".join(parts), True


async def send_reply(send: Send, reply: Reply) -> None:
    """Send an answer."""
    headers = [(b"content-type", reply.content_type.encode()), (b"content-length", str(len(reply.body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def until_left(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
