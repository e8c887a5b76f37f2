"""
The JSON API under /api/v1: the users table and documents for programs. `GET /api/v1/openapi.json` describes it.

Who calls sends EMARSYS_CDP_ADMIN_TOKEN as bearer token. Every error is `{"errors": [{"place", "message"}]}`, where the
place is a part of the request, such as `query.user`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import emarsys_cdp_manifests as manifests
from emarsys_cdp import __version__
from emarsys_cdp.service.api_answers import Refusal, answer_json, decoded, errors, known, read_body, refused
from emarsys_cdp.service.api_clock import move_clock, show_clock
from emarsys_cdp.service.api_documents import publish_document, show_document
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.settings import PREFIX
from emarsys_cdp.users_desk import DELETE, MODES, SUPPRESS
from emarsys_cdp.users_query import WORDS
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Json

BASE: Final = "/api/v1"
TOKEN: Final = f"{PREFIX}ADMIN_TOKEN"

LIMIT, MAX_LIMIT = 100, 1000
"""People of a page, if nothing else is asked for and at most."""

MAX_BODY: Final = 65_536
"""Largest body that is read, in bytes: it names one person."""

MAX_SHOWN: Final = 10**20
"""A larger number is not repeated in an error."""

Answer = Callable[[Service, Request], Awaitable[Json | Response]]


def api_routes(current: Callable[[], Service | None]) -> list[Route]:
    """Return the routes of the API; *current* is the running service, None before its start."""

    def endpoint(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                service = current()
                if service is None:
                    raise Refusal(503, "service", "is starting")
                _authorize(service, request)
                found = await answer(service, request)
                return found if isinstance(found, Response) else answer_json(200, found)
            except Exception as error:  # noqa: BLE001 - every error is answered in one form
                return refused(request, error)

        return respond

    users, document = f"{BASE}/spaces/{{space}}/users", f"{BASE}/spaces/{{space}}/document"
    return [
        Route(f"{BASE}/openapi.json", _describe, methods=["GET"]),
        Route(f"{BASE}/clock", endpoint(show_clock), methods=["GET"]),
        Route(f"{BASE}/clock", endpoint(move_clock), methods=["POST"]),
        Route(f"{BASE}/spaces", endpoint(_spaces), methods=["GET"]),
        Route(document, endpoint(show_document), methods=["GET"]),
        Route(document, endpoint(publish_document), methods=["PUT"]),
        Route(users, endpoint(_users), methods=["GET"]),
        Route(users, endpoint(_delete), methods=["DELETE"]),
        Route(f"{users}/erase", endpoint(_erase), methods=["POST"]),
        Route(f"{users}/suppress", endpoint(_suppress), methods=["POST"]),
        Route(f"{users}/unsuppress", endpoint(_unsuppress), methods=["POST"]),
        Route(f"{BASE}/{{path:path}}", _unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]


async def _describe(request: Request) -> Response:  # noqa: ARG001 - the signature of a route
    description = json.loads(manifests.read("openapi.json"))
    description["info"]["version"] = __version__
    return answer_json(200, description)


async def _unknown(request: Request) -> Response:
    asked = f"{request.method} {shorten(request.url.path)}"
    return errors(404, "path", f"{asked} is none of ours: see {BASE}/openapi.json")


async def _spaces(service: Service, request: Request) -> Json:  # noqa: ARG001
    return {"spaces": await service.users.spaces()}


async def _users(service: Service, request: Request) -> Json:
    """Return the person that the query names, else a page of all."""
    query, space = request.query_params, request.path_params["space"]
    known(query, "query", (*WORDS, "limit", "after"))
    if any(kind in query for kind in WORDS):
        kind, value = _person(query, "query")
        found = await service.users.show(space, kind, value)
        if found is None:
            raise Refusal(404, f"query.{kind}", f"nobody in space {shorten(space)} has this {WORDS[kind]}")
        return found
    people, after = await service.users.page(space, query.get("after", ""), _limit(query.get("limit")))
    return {"users": people, "next": after}


async def _delete(service: Service, request: Request) -> Json:
    query = request.query_params
    known(query, "query", (*WORDS, "mode"))
    mode = query.get("mode", DELETE)
    if mode not in MODES:
        raise Refusal(400, "query.mode", f"{shorten(mode)} is none: give {' or '.join(MODES)}")
    return await _remove(service, request, _person(query, "query"), mode)


async def _erase(service: Service, request: Request) -> Json:
    return await _remove(service, request, await _person_of_body(request), DELETE)


async def _suppress(service: Service, request: Request) -> Json:
    return await _remove(service, request, await _person_of_body(request), SUPPRESS)


async def _unsuppress(service: Service, request: Request) -> Json:
    kind, value = await _person_of_body(request)
    return {"unsuppressed": await service.users.unsuppress(request.path_params["space"], kind, value)}


async def _remove(service: Service, request: Request, person: tuple[str, str], mode: str) -> Json:
    return msgspec.to_builtins(await service.users.erase(request.path_params["space"], *person, mode))


def _authorize(service: Service, request: Request) -> None:
    """Compare the token; without one of the settings nobody gets in."""
    wanted = service.settings.admin_token
    if wanted is None:
        raise Refusal(403, TOKEN, "is not set, so nobody may use the API: set it to a random text, and send it")
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted.reveal().encode())
    if kind.lower() != "bearer" or not right:
        message = f"is not the bearer token of {TOKEN}"
        raise Refusal(401, "header.Authorization", message, {"WWW-Authenticate": "Bearer"})


def _person(given: Mapping[str, Any], place: str) -> tuple[str, str]:
    """Return the kind and the value of the one identifier that is given."""
    named = [kind for kind in WORDS if kind in given]
    if len(named) != 1:
        raise Refusal(400, place, f"must name the person by one of {', '.join(WORDS)}")
    (kind,) = named
    value = given[kind]
    if not isinstance(value, str):
        hint = f': write "{value}"' if type(value) is int and abs(value) < MAX_SHOWN else ""
        raise Refusal(400, f"{place}.{kind}", f"{shorten(value)} is no text{hint}")
    return kind, value


async def _person_of_body(request: Request) -> tuple[str, str]:
    given = decoded(await read_body(request, MAX_BODY, f"has more than {MAX_BODY} bytes"), '{"user": "u1"}')
    if not isinstance(given, dict):
        raise Refusal(400, "body", 'must be an object such as {"user": "u1"}')
    known(given, "body", tuple(WORDS))
    return _person(given, "body")


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT):
        raise Refusal(400, "query.limit", f"{shorten(text)} must be a number from 1 to {MAX_LIMIT}")
    return int(text)
