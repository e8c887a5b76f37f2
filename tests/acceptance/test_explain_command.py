"""The commands `explain` and `why-not` as an operator runs them, after a service has taken calls."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.documents import EVENT, EXCLUDE, EXIT, REVENUE, START, document, rule
from tests.support.live import HOLDER, HOUR, Live
from tests.support.servers import flush
from tests.support.stores import on
from tests.support.world import SECRET

from emarsys_cdp.store import Store
from emarsys_cdp.store.outbox import DEAD, QUEUED, Settlement
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.users_view import show_time

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST: Final = 60
"""Seconds after which a run is taken as hanging."""

ADDRESS: Final = "ada@example.com"
PICTURE: Final = document(
    rule(conditions=[{**START, "match": ["ecom_event = Coupon Entered", "revenue >= 20"]}, EXCLUDE, EXIT]),
    maps=(EVENT, REVENUE),
)
"""The rule of the original's picture, for larger carts only."""

BEGAN: Final = int(time.time()) * 1000 - 64 * HOUR
"""Commands look at the time of now; what happens in these tests began 64 hours ago (ms)."""


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        [COMMAND, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "COLUMNS": "200",
            "EMARSYS_CDP_REDIS_URL": url,
            "EMARSYS_CDP_SECRET": SECRET,
            **paths,
        },
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )


def read(url: str, *arguments: str) -> Any:
    """Return the JSON that a command prints."""
    done = run(url, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def at(hours: float) -> str:
    """Return a time of these tests as commands show it."""
    return show_time(BEGAN + round(hours * HOUR))


def after(url: str, use: Callable[[Live], Awaitable[None]], raw: Mapping[str, Any] = PICTURE) -> None:
    """Fill an empty store with what a service has made of calls."""
    flush(url)

    async def fill(store: Store) -> None:
        live = Live(store, BEGAN)
        await live.publish(raw)
        await use(live)

    on(lambda: RedisStore(url), fill)


async def _picture(live: Live) -> None:
    """Bring a person who is mailed, then stopped, then waits for the third time; a cart was too small before."""
    await live.call(0, "identify", "i1", userId="u1", traits={"email": ADDRESS})
    await live.track(0.5, "small", "Coupon Entered", userId="u1", properties={"revenue": 19})
    await live.track(1, "c1", "Coupon Entered", userId="u1", properties={"revenue": 20})
    await live.track(2, "c2", "Coupon Entered", userId="u1", properties={"revenue": 25})
    await live.track(60, "late", "Order Completed", userId="u1", happened=48)
    await live.track(61, "c3", "Coupon Entered", userId="u1", properties={"revenue": 30})
    await live.track(62, "o1", "Order Completed", userId="u1")
    await live.track(63, "c4", "Coupon Entered", userId="u1", properties={"revenue": 31})


def test_the_chain_of_decisions_is_told(valkey_url: str) -> None:
    """From the start to the sending and the late stop, with values; what runs still says when it fires."""
    after(valkey_url, _picture)

    found = read(valkey_url, "explain", "--rule", "coupon", "--user", "u1")

    assert [(one["te"], one["kind"], one["mid"], one["row"]) for one in found["trace"]] == [
        (at(1), "started", "c1", "start 0"),
        (at(2), "already_active", "c2", "start 0"),
        (at(48), "late_stop", "late", None),
        (at(49), "due", None, None),
        (at(49), "emitted", None, "exit 1"),
        (at(61), "started", "c3", "start 0"),
        (at(62), "cancelled", "o1", "exclude 0"),
        (at(63), "started", "c4", "start 0"),
    ]
    assert found["trace"][0]["values"] == {"ecom_event": "Coupon Entered", "revenue": "20"}
    assert found["trace"][2]["t"] == at(60)
    assert [(one["start"], one["status"], one["why"]) for one in found["instances"]] == [
        ("c1", "completed", None),
        ("c3", "cancelled", "o1"),
        ("c4", "active", None),
    ]
    assert found["lateStops"] == 1
    assert found["instances"][2]["next"] == [{"what": "fires", "at": at(111), "rows": ["exit 1"]}]
    assert [(one["key"], one["state"]) for one in found["effects"]] == [(ADDRESS, "sent")]


def test_what_became_of_an_effect_is_told(valkey_url: str) -> None:
    """That it is dead, and why, as the outbox has it."""

    async def use(live: Live) -> None:
        live.sends = False
        await live.call(0, "identify", "i1", userId="u1", traits={"email": ADDRESS})
        await live.track(1, "c1", "Coupon Entered", userId="u1", properties={"revenue": 20})
        await live.until(50)
        refs = await live.store.list_effects(QUEUED, range(1024), 10)
        await live.store.lease_effects(refs, HOLDER, live.clock.now, live.clock.now + HOUR)
        dead = [Settlement(one, HOLDER, DEAD, note="no such event: coupon") for one in refs]
        await live.store.settle_effects(dead, live.clock.now)

    after(valkey_url, use)

    found = read(valkey_url, "explain", "--rule", "coupon", "--key", ADDRESS)
    text = run(valkey_url, "explain", "--rule", "coupon", "--key", ADDRESS).stdout

    assert [(one["state"], one["reason"]) for one in found["effects"]] == [("dead", "no such event: coupon")]
    for part in ("started", "+2d 00:00:00", "sent to the outbox", "is over: completed", "no such event: coupon"):
        assert part in text


def test_who_waits_for_a_key_is_told_until_when(valkey_url: str) -> None:
    """An anonymous person's exit is held."""

    async def use(live: Live) -> None:
        await live.track(1, "c1", "Coupon Entered", anonymousId="a1", properties={"revenue": 20})
        await live.until(60)

    after(valkey_url, use)

    found = read(valkey_url, "explain", "--rule", "coupon", "--anon", "a1")
    text = run(valkey_url, "explain", "--rule", "coupon", "--anon", "a1").stdout

    assert [one["kind"] for one in found["trace"]] == ["started", "due"]
    assert found["instances"][0]["next"] == [{"what": "held", "at": at(97), "rows": ["exit 1"]}]
    assert f"held for a key, until {at(97)} at the latest" in text


def test_every_comparison_of_a_call_is_told(valkey_url: str) -> None:
    """With the value read; other rows say why they did nothing."""
    after(valkey_url, _picture)

    found = read(valkey_url, "why-not", "--message", "c2", "--rule", "coupon", "--user", "u1")
    late = read(valkey_url, "why-not", "--message", "late", "--rule", "coupon", "--user", "u1")
    stop = read(valkey_url, "why-not", "--message", "o1", "--rule", "coupon", "--user", "u1")
    text = run(valkey_url, "why-not", "--message", "c2", "--rule", "coupon", "--user", "u1").stdout

    start, exclude, leave = found["rows"]
    assert (start["verdict"], exclude["verdict"], leave["verdict"]) == ("already_active", "no_match", "no_call")
    assert start["criteria"] == [
        {"text": "ecom_event = Coupon Entered", "value": "Coupon Entered", "holds": True},
        {"text": "revenue >= 20", "value": "25", "holds": True},
    ]
    assert exclude["armed"] == {"from": at(1), "to": None}
    assert exclude["criteria"] == [{"text": "ecom_event = Order Completed", "value": "Coupon Entered", "holds": False}]
    assert [one["verdict"] for one in late["rows"]] == ["no_match", "late_stop", "no_call"]
    assert [one["verdict"] for one in stop["rows"]] == ["no_match", "cancelled", "no_call"]
    assert "no  ecom_event = Order Completed (read: Coupon Entered)" in text


def test_a_stop_with_nothing_to_stop_is_told(valkey_url: str) -> None:
    """It matches, and nothing was running."""

    async def use(live: Live) -> None:
        await live.track(0, "o1", "Order Completed", userId="u1")

    after(valkey_url, use)

    (_, exclude, _) = read(valkey_url, "why-not", "--message", "o1", "--rule", "coupon", "--user", "u1")["rows"]

    assert (exclude["verdict"], exclude["armed"]) == ("not_armed", None)


@pytest.mark.parametrize(
    ("status", "happened", "verdict"), [("paused", 100, "rule_inactive"), ("active", 1, "too_late")]
)
def test_a_start_that_opens_nothing_is_told(valkey_url: str, status: str, happened: float, verdict: str) -> None:
    """The rule was paused, or the call came more than maxLateness after it had happened."""

    async def use(live: Live) -> None:
        await live.track(100, "c1", "Coupon Entered", userId="u1", happened=happened)

    after(valkey_url, use, document(rule(status=status)))

    start, *_ = read(valkey_url, "why-not", "--message", "c1", "--rule", "coupon", "--user", "u1")["rows"]
    trace = read(valkey_url, "explain", "--rule", "coupon", "--user", "u1")["trace"]

    assert start["verdict"] == verdict
    assert [(one["mid"], one["kind"]) for one in trace] == [("c1", verdict)]


def test_a_call_that_is_not_in_the_log_is_told(valkey_url: str) -> None:
    """With what may be the reason; exit code 1."""
    after(valkey_url, _picture)

    done = run(valkey_url, "why-not", "--message", "small", "--rule", "coupon", "--user", "u1")

    assert done.returncode == 1
    assert "The call small is not in this person's log of calls for rules." in done.stdout
    assert "no row of any rule could match it" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("--rule", "coupn", "--user", "u1"), "space dest-1 has no rule with the id 'coupn'; it has: coupon", 1),
        (("--rule", "coupon", "--user", "u9"), "nobody in space dest-1 has userId 'u9'", 1),
        (("--rule", "coupon"), "name the person by one of --user, --key, --anon", 2),
        (("--user", "u1"), "Missing option '--rule'", 2),
    ],
)
def test_a_question_about_nobody_is_refused(valkey_url: str, arguments: tuple[str, ...], says: str, code: int) -> None:
    """With what would be right."""
    after(valkey_url, _picture)

    done = run(valkey_url, "explain", *arguments)

    assert done.returncode == code
    assert says in done.stderr
    assert done.stdout == ""
