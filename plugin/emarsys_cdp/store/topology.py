"""Which server a key lives on: one server, or the masters of a Redis Cluster."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import hiredis
import msgspec
from redis.asyncio.connection import parse_url
from redis.crc import key_slot

from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.store.wire import Address, Command, Reply, Wire
from emarsys_cdp_hooks import StopAndFix

MAX_ATTEMPTS = 8
"""Redirections and reloads of one pipeline before it counts as an outage."""

RETRY_SECONDS = 0.05


def read_address(url: str) -> Address:
    """
    Return the address of a Redis URL: `redis://`, `rediss://` (TLS), `unix://`.

    Raises:
        StopAndFix: it is none; the message shows no user and no password.

    """
    wrong = StopAndFix(
        "EMARSYS_CDP_REDIS_URL is none: write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"
    )
    try:
        parts: dict[str, Any] = dict(parse_url(url))
        path = urlsplit(url).path.strip("/")
    except ValueError:
        raise wrong from None
    if url.startswith("unix:") and "path" not in parts:
        raise wrong
    if not url.startswith("unix:") and path and not path.isdigit():
        raise wrong
    known = {key: parts[key] for key in ("host", "port", "path", "username", "password") if key in parts}
    tls = ssl.create_default_context() if url.startswith("rediss://") else None
    return Address(**known, database=int(parts.get("db", 0)), tls=tls)


class Topology:
    """Runs pipelines of single-key commands on the servers that hold their keys."""

    def __init__(self, address: Address, setup: Sequence[Command] = ()) -> None:
        self._seed = address
        self._setup = setup
        self._wires: dict[str, Wire] = {}
        self._first = self._wire(address)
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
        results = await asyncio.gather(*runs, return_exceptions=True)
        for group, result in zip(groups.values(), results, strict=True):
            if isinstance(result, BaseException):
                self._clustered = None  # a master may have moved: look again before the next pipeline
                raise result
            for index, reply in zip(group, result, strict=True):
                replies[index] = reply

    async def _recover(self, errors: list[str], attempt: int) -> None:
        """Do what the errors ask for before another attempt; raise when waiting will not help."""
        kinds = {error.split(" ", 1)[0] for error in errors}
        other = kinds - {"MOVED", "ASK", "TRYAGAIN", "NOSCRIPT"}
        if "READONLY" in other:
            self.close()  # no master any more: the next pipeline connects, and looks for the masters, anew
            self._clustered = None
        if other or attempt >= MAX_ATTEMPTS:
            raise StoreUnavailable(f"Redis refuses: {errors[0]}")
        if "NOSCRIPT" in kinds:
            for wire in self._wires.values():
                await wire.run(self._setup)
        if kinds & {"MOVED", "ASK", "TRYAGAIN"}:
            await asyncio.sleep(RETRY_SECONDS * attempt)
            await self._discover()

    async def _discover(self) -> None:
        """Ask for the servers: the seed alone, or the masters of its cluster."""
        first, *_ = await self._ask(("INFO", "cluster"))
        self._clustered = b"cluster_enabled:1" in (first or b"")
        if self._clustered:
            (ranges,) = await self._ask(("CLUSTER", "SLOTS"))
            self._slots = self._owners(ranges)

    async def _ask(self, command: Command) -> list[Reply]:
        """Ask the seed, or when it is gone any other server that is known."""
        candidates = list(self._wires.values())
        for position, wire in enumerate(candidates):
            try:
                replies = await wire.run([command])
            except StoreUnavailable:
                if position == len(candidates) - 1:
                    raise
                continue
            if isinstance(replies[0], hiredis.ReplyError):
                raise StoreUnavailable(f"Redis at {wire.address} refuses: {replies[0]}")
            return replies
        raise AssertionError("unreachable")

    def _owners(self, ranges: list[list[Any]]) -> list[Wire]:
        slots: list[Wire | None] = [None] * 16384
        for first, last, master, *_ in ranges:
            wire = self._wire(self._node(master))
            slots[first : last + 1] = [wire] * (last - first + 1)
        if None in slots:
            raise StoreUnavailable(f"the cluster has no server for slot {slots.index(None)}")
        return [wire for wire in slots if wire is not None]

    def _node(self, master: list[Any]) -> Address:
        """Return the address of a master; one that announces no host is where the seed is."""
        host = master[0].decode() if master[0] else ""
        if not host and self._seed.path is not None:
            return self._seed
        return msgspec.structs.replace(self._seed, host=host or self._seed.host, port=master[1], path=None)

    def _wire(self, address: Address) -> Wire:
        name = str(address)
        if name not in self._wires:
            self._wires[name] = Wire(address, self._setup)
        return self._wires[name]

    async def ping(self) -> None:
        """
        Ask every known server for a sign of life.

        Raises:
            StoreUnavailable: one does not answer.

        """
        if self._clustered is None:
            await self._discover()
        for wire in list(self._wires.values()):
            (reply,) = await wire.run([("PING",)])
            if isinstance(reply, hiredis.ReplyError):
                raise StoreUnavailable(f"Redis at {wire.address} refuses: {reply}")

    async def masters(self) -> list[Wire]:
        """Return a connection to every server that holds keys."""
        if self._clustered is None:
            await self._discover()
        return [self._first] if self._slots is None else list(dict.fromkeys(self._slots))

    def close(self) -> None:
        """Close all connections."""
        for wire in self._wires.values():
            wire.close()
