"""A world that does what a test says: a fixed clock, counted randomness, and a service over any store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pluggy

from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.service.assembly import Service, World, assemble
from emarsys_cdp.settings import Settings
from emarsys_cdp.store import Store
from emarsys_cdp.values.times import parse_time

NOW = "2026-11-23T10:00:05.000Z"
SECRET = "a secret of the tests"  # noqa: S105 - it protects nothing
TOKEN = "token-of-the-tests"  # noqa: S105


def milliseconds(text: str) -> int:
    """Return milliseconds since 1970 for an ISO time."""
    time = parse_time(text)
    assert time is not None
    return time


def counted_bytes() -> Callable[[int], bytes]:
    """Return a source of bytes that are all different and the same in every run: each length is counted by itself."""
    numbers: dict[int, Iterator[int]] = defaultdict(lambda: count(1))
    return lambda size: next(numbers[size]).to_bytes(4, "big") * (size // 4) + b"\0" * (size % 4)


def fixed_world(now: str = NOW) -> World:
    """Return a world that stands still at *now*."""
    return World(lambda: milliseconds(now), counted_bytes(), lambda: 1, lambda _: 0.0)


def token_endpoint(handler: Callable[[httpx.Request], httpx.Response] | None = None) -> httpx.AsyncClient:
    """Return a client whose every request is answered with an access token, or by *handler*."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})

    return httpx.AsyncClient(transport=httpx.MockTransport(handler or answer))


def make_service(
    store: Store,
    *,
    world: World | None = None,
    manager: pluggy.PluginManager | None = None,
    client: httpx.AsyncClient | None = None,
    **settings: Any,
) -> Service:
    """Return a service over *store* with no extensions unless a manager is given."""
    return assemble(
        Settings(**settings),
        store,
        SECRET,
        client or token_endpoint(),
        manager or build_plugin_manager([]),
        world or fixed_world(),
    )
