"""The command `outbox` as an operator runs it, beside the store of a service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.outbox import Emarsys, effect, effect_id, key_of, ref_of, sending
from tests.support.servers import flush
from tests.support.world import SECRET

from emarsys_cdp.effect import Effect
from emarsys_cdp.store.outbox import DEAD, LEASED, SENT, WAITING
from emarsys_cdp.store.redis import RedisStore

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST: Final = 60
"""Seconds after which a run is taken as hanging."""

GOOD: Final = effect(1)
BAD: Final = effect(2, options={"eventId": "4711"}, data={"cart": "c1"})
WORSE: Final = effect(3, space="dest-2", rule="r2", options={"eventId": "4711"})
UNKNOWN: Final = effect(4, options={"event": "Win back"})
LATER: Final = effect(5, space="dest-9")
TAKEN: Final = effect(6)

Variables = Mapping[str, str]


@pytest.fixture
def emarsys() -> Iterator[Emarsys]:
    """Run a fake Emarsys that has the people of the effects."""
    with Emarsys() as emarsys:
        for person in range(1, 7):
            emarsys.add_contact({"3": key_of(person)})
        yield emarsys


@pytest.fixture
def outbox(valkey_url: str, emarsys: Emarsys) -> Variables:
    """Return the settings of a Redis in whose outbox one effect was sent, two are dead and three wait."""
    flush(valkey_url)

    async def main() -> None:
        async with sending(emarsys, RedisStore(valkey_url), ("dest-1", "dest-2")) as filled:
            await filled.post(GOOD, BAD, WORSE, UNKNOWN, LATER)
            await filled.send()
            await filled.post(TAKEN)
            now = emarsys.clock()
            await filled.store.lease_effects([ref_of(TAKEN)], "somebody", now, now + 60_000)

    asyncio.run(main())
    return {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": SECRET}


def states(variables: Variables, *effects: Effect) -> list[str]:
    """Return the states of effects in the store."""

    async def main() -> list[str]:
        store = RedisStore(variables["EMARSYS_CDP_REDIS_URL"])
        try:
            found = await store.read_effects([ref_of(one) for one in effects])
            return [one.state for one in found if one is not None]
        finally:
            await store.close()

    return asyncio.run(main())


def run(variables: Variables, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; the secret is in nothing that is printed."""
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        [COMMAND, "outbox", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "160", **paths, **variables},
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )
    assert SECRET not in done.stdout + done.stderr
    return done


def printed(variables: Variables, *arguments: str, code: int = 0) -> Any:
    """Return the JSON that a command prints."""
    done = run(variables, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_what_waits_is_listed(outbox: Variables) -> None:
    """With its state, closer than that of the store, and why it waits; of all spaces or of one."""
    found = {one["id"]: one for one in printed(outbox, "list")}
    text = run(outbox, "list").stdout

    assert {name: one["state"] for name, one in found.items()} == {
        UNKNOWN.id: "held",
        LATER.id: "waiting",
        TAKEN.id: "being sent",
    }
    assert "no external event called 'Win back'" in found[UNKNOWN.id]["reason"]
    assert found[UNKNOWN.id]["due"] == "2026-11-18T11:06:40.004Z"
    assert found[LATER.id]["age"] > 0
    for part in (UNKNOWN.id[:12], "held", "r1", "trigger", key_of(4), "dest-9"):
        assert part in text
    assert [one["id"] for one in printed(outbox, "list", "--space", "dest-9")] == [LATER.id]


def test_what_is_dead_is_listed(outbox: Variables) -> None:
    """With the words of Emarsys, and no more than are asked for."""
    found = printed(outbox, "list", "--dead")

    assert {one["id"] for one in found} == {BAD.id, WORSE.id}
    assert all("no such external event" in one["reason"] for one in found)
    assert "--limit shows more" in run(outbox, "list", "--dead", "--limit", "1").stdout


def test_one_effect_is_shown_whole(outbox: Variables) -> None:
    """By its id, whatever its state; of one that waits or is dead the beginning is enough."""
    dead, sent = printed(outbox, "show", BAD.id[:8]), printed(outbox, "show", GOOD.id)
    text = run(outbox, "show", BAD.id).stdout

    assert (dead["id"], dead["state"], dead["key"], dead["data"]) == (BAD.id, "dead", key_of(2), {"cart": "c1"})
    assert (dead["options"], dead["tries"], dead["rule"]) == ({"eventId": "4711"}, 1, "r1")
    assert (sent["id"], sent["state"], sent["next"]) == (GOOD.id, "sent", None)
    for part in (BAD.id, "dead", "4711", key_of(2), "no such external event"):
        assert part in text


def test_an_effect_that_there_is_not_is_an_error(outbox: Variables) -> None:
    """One line, exit code 1."""
    done = run(outbox, "show", "0" * 32)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"emarsys-cdp: there is no effect '{'0' * 32}'")
    assert run(outbox, "show", GOOD.id[:8]).returncode == 1


def test_dead_effects_are_retried(outbox: Variables) -> None:
    """By id or all, of one destination or of all of them."""
    assert printed(outbox, "retry", "--all", "--dead", "--space", "dest-2") == {"retried": [WORSE.id], "left": {}}
    assert states(outbox, BAD, WORSE) == [DEAD, WAITING]
    assert "1 effect waits again." in run(outbox, "retry", BAD.id[:12]).stdout
    assert states(outbox, BAD, WORSE, GOOD) == [WAITING, WAITING, SENT]


def test_what_is_not_dead_is_not_retried(outbox: Variables) -> None:
    """Its state is told, and the exit code is 1."""
    done = run(outbox, "retry", GOOD.id)

    assert done.returncode == 1
    assert f"{GOOD.id[:12]} stays as it is: sent" in done.stdout
    assert states(outbox, GOOD) == [SENT]


def test_effects_are_given_up_by_hand(outbox: Variables) -> None:
    """They are dead and say so; one that is being sent stays, and retrying takes it back."""
    assert printed(outbox, "drop", UNKNOWN.id, TAKEN.id, code=1) == {
        "dropped": [UNKNOWN.id],
        "left": {TAKEN.id: "being sent"},
    }
    assert printed(outbox, "show", UNKNOWN.id)["reason"] == "dropped by hand"
    assert printed(outbox, "drop", "--all", code=1)["dropped"] == [LATER.id]
    assert states(outbox, UNKNOWN, LATER, TAKEN) == [DEAD, DEAD, LEASED]
    assert set(printed(outbox, "retry", "--all")["retried"]) == {effect_id(number) for number in (2, 3, 4, 5)}


@pytest.mark.parametrize("arguments", [("retry",), ("drop",), ("retry", "abc", "--all"), ("drop", "abc", "--all")])
def test_effects_have_to_be_named(outbox: Variables, arguments: tuple[str, ...]) -> None:
    """None, or both ways at once, is used wrongly: exit code 2."""
    done = run(outbox, *arguments)

    assert done.returncode == 2
    assert "name effects by their ids, or write --all" in done.stderr


def test_an_empty_outbox_is_told(valkey_url: str) -> None:
    """In words."""
    flush(valkey_url)
    variables = {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": SECRET}

    assert "every effect was sent" in run(variables, "list").stdout
    assert "No effect is dead." in run(variables, "list", "--dead").stdout
    assert printed(variables, "list") == []
