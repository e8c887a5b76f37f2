"""The check of an API Key against FakeEmarsys: what it says, and what it says to do, when something is wrong."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import msgspec
import pytest
from tests.support.app import Clock
from tests.support.emarsys import FIELDS

from emarsys_cdp.credentials import parse_api_key
from emarsys_cdp.emarsys.account import Customer
from emarsys_cdp.emarsys.account_check import check_account
from emarsys_cdp.emarsys.account_report import WRITES, Counts, Finding, RateLimit, Report
from emarsys_cdp.emarsys.client import open_http
from emarsys_cdp.emarsys.connection import connect
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.secrets import Seal
from emarsys_cdp.settings import Settings
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.testing import FakeEmarsys, Fault
from emarsys_cdp.testing.fake_emarsys.routes import CUSTOMER_ID

READS = ("customer.settings", "field.list", "field.multichoice.list", "contactlist.list", "externalevent.list")
SYSTEM = len(load_system_fields().fields)
CREDENTIALS_PAGE = "Management > Security Settings > API Credentials"


@pytest.fixture
def clock() -> Clock:
    """Return the time of Emarsys."""
    return Clock()


@pytest.fixture
def emarsys(clock: Clock) -> Iterator[FakeEmarsys]:
    """Run a fake with fields, events and a contact list."""
    with FakeEmarsys(clock=clock, fields=FIELDS, external_events={125: "welcome", 126: "goodbye"}) as fake:
        fake.add_list("news")
        yield fake
        assert fake.crashes == ()


def check(fake: FakeEmarsys, key: str, clock: Clock, *, ahead: float = 0, dated: bool = True, **given: str) -> Report:
    """Check a key with a clock that is ahead by so many seconds; *dated*: answers have the Date that servers send."""
    ours = Clock()
    ours.advance(ahead)
    world = ours.world()
    settings = msgspec.structs.replace(Settings(api_base=fake.api_base, token_url=fake.token_url), **given)

    async def date(response: httpx.Response) -> None:
        response.headers["Date"] = format_datetime(datetime.fromtimestamp(clock.now / 1000, UTC), usegmt=True)

    async def run() -> Report:
        async with open_http() as http:
            http.event_hooks = {"response": [date] if dated else []}
            parts = connect(settings, MemoryStore(), Seal(bytes(32), world.random_bytes), http, world)
            return await check_account(parts, parse_api_key(key), world.clock)

    return asyncio.run(run())


def states(report: Report) -> dict[str, str]:
    """Return the state of each permission."""
    return {one.name: one.state for one in report.permissions}


def only(report: Report) -> Finding:
    """Return the one finding of a report."""
    (finding,) = report.findings
    return finding


def asked(fake: FakeEmarsys) -> list[tuple[str, str]]:
    """Return method and path of every request that the fake got."""
    return [(one.method, one.path) for one in fake.requests]


def test_a_key_that_works(emarsys: FakeEmarsys, clock: Clock) -> None:
    """Everything that can be told without writing is told, and nothing is found to be wrong."""
    report = check(emarsys, emarsys.api_key, clock)

    assert report == Report(
        result="works",
        api="v3",
        authentication="OAuth 2.0",
        user="clie…",
        token_fetched=True,
        customer=Customer(str(CUSTOMER_ID), "fake_emarsys"),
        clock_ahead_seconds=0,
        rate_limit=RateLimit(1000, 995),
        counts=Counts(SYSTEM, len(FIELDS), external_events=2, contact_lists=1),
        permissions=report.permissions,
        findings=(),
    )
    assert states(report) == {**dict.fromkeys(READS, "on"), **{name: "not tried" for name, _ in WRITES}}


def test_nothing_is_written(emarsys: FakeEmarsys, clock: Clock) -> None:
    """One token and five questions, all of them GET, none twice, and no rule of the API is broken."""
    check(emarsys, emarsys.api_key, clock)

    assert asked(emarsys) == [
        ("POST", "/oauth2/token"),
        ("GET", "/api/v3/settings"),
        ("GET", "/api/v3/field/translate/en"),
        ("GET", "/api/v3/field/choices"),
        ("GET", "/api/v3/contactlist"),
        ("GET", "/api/v3/event"),
    ]
    assert emarsys.violations == ()


def test_a_wsse_key_works_and_has_an_end(emarsys: FakeEmarsys, clock: Clock) -> None:
    """With WSSE there is no token, and a warning with the date on which SAP ends it and what to create instead."""
    report = check(emarsys, emarsys.wsse_api_key, clock)

    assert (report.result, report.api, report.authentication, report.token_fetched) == ("works", "v2", "WSSE", None)
    assert report.user == "cust…"
    assert report.counts == Counts(SYSTEM, len(FIELDS), external_events=2, contact_lists=1)
    assert only(report).level == "warning"
    assert "2026-12-31" in only(report).what
    assert "OpenID Connect" in only(report).next_step
    assert {path for _, path in asked(emarsys)} == {
        f"/api/v2/{path}" for path in ("settings", "field/translate/en", "field/choices", "contactlist", "event")
    }


# Permissions


@pytest.mark.parametrize("name", READS[2:])
def test_a_missing_permission_is_named(emarsys: FakeEmarsys, clock: Clock, name: str) -> None:
    """A bare 403 becomes the permission's name and the page where it is switched on; the others are still asked."""
    emarsys.forbid("client-1", name)
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "incomplete"
    assert states(report) == {**dict.fromkeys(READS, "on"), **{one: "not tried" for one, _ in WRITES}, name: "off"}
    assert only(report).level == "error"
    assert name in only(report).what
    assert f"switch {name} on" in only(report).next_step
    assert CREDENTIALS_PAGE in only(report).next_step


def test_the_settings_of_the_account_are_not_needed(emarsys: FakeEmarsys, clock: Clock) -> None:
    """Emarsys restricts that endpoint, and only the check uses it: without it the key still works."""
    emarsys.forbid("client-1", "customer.settings")
    report = check(emarsys, emarsys.api_key, clock)

    assert (report.result, report.customer, only(report).level) == ("works", None, "warning")
    assert states(report)["customer.settings"] == "off"
    assert "customer.settings" in only(report).next_step


def test_either_list_of_fields_is_enough(emarsys: FakeEmarsys, clock: Clock) -> None:
    """Without field.list the fields come by field.get, and nothing is wrong."""
    emarsys.forbid("client-1", "field.list")
    report = check(emarsys, emarsys.api_key, clock)

    assert (report.result, report.findings) == ("works", ())
    assert (states(report)["field.list"], states(report)["field.get"]) == ("off", "on")
    assert report.counts.own_fields == len(FIELDS)


def test_no_list_of_fields_is_one_error(emarsys: FakeEmarsys, clock: Clock) -> None:
    """When both are off, one is asked for."""
    emarsys.forbid("client-1", "field.list", "field.get")
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "incomplete"
    assert "switch field.list on" in only(report).next_step
    assert (states(report)["field.list"], states(report)["field.get"]) == ("off", "off")
    assert report.counts.system_fields is None


def test_a_key_without_any_permission(emarsys: FakeEmarsys, clock: Clock) -> None:
    """New credentials have no permission at all: each is named, errors first, and the key counts as right."""
    emarsys.forbid("client-1", *READS, "field.get")
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "incomplete"
    assert [finding.what.split(",")[0].split()[-1] for finding in report.findings] == [*READS[1:], READS[0]]


# Keys that are refused


def test_a_client_with_a_wrong_secret(emarsys: FakeEmarsys, clock: Clock) -> None:
    """Without a token nothing is asked; the next step tells of the other kinds of credentials."""
    report = check(emarsys, "client-1:wrong", clock)

    assert (report.result, report.token_fetched) == ("refused", False)
    assert only(report).what == "no access token: Emarsys refuses the API Key (HTTP 401)"
    for words in ("client_secret", CREDENTIALS_PAGE, "wsse:user:secret", "EMARSYS_CDP_TOKEN_URL"):
        assert words in only(report).next_step
    assert asked(emarsys) == [("POST", "/oauth2/token")]
    assert set(states(report).values()) == {"unknown", "not tried"}


def test_wsse_credentials_that_are_written_as_oauth(emarsys: FakeEmarsys, clock: Clock) -> None:
    """A WSSE user without `wsse:` in front is taken for a client, and the next step says so."""
    report = check(emarsys, emarsys.wsse_api_key.removeprefix("wsse:"), clock)

    assert report.result == "refused"
    assert "WSSE are written wsse:user:secret" in only(report).next_step


def test_a_wsse_user_with_a_wrong_secret(emarsys: FakeEmarsys, clock: Clock) -> None:
    """One refusal is enough: repeated wrong signatures may get the account ignored."""
    report = check(emarsys, "wsse:customer001:wrong", clock)

    assert report.result == "refused"
    assert report.findings[0].what == "Emarsys refuses user and secret (HTTP 401)"
    assert CREDENTIALS_PAGE in report.findings[0].next_step
    assert "clock" not in report.findings[0].next_step
    assert asked(emarsys) == [("GET", "/api/v2/settings")]


def test_a_token_that_the_api_refuses(emarsys: FakeEmarsys, clock: Clock) -> None:
    """When a fresh token is refused, too, the two addresses may not belong together."""
    emarsys.script(Fault("status", status=401, path="settings", times=2))
    report = check(emarsys, emarsys.api_key, clock)

    assert (report.result, report.token_fetched) == ("refused", True)
    assert "EMARSYS_CDP_TOKEN_URL and EMARSYS_CDP_API_BASE belong together" in only(report).next_step
    assert len(emarsys.tokens) == 2
    assert len(asked(emarsys)) == 4


def test_a_token_that_is_refused_once(emarsys: FakeEmarsys, clock: Clock) -> None:
    """A token that Emarsys has just ended is fetched anew, and the key works."""
    emarsys.script(Fault("status", status=401, path="settings"))

    assert check(emarsys, emarsys.api_key, clock).result == "works"


# The clock


@pytest.mark.parametrize(("ahead", "words"), [(361, "6 min 0 s ahead of"), (-420, "7 min 0 s behind")])
def test_a_wrong_clock_spoils_signatures(emarsys: FakeEmarsys, clock: Clock, ahead: float, words: str) -> None:
    """With WSSE and a clock more than five minutes wrong, the clock is to be set, and the key is not accused."""
    report = check(emarsys, emarsys.wsse_api_key, clock, ahead=ahead)
    (error,) = [one for one in report.findings if one.level == "error"]

    assert report.result == "unknown"
    assert emarsys.requests[0].status == 401
    assert words in error.what
    assert "refuses every signature" in error.what
    assert "set the clock" in error.next_step


def test_a_clock_that_is_a_little_wrong(emarsys: FakeEmarsys, clock: Clock) -> None:
    """Above a minute there is a warning before it becomes an error; the key works."""
    report = check(emarsys, emarsys.wsse_api_key, clock, ahead=200)

    assert (report.result, report.clock_ahead_seconds) == ("works", 199)
    assert [one.level for one in report.findings] == ["warning", "warning"]
    assert "3 min 19 s ahead of" in report.findings[0].what


def test_a_wrong_clock_does_not_matter_to_tokens(emarsys: FakeEmarsys, clock: Clock) -> None:
    """With OAuth 2.0 a wrong clock is a warning however wrong it is."""
    report = check(emarsys, emarsys.api_key, clock, ahead=-4_000)

    assert (report.result, only(report).level) == ("works", "warning")
    assert "1 h 6 min behind" in only(report).what


def test_a_refused_signature_and_no_time_to_compare(emarsys: FakeEmarsys, clock: Clock) -> None:
    """When the answers have no Date, the clock is named beside the secret."""
    report = check(emarsys, emarsys.wsse_api_key, clock, ahead=361, dated=False)

    assert (report.result, report.clock_ahead_seconds) == ("refused", None)
    assert "this machine's clock" in report.findings[0].next_step


# What else can go wrong


@pytest.mark.parametrize(
    ("fault", "words", "step"),
    [
        (Fault("status", status=429, path="oauth2/token"), "HTTP 429", "10 an hour"),
        (Fault("status", status=503, path="oauth2/token"), "HTTP 503", "EMARSYS_CDP_TOKEN_URL"),
        (Fault("garbage", path="oauth2/token"), "HTTP 200 without one", "EMARSYS_CDP_TOKEN_URL"),
        (Fault("reset", path="oauth2/token"), "cannot be reached", "EMARSYS_CDP_HTTP_PROXY"),
    ],
)
def test_no_token_for_other_reasons(emarsys: FakeEmarsys, clock: Clock, fault: Fault, words: str, step: str) -> None:
    """What keeps the token from coming says nothing about the key."""
    emarsys.script(fault)
    report = check(emarsys, emarsys.api_key, clock)

    assert (report.result, report.token_fetched) == ("unknown", False)
    assert words in only(report).what
    assert step in only(report).next_step
    assert len(asked(emarsys)) == 1


@pytest.mark.parametrize("key", ["client-1:s3cret-of-client-1", "wsse:customer001:s3cret"])
def test_emarsys_cannot_be_reached(emarsys: FakeEmarsys, clock: Clock, key: str) -> None:
    """Without a connection the first question is the last, and the network is to be looked at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        report = check(emarsys, key, clock, api_base=nowhere, token_url=f"{nowhere}/token")

    assert report.result == "unknown"
    assert "no connection" in report.findings[0].what
    assert "EMARSYS_CDP_HTTP_PROXY" in report.findings[0].next_step
    assert len([one for one in report.findings if one.level == "error"]) == 1


def test_an_answer_that_never_comes(emarsys: FakeEmarsys, clock: Clock) -> None:
    """A connection that breaks ends the check with what is known so far."""
    emarsys.script(Fault("reset", path="field/translate/en"))
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "incomplete"
    assert only(report).what.startswith("GET field/translate/en failed: no whole answer")
    assert states(report)["customer.settings"] == "on"
    assert states(report)["externalevent.list"] == "unknown"
    assert len(asked(emarsys)) == 3


def test_one_endpoint_is_out_of_order(emarsys: FakeEmarsys, clock: Clock) -> None:
    """An outage of one endpoint leaves its permission open and does not keep the others from being asked."""
    emarsys.script(Fault("status", status=503, path="contactlist"))
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "incomplete"
    assert (states(report)["contactlist.list"], states(report)["externalevent.list"]) == ("unknown", "on")
    assert "HTTP 503" in only(report).what
    assert only(report).next_step == "try again in some minutes"


def test_no_requests_are_left(emarsys: FakeEmarsys, clock: Clock) -> None:
    """A rate limit that is used up ends the check: every further request is one that the service lacks."""
    emarsys.script(Fault("status", status=429, path="settings"))
    report = check(emarsys, emarsys.api_key, clock)

    assert report.result == "unknown"
    assert report.rate_limit == RateLimit(1000, 1000)
    assert "rate limit" in only(report).what
    assert "wait a minute" in only(report).next_step
    assert len(asked(emarsys)) == 2


@pytest.mark.parametrize("fault", [Fault("garbage", times=5), Fault("status", status=404, body="no", times=5)])
def test_something_else_answers(emarsys: FakeEmarsys, clock: Clock, fault: Fault) -> None:
    """Pages that are not Emarsys' point to the address of the API."""
    emarsys.script(fault)
    report = check(emarsys, emarsys.wsse_api_key, clock)
    errors = [one for one in report.findings if one.level == "error"]

    assert report.result == "unknown"
    assert len(errors) == 5
    assert {one.next_step for one in errors} == {"check the address of the API (EMARSYS_CDP_API_BASE)"}


ECHO = '{"replyCode": 1001, "replyText": "bad: %s", "data": ""}'


@pytest.mark.parametrize("key", ["api_key", "wsse_api_key"])
def test_no_secret_is_in_a_report(emarsys: FakeEmarsys, clock: Clock, key: str) -> None:
    """Not even one that Emarsys, or something on the way, writes into its answers."""
    text: str = getattr(emarsys, key)
    secret = text.rpartition(":")[2]
    echo = json.dumps({"replyCode": 0, "replyText": "OK", "data": {"id": 1, "name": f"shop {secret}"}})
    emarsys.script(
        Fault("status", status=200, body=echo, path="settings"),
        Fault("status", status=400, body=ECHO % secret, path="field/translate/en"),
        Fault("status", status=400, body=ECHO % f"Basic {b64encode(text.encode()).decode()}", path="field/choices"),
        Fault("status", status=500, body=ECHO % secret, path="contactlist"),
    )
    report = check(emarsys, text, clock)
    shown = repr(report) + msgspec.json.encode(report).decode()

    assert report.customer == Customer("1", "shop ***")
    assert shown.count("bad: ***") == 6
    for hidden in (secret, b64encode(text.encode()).decode(), *(token.token for token in emarsys.tokens)):
        assert hidden not in shown


def test_wrong_secrets_are_not_shown_either(emarsys: FakeEmarsys, clock: Clock) -> None:
    """A secret that Emarsys refuses may be right elsewhere."""
    for key in ("client-1:hunter2", "oauth2:nobody:hunter2", "wsse:customer001:hunter2", "wsse:nobody:hunter2"):
        assert "hunter2" not in repr(check(emarsys, key, clock))
