"""FakeEmarsys for its own tests: its endpoints as functions, and a client that talks to it over HTTP."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing import FakeEmarsys
from emarsys_cdp.testing.fake_emarsys.account import Account, Call
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.replies import Refusal
from emarsys_cdp.testing.fake_emarsys.routes import find_route
from emarsys_cdp.testing.fake_emarsys.world import World

NOW = 1_795_000_000_000
ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.com"
FIRST = 100_000_001
"""Id of the first contact."""
LIST = 5001
"""Id of the first contact list."""
WELCOME = 125
CREATE = "contact/?create_if_not_exists=1"
BODY = {"key_id": "3", "contacts": [{"3": ADA, "1": "Ada"}]}
FIELDS = (
    Field(id="7001", name="Points", type="numeric"),
    Field(id="7002", name="Topics", type="multichoice", choices={"News": "1", "Sports": "2"}),
    Field(id="7003", name="Voucher", type="voucher"),
    Field(id="7004", name="Customer number", type="shorttext", string_id="customer_number"),
)


def account(*emails: str, **options: Any) -> Account:
    """Return an account with an event, some custom fields, and contacts with these e-mails."""
    found = World(Options(**options), lambda: NOW, {}, {}, {}, FIELDS, {WELCOME: "welcome"}, 0).account
    for email in emails:
        found.contacts.create({"3": email}, NOW)
    return found


def call(body: Any, parameters: tuple[str, ...] = (), **query: str) -> Call:
    """Return a call with a JSON body."""
    return Call(
        number=1,
        now=NOW,
        parameters=parameters,
        query=query,
        raw=json.dumps(body).encode(),
        content_type="application/json; charset=utf-8",
        fault=None,
        breaches=[],
    )


def ask(at: Account, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any, str, Any]:
    """Return status, reply code, text and data of the answer to a request; no code where there is no envelope."""
    try:
        route, parameters = find_route(method, path)
        reply = route.endpoint(at, call(body, parameters, **query))
    except Refusal as refusal:
        reply = refusal.reply()
    if reply.content_type != "application/json":
        return reply.status, None, reply.body.decode(), None
    answer = json.loads(reply.body)
    return reply.status, answer["replyCode"], answer["replyText"], answer["data"]


class Api:
    """A client of API v3 with a token."""

    def __init__(self, emarsys: FakeEmarsys, http: httpx.Client) -> None:
        self.emarsys = emarsys
        self.http = http
        self.headers = {"Authorization": f"Bearer {self.fetch().json()['access_token']}"}

    def fetch(self) -> httpx.Response:
        """Ask for a token."""
        client, _, secret = self.emarsys.api_key.partition(":")
        form = {"grant_type": "client_credentials"}
        return self.http.post(self.emarsys.token_url, data=form, auth=(client, secret))

    def send(self, method: str = "PUT", path: str = CREATE, body: Any = BODY, **changes: str) -> httpx.Response:
        """Send a request; *changes* are to its headers."""
        url = f"{self.emarsys.api_base}/v3/{path}"
        return self.http.request(method, url, json=body, headers={**self.headers, **changes})

    def reply(self, method: str = "PUT", path: str = CREATE, body: Any = BODY, **changes: str) -> tuple[int, int]:
        """Send a request and return status and reply code."""
        response = self.send(method, path, body, **changes)
        return response.status_code, response.json()["replyCode"]


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Api]:
    """Run a fake and give a client of it; the fake itself must not have failed."""
    with FakeEmarsys(**options) as emarsys, httpx.Client(timeout=10) as http:
        yield Api(emarsys, http)
    assert emarsys.crashes == ()
