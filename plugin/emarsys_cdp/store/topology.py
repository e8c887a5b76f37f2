"""Which server a key lives on: one server, or the masters of a Redis Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, cast

import hiredis
import msgspec
from redis.crc import key_slot

from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.store.sentinel import find_master
from emarsys_cdp.store.wire import CONNECT_SECONDS, REPLY_SECONDS, Address, Command, Reply, Wire

MAX_ATTEMPTS = 10
"""Redirections and reloads of one pipeline before it counts as an outage."""

MAX_AT_ONCE = 3
"""So many redirections are followed at once; then servers do not agree yet, and are given more and more time."""

RETRY_SECONDS = 0.05

LEAVE_SECONDS = CONNECT_SECONDS + REPLY_SECONDS
"""A server that holds no keys any more is left after this long: by then all that was sent to it has its answer."""

_REDIRECTED = {"MOVED", "ASK", "TRYAGAIN"}
_LOOK_AGAIN = {"READONLY", "CLUSTERDOWN", "MASTERDOWN"}
"""Errors of a server that is not, or no longer, the one to ask."""


class Topology:
    """
    Runs pipelines of single-key commands on the servers that hold their keys.

    While a slot of a cluster moves, its owner answers for the keys that it still has and names the importing server
    for all others (ASK); afterwards it names the new owner (MOVED). What was refused in either way was not carried
    out, so it is sent again and nothing is done twice.
    https://valkey.io/topics/cluster-spec, "MOVED Redirection" and "ASK redirection".
    """

    def __init__(self, address: Address, setup: Sequence[Command] = ()) -> None:
        self._seed = address
        self._setup = setup
        self._first = Wire(address, setup, partial(find_master, address) if address.sentinels else None)
        self._wires: dict[str, Wire] = {str(address): self._first}
        self._leaving: set[Wire] = set()
        self._slots: list[Wire] | None = None
        self._clustered: bool | None = None

    async def run(self, keys: Sequence[str], commands: Sequence[Command]) -> list[Reply]:
        """
        Run a command for each key and return the replies in their order.

        Raises:
            StoreUnavailable: a server is down, read-only, full, or its cluster has no owner for a key.

        """
        if self._clustered is None:
            await self._discover()
        replies: list[Reply] = [None] * len(commands)
        todo: Sequence[int] = range(len(commands))
        for attempt in count():
            await self._run_once(todo, keys, commands, replies)
            if hiredis.ReplyError not in map(type, replies):
                return replies
            todo = [index for index in todo if isinstance(replies[index], hiredis.ReplyError)]
            todo = await self._run_asked(todo, commands, replies)
            if not todo:
                return replies
            await self._recover([str(replies[index]) for index in todo], attempt)
        raise AssertionError("unreachable")

    async def _run_once(
        self, todo: Sequence[int], keys: Sequence[str], commands: Sequence[Command], replies: list[Reply]
    ) -> None:
        if self._slots is None:
            if len(todo) == len(commands):
                replies[:] = await self._first.run(commands)
                return
            for index, reply in zip(todo, await self._first.run([commands[i] for i in todo]), strict=True):
                replies[index] = reply
            return
        groups: dict[Wire, list[int]] = {}
        for index in todo:
            groups.setdefault(self._slots[key_slot(keys[index].encode())], []).append(index)
        runs = [wire.run([commands[index] for index in group]) for wire, group in groups.items()]
        for group, result in zip(groups.values(), await self._all(runs), strict=True):
            for index, reply in zip(group, result, strict=True):
                replies[index] = reply

    async def _run_asked(self, todo: Sequence[int], commands: Sequence[Command], replies: list[Reply]) -> list[int]:
        """
        Send what a slot's owner has answered with ASK to the server that it names, once; return what is left.

        Only this sending may go there: the next one begins at the owner again.
        """
        groups: dict[Wire, list[int]] = {}
        for index in todo:
            words = str(replies[index]).split(" ")
            if words[0] == "ASK":
                groups.setdefault(self._named(words[-1]), []).append(index)
        runs = [wire.run(_asking(commands[index] for index in group)) for wire, group in groups.items()]
        for group, result in zip(groups.values(), await self._all(runs), strict=True):
            for index, reply in zip(group, result[1::2], strict=True):
                replies[index] = reply
        return [index for index in todo if isinstance(replies[index], hiredis.ReplyError)]

    async def _all(self, runs: Sequence[Awaitable[list[Reply]]]) -> list[list[Reply]]:
        """Wait for the replies of several servers; when one is gone look for the masters before the next pipeline."""
        results = await asyncio.gather(*runs, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self._clustered = None
                raise result
        return cast(list[list[Reply]], results)

    async def _recover(self, errors: list[str], attempt: int) -> None:
        """Do what the errors ask for before another attempt; raise when waiting will not help."""
        kinds = {error.split(" ", 1)[0] for error in errors}
        self._learn(error.split(" ") for error in errors if error.startswith("MOVED "))
        other = kinds - _REDIRECTED - {"NOSCRIPT"}
        if "READONLY" in other:
            self.close()  # no master any more: the next pipeline connects anew
        if other & _LOOK_AGAIN:
            self._clustered = None
        if other or attempt >= MAX_ATTEMPTS:
            raise StoreUnavailable(f"Redis refuses: {errors[0]}")
        if "NOSCRIPT" in kinds:
            for wire in list(self._wires.values()):
                await wire.run(self._setup)
        if kinds & {"MOVED", "TRYAGAIN"}:
            await asyncio.sleep(RETRY_SECONDS * max(0, attempt + 1 - MAX_AT_ONCE))

    def _learn(self, moved: Iterable[list[str]]) -> None:
        """Note who has a slot now: who says so knows it best. What else has moved is asked before the next pipeline."""
        for _, slot, name in moved:
            self._clustered = None
            if self._slots is not None:
                self._slots[int(slot)] = self._named(name)

    async def _discover(self) -> None:
        """
        Ask for the servers: the seed alone, or the masters of its cluster.

        The masters that are known are asked first, those with a connection before the others. The seed comes last: it
        may have left the cluster, but when all masters are gone it is a name that may lead to others.
        """
        problems: list[StoreUnavailable] = []
        known = dict.fromkeys((*self._wires.values(), self._first))
        for wire in sorted(known, key=lambda wire: not wire.connected):
            try:
                self._slots = await self._slots_of(wire)
            except StoreUnavailable as error:
                problems.append(error)
            else:
                self._clustered = self._slots is not None
                self._leave_others()
                return
        raise problems[0]

    async def _slots_of(self, wire: Wire) -> list[Wire] | None:
        """Return the master of each slot as a server sees it, None if it is in no cluster."""
        if b"cluster_enabled:1" not in (await self.ask(wire, ("INFO", "cluster")) or b""):
            return None
        return self._owners(await self.ask(wire, ("CLUSTER", "SLOTS")))

    async def ask(self, wire: Wire, command: Command) -> Reply:
        """
        Ask one server.

        Raises:
            StoreUnavailable: it does not answer, refuses, or holds no keys any more.

        """
        if wire is not self._first and wire not in self._wires.values():
            raise StoreUnavailable(f"Redis at {wire.address} has left the cluster")
        (reply,) = await wire.run([command])
        if isinstance(reply, hiredis.ReplyError):
            raise StoreUnavailable(f"Redis at {wire.address} refuses: {reply}")
        return reply

    def _leave_others(self) -> None:
        """Use servers that hold no keys any more no longer."""
        masters = set(self._slots or [self._first])
        for name, wire in list(self._wires.items()):
            if wire not in masters:
                self._leaving.add(self._wires.pop(name))
                asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._leave, wire)

    def _leave(self, wire: Wire) -> None:
        self._leaving.discard(wire)
        wire.close()

    def _owners(self, ranges: list[list[Any]]) -> list[Wire]:
        slots: list[Wire | None] = [None] * 16384
        for first, last, master, *_ in ranges:
            wire = self._wire(self._node((master[0] or b"").decode(), master[1]))
            slots[first : last + 1] = [wire] * (last - first + 1)
        if None in slots:
            raise StoreUnavailable(f"the cluster has no server for slot {slots.index(None)}")
        return [wire for wire in slots if wire is not None]

    def _named(self, name: str) -> Wire:
        """Return the connection to a server as errors name it, `host:port`."""
        host, _, port = name.rpartition(":")
        return self._wire(self._node(host, int(port)))

    def _node(self, host: str, port: int) -> Address:
        """Return the address of a server; one that announces no host is where the seed is."""
        if not host and self._seed.path is not None:
            return self._seed
        return msgspec.structs.replace(self._seed, host=host or self._seed.host, port=port, path=None)

    def _wire(self, address: Address) -> Wire:
        name = str(address)
        if name not in self._wires:
            self._wires[name] = Wire(address, self._setup)
        return self._wires[name]

    async def ping(self) -> None:
        """
        Ask every server that holds keys for a sign of life; of a cluster, those that hold them now.

        Raises:
            StoreUnavailable: one does not answer.

        """
        if self._clustered:
            await self._discover()
        await asyncio.gather(*(self.ask(wire, ("PING",)) for wire in await self.masters()))

    async def masters(self) -> list[Wire]:
        """Return a connection to every server that holds keys."""
        if self._clustered is None:
            await self._discover()
        return [self._first] if self._slots is None else list(dict.fromkeys(self._slots))

    def close(self) -> None:
        """Close all connections."""
        for wire in (self._first, *self._wires.values(), *self._leaving):
            wire.close()


def _asking(commands: Iterable[Command]) -> Iterator[Command]:
    """Put ASKING before each command: it counts for the next one only."""
    for command in commands:
        yield ("ASKING",)
        yield command
