"""One process of the crowd: a worker's rounds and users table on a real store, requests in, results out."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from random import Random
from typing import TypeAlias, cast

from msgspec import Struct
from tests.crowd.steps import Deadly, Order
from tests.support.people import NAMER, call

from emarsys_cdp.identity.entries import Entry, Policy
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.keys import new_pid
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.users_table import UsersTable

DEVICES = 6
"""Devices that a person may have: the one seen longest ago leaves."""

TELLS = 4
"""A call tells one of so many things of its person, by its number."""


class Call(Struct, frozen=True):
    """A call: its number is its event time and messageId. An identifier 0 is none. *previous* makes it an alias."""

    space: str
    number: int
    user: int = 0
    key: int = 0
    anon: int = 0
    previous: str | None = None

    @property
    def values(self) -> dict[str, int]:
        """What the call says: a value of its own, and one that others say as well."""
        return {f"call {self.number}": self.number, f"tells {self.number % TELLS}": self.number}


class Erasure(Struct, frozen=True):
    """A user who is erased, with all calls until then."""

    space: str
    user: int
    time: int


Request: TypeAlias = tuple[Call, ...] | Erasure


class Answer(Struct, frozen=True):
    """What became of a request: the profile of each call (None: nobody's), or why it has to come again."""

    request: int
    profiles: tuple[str | None, ...] = ()
    failure: str | None = None


def entry(of: Call) -> Entry:
    """Return a call as the users table takes it."""
    return call(
        of.number, of.user, of.key, of.anon, space=of.space, policy=Policy(anon_limit=DEVICES), previous=of.previous,
        **of.values,
    )  # fmt: skip


class _Worker:
    """Takes requests, several at once, and answers each when it is done."""

    def __init__(self, connection: Connection, store: Deadly) -> None:
        self._connection = connection
        self._store = store
        real = cast(Store, store)
        random = Random(os.urandom(8))  # noqa: S311 - spreads tries
        self._rounds = Rounds(real, NAMER, partial(new_pid, os.urandom), lambda tries: random.random() * tries / 500)
        self._table = UsersTable(real, NAMER, count(int.from_bytes(os.urandom(7), "big")))
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()

    def receive(self) -> None:
        """Take what the parent has sent; None ends this process."""
        try:
            while self._connection.poll():
                message = self._connection.recv()
                if message is None:
                    self.ended.set()
                elif isinstance(message, Order):
                    self._store.obey(message)
                else:
                    task = asyncio.create_task(self._answer(*message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        except (EOFError, OSError):  # the parent is gone
            self.ended.set()

    async def _answer(self, number: int, request: Request) -> None:
        try:
            profiles = await self._do(request)
        except StoreUnavailable as error:
            self._connection.send(Answer(number, failure=str(error)))
        else:
            self._connection.send(Answer(number, profiles))

    async def _do(self, request: Request) -> tuple[str | None, ...]:
        if isinstance(request, Erasure):
            await self._table.erase(request.space, "user", f"user{request.user}", "delete", request.time)
            return ()
        added = await self._rounds.add([entry(one) for one in request])
        failures = [one.failure for one in added if one.failure is not None]
        if failures:
            raise StoreUnavailable(failures[0])
        return tuple([one.profile.id if one.profile is not None else None for one in added])


async def _work(connection: Connection, url: str) -> None:
    store = Deadly(RedisStore(url), Random(os.urandom(8)))  # noqa: S311 - how much of a pipeline is sent
    worker = _Worker(connection, store)
    asyncio.get_running_loop().add_reader(connection.fileno(), worker.receive)
    await worker.ended.wait()
    await store.close()


def work(connection: Connection, url: str) -> None:
    """Be a worker until the parent ends it, or is gone, or an order kills it."""
    asyncio.run(_work(connection, url))
