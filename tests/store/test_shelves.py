"""Documents that stay for ever: published by compare-and-set on their revision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.store import Publication, Store
from emarsys_cdp.store.keys import shelf_keys
from emarsys_cdp.store.redis import RedisStore

SHELF = "SSSSSSSSSSSSSSSSSSSSSSSS"


def test_only_the_revision_that_is_there_is_followed(make_store: Callable[[], Store]) -> None:
    """A publication that was made from another revision changes nothing; names are any text."""

    async def use(store: Store) -> tuple[list[bool], dict[str, int], list[bytes | None]]:
        tries = [
            Publication(SHELF, "dest 1:\u00fc\ud800", 0, 4, b"first"),
            Publication(SHELF, "dest 1:\u00fc\ud800", 0, 5, b"late"),
            Publication(SHELF, "dest 1:\u00fc\ud800", 4, 5, b"second"),
            Publication(SHELF, "dest-2", 1, 2, b"never"),
        ]
        written = [await store.publish(one) for one in tries]
        names = ("dest 1:\u00fc\ud800", "dest-2")
        return written, await store.read_shelf(SHELF), [await store.read_published(SHELF, name) for name in names]

    written, revisions, contents = on(make_store, use)

    assert written == [True, False, True, False]
    assert revisions == {"dest 1:\u00fc\ud800": 5}
    assert contents == [b"second", None]


def test_one_of_many_at_once_is_published(make_store: Callable[[], Store]) -> None:
    """Of workers that publish at the same time one succeeds, and its content is there."""

    async def main() -> tuple[list[bool], bytes | None]:
        stores = [make_store() for _ in range(4)]
        tries = [Publication(SHELF, "dest-1", 0, 1, b"%d" % number) for number in range(4)]
        written = await asyncio.gather(*(store.publish(one) for store, one in zip(stores, tries, strict=True)))
        content = await stores[0].read_published(SHELF, "dest-1")
        for store in stores:
            await store.close()
        return written, content

    written, content = asyncio.run(main())

    assert sorted(written) == [False, False, False, True]
    assert content == b"%d" % written.index(True)


def test_a_large_document_is_kept_for_ever(valkey_url: str) -> None:
    """Ten megabytes go there and back, and neither key has an end."""
    flush(valkey_url)
    content = b"x" * 10_000_000

    async def use(store: Store) -> bytes | None:
        await store.publish(Publication(SHELF, "dest-1", 0, 1, content))
        return await store.read_published(SHELF, "dest-1")

    assert on(lambda: RedisStore(valkey_url), use) == content
    with redis.from_url(valkey_url) as client:
        assert [client.ttl(key) for key in shelf_keys(SHELF)] == [-1, -1]
