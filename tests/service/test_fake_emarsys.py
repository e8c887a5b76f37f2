"""FakeEmarsys over real HTTP: credentials, limits, what it shows, its control endpoints, its command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from tests.support.app import Clock
from tests.support.emarsys import ADA, BOB, BODY, CREATE, Api, running

from emarsys_cdp.testing import FakeEmarsys, Fault
from emarsys_cdp.testing.fake_emarsys import Field
from emarsys_cdp.values.times import iso_time

WRONG = "not-the-secret"


@pytest.fixture
def clock() -> Clock:
    """Return a clock that moves when a test says so."""
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Iterator[Api]:
    """Run a fake with usual options."""
    with running(clock=clock) as found:
        yield found


# Who asks


def test_a_client_with_a_token_writes_contacts_and_triggers_events(api: Api) -> None:
    """Everything that was accepted is there to look at, and every request with its answer's status."""
    assert api.reply() == (200, 0)
    assert api.reply("POST", "event/9001/trigger", {"key_id": 3, "external_id": ADA}) == (200, 0)

    emarsys = api.emarsys
    assert emarsys.contact("3", ADA) == {"1": "Ada", "3": ADA}
    assert emarsys.contact("3", BOB) is None
    assert [(event.name, event.external_id, event.request) for event in emarsys.events] == [("welcome", ADA, 3)]
    assert [(one.method, one.path, one.query, one.user, one.status) for one in emarsys.requests] == [
        ("POST", "/oauth2/token", "", "client-1", 200),
        ("PUT", "/api/v3/contact/", "create_if_not_exists=1", "client-1", 200),
        ("POST", "/api/v3/event/9001/trigger", "", "client-1", 200),
    ]
    assert emarsys.requests[1].body == BODY
    assert emarsys.violations == ()


def test_only_valid_tokens_pass(api: Api, clock: Clock) -> None:
    """Without a token, with another's, after its life and when it was revoked the answer is 401 with code 1."""
    assert api.reply(Authorization="") == (401, 1)
    assert api.reply(Authorization="Bearer x") == (401, 1)
    clock.advance(3600)
    assert api.reply() == (401, 1)
    api.headers = {"Authorization": f"Bearer {api.fetch().json()['access_token']}"}
    assert api.reply() == (200, 0)
    assert api.emarsys.revoke_tokens() == 2
    assert api.reply() == (401, 1)

    notes = [one.note for one in api.emarsys.requests if one.status == 401]
    assert notes == [
        "the header Authorization: Bearer is missing",
        "the token was never handed out",
        "the token has expired",
        "the token was revoked",
    ]


def test_token_fetches_are_limited(api: Api, clock: Clock) -> None:
    """The third within a minute is refused and recorded as a violation."""
    assert [api.fetch().status_code for _ in range(2)] == [200, 429]
    assert [(one.kind, one.user, one.request) for one in api.emarsys.violations] == [("token_rate", "client-1", 3)]
    clock.advance(60)
    assert api.fetch().status_code == 200
    assert [token.issued // 1000 for token in api.emarsys.tokens] == [
        clock() // 1000 - 60,
        clock() // 1000 - 60,
        clock() // 1000,
    ]


def wsse(created: str, nonce: str = "ab" * 16, secret: str = "s3cret") -> dict[str, str]:  # noqa: S107 - of the stand-in
    """Return the header of API v2, as Emarsys' signing script makes it."""
    text = sha1(f"{nonce}{created}{secret}".encode(), usedforsecurity=False).hexdigest()
    digest = b64encode(text.encode()).decode()
    value = f'Username="customer001", PasswordDigest="{digest}", Created="{created}", nonce="{nonce}"'
    return {"X-WSSE": f"UsernameToken {value}"}


def test_api_v2_takes_wsse_only_and_v3_tokens_only(api: Api, clock: Clock) -> None:
    """A header is verified against secret and clock; a nonce that comes again passes and is recorded."""
    url = f"{api.emarsys.api_base}/v2/settings"
    now = iso_time(clock())
    late = iso_time(clock() - 301_000)
    headers = [wsse(now), wsse(now), wsse(now, secret=WRONG), wsse(late, "cd" * 16), api.headers, {}]

    assert [api.http.get(url, headers=one).status_code for one in headers] == [200, 200, 401, 401, 401, 401]
    assert api.send("GET", "settings", None, Authorization="", **wsse(now)).status_code == 401
    assert [(one.kind, one.user) for one in api.emarsys.violations] == [("nonce_replay", "customer001")]


def test_a_missing_permission_is_a_bare_403(api: Api) -> None:
    """The answer has no reply code, only the endpoint without its permission is closed, and nothing is changed."""
    api.emarsys.forbid("client-1", "contact.update")
    response = api.send()

    assert (response.status_code, response.text) == (403, "Forbidden")
    assert api.reply("GET", "settings", None) == (200, 0)
    assert api.emarsys.contacts == ()
    api.emarsys.permit("client-1", "contact.update")
    assert api.reply() == (200, 0)


def test_the_health_check_asks_for_nothing(api: Api) -> None:
    """It answers 200 to anybody."""
    assert api.http.get(f"{api.emarsys.url}/healthcheck").status_code == 200


# How often


def test_requests_above_the_limit_are_refused_and_recorded(clock: Clock) -> None:
    """The limit holds for any 60 seconds, refused requests do nothing, and every answer tells what is left."""
    with running(clock=clock, limit=2) as api:
        answers = [api.send() for _ in range(3)]
        wrong = api.send(Authorization="")
        reset = str((clock() // 60_000 + 1) * 60)
        clock.advance(60)
        after = api.send()

        assert [one.status_code for one in (*answers, after)] == [200, 200, 429, 200]
        assert answers[2].json()["replyCode"] == 7003
        left = [one.headers["X-Ratelimit-Remaining"] for one in (*answers, wrong, after)]
        assert left == ["1", "0", "0", "2", "1"]
        assert {one.headers["X-RateLimit-Reset"] for one in (*answers, wrong)} == {reset}
        assert {one.headers["X-RateLimit-Limit"] for one in (*answers, wrong)} == {"2"}
        assert [(one.kind, one.request, one.detail) for one in api.emarsys.violations] == [
            ("rate", 4, "2 requests in 60 seconds, the limit is 2")
        ]


def test_a_429_may_have_no_envelope(clock: Clock) -> None:
    """Its body in the core API is not documented: it can be text."""
    with running(clock=clock, limit=1, limit_body="text") as api:
        texts = [api.send().headers["content-type"] for _ in range(2)]

    assert texts == ["application/json", "text/plain"]


# Looking into it, and from other processes


def test_it_can_be_looked_into_while_it_works(api: Api) -> None:
    """Readers in other threads meet whole requests only, and no request or row is lost from the records."""
    end = Event()

    def write(number: int) -> None:
        for turn in range(25):
            rows = [{"3": f"{number}-{turn}-{row}@example.com", "1": "x"} for row in range(8)]
            assert api.reply(body={"key_id": "3", "contacts": rows}) == (200, 0)

    def look() -> list[int]:
        sizes = []
        while not end.is_set():
            sizes.append(len(api.emarsys.contacts))
            assert {one.status for one in api.emarsys.requests} <= {None, 200}
        return sizes

    with ThreadPoolExecutor() as threads:
        reader = threads.submit(look)
        for writer in [threads.submit(write, number) for number in range(4)]:
            writer.result(60)
        end.set()
        sizes = reader.result(60)

    assert all(size % 8 == 0 for size in sizes)
    assert len(api.emarsys.contacts) == 800
    assert [one.number for one in api.emarsys.requests] == list(range(1, 102))
    assert {one.status for one in api.emarsys.requests} == {200}


def test_a_full_log_says_what_it_dropped() -> None:
    """The newest records are kept, the others are counted."""
    with running(keep=3) as api:
        for _ in range(5):
            api.send("GET", "settings", None)

        assert [one.number for one in api.emarsys.requests] == [4, 5, 6]
        assert (api.emarsys.counts.requests, api.emarsys.counts.requests_dropped) == (6, 3)


def test_the_account_can_be_set_up(api: Api) -> None:
    """Contacts, also several with one key, fields, lists and events can be there before a test begins."""
    emarsys = api.emarsys
    emarsys.add_field(Field(id="7001", name="Points", type="numeric"))
    first = emarsys.add_contact({"3": ADA, "7001": "5"})
    emarsys.add_contact({"3": ADA})
    news = emarsys.add_list("news")
    api.reply(body={"key_id": "id", "id": first, "7001": 6, "contact_list_id": news})
    emarsys.add_event("late", 9999)
    silent = emarsys.add_event("silent", connected=False)

    assert silent.id not in (9001, 9999)
    assert emarsys.contact("id", str(first)) == {"3": ADA, "7001": "6"}
    assert emarsys.members(news, "7001") == ["6"]
    assert api.reply("POST", f"event/{silent.id}/trigger", {"key_id": "id", "external_id": first}) == (400, 5005)
    with pytest.raises(LookupError, match=r"2 contacts have 'ada@example\.com' in field 3"):
        emarsys.contact("3", ADA)
    with pytest.raises(LookupError, match="no contact list 7"):
        emarsys.members(7)


def test_deleted_contacts_are_shown(api: Api) -> None:
    """Who was deleted is kept as it was."""
    api.send()

    assert api.reply("POST", "contact/delete", {"key_id": "3", "3": [ADA]}) == (200, 0)
    assert [one.contact.fields for one in api.emarsys.deleted] == [{"1": "Ada", "3": ADA}]
    assert api.emarsys.contacts == ()


def test_a_reset_forgets_what_happened_and_keeps_what_it_is(clock: Clock) -> None:
    """Contacts, records, tokens and faults are gone; credentials, events, permissions and time are as made."""
    missing = {"client-1": ["contact.delete"]}
    with running(clock=clock, missing_permissions=missing, external_events={125: "hello"}) as api:
        api.emarsys.permit("client-1", "contact.delete")
        api.emarsys.script(Fault("reset", path="settings"))
        api.send()
        api.emarsys.advance(30)
        api.emarsys.reset()

        assert api.reply() == (401, 1)
        api.headers = {"Authorization": f"Bearer {api.fetch().json()['access_token']}"}
        assert api.send("POST", "contact/delete", {"3": [ADA]}).status_code == 403
        assert api.send("GET", "event", None).json()["data"][0]["name"] == "hello"
        assert api.emarsys.contacts == ()
        assert api.emarsys.faults == ()
        assert [one.time for one in api.emarsys.requests] == [clock()] * 4


def test_other_processes_use_the_control_endpoints(api: Api) -> None:
    """What the object shows and does, HTTP shows and does."""
    control = httpx.Client(base_url=api.emarsys.control_url + "/")
    with control:
        for path, body in [
            ("contacts", {"fields": {"3": BOB}}),
            ("lists", {"name": "news", "id": 77}),
            ("definitions", {"name": "hello", "id": 125}),
            ("fields", {"id": "7001", "name": "Points", "type": "numeric"}),
            ("permissions", {"user": "client-1", "forbid": ["contact.delete"]}),
            ("faults", [{"kind": "status", "status": 503, "times": 2}]),
            ("clock", {"advance": 5}),
        ]:
            assert control.post(path, json=body).status_code == 200, path
        assert [api.send().status_code for _ in range(3)] == [503, 503, 200]
        assert api.send("POST", "contact/delete", {"3": [BOB]}).status_code == 403
        assert api.reply("POST", "event/125/trigger", {"key_id": "3", "external_id": BOB}) == (200, 0)
        shown = {path: control.get(path).json() for path in control.get("").json()["endpoints"]["GET"]}
        assert control.get("contacts", params={"value": ADA}).json()[0]["fields"] == {"1": "Ada", "3": ADA}
        assert [one["number"] for one in control.get("requests", params={"after": 5}).json()] == [6]
        assert control.post("tokens/revoke").json() == {"revoked": 1}
        assert api.reply() == (401, 1)
        control.post("faults", json={"kind": "reset"})
        assert control.post("faults/clear").json() == []
        assert control.post("reset").json()["requests"] == 0

    assert [contact["fields"]["3"] for contact in shown["contacts"]] == [BOB, ADA]
    assert [one["status"] for one in shown["requests"]] == [200, 503, 503, 200, 403, 200]
    assert shown["requests"][3]["body"] == BODY
    assert shown["events"][0]["external_id"] == BOB
    assert shown["counts"]["contacts"] == 2
    assert shown["crashes"] == shown["violations"] == shown["deleted"] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("faults", {"kind": "status", "status": 5}, 400, "status=5 is no final HTTP status"),
        ("faults", {"kind": "status", "stauts": 500}, 400, "stauts"),
        ("faults", None, 400, "truncated"),
        ("permissions", {"user": "x", "forbid": ["y"]}, 400, "y: no such permission"),
        ("clock", {"advance": -1}, 400, "time cannot go by -1.0 seconds"),
        ("fields", {"id": "x", "name": "x"}, 400, "'x' is no id of a field"),
        ("nothing", {}, 404, "endpoints"),
    ],
)
def test_wrong_control_requests_are_told(api: Api, path: str, body: Any, status: int, text: str) -> None:
    """The answer names what is wrong, and nothing is done."""
    response = api.http.post(f"{api.emarsys.control_url}/{path}", json=body)

    assert response.status_code == status
    assert text in response.text
    assert api.emarsys.faults == ()


# Starting it


def test_it_starts_once_and_says_where(api: Api) -> None:
    """A second start, a port that is taken and an address before the start are errors that say so."""
    with pytest.raises(RuntimeError, match="listens already"):
        api.emarsys.start()
    with pytest.raises(OSError, match="in use"):
        FakeEmarsys(port=int(str(httpx.URL(api.emarsys.url).port))).start()
    with pytest.raises(RuntimeError, match="does not listen yet"):
        _ = FakeEmarsys().api_base
    with pytest.raises(LookupError, match="no credentials"):
        _ = FakeEmarsys(wsse={}).wsse_api_key


def test_it_can_be_started_again() -> None:
    """What it knows outlives a stop."""
    with running() as api:
        api.send()
    with api.emarsys, httpx.Client() as http:
        api.http = http
        assert api.reply() == (200, 0)
        assert len(api.emarsys.contacts) == 1


def test_the_command_serves_until_it_is_interrupted() -> None:
    """It prints where it listens and what to use, and ends well with a line about what happened."""
    command = [sys.executable, "-m", "emarsys_cdp", "fake-emarsys", "--port", "0", "--json"]
    settings = ["--api-key", "me:secret", "--field", "7001:numeric:Points", "--event", "125=hi", "--limit", "5"]
    settings += ["--fault", '{"kind": "status", "status": 503, "path": "contact"}']
    with subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        told = json.loads(process.stdout.readline())
        with httpx.Client() as http:
            form = {"grant_type": "client_credentials"}
            token = http.post(told["token_url"], data=form, auth=("me", "secret")).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            body = {"key_id": "3", "3": ADA, "7001": 5}
            url = f"{told['api_base']}/v3/{CREATE}"
            answers = [http.put(url, json=body, headers=headers) for _ in range(2)]
            events = http.get(f"{told['control_url']}/definitions").json()
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read().decode()

    assert process.returncode == 0
    assert told["api_keys"] == ["me:secret"]
    assert [one.status_code for one in answers] == [503, 200]
    assert answers[1].headers["X-RateLimit-Limit"] == "5"
    assert [(one["id"], one["name"]) for one in events] == [(125, "hi")]
    assert errors == "3 requests, 1 contacts, 0 events, 0 violations\n"


def test_the_example_in_the_help_runs(root: Path) -> None:
    """The Python code of help/testing.md about FakeEmarsys does what it says."""
    section = (root / "plugin/emarsys_cdp/help/testing.md").read_text().partition("\n## FakeEmarsys\n")[2]
    blocks = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)

    assert blocks
    for block in blocks:
        exec(compile(block, "help/testing.md", "exec"), {})  # noqa: S102 - our own page
