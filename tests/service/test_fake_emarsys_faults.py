"""FakeEmarsys over real HTTP when things go wrong: scripted faults, and bad input."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.support.app import Clock
from tests.support.emarsys import ADA, BOB, BODY, CREATE, Api, running

from emarsys_cdp.testing import Fault
from emarsys_cdp.testing.fake_emarsys.routes import ROUTES

BOB_BODY = {"key_id": "3", "3": BOB}


@pytest.fixture
def clock() -> Clock:
    """Return a clock that moves when a test says so."""
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Iterator[Api]:
    """Run a fake with usual options."""
    with running(clock=clock) as found:
        yield found


# What goes wrong


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("status", status=429), 429),
        (Fault("status", status=500), 500),
        (Fault("status", status=502), 502),
        (Fault("status", status=503), 503),
        (Fault("status", status=401), 401),
        (Fault("status", status=400, code=10001, text="No"), 400),
        (Fault("garbage"), 200),
    ],
    ids=["429", "500", "502", "503", "401", "400", "garbage"],
)
def test_a_wrong_answer_comes_once(api: Api, fault: Fault, status: int, after: bool) -> None:
    """Before, nothing is changed and nothing counted; after, the request was done; the next one goes well."""
    api.emarsys.script(Fault(fault.kind, status=fault.status, code=fault.code, text=fault.text, after=after))
    response = api.send()

    assert response.status_code == status
    assert (api.emarsys.contact("3", ADA) is not None) is after
    assert ("x-ratelimit-limit" in response.headers) is (status not in (502, 503))
    assert [(one.fault, one.status) for one in api.emarsys.requests[1:]] == [(fault.kind, status)]
    assert api.send().headers["X-Ratelimit-Remaining"] == ("998" if after else "999")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_connection_is_reset(api: Api, after: bool) -> None:
    """The client gets no answer; only after processing the contact is there."""
    api.emarsys.script(Fault("reset", after=after))
    with pytest.raises(httpx.TransportError):
        api.send()

    assert (api.emarsys.contact("3", ADA) is not None) is after
    assert api.emarsys.requests[-1].status is None


def test_an_answer_is_lost_after_accepting(api: Api) -> None:
    """The request is done and recorded at once; the connection is closed after the hold."""
    api.emarsys.script(Fault("lost", hold=0.15))
    began = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        api.send()

    assert time.monotonic() - began >= 0.15
    assert api.emarsys.contact("3", ADA) == {"1": "Ada", "3": ADA}
    assert (api.emarsys.requests[-1].fault, api.emarsys.requests[-1].status) == ("lost", None)


def test_an_answer_is_lost_until_the_client_gives_up(api: Api) -> None:
    """Without a hold the client's own time-out ends it."""
    api.emarsys.script(Fault("lost"))
    with pytest.raises(httpx.ReadTimeout):
        api.http.put(f"{api.emarsys.api_base}/v3/{CREATE}", json=BODY, headers=api.headers, timeout=0.1)

    assert api.emarsys.contact("3", ADA) is not None
    assert api.reply() == (200, 0)


def test_a_slow_request_is_done_later() -> None:
    """It is processed after the delay and then answered as always, even when its client has gone."""
    with running() as api:
        api.emarsys.script(Fault("slow", delay=0.2, times=2))
        assert api.reply() == (200, 0)
        with pytest.raises(httpx.ReadTimeout):
            api.http.put(f"{api.emarsys.api_base}/v3/{CREATE}", json=BOB_BODY, headers=api.headers, timeout=0.05)
        deadline = time.monotonic() + 10
        while len(api.emarsys.contacts) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)

        requests = api.emarsys.requests[1:]
        assert [one.status for one in requests] == [200, 200]
        ready = [contact.created for contact in api.emarsys.contacts]
        assert all(end - one.time >= 150 for end, one in zip(ready, requests, strict=True))


def test_chosen_rows_fail(api: Api) -> None:
    """Within a 200 their keys have the error, the other rows are written."""
    api.emarsys.script(Fault("rows", path="contact", keys=(ADA,), code=2010, text="as scripted"))
    body = {"key_id": "3", "contacts": [{"3": ADA}, {"3": BOB}]}

    assert api.send(body={"key_id": "3", "contacts": [{"3": BOB}]}).json()["data"]["errors"] == []
    assert api.send(body=body).json()["data"]["errors"] == {ADA: {"2010": "as scripted"}}
    assert [contact.fields for contact in api.emarsys.contacts] == [{"3": BOB}]
    assert api.emarsys.faults == ()


def test_faults_at_the_token_url(api: Api, clock: Clock) -> None:
    """The token endpoint can fail as well, and a failure does not use up a fetch."""
    clock.advance(60)
    api.emarsys.script(Fault("status", status=503, path="oauth2/token", times=3))

    assert [api.fetch().status_code for _ in range(6)] == [503, 503, 503, 200, 200, 429]


def test_stopping_does_not_wait_for_those_who_wait() -> None:
    """A fake that holds an answer and delays another stops at once, and both clients see their connection closed."""
    with ThreadPoolExecutor() as threads, running() as api:
        api.emarsys.script(Fault("lost", path="contact"), Fault("slow", path="settings", delay=3600))
        clients = [threads.submit(api.send), threads.submit(api.send, "GET", "settings", None)]
        deadline = time.monotonic() + 10
        while len(api.emarsys.requests) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        began = time.monotonic()
        api.emarsys.stop()

        assert time.monotonic() - began < 5
        assert all(isinstance(client.exception(10), httpx.TransportError) for client in clients)


# Bad input

NASTY = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"key_id": "\\ud800"}',
    b"[" * 100_000,
    b'{"key_id":' * 500 + b"1" + b"}" * 500,
    b'{"key_id": ' + b"9" * 5000 + b"}",
    b'{"key_id": 1e400}',
    json.dumps({"key_id": "3", "contacts": [1, None, [], "x", {"3": {"a": []}}], "external_ids": [[], {}]}).encode(),
    json.dumps({"key_id": "3", "contacts": [{"3": "x" * 100_000}], "keyId": "3", "keyValues": [None, {}]}).encode(),
]


def test_malformed_bodies_are_refused_everywhere() -> None:
    """Every endpoint answers each of them with 200 or 400 in the form of Emarsys, and works on."""
    with running(limit=10_000) as api:
        for route in ROUTES:
            url = f"{api.emarsys.api_base}/v3/{route.path.replace('{}', '9001')}"
            for raw in NASTY:
                headers = {**api.headers, "Content-Type": "application/json"}
                response = api.http.request(route.method, url, content=raw, headers=headers)
                assert response.status_code in (200, 400, 404), (route, raw[:60])
        assert api.http.get(f"{api.emarsys.control_url}/requests").status_code == 200
        assert api.reply() == (200, 0)


def test_a_body_that_is_not_called_json_is_refused(api: Api) -> None:
    """Emarsys asks for Content-Type: application/json."""
    assert api.reply(**{"Content-Type": "text/plain"}) == (400, 1010)
    assert api.emarsys.requests[-1].note == "Content-Type is text/plain, not application/json"


@pytest.mark.parametrize("size", [8_100_000, 10_100_000], ids=["8 MB", "10 MB"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_bodies_above_the_limits_are_refused(api: Api, size: int, chunked: bool) -> None:
    """An update takes 8 MB and no request takes more than 10; the connection can be used on."""
    raw = b'{"key_id":"3","3":"' + b"x" * size + b'"}'
    headers = {**api.headers, "Content-Type": "application/json"}
    url = f"{api.emarsys.api_base}/v3/{CREATE}"
    response = api.http.put(url, content=iter([raw[:-9], raw[-9:]]) if chunked else raw, headers=headers)

    assert response.status_code == 413
    assert [one.kind for one in api.emarsys.violations] == ["body_size"]
    assert api.emarsys.requests[-1].size > 8_000_000
    assert api.reply() == (200, 0)


def test_a_client_that_leaves_within_its_body_is_recorded(api: Api) -> None:
    """Nothing is done for it, and it uses up no fault."""
    api.emarsys.script(Fault("status"))
    port = httpx.URL(api.emarsys.url).port
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"PUT /api/v3/contact/ HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    deadline = time.monotonic() + 10
    while len(api.emarsys.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert api.emarsys.requests[-1].note == "the client left before its body was complete"
    assert len(api.emarsys.faults) == 1
    assert api.emarsys.requests[-1].status is None
