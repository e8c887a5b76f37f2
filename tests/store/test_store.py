"""One suite for all stores: whatever a store is made of, it keeps the same promises."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias, TypeVar

import pytest
from tests.support.stores import on

from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import SHARDS, shard
from emarsys_cdp.store.record import Record, pack, unpack

T = TypeVar("T")
MakeStore: TypeAlias = Callable[[], Store]

PID = "AAAAAAAAAAAA"
ROW = "BBBBBBBBBBBBBBBBBBBBBBBB"
NOT_THERE = "CCCCCCCCCCCC"


def stored(revision: int, user: str = "u1") -> bytes:
    """Return the stored form of a record."""
    return pack(Record("dest-1", user=user), revision)


def names(count: int, size: int = 9) -> list[str]:
    """Return profile ids, or row names of 18 bytes, that are spread over all shards and always the same."""
    random = Random(size)  # noqa: S311 - the same in every run
    return [urlsafe_b64encode(random.randbytes(size)).decode() for _ in range(count)]


def test_nothing_is_there(make_store: MakeStore) -> None:
    """What was never written reads as None."""

    async def use(store: Store) -> Any:
        return await store.read_rows([ROW]), await store.read_records([PID]), await store.read_kept(ROW)

    assert on(make_store, use) == ([None], [None], None)


def test_nothing_is_asked(make_store: MakeStore) -> None:
    """Asking for nothing answers nothing."""

    async def use(store: Store) -> Any:
        return [
            await store.read_rows([]),
            await store.read_records([]),
            await store.commit([]),
            await store.claim([]),
        ]

    assert on(make_store, use) == [[], [], [], []]


@pytest.mark.parametrize("stub", [True, False])
def test_first_commit(make_store: MakeStore, stub: bool) -> None:
    """A record that nobody has written yet is written, as a stub or for good."""

    async def use(store: Store) -> Any:
        return await store.commit([Commit(PID, 0, stored(1), stub)]), await store.read_records([PID])

    assert on(make_store, use) == ([True], [stored(1)])


def test_commit_over_the_revision_it_was_computed_from(make_store: MakeStore) -> None:
    """A record is replaced when the stored one still has the expected revision."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), stub=True)])
        written = await store.commit([Commit(PID, 1, stored(2, "u2"))])
        return written, await store.read_records([PID])

    assert on(make_store, use) == ([True], [stored(2, "u2")])


@pytest.mark.parametrize("expected", [0, 1, 3, 2**63], ids=["absent", "older", "newer", "far away"])
def test_commit_over_another_revision(make_store: MakeStore, expected: int) -> None:
    """A record is not written over one with another revision than expected."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1))])
        await store.commit([Commit(PID, 1, stored(2))])
        written = await store.commit([Commit(PID, expected, stored(expected + 1, "intruder"))])
        return written, await store.read_records([PID])

    assert on(make_store, use) == ([False], [stored(2)])


@pytest.mark.parametrize("expected", [1, 255, 256])
def test_commit_over_a_record_that_is_gone(make_store: MakeStore, expected: int) -> None:
    """A record that is not there any more is not written again."""

    async def use(store: Store) -> Any:
        written = await store.commit([Commit(PID, expected, stored(expected + 1))])
        return written, await store.read_records([PID])

    assert on(make_store, use) == ([False], [None])


def test_only_one_of_two_commits_wins(make_store: MakeStore) -> None:
    """Of two records computed from the same revision one is written, also in the same round trip."""

    async def use(store: Store) -> Any:
        both = await store.commit([Commit(PID, 0, stored(1, "a")), Commit(PID, 0, stored(1, "b"))])
        again = await asyncio.gather(
            store.commit([Commit(PID, 1, stored(2, "c"))]), store.commit([Commit(PID, 1, stored(2, "d"))])
        )
        (record,) = await store.read_records([PID])
        return both, sorted(again), record

    both, again, record = on(make_store, use)

    assert both == [True, False]
    assert again == [[False], [True]]
    assert record in (stored(2, "c"), stored(2, "d"))


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_records_are_bytes(make_store: MakeStore, size: int) -> None:
    """Every byte of a record comes back, zeros and line ends included."""
    record = stored(1) + bytes(range(256)) * (size // 256) + b"\r\n\x00"

    async def use(store: Store) -> list[bytes | None]:
        await store.commit([Commit(PID, 0, record)])
        return await store.read_records([PID])

    assert on(make_store, use) == [record]


def test_claim_of_a_row_that_is_not_there(make_store: MakeStore) -> None:
    """A row without content is set by who expects none."""

    async def use(store: Store) -> Any:
        return await store.claim([Claim(ROW, None, b"pone")]), await store.read_rows([ROW])

    assert on(make_store, use) == ([True], [b"pone"])


def test_claim_over_the_content_it_was_read_with(make_store: MakeStore) -> None:
    """A row is replaced by who knows its content."""

    async def use(store: Store) -> Any:
        await store.claim([Claim(ROW, None, b"pone")])
        return await store.claim([Claim(ROW, b"pone", b"s")]), await store.read_rows([ROW])

    assert on(make_store, use) == ([True], [b"s"])


@pytest.mark.parametrize("old", [None, b"p", b"pon", b"pone\x00", b"ptwo", b"s"], ids=ascii)
def test_lost_claim(make_store: MakeStore, old: bytes | None) -> None:
    """A row that has another content by now is left alone."""

    async def use(store: Store) -> Any:
        await store.claim([Claim(ROW, None, b"pone")])
        return await store.claim([Claim(ROW, old, b"pintruder")]), await store.read_rows([ROW])

    assert on(make_store, use) == ([False], [b"pone"])


def test_claim_over_a_row_that_is_gone(make_store: MakeStore) -> None:
    """A row that is not there any more is not set by who expects a content."""

    async def use(store: Store) -> Any:
        return await store.claim([Claim(ROW, b"pone", b"s")]), await store.read_rows([ROW])

    assert on(make_store, use) == ([False], [None])


def test_only_one_of_two_claims_wins(make_store: MakeStore) -> None:
    """An identifier that two profiles claim at once gets one owner."""

    async def use(store: Store) -> Any:
        claims = [store.claim([Claim(ROW, None, b"p%d" % number)]) for number in range(20)]
        won = [number for number, (ok,) in enumerate(await asyncio.gather(*claims)) if ok]
        return won, await store.read_rows([ROW])

    won, rows = on(make_store, use)

    assert [b"p%d" % number for number in won] == rows


def test_order_of_rows(make_store: MakeStore) -> None:
    """Claims and rows of many shards, and the gaps between them, are answered in the order of the question."""
    every = names(3000, 18)
    there = set(every[::3])

    async def use(store: Store) -> Any:
        first = await store.claim([Claim(name, None, name.encode()) for name in every[::3]])
        second = await store.claim([Claim(name, None, b"second") for name in every])
        return all(first), second, await store.read_rows(every)

    first, second, rows = on(make_store, use)

    assert len({shard(name) for name in every}) > SHARDS / 2
    assert first
    assert second == [name not in there for name in every]
    assert rows == [name.encode() if name in there else b"second" for name in every]


def test_order_of_records(make_store: MakeStore) -> None:
    """Commits and records of many shards, and the gaps between them, are answered in the order of the question."""
    every = names(3000)
    there = set(every[1::3])

    async def use(store: Store) -> Any:
        first = await store.commit([Commit(pid, 0, stored(1, pid)) for pid in every[1::3]])
        between = await store.read_records(every)
        second = await store.commit([Commit(pid, 1, stored(2, pid + "!")) for pid in every])
        return all(first), between, second, await store.read_records(every)

    first, between, second, last = on(make_store, use)

    assert first
    assert between == [stored(1, pid) if pid in there else None for pid in every]
    assert second == [pid in there for pid in every]
    assert last == [stored(2, pid + "!") if pid in there else None for pid in every]


def test_rows_and_records_do_not_meet(make_store: MakeStore) -> None:
    """A row, a record, kept bytes, a cell and a lease of the same name are five things."""

    async def use(store: Store) -> Any:
        await store.claim([Claim(PID, None, b"s")])
        await store.commit([Commit(PID, 0, stored(1))])
        await store.keep({PID: b"kept"}, 60)
        await store.swap_cell(PID, None, b"cell")
        await store.lease([PID], "holder", 60_000)
        rows, records = await store.read_rows([PID]), await store.read_records([PID])
        return rows, records, await store.read_kept(PID), await store.read_cell(PID)

    assert on(make_store, use) == ([b"s"], [stored(1)], b"kept", b"cell")


def test_a_stub_is_written_again(make_store: MakeStore) -> None:
    """A stub that is written again is a record like any other."""

    async def use(store: Store) -> Any:
        await store.commit([Commit(PID, 0, stored(1), stub=True)])
        again = await store.commit([Commit(PID, 1, stored(2)), Commit(NOT_THERE, 1, stored(2))])
        return again, await store.read_records([PID, NOT_THERE])

    assert on(make_store, use) == ([True, False], [stored(2), None])


def test_kept(make_store: MakeStore) -> None:
    """Kept bytes come back as they are, by their name, and the last ones win."""
    plain = bytes(range(256)) * 40

    async def use(store: Store) -> Any:
        await store.keep({ROW: b"first"}, 60)
        await store.keep({ROW: plain}, 60)
        await store.keep({PID: b""}, 60)
        return [await store.read_kept(name) for name in (ROW, PID, NOT_THERE)]

    assert on(make_store, use) == [plain, b"", None]


def test_cell(make_store: MakeStore) -> None:
    """A cell is set only by who knows what is in it, even when the new content is there already."""

    async def use(store: Store) -> Any:
        done = [
            await store.swap_cell(ROW, b"something", b"first"),
            await store.swap_cell(ROW, None, b"first"),
            await store.swap_cell(ROW, None, b"first"),
            await store.swap_cell(ROW, b"first", b"second"),
            await store.swap_cell(ROW, b"first", b"second"),
        ]
        return done, await store.read_cell(ROW), await store.read_cell(NOT_THERE)

    assert on(make_store, use) == ([False, True, False, True, False], b"second", None)


def test_leases(make_store: MakeStore) -> None:
    """A name is one holder's until it is given back, and only its holder can give it back."""

    async def use(store: Store) -> Any:
        done = [
            await store.lease([ROW, PID], "one", 60_000),
            await store.lease([PID, NOT_THERE], "two", 60_000),
            await store.lease([PID], "one", 60_000),
        ]
        await store.release([PID, NOT_THERE], "one")
        done.append(await store.lease([ROW, PID, NOT_THERE], "two", 60_000))
        await store.release([ROW, PID, NOT_THERE], "two")
        return [*done, await store.lease([ROW, PID, NOT_THERE], "one", 60_000)]

    assert on(make_store, use) == [
        [True, True],
        [False, True],
        [True],
        [False, True, True],
        [True, True, True],
    ]


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_scan(make_store: MakeStore, count: int) -> None:
    """A scan yields every profile of all spaces with its record, and nothing else."""
    every = names(count)

    async def use(store: Store) -> list[tuple[str, bytes]]:
        await store.commit([Commit(pid, 0, stored(1, pid), stub=len(pid) % 2 == 0) for pid in every])
        await store.claim([Claim(name, None, b"s") for name in names(20, 18)])
        await store.keep({ROW: b"sealed"}, 60)
        return [found async for found in store.scan()]

    found = on(make_store, use)

    assert {pid: unpack(record)[1].user for pid, record in found} == {pid: pid for pid in every}
    assert len(found) == count


def test_ping(make_store: MakeStore) -> None:
    """A store that is there answers, before and after other work."""

    async def use(store: Store) -> list[bytes | None]:
        await store.ping()
        rows = await store.read_rows([ROW])
        await store.ping()
        return rows

    assert on(make_store, use) == [None]
