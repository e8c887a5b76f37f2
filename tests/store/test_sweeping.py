"""Sweeping: what goes, what stays, and that nobody is disturbed by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from tests.support.people import NAMER, MakeStore, call, owners, people, pids_of, rows_of, sweeper, worker
from tests.support.stores import on

from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import owned_by
from emarsys_cdp.store.record import Record, pack
from emarsys_cdp.sweeping import STEP, Swept, SweptElsewhere

DEAD = "DEADDEADDEAD"


def name_of(number: int) -> str:
    """Return the name of a row that no call has."""
    return NAMER("nowhere", "a", str(number))


async def put(store: Store, *contents: bytes) -> list[str]:
    """Write rows with these contents and return their names."""
    names = [name_of(number) for number in range(len(contents))]
    await store.claim([Claim(name, None, content) for name, content in zip(names, contents, strict=True)])
    return names


def test_rows_of_people_who_are_gone_go_on_every_server(make_store: MakeStore) -> None:
    """However many; those of everybody else stay."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1, 1, 1)])
        await put(store, *[owned_by(DEAD)] * 3 * STEP)
        swept = await sweeper(store).run()
        left = list(await rows_of(store))
        return swept, left

    swept, left = on(make_store, use)

    assert (swept.people, swept.removed, swept.finished) == (1, 3 * STEP, 0)
    assert swept.rows >= 3 * STEP + 3  # a server may give a key twice
    assert sorted(left) == sorted(name for name in call(1, 1, 1, 1).names if name)


@pytest.mark.parametrize(
    ("content", "stays"),
    [
        (b"pDEADDEADDEAD", False),
        (b"pDEADDEADDEAD~1732355999000", True),
        (b"s", True),
        (b"sDEADDEADDEAD", True),
        (b"q", True),
        (b"td1732355999000", True),
        (b"ts1732355999000@DEADDEADDEAD", True),
        (b"of another version", True),
        (b"pUNREADABLE00", True),
    ],
)
def test_what_a_row_says_is_kept(make_store: MakeStore, content: bytes, stays: bool) -> None:
    """Only who owned what goes; that an identifier was erased, shared or suppressed is not forgotten."""

    async def use(store: Store) -> list[bytes | None]:
        await store.commit([Commit("UNREADABLE00", 0, b"\x09of another version")])
        names = await put(store, content)
        await sweeper(store).run()
        return await store.read_rows(names)

    assert on(make_store, use) == [content if stays else None]


def test_a_row_of_a_merged_profile_names_the_other_from_then_on(make_store: MakeStore) -> None:
    """Else the person would lose the identifier when the redirect expires."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1)])
        (pid,) = await pids_of(store, [call(1, 1)])
        await store.commit([Commit("MERGEDMERGED", 0, pack(Record("s", redirect=pid, folded=True), 1))])
        names = await put(store, owned_by("MERGEDMERGED"))
        await sweeper(store).run()
        return pid, await store.read_rows(names)

    pid, rows = on(make_store, use)

    assert rows == [owned_by(pid)]


def test_somebody_who_comes_meanwhile_keeps_the_row(make_store: MakeStore) -> None:
    """A row is removed only if it still says what it said."""
    again = call(2, 0, 0, 1)

    class Meanwhile:
        """The store, in which a call comes right before the first row is removed."""

        def __init__(self, store: Store) -> None:
            self._store = store
            self._come = False

        def __getattr__(self, method: str) -> Any:
            return getattr(self._store, method)

        async def claim(self, claims: Sequence[Claim]) -> list[bool]:
            if not self._come:
                self._come = True
                await worker(self._store).add([again])
            return await self._store.claim(claims)

    async def use(store: Store) -> Any:
        await store.claim([Claim(again.names[2] or "", None, owned_by(DEAD))])
        swept = await sweeper(cast(Store, Meanwhile(store))).run()
        return swept.removed, await owners(store, [again]), await pids_of(store, [again])

    removed, rows, pids = on(make_store, use)

    assert removed == 0
    assert rows == {"anon1": owned_by(*pids)}


def test_one_sweep_at_a_time(make_store: MakeStore) -> None:
    """Another worker's is refused, and the next one is welcome when it has ended."""
    refused: list[str] = []

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1, 1, 1)])
        other = sweeper(store, "another worker")
        going, end = asyncio.Event(), asyncio.Event()

        class Slow:
            def __getattr__(self, method: str) -> Any:
                return getattr(store, method)

            async def read_records(self, pids: Sequence[str]) -> list[bytes | None]:
                going.set()
                await end.wait()
                return await store.read_records(pids)

        first = asyncio.create_task(sweeper(cast(Store, Slow())).run())
        await going.wait()
        with pytest.raises(SweptElsewhere, match="another sweep of the users table is under way"):
            await other.run()
        refused.append("other")
        end.set()
        return await first, await other.run()

    first, second = on(make_store, use)

    assert refused == ["other"]
    assert (first.rows, second.rows) == (3, 3)


def test_a_sweep_that_is_ended_lets_others_sweep(make_store: MakeStore) -> None:
    """At once; and none counts as done."""

    async def use(store: Store) -> Any:
        await put(store, *[b"s"] * 10)
        task = asyncio.create_task(sweeper(store).run(keys_a_second=0.1))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        due = await sweeper(store).is_due()
        await sweeper(store, "another worker").run()
        return due, await sweeper(store).is_due()

    assert on(make_store, use) == (True, False)


def test_it_takes_its_time_and_tells_how_far_it_is(make_store: MakeStore) -> None:
    """No more keys a second than it is told."""
    told: list[Swept] = []

    async def use(store: Store) -> float:
        await put(store, *[b"s"] * 4 * STEP)
        started = asyncio.get_running_loop().time()
        await sweeper(store).run(keys_a_second=20 * STEP, on_step=told.append)
        return asyncio.get_running_loop().time() - started

    seconds = on(make_store, use)

    assert seconds > 0.15
    assert [one.rows for one in told] == sorted(one.rows for one in told)
    assert told[-1].rows == 4 * STEP
    assert len(told) >= 4


def test_a_suppressed_person_stays_suppressed(make_store: MakeStore) -> None:
    """A sweep leaves what was erased and suppressed as it is."""

    async def use(store: Store) -> list[str]:
        await worker(store).add([call(1, 1, 1, 1), call(2, 2, 2, 2)])
        await people(store).erase("s", "user", "user1", "suppress", 100)
        await people(store).erase("s", "user", "user2", "delete", 100)
        await sweeper(store).run()
        return [await people(store).state("s", "key", key) for key in ("key1", "key2")]

    assert on(make_store, use) == ["suppressed", "deleted"]


def test_all_keys_are_counted(make_store: MakeStore) -> None:
    """Also those that are no people."""

    async def use(store: Store) -> tuple[int, int]:
        before = await store.size()
        await worker(store).add([call(1, 1, 1, 1)])
        await store.keep({name_of(1): b"kept"}, 100)
        return before, await store.size()

    assert on(make_store, use) == (0, 5)
