"""From a request to its answer: who asks, how often, what for. Everything here happens at once, under the lock."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from emarsys_cdp.testing.fake_emarsys.account import Call
from emarsys_cdp.testing.fake_emarsys.auth import TOKEN_PATH, Caller, basic
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.incoming import MAX_BODY, Incoming
from emarsys_cdp.testing.fake_emarsys.records import Violation, ViolationKind
from emarsys_cdp.testing.fake_emarsys.replies import (
    TOO_MANY_REQUESTS,
    TOO_MANY_TEXT,
    UNROUTED,
    Refusal,
    Reply,
    bare,
    refuse,
    too_large,
)
from emarsys_cdp.testing.fake_emarsys.routes import find_route
from emarsys_cdp.testing.fake_emarsys.world import World

HEALTH_PATH: Final = "/healthcheck"
_API: Final = re.compile(r"/api/(v2|v3)(?:/(.*))?", re.DOTALL)
_GATEWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
"""Statuses that come from in front of the API, and have none of its headers."""


def caller_of(world: World, incoming: Incoming) -> Caller:
    """Return who a request says it is of, and whether that is so; nobody where nobody is asked for."""
    if incoming.path == TOKEN_PATH:
        return Caller(basic(incoming.headers.get("authorization"))[0])
    match = _API.fullmatch(incoming.path)
    if match is None:
        return Caller(None)
    if match[1] == "v3":
        return world.tokens.identify(incoming.headers.get("authorization"), world.now())
    return world.wsse.identify(incoming.headers.get("x-wsse"), world.now())


def faulty(world: World, incoming: Incoming, fault: Fault) -> Reply:
    """Return the answer of a fault that has one, with the headers of the API unless a gateway gives it."""
    reply = fault.reply(text_429=world.options.limit_body == "text")
    if _API.fullmatch(incoming.path) is None or reply.status in _GATEWAY:
        return reply
    return _with_headers(reply, world.rate.headers(caller_of(world, incoming).user, world.now()))


def process(world: World, incoming: Incoming, number: int, fault: Fault | None) -> Reply:
    """Do what request *number* asks for and return the answer, whatever happens; record the rules that it broke."""
    caller = caller_of(world, incoming)
    breaches: list[tuple[ViolationKind, str]] = []
    try:
        reply = _answer(world, incoming, caller, number, fault, breaches)
    except Exception as error:  # noqa: BLE001 - a fault of the fake must not look like one of the client
        world.crashes.append("".join(traceback.format_exception(error)))
        reply = bare(HTTPStatus.INTERNAL_SERVER_ERROR, f"FakeEmarsys failed: {error!r}", note="FakeEmarsys failed")
    for kind, detail in breaches:
        world.violations.add(Violation(kind, world.now(), caller.user, detail, number))
    return reply


def _answer(
    world: World,
    incoming: Incoming,
    caller: Caller,
    number: int,
    fault: Fault | None,
    breaches: list[tuple[ViolationKind, str]],
) -> Reply:
    if incoming.is_too_large:
        breaches.append(("body_size", f"{incoming.size} bytes, at most {MAX_BODY}"))
        return too_large()
    if incoming.path == HEALTH_PATH:
        return bare(HTTPStatus.OK, "OK")
    if incoming.path == TOKEN_PATH:
        return world.tokens.answer(incoming.method, incoming.headers, incoming.raw, world.now(), breaches)
    match = _API.fullmatch(incoming.path)
    if match is None:
        return refuse(UNROUTED, "No resource requested").reply()
    try:
        _admit(world, caller, breaches)
        reply = _at_endpoint(world, incoming, match[2] or "", caller, number, fault, breaches)
    except Refusal as refusal:
        reply = refusal.reply()
        if reply.status == HTTPStatus.TOO_MANY_REQUESTS and world.options.limit_body == "text":
            reply = bare(reply.status, refusal.text, note=refusal.note)
    return _with_headers(reply, world.rate.headers(caller.user, world.now()))


def _admit(world: World, caller: Caller, breaches: list[tuple[ViolationKind, str]]) -> None:
    """
    Let a caller in, and count the request.

    Raises:
        Refusal: the credentials are wrong, or the limit of the API user is used up.

    """
    if caller.user is None or caller.problem is not None:
        note = caller.problem or "no credentials"
        raise Refusal(HTTPStatus.UNAUTHORIZED, UNROUTED, "Credentials are invalid", note)
    if world.wsse.is_replay(caller):
        breaches.append(("nonce_replay", f"nonce {caller.nonce} came before"))
    excess = world.rate.take(caller.user, world.now())
    if excess is not None:
        breaches.append(("rate", excess))
        raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_REQUESTS, TOO_MANY_TEXT, excess)


def _at_endpoint(
    world: World,
    incoming: Incoming,
    path: str,
    caller: Caller,
    number: int,
    fault: Fault | None,
    breaches: list[tuple[ViolationKind, str]],
) -> Reply:
    route, parameters = find_route(incoming.method, path)
    if not world.permissions.has(caller.user or "", route.permission):
        return bare(HTTPStatus.FORBIDDEN, "Forbidden", note=f"{caller.user} lacks the permission {route.permission}")
    call = Call(
        number=number,
        now=world.now(),
        parameters=parameters,
        query=incoming.parameters(),
        raw=incoming.raw,
        content_type=incoming.headers.get("content-type", ""),
        fault=fault if fault is not None and fault.kind == "rows" else None,
        breaches=breaches,
    )
    return route.endpoint(world.account, call)


def _with_headers(reply: Reply, headers: Mapping[str, str]) -> Reply:
    return msgspec.structs.replace(reply, headers={**headers, **reply.headers})
