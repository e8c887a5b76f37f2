"""Documents published while people are in a rule: who stays with which version, who leaves, what counts at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.app import Clock
from tests.support.documents import EVENT, EXIT, START, document, rule
from tests.support.requests import OAUTH_KEY, call, router_request
from tests.support.world import make_service

from emarsys_cdp.effect import unpack_effect
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.store.keys import SHARDS
from emarsys_cdp.store.memory import MemoryStore

HOUR: Final = 3600
FIRST: Final = document(rule(), maps=(EVENT,))


async def come_in(service: Service, user: str = "u1") -> None:
    """Let somebody with an address enter a coupon."""
    now = "2026-11-23T10:00:05.000Z"
    times: dict[str, Any] = {"timestamp": now, "originalTimestamp": now, "receivedAt": now}
    calls = [
        call("identify", messageId=f"{user}-1", userId=user, traits={"email": f"{user}@example.com"}, **times),
        call("track", messageId=f"{user}-2", userId=user, event="Coupon Entered", **times),
    ]
    await service.rudderstack.router(router_request(calls, OAUTH_KEY))


async def publish(service: Service, raw: dict[str, Any]) -> None:
    """Publish a document."""
    await service.publisher.publish("dest-1", raw, None)
    await service.documents.refresh()


async def done(service: Service, clock: Clock, until: int) -> list[tuple[int, int]]:
    """Let time go by hour by hour; return after how many hours something was done, and by which version."""
    found: dict[str, tuple[int, int]] = {}
    for hour in range(1, until + 1):
        clock.advance(HOUR)
        await service.timers.look()
        refs = await service.store.queued(range(SHARDS), clock.now, 100)
        for stored in await service.store.read_effects(refs):
            assert stored is not None
            found.setdefault(stored.ref.id, (hour, unpack_effect(stored.content).version))
    return list(found.values())


def effects(*later: dict[str, Any], until: int = 60) -> list[tuple[int, int]]:
    """Return what is done for somebody who came in before documents were published."""
    clock = Clock()

    async def run() -> list[tuple[int, int]]:
        service = make_service(MemoryStore(), world=clock.world())
        await publish(service, FIRST)
        await come_in(service)
        for raw in later:
            await publish(service, raw)
        return await done(service, clock, until)

    return asyncio.run(run())


def of(**parts: Any) -> dict[str, Any]:
    """Return the first document with its rule changed."""
    return document(rule(**parts), maps=(EVENT,))


def test_without_a_publication_it_is_as_the_rule_says() -> None:
    """The comparison for all that follows: 48 hours."""
    assert effects() == [(48, 1)]


def test_who_is_in_a_rule_stays_with_the_version_of_the_start() -> None:
    """However often the rule changes meanwhile (P21)."""
    assert effects(of(lifetime="1h")) == [(48, 1)]
    assert effects(of(lifetime="1h"), of(lifetime="2h"), of(lifetime="3h")) == [(48, 1)]
    assert effects(of(conditions=[START, {**EXIT, "wait": "5h"}])) == [(48, 1)]


def test_a_version_that_migrates_takes_everybody_along() -> None:
    """Also those of versions before the last one; windows are those of the new one."""
    assert [hour for hour, _ in effects(of(lifetime="50h", onPublish="migrate"))] == [50]
    assert [hour for hour, _ in effects(of(lifetime="2h"), of(lifetime="50h", onPublish="migrate"))] == [50]


def test_windows_that_became_shorter_count_at_once() -> None:
    """A publication that migrates has everybody looked at: nobody waits for the time of before."""
    assert [hour for hour, _ in effects(of(lifetime="3h", onPublish="migrate"))] == [3]


@pytest.mark.parametrize(
    "later",
    [
        [of(lifetime="3h", onPublish="cancel")],
        [of(lifetime="2h"), of(lifetime="3h", onPublish="cancel")],
        [of(status="archived")],
        [document(maps=(EVENT,))],
    ],
    ids=["cancelled", "an older version cancelled", "archived", "removed"],
)
def test_who_leaves_gets_nothing(later: list[dict[str, Any]]) -> None:
    """Whatever their version would have done."""
    assert effects(*later, until=110) == []


def test_a_paused_rule_lets_its_people_go_on() -> None:
    """Nobody new comes in."""
    assert effects(of(status="paused")) == [(48, 1)]


def test_a_new_version_is_for_those_who_come_then() -> None:
    """The one who came before has another rule to go by than the one who comes after."""
    clock = Clock()

    async def run() -> list[tuple[int, int]]:
        service = make_service(MemoryStore(), world=clock.world())
        await publish(service, FIRST)
        await come_in(service)
        await publish(service, of(lifetime="1h"))
        await come_in(service, "u2")
        return await done(service, clock, 60)

    assert asyncio.run(run()) == [(1, 2), (48, 1)]


def test_old_versions_are_there_after_a_start() -> None:
    """A worker that starts later has them from the store."""
    clock, store = Clock(), MemoryStore()

    async def run() -> list[tuple[int, int]]:
        service = make_service(store, world=clock.world())
        await publish(service, FIRST)
        await come_in(service)
        await publish(service, of(lifetime="1h"))
        started = make_service(store, world=clock.world())
        await started.documents.refresh()
        return await done(started, clock, 60)

    assert asyncio.run(run()) == [(48, 1)]


def test_files_have_versions_as_well(tmp_path: Path) -> None:
    """A changed file changes nothing for who is in the rule."""
    clock = Clock()

    async def run() -> list[tuple[int, int]]:
        service = make_service(MemoryStore(), world=clock.world(), rules_dir=tmp_path)
        for raw in (FIRST, of(lifetime="1h")):
            (tmp_path / "default.json").write_text(json.dumps(raw))
            await service.documents.refresh()
            if raw is FIRST:
                await come_in(service)
        return await done(service, clock, 60)

    assert asyncio.run(run()) == [(48, 1)]
