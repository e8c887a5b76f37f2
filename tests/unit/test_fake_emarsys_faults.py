"""Scripted faults: which request is hit, how often, and with what."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from emarsys_cdp.testing.fake_emarsys.faults import Fault, Script

PUT = ("PUT", "/api/v3/contact/")
TRIGGER = ("POST", "/api/v2/event/125/trigger")
TOKEN = ("POST", "/oauth2/token")


def hits(script: Script, *requests: tuple[str, str], body: Any = None) -> list[str | None]:
    """Return the text of the fault that hits each request."""
    raw = json.dumps(body).encode()
    found = [script.take(method, path, raw) for method, path in requests]
    return [None if fault is None else fault.text for fault in found]


def scripted(*faults: Fault, seed: int = 0) -> Script:
    """Return a script."""
    script = Script(seed)
    script.add(faults)
    return script


def test_faults_come_in_their_order_as_often_as_they_say() -> None:
    """The first fault that matches hits until it is used up, then the next."""
    script = scripted(Fault("status", text="a", times=2), Fault("status", text="b"))

    assert hits(script, PUT, PUT, PUT, PUT) == ["a", "a", "b", None]
    assert script.left() == []


def test_faults_hit_the_requests_that_they_are_for() -> None:
    """Method and path are patterns; the path is below the API version, with or without slashes at its ends."""
    script = scripted(
        Fault("status", text="put", method="put", path="/contact/", times=9),
        Fault("status", text="trigger", path="event/*/trigger", times=9),
        Fault("status", text="token", path="oauth2/token", times=9),
    )

    assert hits(script, PUT, TRIGGER, TOKEN, ("POST", PUT[1]), ("GET", "/api/v3/contactlist")) == [
        "put",
        "trigger",
        "token",
        None,
        None,
    ]


def test_equal_faults_are_two_faults() -> None:
    """A fault that is scripted twice hits twice, also when the first of them lets requests pass."""
    script = scripted(Fault("status", text="a", skip=1), Fault("status", text="a", skip=1))

    assert hits(script, PUT, PUT, PUT) == [None, "a", "a"]


def test_chance_is_the_same_in_every_run() -> None:
    """With a probability a fault hits some requests, the same ones for the same seed, without end."""
    fault = Fault("status", text="x", probability=0.3)
    first, second, other = (hits(scripted(fault, seed=seed), *[PUT] * 200) for seed in (1, 1, 2))

    assert first == second != other
    assert 30 < first.count("x") < 90


def test_chance_can_be_limited() -> None:
    """A fault with a probability and a number of times ends after them."""
    script = scripted(Fault("status", text="x", probability=1.0, times=2))

    assert hits(script, PUT, PUT, PUT) == ["x", "x", None]


@pytest.mark.parametrize(
    ("body", "want"),
    [
        ({"key_id": "3", "contacts": [{"3": "b@x"}, {"3": "a@x"}]}, ["x", None]),
        ({"key_id": "3", "3": "a@x"}, ["x", None]),
        ({"key_id": "3", "external_ids": ["a@x"]}, ["x", None]),
        ({"key_id": "id", "id": [17]}, ["x", None]),
        ({"key_id": "3", "external_id": "a@x"}, ["x", None]),
        ({"key_id": "3", "contacts": [{"3": "b@x"}]}, [None, None]),
        ([["a@x"]], [None, None]),
        (None, [None, None]),
    ],
    ids=str,
)
def test_row_faults_wait_for_their_keys(body: Any, want: list[str | None]) -> None:
    """A fault of chosen rows is used up by a request that has one of them, wherever its endpoint has keys."""
    assert hits(scripted(Fault("rows", keys=("a@x", "17"), text="x")), PUT, PUT, body=body) == want


def test_forgotten_faults_do_not_hit() -> None:
    """Clearing the script ends every fault, and the chances begin anew."""
    script = scripted(Fault("status", text="x", probability=0.5), seed=3)
    first = hits(script, *[PUT] * 20)
    script.clear()
    assert hits(script, PUT) == [None]

    script.add([Fault("status", text="x", probability=0.5)])
    assert hits(script, *[PUT] * 20) == first


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body"),
    [
        (Fault("status", status=401), 401, "application/json", b'"Credentials are invalid"'),
        (Fault("status", status=403), 403, "text/plain", b"Forbidden"),
        (Fault("status", status=429), 429, "application/json", b'"replyCode":7003'),
        (Fault("status"), 500, "application/json", b'"replyCode":1,'),
        (Fault("status", status=500, code=3002, text="Too many"), 500, "application/json", b'"replyCode":3002'),
        (Fault("status", status=400), 400, "application/json", b'"replyCode":1001'),
        (Fault("status", status=400, code=5005), 400, "application/json", b'"replyCode":5005'),
        (Fault("status", status=502), 502, "text/html", b"<html>"),
        (Fault("status", status=503), 503, "text/plain", b"overloaded"),
        (Fault("status", status=599), 599, "application/json", b"Scripted fault"),
        (Fault("status", status=429, body="slow down"), 429, "text/plain", b"slow down"),
        (Fault("status", status=429, body='{"a": 1}'), 429, "application/json", b'{"a": 1}'),
        (Fault("garbage"), 200, "text/html", b"<!doctype html>"),
        (Fault("garbage", body="{"), 200, "text/html", b"{"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_answers_look_like_those_of_emarsys(fault: Fault, status: int, content_type: str, body: bytes) -> None:
    """Each status has the body that Emarsys or its gateway sends with it, unless the fault says otherwise."""
    reply = fault.reply()

    assert (reply.status, reply.content_type) == (status, content_type)
    assert body in reply.body


def test_a_429_can_be_plain_text_and_have_headers() -> None:
    """Where the account is one whose 429 has no envelope a scripted one has none either."""
    reply = Fault("status", status=429, headers={"Retry-After": "7"}).reply(text_429=True)

    assert (reply.content_type, reply.headers) == ("text/plain", {"Retry-After": "7"})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"kind": "boom"}, "kind='boom' is not known; give one of status, reset, lost, rows, garbage, slow"),
        ({"kind": "status", "status": 100}, "status=100 is no final HTTP status; give one from 200 to 599"),
        ({"kind": "status", "probability": 2}, "probability=2 is not between 0 and 1"),
        ({"kind": "status", "times": 0}, "times=0 is not above zero"),
        ({"kind": "rows", "keys": "a@x"}, "keys='a@x' is a text; give a tuple of key values"),
        ({"kind": "slow", "delay": -1}, "skip, delay and hold cannot be negative"),
        ({"kind": "status", "headers": {"a": "b\n"}}, "the header 'a' is not of printable ASCII"),
    ],
    ids=str,
)
def test_impossible_faults_are_named(parts: dict[str, Any], message: str) -> None:
    """A fault that cannot be is refused with the part that is wrong and what would be right."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Fault(**parts)
