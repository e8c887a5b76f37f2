"""What the endpoints of the JSON API have in common: reading bodies, refusing, answering in one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from emarsys_cdp.publishing import InFile, Stale
from emarsys_cdp.service.etags import etag
from emarsys_cdp.users_pages import NoPlace
from emarsys_cdp.users_query import NoIdentifier
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import InvalidDocument, Json, RetryLater, StopAndFix

IF_MATCH: Final = "header.If-Match"

_log = structlog.get_logger("emarsys_cdp.service")


class Refusal(Exception):
    """The request is refused with *status*; *place* is the part of it that is wrong."""

    def __init__(self, status: int, place: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.place = place
        self.headers = headers
        super().__init__(message)


def known(given: Mapping[str, Any], place: str, names: tuple[str, ...]) -> None:
    """Refuse names that mean nothing here, or stand twice in a query."""
    if isinstance(given, QueryParams):
        for name in given:
            if len(given.getlist(name)) > 1:
                raise Refusal(400, f"{place}.{shorten(name)[1:-1]}", "is given twice: once is right")
    for name in given:
        if name not in names:
            hint = f": known are {', '.join(names)}" if names else ""
            raise Refusal(400, f"{place}.{shorten(name)[1:-1]}", f"means nothing here{hint}")


async def read_body(request: Request, most: int, too_large: str) -> bytes:
    """Return the body; one that is too large is refused as soon as that is known."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > most:
        raise Refusal(413, "body", too_large)
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise Refusal(413, "body", too_large)
    return b"".join(pieces)


def decoded(body: bytes, example: str) -> Any:
    """Return the JSON value of a body; *example* is one that would be right."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "body", f"is no JSON ({error}): send for instance {example}") from error


def refused(request: Request, error: Exception) -> Response:
    """Return what a request is refused with; what is a fault of ours is logged."""
    if isinstance(error, Refusal):
        return errors(error.status, error.place, str(error), error.headers)
    if isinstance(error, (InvalidDocument, Stale, InFile)):
        return _not_published(error)
    if isinstance(error, NoPlace):
        return errors(400, "query.after", str(error))
    if isinstance(error, NoIdentifier):
        return errors(400, f"{'body' if request.method == 'POST' else 'query'}.{error.kind}", str(error))
    if isinstance(error, RetryLater):
        return errors(503, "store", str(error), {"Retry-After": "1"})
    if isinstance(error, StopAndFix):
        return errors(500, "store", str(error))
    _log.exception("request_failed", path=request.url.path, exc_info=error)
    return errors(500, "service", f"a fault of emarsys-cdp ({type(error).__name__}); its log says more")


def _not_published(error: InvalidDocument | Stale | InFile) -> Response:
    if isinstance(error, InvalidDocument):
        return answer_json(422, {"errors": [msgspec.to_builtins(problem) for problem in error.problems]})
    if isinstance(error, Stale):
        now = etag(error.revision)
        return errors(412, IF_MATCH, f"{error}; its ETag is {now}", {"ETag": now})
    return errors(409, "space", str(error))


def errors(status: int, place: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that tells one thing that is wrong."""
    return answer_json(status, {"errors": [{"place": place, "message": message}]}, headers)


def answer_json(status: int, content: Json, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that nobody between us and the caller keeps."""
    body = msgspec.json.encode(content)
    return Response(body, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")
