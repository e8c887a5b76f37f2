"""Fixtures for all tests: real servers for the session, an empty store for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from tests.support.servers import Cluster, flush, standalone, three_masters

from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.redis import RedisStore

STORES = ("memory", "valkey", "cluster")
"""Every kind of store that the same tests run on."""


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the embedded Valkey, stand-alone on a unix socket."""
    with standalone(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run a cluster of three Valkey masters; who moves a slot moves it back."""
    with three_masters(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Open an empty store of each kind; call it inside the test's event loop."""
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.flush()
        return lambda: RedisStore(cluster.url)
    url: str = request.getfixturevalue("valkey_url")
    flush(url)
    return lambda: RedisStore(url)


@pytest.fixture(autouse=True)
def _structlog_defaults() -> Iterator[None]:
    """Put the only global state of this project back after each test."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the repository's root."""
    return Path(__file__).parent.parent
