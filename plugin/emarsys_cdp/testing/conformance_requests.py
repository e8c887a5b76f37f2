"""Whether the host can send the requests that a transformer hands back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from msgspec import UNSET

from emarsys_cdp.testing.conformance_types import (
    REQUEST_KINDS,
    Breach,
    Json,
    Rule,
    shown,
    type_breaches,
)

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
FORMATS = ("JSON", "JSON_ARRAY", "XML", "FORM")
TEXT_OF_FORMAT = {"JSON_ARRAY": "batch", "XML": "payload"}
"""Bodies that the host sends as text, and the name under which it looks for that."""


def batch_breaches(value: Json, place: str) -> Iterator[Breach]:
    """Yield the breaches of a batchedRequest: one request, or an array of those that follow one another."""
    requests = value if isinstance(value, list) else [value]
    if not requests or not all(isinstance(request, dict) for request in requests):
        found = shown(value, place)
        yield Breach(Rule.HAS_REQUEST, f"{place} must be a request or an array of requests, is {found}")
        return
    for index, request in enumerate(requests):
        yield from request_breaches(request, f"{place}[{index}]" if isinstance(value, list) else place)


def request_breaches(request: Mapping[str, Json], place: str) -> Iterator[Breach]:
    """Yield the breaches of one request; the host takes a type other than REST as sent, and sends nothing."""
    yield from type_breaches(request, REQUEST_KINDS, place)
    method = request.get("method")
    wanted = {
        "type": ('"REST"', request.get("type") == "REST"),
        "method": (f"one of {', '.join(sorted(METHODS))}", isinstance(method, str) and method in METHODS),
        "endpoint": ("a URL", _is_url(request.get("endpoint"))),
        "files": ("empty", request.get("files") in ({}, None)),
    }
    for name, (what, held) in wanted.items():
        if not held:
            found = shown(request.get(name, UNSET), f"{place}.{name}")
            yield Breach(Rule.SENDABLE, f"{place}.{name} must be {what}, is {found}")
    if isinstance(request.get("body"), dict):
        yield from _body_breaches(request["body"], f"{place}.body")


def _is_url(value: Json) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _body_breaches(body: Mapping[str, Json], place: str) -> Iterator[Breach]:
    for name in dict.fromkeys((*FORMATS, *body)):
        found = shown(body.get(name, UNSET), f"{place}.{name}")
        if name not in FORMATS:
            yield Breach(Rule.BODY, f"{place}.{name} is no body that the host knows, is {found}")
        elif not isinstance(body.get(name), dict):
            yield Breach(Rule.BODY, f"{place}.{name} must be an object, is {found}")
        elif body[name]:
            yield from _text_breaches(name, body[name], f"{place}.{name}")
    filled = [name for name in FORMATS if body.get(name)]
    if len(filled) > 1:
        yield Breach(Rule.BODY, f"{place} must have at most one body, has {', '.join(filled)}")


def _text_breaches(format_name: str, value: Mapping[str, Json], place: str) -> Iterator[Breach]:
    name = TEXT_OF_FORMAT.get(format_name)
    if name is not None and not isinstance(value.get(name), str):
        found = shown(value.get(name, UNSET), place)
        yield Breach(Rule.BODY, f"{place}.{name} must be a string, is {found}")
