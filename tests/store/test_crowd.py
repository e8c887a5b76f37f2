"""Many clients of two workers at once send calls of the same few people."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import pytest
from tests.support.people import MakeStore, Request, call, contradictions, follow, owners, pids_of, worker
from tests.support.stores import on

from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import owner
from emarsys_cdp.store.record import Record, unpack


class Crowd(NamedTuple):
    """What became of the calls of many clients: results, rows, people, users ever written to a profile."""

    calls: list[Entry]
    added: list[Added]
    rows: dict[str, bytes | None]
    people: dict[str, Record]
    users: dict[str, set[str | None]]
    contradictions: list[str]
    now: dict[str, str | None]


@pytest.fixture
def crowd(make_store: MakeStore) -> Crowd:
    """Have clients of two workers send hundreds of calls of the same few people at once."""
    random = Random(4711)  # noqa: S311 - the same in every run
    numbers = iter(random.sample(range(1, 9999), 360))
    calls = [
        call(next(numbers), random.choice([0, 0, 1, 2, 3]), random.choice([0, 0, 1, 2]), random.randrange(6))
        for _ in range(360)
    ]
    users: dict[str, set[str | None]] = {}

    async def dawdle(_: str, __: Sequence[Any]) -> None:
        for _each in range(random.randrange(4)):
            await asyncio.sleep(0)

    async def look(method: str, commits: Sequence[Any]) -> None:
        for commit in commits if method == "commit" else ():
            users.setdefault(commit.pid, set()).add(unpack(commit.record)[1].user)

    async def client(of: Rounds, mine: Request) -> list[Added]:
        return [added for start in range(0, len(mine), 3) for added in await of.add(mine[start : start + 3])]

    async def use(store: Store) -> Crowd:
        second = make_store()
        workers = [worker(store, dawdle, look), worker(second, dawdle, look)]
        every = [calls[start : start + 30] for start in range(0, len(calls), 30)]
        added = await asyncio.gather(*[client(workers[n % 2], mine) for n, mine in enumerate(every)])
        pids = sorted(await pids_of(store, calls))
        records = [unpack(stored)[1] for stored in await store.read_records(pids) if stored]
        await second.close()
        people = dict(zip(pids, records, strict=True))
        wrong = await contradictions(store, calls)
        results = [a for of in added for a in of]
        now = {one.profile.id: await follow(store, one.profile.id) for one in results if one.profile}
        return Crowd(calls, results, await owners(store, calls), people, users, wrong, now)

    return on(make_store, use)


def test_a_crowd_loses_nothing(crowd: Crowd) -> None:
    """Every call is added to a person, merged or not, who has the last values by version of all these calls."""
    last: dict[str, int] = {}
    for one, result in zip(crowd.calls, crowd.added, strict=True):
        if result.profile is not None and result.filtered is None:
            pid = crowd.now[result.profile.id] or ""
            last[pid] = max(last.get(pid, 0), one.event_time)

    nobody = [one.ids for one, result in zip(crowd.calls, crowd.added, strict=True) if result.profile is None]
    assert [ids for ids in nobody if ids.user or ids.key] == []
    assert [result.failure for result in crowd.added if result.failure] == []
    assert last == {pid: record.values["last"].value for pid, record in crowd.people.items()}


def test_a_crowd_stays_apart(crowd: Crowd) -> None:
    """No profile ever has two users, and every user owns the profile that has it."""
    assert max(len(seen - {None}) for seen in crowd.users.values()) == 1
    for value, row in crowd.rows.items():
        assert not value.startswith("user") or crowd.people[owner(row) or ""].user == value


def test_a_crowd_has_owners(crowd: Crowd) -> None:
    """Every identifier has exactly one owner, which is there; only a device may be shared."""
    shared = [value for value, row in crowd.rows.items() if row and row[:1] == b"s"]

    assert [value for value in shared if not value.startswith("anon")] == []
    assert [value for value, row in crowd.rows.items() if owner(row) not in crowd.people and value not in shared] == []


def test_records_and_rows_agree_after_a_crowd(crowd: Crowd) -> None:
    """A profile has no user, device or owned key that the rows give to somebody else."""
    assert crowd.contradictions == []
