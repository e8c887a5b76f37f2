"""The documents of spaces in the JSON API."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from emarsys_cdp.document_files import MAX_DOCUMENT
from emarsys_cdp.publishing import Stale
from emarsys_cdp.service.api_answers import IF_MATCH, Refusal, answer_json, decoded, known, read_body
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.service.etags import etag, read_if_match
from emarsys_cdp.store import StoreUnavailable


async def show_document(service: Service, request: Request) -> Response:
    """Answer the document of a space, with its revision as ETag."""
    known(request.query_params, "query", ())
    shown = await service.publisher.show(request.path_params["space"])
    body = await asyncio.to_thread(json.dumps, shown.document)  # ASCII: a file may have what UTF-8 has no form for
    return Response(body, 200, {"Cache-Control": "no-store", "ETag": etag(shown.revision)}, "application/json")


async def publish_document(service: Service, request: Request) -> Response:
    """
    Publish the document of the body if that of now has the revision of If-Match.

    What is wrong with the request's head is told before its body is read.
    """
    space, publisher = request.path_params["space"], service.publisher
    known(request.query_params, "query", ())
    publisher.refuse_file(space)
    now = await publisher.revision(space)
    expected = _expected(request, now)
    body = await read_body(request, MAX_DOCUMENT, f"has more than {MAX_DOCUMENT // 1024**2} MB")
    receipt = await publisher.publish(space, await asyncio.to_thread(decoded, body, "{}"), expected)
    with suppress(StoreUnavailable, OSError):  # it is published; this worker reads it later, as the others do
        await service.documents.refresh()
    return answer_json(200, msgspec.to_builtins(receipt), {"ETag": etag(receipt.revision)})


def _expected(request: Request, now: int) -> int:
    """Return the revision that the request is for: that of now, if it is among those that are named."""
    given = request.headers.getlist("if-match")
    if not given:
        raise Refusal(
            428, IF_MATCH, f"is missing: send the ETag of the document that was changed; now it is {etag(now)}"
        )
    try:
        revisions = read_if_match(", ".join(given))
    except ValueError as error:
        raise Refusal(400, IF_MATCH, f"{error}; now the ETag is {etag(now)}") from error
    if now not in revisions:
        raise Stale(now)
    return now
