"""Pages of the users table: nobody is missed, whatever comes and goes between two of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.people import NAMER, MakeStore, call, people, sweeper, worker
from tests.support.stores import on

from emarsys_cdp.store import Store
from emarsys_cdp.users_desk import UsersDesk
from emarsys_cdp.users_pages import Place, hash_of, place_after, read_place


def desk(store: Store) -> UsersDesk:
    """Return what answers questions about people; no space has a document."""
    return UsersDesk(people(store), store, NAMER, lambda _: None, lambda: 0)


async def pages(store: Store, limit: int, between: Any = None) -> list[list[str]]:
    """Return the userIds of all pages of space `s`."""
    found, after = list[list[str]](), ""
    while True:
        page, following = await desk(store).page("s", after, limit)
        found.append([str(one["userId"]) for one in page])
        if following is None:
            return found
        after = following
        if between is not None:
            await between(len(found))


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_everybody_comes_once(make_store: MakeStore, limit: int) -> None:
    """On pages of the size that is asked for, but for the last one; people of other spaces do not come."""

    async def use(store: Store) -> list[list[str]]:
        await worker(store).add([call(number, number) for number in range(1, 101)])
        await worker(store).add([call(number, number, space="other") for number in range(1, 31)])
        return await pages(store, limit)

    found = on(make_store, use)

    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 0 < len(found[-1]) <= limit
    assert sorted(one for page in found for one in page) == sorted(f"user{number}" for number in range(1, 101))


def test_people_who_come_meanwhile_hide_nobody(make_store: MakeStore) -> None:
    """Though the server moves its keys for them: who was there before is on some page."""

    async def use(store: Store) -> list[list[str]]:
        await worker(store).add([call(number, number) for number in range(1, 61)])

        async def between(page: int) -> None:
            await worker(store).add([call(page * 1000 + number, page * 1000 + number) for number in range(1, 101)])

        return await pages(store, 25, lambda page: between(page) if page < 4 else nothing())

    async def nothing() -> None:
        """Nobody comes any more."""

    found = {one for page in on(make_store, use) for one in page}

    assert found >= {f"user{number}" for number in range(1, 61)}


def test_a_place_is_written_and_read() -> None:
    """What is done of a step counts only while the step is the same."""
    place = read_place(str(place_after("3.17", ["a", "b"])))

    assert place == Place("3.17", 2, hash_of(["a", "b"]))
    assert place.left(["a", "b", "c"]) == 2
    assert place.left(["a", "aa", "b", "c"]) == 0
    assert read_place("3.17") == Place("3.17") == place_after("3.17", [])
    assert read_place("") == Place("0.0")


def test_a_place_behind_the_end_has_nobody(make_store: MakeStore) -> None:
    """A cluster may have fewer servers than when the page before was asked for."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1)])
        return await desk(store).page("s", "9999.0", 10), await desk(store).page("s", f"0.{10**19 * 9}", 10)

    behind, beyond = on(make_store, use)

    assert behind == ([], None)
    assert beyond[1] is None


def test_the_only_space_is_known(make_store: MakeStore) -> None:
    """Also when no sweep has noted it; and another that has people is told whatever is noted."""

    async def use(store: Store) -> Any:
        await worker(store).add([call(1, 1)])
        unnoted = await desk(store).only_space()
        await sweeper(store).run()
        noted = await desk(store).only_space()
        await worker(store).add([call(number, number, space="other") for number in range(2, 50)])
        with pytest.raises(Exception, match="there are several spaces, name one of them: other, s"):
            await desk(store).only_space()
        return unnoted, noted

    assert on(make_store, use) == ("s", "s")
