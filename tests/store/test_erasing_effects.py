"""What rules have done for a person goes with the person: effects in every state, timers, and their content (P19)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import redis
from tests.support.documents import EVENT, START, document, rule
from tests.support.live import HOLDER, HOUR, SPACE, Live
from tests.support.people import MakeStore
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.store import Store
from emarsys_cdp.store.outbox import DEAD, LEASED, QUEUED, SENT, WAITING, EffectRef, Settlement
from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore

ADDRESS: Final = "ada@example.com"
NICKNAME: Final = "countess"
SHARDS: Final = range(1024)

NAME: Final = {"name": "nick", "path": "properties.nick", "type": "string"}
SEVERAL: Final = rule(
    multiple=True,
    lifetime="48h",
    conditions=[
        {**START, "variables": ["nick"]},
        {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "event": "coupon"}]},
    ],
)
"""A rule that triggers at once, as often as its start comes, with a value of the person's in its data."""

WAITING_RULE: Final = rule("later")
"""A rule that triggers after 48 hours."""

DOCUMENT: Final = document(SEVERAL, WAITING_RULE, maps=(EVENT, NAME))


async def _coupon(live: Live, at: float, number: int, **who: str) -> EffectRef:
    """Take a coupon call, and return the effect that it has at once."""
    before = set(await live.store.list_effects(QUEUED, SHARDS, 100))
    await live.track(at, f"c{number}", "Coupon Entered", properties={"nick": NICKNAME}, **who)
    (new,) = set(await live.store.list_effects(QUEUED, SHARDS, 100)) - before
    return new


async def _in_every_state(live: Live) -> dict[str, EffectRef]:
    """Return an effect of a person in each of the states that it can have."""
    live.sends = False
    await live.publish(DOCUMENT)
    await live.call(0, "identify", "i1", userId="u1", anonymousId="a1", traits={"email": ADDRESS})
    refs = {
        state: await _coupon(live, 0.1 * number, number, userId="u1")
        for number, state in enumerate((SENT, DEAD, "withdrawn", LEASED, WAITING), 1)
    }
    now, store = live.clock.now, live.store
    await store.lease_effects([refs[one] for one in (SENT, DEAD, LEASED)], HOLDER, now, now + HOUR)
    await store.settle_effects([Settlement(refs[one], HOLDER, one) for one in (SENT, DEAD)], now)
    await store.withdraw_effects([refs["withdrawn"]], now)
    states = [one.state for one in await store.read_effects(list(refs.values())) if one is not None]
    assert states == list(refs)
    return refs


@pytest.mark.parametrize("mode", ["delete", "suppress"])
def test_effects_go_with_their_person(make_store: MakeStore, mode: str) -> None:
    """Whatever became of them, and the timer of what has not fired yet; a sender that has one leased finds nothing."""

    async def use(store: Store) -> tuple[Any, ...]:
        live = Live(store)
        refs = await _in_every_state(live)
        timers = await store.count_timers()
        await live.service.users.erase(SPACE, "user", "u1", mode)
        settled = await store.settle_effects([Settlement(refs[LEASED], HOLDER, SENT)], live.clock.now)
        listed = [await store.list_effects(state, SHARDS, 100) for state in (QUEUED, DEAD)]
        left = await store.read_effects(list(refs.values()))
        return timers, await store.count_timers(), settled, listed, left

    assert on(make_store, use) == (1, 0, [False], [[], []], [None] * 5)


def test_the_effects_of_who_was_merged_go_as_well(make_store: MakeStore) -> None:
    """They are in the shard of the profile that they were emitted for."""

    async def use(store: Store) -> list[Any]:
        live = Live(store)
        live.sends = False
        await live.publish(DOCUMENT)
        await live.call(0, "identify", "i1", anonymousId="a1", traits={"email": ADDRESS})
        first = await _coupon(live, 1, 1, anonymousId="a1")
        await live.call(2, "identify", "i2", userId="u1", anonymousId="a2")
        await live.call(3, "identify", "i3", userId="u1", traits={"email": ADDRESS})
        second = await _coupon(live, 4, 2, userId="u1")
        shown = await live.service.users.show(SPACE, "user", "u1")
        assert shown is not None
        assert shown["merges"] == 1
        await live.service.users.erase(SPACE, "key", ADDRESS, "delete")
        return [*await store.read_effects([first, second]), await store.count_timers()]

    assert on(make_store, use) == [None, None, 0]


@pytest.mark.parametrize("mode", ["delete", "suppress"])
def test_who_was_erased_gets_nothing_any_more(make_store: MakeStore, mode: str) -> None:
    """What had begun before does not fire; calls of before do not begin it anew, of a suppressed one no call does."""

    async def use(store: Store) -> tuple[list[str], list[str]]:
        live = Live(store)
        await live.publish(document(WAITING_RULE, maps=(EVENT, NAME)))
        await live.call(0, "identify", "i1", userId="u1", traits={"email": ADDRESS})
        await live.track(1, "c1", "Coupon Entered", userId="u1")
        await live.until(2)
        await live.service.users.erase(SPACE, "user", "u1", mode)
        await live.track(3, "c2", "Coupon Entered", happened=1.5, userId="u1")
        await live.until(100)
        before = [one.key for one in live.taken]
        await live.call(101, "identify", "i2", userId="u1", traits={"email": ADDRESS})
        await live.track(102, "c3", "Coupon Entered", userId="u1")
        await live.until(200)
        return before, [one.key for one in live.taken]

    assert on(make_store, use) == ([], [ADDRESS] if mode == "delete" else [])


def test_effects_are_remembered_as_long_as_the_outbox_has_them(make_store: MakeStore) -> None:
    """Also when the rules have forgotten the calls that led to them; then they are forgotten, too."""

    async def use(store: Store) -> list[int]:
        live = Live(store)
        await live.publish(DOCUMENT)
        await live.call(0, "identify", "i1", userId="u1", traits={"email": ADDRESS})
        await live.track(1, "c1", "Coupon Entered", userId="u1")
        days = (20, 40, 70)
        found = []
        for day in days:
            await live.track(24 * day, f"o{day}", "Coupon Entered", userId="u1")
            await live.until(24 * day + 49)
            found.append(await _remembered(live))
        return found

    assert on(make_store, use) == [4, 6, 6]


def test_what_may_wait_for_long_is_remembered_for_as_long(make_store: MakeStore) -> None:
    """An effect that `lateFireMax` lets wait for 90 days goes with its person after 70, too."""

    async def use(store: Store) -> list[Any]:
        live = Live(store)
        live.sends = False
        await live.publish(document({**SEVERAL, "lateFireMax": "90d"}, maps=(EVENT, NAME)))
        await live.call(0, "identify", "i1", userId="u1", traits={"email": ADDRESS})
        first = await _coupon(live, 1, 1, userId="u1")
        await _coupon(live, 24 * 70, 2, userId="u1")
        await live.service.users.erase(SPACE, "user", "u1", "delete")
        return await store.read_effects([first])

    assert on(make_store, use) == [None]


async def _remembered(live: Live) -> int:
    books = [unpack(stored)[1].book async for _, stored in live.store.scan()]
    return sum(len(book.posted) for book in books if book is not None)


def _contents(url: str) -> Iterator[str]:
    """Yield all that a server has, in plain text."""
    readers: dict[bytes, Callable[[Any, Any], Any]] = {
        b"string": lambda client, key: client.get(key),
        b"hash": lambda client, key: client.hgetall(key),
        b"zset": lambda client, key: client.zrange(key, 0, -1),
        b"set": lambda client, key: client.smembers(key),
        b"list": lambda client, key: client.lrange(key, 0, -1),
    }
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            yield f"{key!r} {readers[client.type(key)](client, key)!r}"


@pytest.mark.parametrize("mode", ["delete", "suppress"])
def test_nothing_of_a_person_is_left_in_the_store(valkey_url: str, mode: str) -> None:
    """Neither an identifier nor a value: not in records, rows, effects, caps, timers or anything else."""
    flush(valkey_url)

    def traces() -> list[str]:
        words = (ADDRESS, NICKNAME, "u1", "'a1")
        return [one for one in _contents(valkey_url) if any(word in one for word in words)]

    async def use(store: Store) -> tuple[int, list[str]]:
        live = Live(store)
        await _in_every_state(live)
        before = len(traces())
        await live.service.users.erase(SPACE, "key", ADDRESS, mode)
        return before, traces()

    before, after = on(lambda: RedisStore(valkey_url), use)

    assert before == 6  # the record and five effects
    assert after == []
