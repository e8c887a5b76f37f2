"""The clock in the JSON API: everybody may ask for the time, and a virtual one is moved by it."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request

from emarsys_cdp.service.api_answers import Refusal, decoded, known, read_body
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.service.virtual_time import Backwards
from emarsys_cdp.settings import PREFIX, SYSTEM, VIRTUAL
from emarsys_cdp.values.durations import EXPECTED, read_duration
from emarsys_cdp.values.text import shorten
from emarsys_cdp.values.times import iso_time, parse_time
from emarsys_cdp_hooks import Json

MAX_BODY: Final = 10_000
"""Largest body that is read, in bytes."""

MAX_DAYS: Final = 3_660
"""Time goes on by ten years at most in one call: further off is a slip of the pen."""

_EXAMPLE: Final = '{"advance": "48h"}'
_DAY: Final = 86_400_000


async def show_clock(service: Service, request: Request) -> Json:
    """Answer the time, and which clock it is of."""
    known(request.query_params, "query", ())
    virtual = service.virtual
    return {"clock": SYSTEM if virtual is None else VIRTUAL, "now": iso_time(service.clock())}


async def move_clock(service: Service, request: Request) -> Json:
    """Move a virtual clock by `advance` or `to`; answer the time and how many effects rules had on the way."""
    known(request.query_params, "query", ())
    if service.virtual is None:
        message = f"is that of the system, which nobody moves: start the service with {PREFIX}CLOCK={VIRTUAL}"
        raise Refusal(409, "clock", message)
    body = decoded(await read_body(request, MAX_BODY, f"has more than {MAX_BODY} bytes"), _EXAMPLE)
    place, to = _target(body, service.virtual.now)
    try:
        fired = await service.virtual.advance(to)
    except Backwards as error:
        raise Refusal(400, place, str(error)) from error
    return {"now": iso_time(service.virtual.now), "fired": fired}


def _target(body: Any, now: int) -> tuple[str, int]:
    """Return the part of the body that says how far, and the time (ms since 1970 UTC) that it means."""
    if not isinstance(body, dict):
        raise Refusal(400, "body", f"must be an object such as {_EXAMPLE}")
    known(body, "body", ("advance", "to"))
    if len(body) != 1:
        raise Refusal(400, "body", f"must say how far: either advance or to, as in {_EXAMPLE}")
    ((name, given),) = body.items()
    place = f"body.{name}"
    to = now + _span(given, place) if name == "advance" else _time(given, place)
    if to > now + MAX_DAYS * _DAY:
        raise Refusal(400, place, f"{shorten(given)} is further off than {MAX_DAYS} days")
    return place, to


def _span(given: Any, place: str) -> int:
    """Return a duration in ms; a number is one of hours."""
    if type(given) not in (str, int, float) or (not isinstance(given, str) and not 0 <= given <= MAX_DAYS * 24):
        raise Refusal(400, place, f"{shorten(given)} is no duration: {EXPECTED}")
    try:
        return round(read_duration(given) * 1000)
    except ValueError as error:
        raise Refusal(400, place, str(error)) from error


def _time(given: Any, place: str) -> int:
    time = parse_time(given) if isinstance(given, str) else None
    if time is None:
        raise Refusal(400, place, f"{shorten(given)} is no time: write for instance 2026-11-25T10:00:00Z")
    return time
