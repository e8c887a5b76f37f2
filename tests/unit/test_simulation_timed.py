"""A store in which time passes as a timeline says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from emarsys_cdp.document.model import DEFAULT
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.outcome import Outcome, Person
from emarsys_cdp.simulation.reading import Step, Vector
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.simulation.timed import TimedStore
from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.outbox import Posting
from emarsys_cdp.store.record import Record, pack

DAY = 86_400_000


def simulate(steps: Sequence[tuple[int, dict[str, str]]], until: int, store: Store) -> Outcome:
    """Return what comes out of calls at offsets in days."""
    manager = build_plugin_manager([])
    engine = Engine(store, Steps(manager), build_compiler(manager), "test", lambda _: None)
    calls = [Step(day * DAY, call={"type": "page", "messageId": f"m{day}", **parts}) for day, parts in steps]
    return asyncio.run(run_vector(engine, Vector("v", DEFAULT, tuple(calls), until * DAY), 0))


def test_what_expires_is_gone_when_its_time_has_come() -> None:
    """A record and a row that were given some seconds, and not a moment earlier."""
    now = [0]
    inner = MemoryStore()
    timed = TimedStore(inner, lambda: now[0])

    async def main() -> list[tuple[int, int]]:
        store = cast("Store", timed)
        await store.commit([Commit("pp", 0, pack(Record("s"), 1), seconds=10), Commit("qq", 0, pack(Record("s"), 1))])
        await store.claim([Claim("n", None, b"pp", seconds=20), Claim("o", None, b"pq")])
        found = []
        for now[0] in (9_999, 10_000, 19_999, 20_000, DAY):
            await timed.expire()
            found.append((len(inner.records), len(inner.rows)))
        return found

    assert asyncio.run(main()) == [(2, 2), (1, 2), (1, 2), (1, 1), (1, 1)]


def test_an_anonymous_person_is_forgotten_after_a_month() -> None:
    """Each call gives another month; a person with a userId stays for a year (semantics 1.8)."""
    device, user = {"anonymousId": "d1"}, {"userId": "u1"}
    alone, known = Person(None, None, ["d1"], []), Person("u1", None, [], [])

    def left(until: int) -> list[Person]:
        return simulate([(0, user), (0, device), (20, device)], until, MemoryStore()).profiles

    assert left(49) == [alone, known]
    assert left(51) == left(364) == [known]
    assert left(366) == []


def test_a_shared_device_may_be_somebodys_again_after_three_months() -> None:
    """Who uses it alone then has it (semantics 1.8)."""
    both = [(0, {"userId": "u1", "anonymousId": "d"}), (0, {"userId": "u2", "anonymousId": "d"})]

    def after(days: int) -> tuple[list[str], list[str]]:
        outcome = simulate([*both, (days, {"userId": "u3", "anonymousId": "d"})], days, MemoryStore())
        return outcome.profiles[2].anons, outcome.shared

    assert after(89) == ([], ["d"])
    assert after(91) == (["d"], [])


def test_nothing_of_a_vector_stays_in_the_store() -> None:
    """Whatever the vector did: a server that others use is as it was."""
    store = MemoryStore()
    store.rows["theirs"] = b"s"
    simulate([(0, {"userId": "u1", "anonymousId": "d"}), (1, {"userId": "u2", "anonymousId": "d"})], 2, store)

    assert (store.records, store.rows) == ({}, {"theirs": b"s"})


def test_no_timer_and_no_effect_stays_in_the_store() -> None:
    """Timers go when their records expire, effects at the end; those that others have posted stay."""
    now = [0]
    inner = MemoryStore()
    timed = TimedStore(inner, lambda: now[0])

    async def main() -> Any:
        posting, record = Posting("0" * 32, b"content", 0), pack(Record("s"), 1)
        await inner.commit([Commit("AAA", 0, record, wake=1, postings=(Posting("1" * 32, b"theirs", 0),))])
        await timed.commit([Commit("AAB", 0, record, seconds=10, wake=1, postings=(posting,))])
        await timed.commit([Commit("AAC", 1, record, wake=1, postings=(Posting("2" * 32, b"refused", 0),))])
        before = await inner.count_timers(), len(inner.effects[0])
        now[0] = DAY
        await timed.expire()
        expired = await inner.count_timers(), len(inner.effects[0])
        await timed.remove_all()
        return before, expired, (await inner.count_timers(), len(inner.effects[0]))

    assert asyncio.run(main()) == ((2, 2), (1, 2), (1, 1))
