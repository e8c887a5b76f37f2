"""
Sending by the host itself (reference 1.3 rule 7, 1.5): only the HTTP status counts, for every job of a request.

What is wrong with a request is found here as the server finds it, with the same status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote_plus

from msgspec import Raw, Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp.testing.fake_host.backoff import is_success
from emarsys_cdp.testing.fake_host.http_client import HttpClient, NoAnswer, Response
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.outcome import Outcome, Request, alike
from emarsys_cdp.testing.fake_host.requests import Item
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.values import Delivery
from emarsys_cdp.testing.fake_host.verdict import Output

USER_AGENT: Final = "RudderLabs"
_METHOD: Final = re.compile(r"[A-Za-z]+")
_READABLE: Final = re.compile(r"(text/[a-z0-9.-]+)|(application/([a-z0-9.-]+\+)?(json|xml))")
_TEXT_UNDER: Final = {"JSON_ARRAY": "batch", "XML": "payload"}


class Unsendable(Exception):
    """A request that the server answers itself, with *status*."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(f"{status:d} {message}")


class Sent(Struct, frozen=True):
    """What a request came to."""

    status: int
    text: str


class Wire(Struct, frozen=True):
    """A request as it goes over the wire."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


class OwnDelivery:
    """Sends requests to their endpoints."""

    def __init__(self, client: HttpClient, run: Run) -> None:
        self._client = client
        self._run = run

    async def send(self, requests: Sequence[Request], output: Output, items: Sequence[Item]) -> Outcome:
        """Send requests one after another until one has no success; the last one's status is that of every job."""
        status, texts = 0, list[str]()
        for request in requests:
            sent = await self._one(request, output.records, items[0].destination.id)
            status = sent.status
            if not is_success(status):
                texts = [sent.text]
                break
            texts.append(sent.text)
        return alike(output.records, status, " ".join(texts), sent=True)

    async def _one(self, request: Request, records: Sequence[Record], destination: str) -> Sent:
        if request.type != "REST" or request.files:
            return Sent(HTTPStatus.OK, "")  # the server takes that as sent, and sends nothing
        try:
            wire = wire_of(request)
        except Unsendable as error:
            return Sent(error.status, str(error))
        for record in records:
            record.error = f"in {wire.method} {wire.url}"
        started, status = self._run.seconds(), int(HTTPStatus.GATEWAY_TIMEOUT)
        try:
            timeout = self._run.pace.delivery_timeout
            response = await self._client.request(wire.method, wire.url, wire.headers, wire.body, timeout)
            status, text = response.status, readable(response)
        except NoAnswer as error:
            text = f"504 Unable to make {wire.method!r} request for URL : {wire.url!r}. Error: {error}"
        statuses = {record.id: status for record in records}
        jobs, answered = tuple(statuses), self._run.seconds()
        error_text = "" if is_success(status) else text
        delivery = Delivery(
            destination, wire.method, wire.url, False, jobs, started, answered, status, error_text, statuses
        )
        self._run.delivered(delivery, records)
        return Sent(status, text)


def wire_of(request: Request) -> Wire:
    """
    Return a request as the host sends it.

    Raises:
        Unsendable: it cannot be sent.
        ValueError: a number in it is too large.

    """
    body = _body(request.body or {})
    method = request.method or "GET"
    if not _METHOD.fullmatch(method):
        raise Unsendable(HTTPStatus.BAD_REQUEST, f"Unable to construct {method!r} request")
    headers = {"User-Agent": USER_AGENT, **(request.headers or {})}
    return Wire(method, with_params(request.endpoint or "", request.params or {}), headers, body)


def _body(formats: Mapping[str, Raw]) -> bytes | None:
    """Return the first body that has something in it."""
    for name, raw in formats.items():
        value = go_json.loads(bytes(raw))
        if not isinstance(value, dict):
            raise Unsendable(HTTPStatus.INTERNAL_SERVER_ERROR, f"body.{name} is no object")
        if value:
            return _encoded(name, value)
    return None


def _encoded(name: str, value: Mapping[str, Json]) -> bytes:
    if name == "JSON":
        return go_json.dumps(value)
    if name == "FORM":
        pairs = sorted((key, _printed(entry)) for key, entry in value.items())
        return "&".join(f"{quote_plus(key)}={quote_plus(text)}" for key, text in pairs).encode()
    if name not in _TEXT_UNDER:
        raise Unsendable(HTTPStatus.INTERNAL_SERVER_ERROR, f"body.{name} is no format that is supported")
    text = value.get(_TEXT_UNDER[name])
    if not isinstance(text, str):
        raise Unsendable(HTTPStatus.BAD_REQUEST, f"body.{name}.{_TEXT_UNDER[name]} is no text")
    return text.encode()


def with_params(endpoint: str, params: Mapping[str, Raw]) -> str:
    """Return a URL with its query and *params* as Go writes them: sorted by name."""
    base, _, query = endpoint.partition("#")[0].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    pairs += [(name, _printed(go_json.loads(bytes(params[name])))) for name in sorted(params)]
    written = "&".join(
        f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(pairs, key=lambda pair: pair[0])
    )
    return f"{base}?{written}" if written else base


def _printed(value: Json) -> str:
    """Return a value as text: an object as JSON, true and numbers as Go prints them."""
    return value if isinstance(value, str) else go_json.dumps(value).decode()


def readable(response: Response) -> str:
    """Return the text of an answer, unless its content type is none that people read."""
    content_type = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    if not _READABLE.fullmatch(content_type):
        return "redacted due to unsupported content-type"
    return response.body.decode("utf-8", "replace")
