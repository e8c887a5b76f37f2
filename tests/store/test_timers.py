"""Timers of profiles: one suite for all stores."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import pytest
from tests.support.stores import on

from emarsys_cdp.store import Commit, Store
from emarsys_cdp.store.keys import SHARDS, shard
from emarsys_cdp.store.record import Record, pack

MakeStore: TypeAlias = Callable[[], Store]

PID, NEIGHBOUR, OTHER = "AAAAAAAAAAAA", "AABBBBBBBBBB", "BBBBBBBBBBBB"
"""Two profiles of shard 0, one of another shard."""

NOW = 1_764_000_000_000
AGAIN = NOW + 30_000
EVERY = range(SHARDS)


def stored(revision: int) -> bytes:
    """Return the stored form of a record."""
    return pack(Record("dest-1", user="u1"), revision)


def pids(count: int) -> list[str]:
    """Return profile ids of all shards, always the same."""
    random = Random(9)  # noqa: S311 - the same in every run
    return [urlsafe_b64encode(random.randbytes(9)).decode() for _ in range(count)]


def test_the_neighbours_share_a_shard() -> None:
    """The tests name a profile's neighbour, and one of elsewhere."""
    assert shard(PID) == shard(NEIGHBOUR) == 0 != shard(OTHER)


def test_no_timers(make_store: MakeStore) -> None:
    """A store without timers has none that are due, and dropping one is nothing."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1))])
        await store.drop_timers([PID], AGAIN)
        await store.drop_timers([], AGAIN)
        due = await store.due_timers(EVERY, NOW, 10, AGAIN), await store.due_timers([], NOW, 10, AGAIN)
        return due, await store.count_timers()

    assert on(make_store, use) == (([], []), 0)


def test_a_timer_is_due_at_its_time(make_store: MakeStore) -> None:
    """Not a millisecond before it."""

    async def use(store: Store) -> Any:
        written = await store.commit([Commit(PID, 0, stored(1), wake=NOW)])
        early = await store.due_timers(EVERY, NOW - 1, 10, AGAIN)
        return written, early, await store.due_timers(EVERY, NOW, 10, AGAIN), await store.read_records([PID])

    assert on(make_store, use) == ([True], [], [PID], [stored(1)])


def test_a_due_timer_is_one_workers_until_it_is_due_again(make_store: MakeStore) -> None:
    """Of several workers who look at once one gets it; when it does nothing, the next one gets it."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), wake=NOW)])
        looks = await asyncio.gather(*(store.due_timers(EVERY, NOW, 10, AGAIN) for _ in range(8)))
        early = await store.due_timers(EVERY, AGAIN - 1, 10, AGAIN + 30_000)
        return sorted(looks), early, await store.due_timers(EVERY, AGAIN, 10, AGAIN + 30_000)

    assert on(make_store, use) == ([[]] * 7 + [[PID]], [], [PID])


@pytest.mark.parametrize(("wake", "due"), [(NOW + 1, []), (NOW, [PID]), (None, [PID]), (0, [])])
def test_a_commit_sets_the_timer_anew(make_store: MakeStore, wake: int | None, due: list[str]) -> None:
    """Later, as it is, as it was (None), or never (0)."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), wake=NOW)])
        await store.commit([Commit(PID, 1, stored(2), wake=wake)])
        count = await store.count_timers()
        return count, await store.due_timers(EVERY, NOW, 10, AGAIN), await store.read_records([PID])

    assert on(make_store, use) == (int(wake != 0), due, [stored(2)])


def test_a_commit_that_is_refused_sets_no_timer(make_store: MakeStore) -> None:
    """Neither a new one nor an earlier one; nor does it remove one."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), wake=NOW)])
        refused = [Commit(PID, 0, stored(1), wake=1), Commit(PID, 2, stored(3), wake=0), Commit(OTHER, 1, b"", wake=1)]
        written = await store.commit(refused)
        early = await store.due_timers(EVERY, NOW - 1, 10, AGAIN)
        return written, early, await store.due_timers(EVERY, NOW, 10, AGAIN), await store.count_timers()

    assert on(make_store, use) == ([False] * 3, [], [PID], 1)


@pytest.mark.parametrize("wake", [None, 0, NOW])
def test_a_removed_record_has_no_timer(make_store: MakeStore, wake: int | None) -> None:
    """Whatever the commit that removes it says of the timer; a neighbour's stays."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(pid, 0, stored(1), wake=NOW) for pid in (PID, NEIGHBOUR)])
        removed = await store.commit([Commit(PID, 1, b"", wake=wake)])
        return removed, await store.due_timers(EVERY, NOW, 10, AGAIN), await store.read_records([PID])

    assert on(make_store, use) == ([True], [NEIGHBOUR], [None])


def test_timers_of_other_shards(make_store: MakeStore) -> None:
    """Only the timers of the shards that were asked for are returned and set."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(pid, 0, stored(1), wake=NOW) for pid in (PID, NEIGHBOUR, OTHER)])
        mine = await store.due_timers([shard(PID), 700], NOW, 10, AGAIN)
        return mine, await store.due_timers([shard(OTHER), shard(PID)], NOW, 10, AGAIN)

    assert on(make_store, use) == ([PID, NEIGHBOUR], [OTHER])


def test_the_longest_due_of_each_shard(make_store: MakeStore) -> None:
    """More than the limit are left for the next look, those that are due longest come first."""
    crowd = [f"AA{number:010}" for number in range(7)]

    async def use(store: Store) -> Any:
        commits = [Commit(pid, 0, stored(1), wake=NOW - number) for number, pid in enumerate(crowd)]
        await store.commit([*commits, Commit(OTHER, 0, stored(1), wake=NOW)])
        looks = [await store.due_timers(EVERY, NOW, 3, AGAIN) for _ in range(4)]
        return [sorted(look) for look in looks], [look[:3] for look in looks[:2]]

    sets, firsts = on(make_store, use)

    assert sets == [sorted([*crowd[4:], OTHER]), crowd[1:4], crowd[:1], []]
    assert firsts[1] == [crowd[3], crowd[2], crowd[1]]


def test_timers_of_people_who_are_gone_are_dropped(make_store: MakeStore) -> None:
    """Unless a commit has set them anew, whether earlier or later."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(pid, 0, stored(1), wake=NOW) for pid in (PID, NEIGHBOUR, OTHER)])
        await store.due_timers(EVERY, NOW, 10, AGAIN)
        await store.commit([Commit(NEIGHBOUR, 1, stored(2), wake=AGAIN + 1), Commit(OTHER, 1, stored(2), wake=NOW)])
        await store.drop_timers([PID, NEIGHBOUR, OTHER, "CCCCCCCCCCCC"], AGAIN)
        return await store.count_timers(), await store.due_timers(EVERY, AGAIN, 10, AGAIN + 30_000)

    assert on(make_store, use) == (2, [OTHER])


def test_ten_thousand_timers_at_once(make_store: MakeStore) -> None:
    """Two workers who share the shards get each of them once."""
    every = pids(10_000)

    async def use(store: Store) -> Any:
        await store.commit([Commit(pid, 0, stored(1), wake=NOW + index % 1000) for index, pid in enumerate(every)])
        halves = (range(512), range(512, SHARDS))
        found = await asyncio.gather(*(store.due_timers(half, NOW + 999, 100, AGAIN) for half in halves))
        return await store.count_timers(), found

    count, found = on(make_store, use)

    assert count == 10_000
    assert sorted(found[0] + found[1]) == sorted(every)
    assert {shard(pid) < 512 for pid in found[0]} == {True}


def test_timers_are_no_people(make_store: MakeStore) -> None:
    """Going through everything finds the record of a person with a timer, and nothing else."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), wake=NOW)])
        walked = [step async for step in store.walk(100) if step != ([], [])]
        size = await store.size()
        return walked, [each async for each in store.scan()], size

    assert on(make_store, use) == ([([(PID, stored(1))], [])], [(PID, stored(1))], 2)


def test_the_first_timer_of_all_shards(make_store: MakeStore) -> None:
    """The earliest of all, due or not, as it is after each commit; None when there is none."""

    async def use(store: Store) -> Any:
        found = [await store.next_timer()]
        for commit in (
            Commit(PID, 0, stored(1), wake=NOW + 2),
            Commit(OTHER, 0, stored(1), wake=NOW + 1),
            Commit(NEIGHBOUR, 0, stored(1), wake=NOW + 3),
            Commit(OTHER, 1, stored(2), wake=0),
            Commit(PID, 1, b"", wake=0),
        ):
            assert await store.commit([commit]) == [True]
            found.append(await store.next_timer())
        return found

    assert on(make_store, use) == [None, NOW + 2, NOW + 1, NOW + 1, NOW + 2, NOW + 3]
