"""
The real users table as `tests.model.table` has it: requests through the pipeline, over a store, at given times.

The model is held against this. Time passes as the calls say; nothing is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, cycle
from random import Random
from typing import Any, TypeVar, cast

from tests.model.table import Call, Json

from emarsys_cdp.calls import make_call
from emarsys_cdp.credentials import OAuth, Secret, Wsse
from emarsys_cdp.document.compile import CompiledSpace, Compiler
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.outcome import CODES
from emarsys_cdp.simulation.timed import TimedStore
from emarsys_cdp.store import Claim, Commit, Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.users_query import NoIdentifier, read_identifier, reader_of
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp.users_view import is_person

T = TypeVar("T")
Person = tuple[str, str, list[str], list[str]]

HOST = "tests"
UNUSED = Wsse("tests", Secret("tests"))
"""Requests are built and signed as always, and thrown away."""


class OwnStore(TimedStore):
    """The part of a store that one users table has written; time passes in it as the table's calls say."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        super().__init__(store, clock)
        self.own_pids: dict[str, None] = {}
        self.own_names: dict[str, None] = {}

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records, and note which."""
        self.own_pids |= dict.fromkeys(commit.pid for commit in commits)
        return await super().commit(commits)

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set rows, and note which."""
        self.own_names |= dict.fromkeys(claim.name for claim in claims)
        return await super().claim(claims)

    async def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every profile of this table."""
        pids = list(self.own_pids)
        for pid, record in zip(pids, await self._store.read_records(pids) if pids else [], strict=True):
            if record is not None:
                yield pid, record

    async def everything(self) -> dict[str, bytes]:
        """Return all that is stored, by the name of a row or the id of a profile."""
        stored = dict(zip(self.own_names, await self._store.read_rows(list(self.own_names)), strict=True))
        stored |= {pid: record async for pid, record in self.scan()}
        return {name: content for name, content in stored.items() if content is not None}


class _Capture:
    """The rounds of a worker, for one request: remembers what became of its calls."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self.calls: list[tuple[Entry, Added]] = []

    async def add(self, entries: Sequence[Entry]) -> list[Added]:
        added = await self._rounds.add(entries)
        self.calls += zip(entries, added, strict=True)
        return added


class _NoTokens:
    """Where no access token is needed."""

    async def token(self, credentials: OAuth, left: int = 0, refused: str | None = None) -> str:  # noqa: ARG002
        raise AssertionError("a test asked for an access token")


class RealTable:
    """
    A `tests.model.table.UsersTable` that is the product: workers that take turns, over one store.

    Requests of one `calls` are of the same worker and arrive together, so that they share a round.
    """

    def __init__(self, world: World, document: Mapping[str, Json], space: str, workers: int) -> None:
        self._world = world
        self._now = 0
        self._space: CompiledSpace = world.compiler.compile(
            space, HOST, world.compiler.read("test", dict(document)), UNUSED
        )
        self._document = world.compiler.read("test", dict(document))
        self.store = OwnStore(world.store, lambda: self._now)
        store, random = cast("Store", self.store), world.random
        self._rounds = cycle(
            [Rounds(store, world.namer, world.next_pid, lambda _: 0.0, random.getrandbits(60)) for _ in range(workers)]
        )
        self._users = UsersTable(store, world.namer, count(random.getrandbits(60)))
        self._signer = Signer(_NoTokens(), lambda: self._now, random.randbytes)
        self._codes: list[str] = []
        self._seen: dict[str, set[str]] = {}
        self._anons: set[str] = set()

    def call(self, message: Mapping[str, Json], arrival: int) -> str:
        """Take one call in."""
        return self.calls([Call(message, arrival)])[0]

    def calls(self, calls: Sequence[Call]) -> list[str]:
        """Take requests with a call each in that arrive together; return their results."""
        return self._world.run(self._take(calls))

    def erase(self, kind: str, value: str, mode: str, now: int) -> None:
        """Erase a person."""
        self._world.run(self._erase(kind, value, mode, now))

    def unsuppress(self, kind: str, value: str) -> None:
        """End a suppression."""
        self._world.run(self._users.unsuppress(self._space.id, kind, self._normal(kind, value)))

    def profiles(self) -> list[dict[str, Json]]:
        """Return all profiles."""
        return [_shown(record) for record in self._records()]

    def values(self) -> list[dict[str, Json]]:
        """Return all profiles with their values."""
        return [
            _shown(record) | {"values": {name: held.value for name, held in sorted(record.values.items())}}
            for record in self._records()
        ]

    def shared(self) -> list[str]:
        """Return the devices that belong to nobody."""
        return self._world.run(self._shared())

    def warnings(self) -> list[str]:
        """Return the codes of all warnings."""
        return list(self._codes)

    def everything(self) -> dict[str, bytes]:
        """Return all that is stored."""
        return self._world.run(self.store.everything())

    async def _pass(self, now: int) -> None:
        self._now = max(self._now, now)
        await self.store.expire()

    async def _take(self, calls: Sequence[Call]) -> list[str]:
        await self._pass(max(call.arrival for call in calls))
        rounds = next(self._rounds)
        captures = [_Capture(rounds) for _ in calls]
        await asyncio.gather(*(self._request(each, one) for each, one in zip(calls, captures, strict=True)))
        results = []
        for capture in captures:
            ((entry, added),) = capture.calls
            self._anons |= {value for value in (entry.ids.anon, entry.previous and entry.previous.value) if value}
            self._codes += sorted((*entry.ids.warnings, *added.warnings), key=CODES.index)
            results.append(await self._result(entry, added))
        return results

    async def _request(self, call: Call, capture: _Capture) -> None:
        world, rounds = self._world, cast("Rounds", capture)
        firsts = FirstSeen(self.store, world.namer)
        pipeline = Pipeline(
            world.steps, rounds, world.namer, self._signer, world.metrics, lambda: self._now, "", firsts
        )
        await pipeline.process(self._space, [make_call(0, call.message, call.arrival)])

    async def _result(self, entry: Entry, added: Added) -> str:
        """Tell whether a call counted, and whether its person has had its messageId before."""
        assert added.failure is None
        if added.profile is None:
            return "dropped"
        pid = added.profile.id
        (stored,) = await self.store.read_records([pid])
        earlier = self._seen.setdefault(entry.message_id, set())
        known = not earlier.isdisjoint({pid, *(unpack(stored)[1].merged_from if stored is not None else ())})
        earlier.add(pid)
        return "duplicate" if known else "ok"

    async def _erase(self, kind: str, value: str, mode: str, now: int) -> None:
        await self._pass(now)
        await self._users.erase(self._space.id, kind, self._normal(kind, value), mode, now)

    def _normal(self, kind: str, value: str) -> str:
        """Return an identifier as calls have it; one that no call can have is erased as it is."""
        try:
            return read_identifier(reader_of(self._document, value), kind, value)
        except NoIdentifier:
            return value

    def _records(self) -> list[Record]:
        async def read() -> list[Record]:
            return [
                one.record
                async for one in self._users.scan(self._space.id)
                if is_person(one.record) and not one.record.isolate
            ]

        return sorted(self._world.run(read()), key=_place)

    async def _shared(self) -> list[str]:
        states = [(anon, await self._users.state(self._space.id, "anon", anon)) for anon in sorted(self._anons)]
        return [anon for anon, state in states if state == "shared"]


class World:
    """A store, with an event loop of its own, and what all users tables in it share."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._runner = asyncio.Runner()
        manager = build_plugin_manager([])
        self.compiler: Compiler = build_compiler(manager)
        self.steps, self.metrics = Steps(manager), Metrics()
        self.random = Random(1)  # noqa: S311 - names that are the same in every run
        self.namer = Namer(b"a secret of the tests")
        self._spaces = count()
        self._pids = count()
        self._open_store = open_store
        self._tables: list[RealTable] = []
        self.store = open_store()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Do something in the store's event loop."""
        return self._runner.run(what)

    def next_pid(self) -> str:
        """Make a profile id that is higher than all before: of two profiles of one age the first stays (1.4)."""
        return f"{next(self._pids):012}"

    def make(self, document: Mapping[str, Json], workers: int = 1) -> RealTable:
        """Make an empty users table: it is a space of its own."""
        table = RealTable(self, document, f"space {next(self._spaces)}", workers)
        self._tables.append(table)
        return table

    @contextmanager
    def example(self) -> Iterator[World]:
        """Remove what was written meanwhile."""
        try:
            yield self
        finally:
            for table in self._tables:
                self.run(table.store.remove_all())
            self._tables = []

    def close(self) -> None:
        """Close the store."""
        self.run(self.store.close())
        self._runner.close()


def memory() -> Store:
    """Open a store in memory."""
    return MemoryStore()


def valkey(url: str) -> Store:
    """Open a store on a server."""
    return RedisStore(url)


def _shown(record: Record) -> dict[str, Json]:
    return {
        "user": record.user,
        "key": record.key,
        "anons": sorted(device.value for device in record.devices),
        "former": sorted(record.former_keys),
    }


def _place(record: Record) -> Person:
    shown = _shown(record)
    return shown["user"] or "", shown["key"] or "", shown["anons"], shown["former"]
