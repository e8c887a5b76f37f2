"""Using a store of any kind within a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from emarsys_cdp.store import Store

T = TypeVar("T")


def on(make_store: Callable[[], Store], use: Callable[[Store], Awaitable[T]]) -> T:
    """Open a store, use it, close it."""

    async def main() -> T:
        store = make_store()
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(main())
