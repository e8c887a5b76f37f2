"""The command `backtest`: recorded calls through rules, and what a running service has sent held against it (P24)."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.documents import EVENT, EXCLUDE, EXIT, REVENUE, START, document, rule
from tests.support.live import SPACE, Live
from tests.support.people import MakeStore
from tests.support.stores import on

from emarsys_cdp.effect import Effect
from emarsys_cdp.store import Store
from emarsys_cdp.users_view import show_time

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST: Final = 60
"""Seconds after which a run is taken as hanging."""

CART: Final = rule(
    "cart",
    multiple=True,
    transaction="cart_id",
    onRepeatStart="restart",
    quietHours={"from": "21:00", "to": "08:00", "zone": "Europe/Berlin"},
    caps=[{"count": 1, "per": "1d"}],
    conditions=[
        {"seq": 0, "type": "start", "match": "ecom_event = Product Added", "variables": ["revenue"]},
        {"seq": "*", "type": "exclude", "match": "ecom_event = Order Completed"},
        {"seq": 1, "type": "exit", "wait": "1h", "actions": [{"do": "trigger", "event": "cart"}]},
    ],
)
CART_ID: Final = {"name": "cart_id", "path": "properties.cart", "type": "string"}
SHOP: Final = document(rule(), CART, maps=(EVENT, REVENUE, CART_ID))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        [COMMAND, "backtest", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "160", **paths},
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )


def write(path: Path, raw: Any) -> Path:
    """Write a document to a file."""
    path.write_text(json.dumps(raw))
    return path


def lines(path: Path, calls: Sequence[Mapping[str, Any]]) -> Path:
    """Write calls to a file, one a line."""
    path.write_text("".join(f"{json.dumps(one)}\n" for one in calls))
    return path


def coupon(at: str, message_id: str, event: str = "Coupon Entered", **parts: Any) -> dict[str, Any]:
    """Return a track call of Ada's."""
    traits = {"traits": {"email": "ada@example.com"}}
    time = f"2026-11-{at}:00.000Z"
    return {"type": "track", "event": event, "messageId": message_id, "userId": "u1", "timestamp": time,
            "receivedAt": time, "context": traits, **parts}  # fmt: skip


async def _traffic(live: Live) -> None:
    """Several people and devices: merges, stops, repeated starts, a late call, quiet hours, caps, somebody held."""
    await live.publish(SHOP)
    for number in range(6):
        who: dict[str, Any] = {"userId": f"u{number}"}
        at = number * 5.0
        await live.track(at, f"c{number}", "Coupon Entered", anonymousId=f"a{number}")
        await live.track(at + 1, f"p{number}", "Product Added", properties={"cart": f"k{number}", "revenue": 10})
        await live.track(at + 1.5, f"q{number}", "Product Added", properties={"cart": "x", "revenue": 1}, **who)
        await live.track(at + 1.7, f"r{number}", "Product Added", properties={"cart": "x", "revenue": 2}, **who)
        if number % 2:
            await live.track(at + 2, f"o{number}", "Order Completed", **who)
        traits = {"email": f"{number}@example.com"}
        await live.call(at + 3, "identify", f"i{number}", anonymousId=f"a{number}", userId=f"u{number}", traits=traits)
    await live.track(40, "z1", "Coupon Entered", happened=39, userId="late")
    await live.track(60, "z0", "Order Completed", happened=38, userId="late")
    await live.call(100, "identify", "z2", userId="late", traits={"email": "late@example.com"})
    await live.track(101, "z3", "Product Added", properties={"cart": "y"}, userId="late")
    await live.until(400)


def _told(effects: Sequence[Effect]) -> list[tuple[str, str, str]]:
    return sorted((one.id, one.key, show_time(one.due)) for one in effects)


def test_a_backtest_of_live_traffic_says_what_live_has_sent(make_store: MakeStore, tmp_path: Path) -> None:
    """The same effects with the same ids, keys and times: an empty document differs by just these (P24)."""

    async def use(store: Store) -> Live:
        live = Live(store)
        await _traffic(live)
        return live

    live = on(make_store, use)
    calls = lines(tmp_path / "calls.ndjson", live.recorded)
    nothing, shop = write(tmp_path / "nothing.json", document()), write(tmp_path / "shop.json", SHOP)
    done = run("--rules", shop, "--rules", nothing, "--calls", calls, "--space", SPACE, "--limit", "100", "--json")
    found = json.loads(done.stdout)

    assert len({one.rule for one in live.taken}) == 2
    assert sorted((one["id"], one["key"], one["a"]["sent"]["due"]) for one in found["differences"]) == _told(live.taken)
    assert sorted(one["a"]["sent"]["at"] for one in found["differences"]) == sorted(
        show_time(one.emitted) for one in live.taken
    )
    assert all(one["b"]["sent"] is None for one in found["differences"])


def test_two_sets_of_rules_are_held_against_each_other(tmp_path: Path) -> None:
    """Counts side by side; what differs has both timelines: who is mailed no more, and who is mailed later."""
    calls = [
        coupon("01T10:00", "c1"),
        coupon("02T22:00", "o1", "Order Completed"),
        coupon("10T10:00", "c2"),
        coupon("20T10:00", "c3", "Order Completed"),
    ]
    short = rule(lifetime="24h", conditions=[START, EXCLUDE, EXIT])
    path = lines(tmp_path / "calls.ndjson", calls)
    first, second = write(tmp_path / "a.json", document(short)), write(tmp_path / "b.json", document(rule()))
    found = json.loads(run("--rules", first, "--rules", second, "--calls", path, "--json").stdout)
    text = run("--rules", first, "--rules", second, "--calls", path).stdout

    assert [run["instances"] for run in found["runs"].values()] == [
        {"coupon": {"completed": 2}},
        {"coupon": {"cancelled": 1, "completed": 1}},
    ]
    assert [run["effects"] for run in found["runs"].values()] == [
        {"coupon": {"trigger": 2}},
        {"coupon": {"trigger": 1}},
    ]
    gone, moved = found["differences"]
    assert (gone["a"]["sent"]["at"], gone["b"]["sent"]) == ("2026-11-02T10:00:00Z", None)
    assert (moved["a"]["sent"]["at"], moved["b"]["sent"]["at"]) == ("2026-11-11T10:00:00Z", "2026-11-12T10:00:00Z")
    assert [one["kind"] for one in moved["b"]["trace"]] == ["started", "due", "emitted"]
    assert "2 effects differ." in text
    assert "not sent" in text


@pytest.mark.parametrize("form", ["as it is", "in a message", "compressed", "as a host sends it"])
def test_calls_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    """As they are, wrapped, as NDJSON.gz, with metadata; bad lines are told with their number, and passed over."""
    call = coupon("01T10:00", "c1")
    wrapped = {"in a message": {"message": call}}
    if form == "as a host sends it":
        wrapped[form] = {"message": {**call, "receivedAt": None}, "metadata": {"receivedAt": call["receivedAt"]}}
    text = "\n".join([json.dumps(wrapped.get(form, call)), "{", "", '{"type": "track"}', "[1]"]).encode()
    path = tmp_path / ("calls.ndjson.gz" if form == "compressed" else "calls.ndjson")
    path.write_bytes(gzip.compress(text) if form == "compressed" else text)
    done = run("--rules", write(tmp_path / "a.json", document(rule())), "--calls", path, "--json")
    found = json.loads(done.stdout)

    assert (found["calls"], found["wrong"]) == (1, 3)
    assert found["runs"][str(tmp_path / "a.json")]["effects"] == {"coupon": {"trigger": 1}}
    assert f"{path}, line 2: is no JSON" in done.stderr
    assert f"{path}, line 4: has neither receivedAt nor timestamp" in done.stderr
    assert f"{path}, line 5: is no JSON object" in done.stderr


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    """A file that is not there, a wrong duration, a wrong document."""
    calls, right = lines(tmp_path / "calls.ndjson", []), write(tmp_path / "a.json", document(rule()))
    wrong = write(tmp_path / "wrong.json", document(rule(lifetime="-5h")))

    missing = run("--rules", right, "--calls", tmp_path / "none.ndjson")
    assert (missing.returncode, "none.ndjson cannot be read" in missing.stderr) == (1, True)
    assert run("--rules", right, "--calls", calls, "--until", "soon").returncode == 2
    refused = run("--rules", wrong, "--calls", calls)
    assert (refused.returncode, "rules[0].lifetime" in refused.stderr) == (1, True)
