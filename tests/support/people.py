"""Calls, workers and what the users table says afterwards: for tests of rounds, merges and erasures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from itertools import count
from math import ceil
from random import Random
from typing import Any, TypeAlias, cast

import redis
from msgspec.structs import replace

from emarsys_cdp.identity.entries import DEFAULT_POLICY, Entry, Policy, Previous
from emarsys_cdp.merging import Merger
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer, new_pid, owner, record_key
from emarsys_cdp.store.lifetimes import LifetimesOf, usual
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp.store.rows import read_row
from emarsys_cdp.sweeping import Sweeper
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp_hooks import Identifiers, Json, StoredValue

MakeStore: TypeAlias = Callable[[], Store]
Hook: TypeAlias = Callable[[str, Sequence[Any]], Awaitable[None]]
Request: TypeAlias = Sequence[Entry]
Table: TypeAlias = dict[tuple[str, ...], Record | str]

NAMER = Namer(b"a secret of the tests")
PIDS = Random(1)  # noqa: S311 - the same in every run, and never the same twice
SHARED_DEVICE = "shared"


def call(
    number: int,
    user: int = 0,
    key: int = 0,
    anon: int = 0,
    *,
    space: str = "s",
    policy: Policy = DEFAULT_POLICY,
    previous: str | None = None,
    **values: Json,
) -> Entry:
    """
    Return the call with this number as its time and messageId.

    An identifier 0 is none. *previous* makes it an alias call.
    """
    given = [f"{kind}{of}" if of else None for kind, of in (("user", user), ("key", key), ("anon", anon))]
    names = [value and NAMER(space, value[0], value) for value in given]
    mid = f"m{number:04}"
    read = {name: StoredValue(value, number, mid) for name, value in {"last": number, **values}.items()}
    alias = previous and Previous(previous, NAMER(space, "u", previous), NAMER(space, "a", previous))
    return Entry(
        space,
        "alias" if previous else "track",
        mid,
        number,
        ids_of(*given),
        read,
        policy,
        alias or None,
        (names[0], names[1], names[2]),
    )


@cache
def ids_of(user: str | None, key: str | None, anon: str | None) -> Identifiers:
    """Return identifiers; equal ones are the same object, as those that are read from calls."""
    return Identifiers(user, key, anon)


class Watched:
    """A store with something to await before and after each of its round trips."""

    def __init__(self, store: Store, before: Hook | None, after: Hook | None = None) -> None:
        self._store, self._before, self._after = store, before, after

    def __getattr__(self, method: str) -> Any:
        if method in ("scan", "walk"):
            return getattr(self._store, method)

        async def trip(arguments: Sequence[Any]) -> Any:
            if self._before is not None:
                await self._before(method, arguments)
            answer = await getattr(self._store, method)(arguments)
            if self._after is not None:
                await self._after(method, arguments)
            return answer

        return trip


def worker(
    store: Store, before: Hook | None = None, after: Hook | None = None, lifetimes: LifetimesOf = usual
) -> Rounds:
    """Return the rounds of a worker; the hooks are awaited around each round trip to the real store."""
    watched = cast(Store, Watched(store, before, after))
    return Rounds(watched, NAMER, partial(new_pid, PIDS.randbytes), lambda _: 0.0, lifetimes=lifetimes)


def people(store: Store, before: Hook | None = None) -> UsersTable:
    """Return the users table as commands see it."""
    return UsersTable(cast(Store, Watched(store, before)), NAMER, count(PIDS.getrandbits(60)))


async def rows_of(store: Store) -> dict[str, bytes]:
    """Return all identifier rows."""
    return {name: content async for _, rows in store.walk(1000) for name, content in rows}


def sweeper(store: Store, holder: str = "a worker of the tests") -> Sweeper:
    """Return what sweeps the users table."""
    return Sweeper(store, Merger(store, NAMER, count(PIDS.getrandbits(60))), holder)


async def owners(store: Store, calls: Request) -> dict[str, bytes | None]:
    """Return the content of the row of every identifier of the calls."""
    named = [(one.names, (one.ids.user, one.ids.key, one.ids.anon)) for one in calls]
    rows = {value: name for pair in named for name, value in zip(*pair, strict=True) if name and value}
    return dict(zip(rows, await store.read_rows(list(rows.values())), strict=True))


async def owners_now(store: Store, calls: Request) -> dict[str, str | None]:
    """Return the profile that has each identifier of the calls, redirects followed."""
    return {value: await follow(store, owner(row)) for value, row in (await owners(store, calls)).items()}


async def follow(store: Store, pid: str | None) -> str | None:
    """Return the profile that a profile is part of now."""
    while pid is not None:
        (stored,) = await store.read_records([pid])
        into = unpack(stored)[1].redirect if stored else None
        if into is None:
            return pid
        pid = into
    return None


async def pids_of(store: Store, calls: Request) -> set[str]:
    """Return every profile that has an identifier of the calls."""
    return {pid for pid in (await owners_now(store, calls)).values() if pid}


async def table(store: Store, calls: Request) -> Table:
    """Return the users table of some calls without profile ids: the identifiers of each profile, and its record."""
    now, rows = await owners_now(store, calls), await owners(store, calls)
    grouped: dict[str, list[str]] = {}
    for value, pid in now.items():
        row = read_row(rows[value])
        state = "absent" if row is None else {"s": "shared", "q": "quarantined", "t": f"{row.mode}"}.get(row.kind, "")
        grouped.setdefault(pid or state, []).append(value)
    found: Table = {}
    for pid, values in grouped.items():
        (stored,) = await store.read_records([pid])
        found[tuple(sorted(values))] = comparable(unpack(stored)[1]) if stored else pid
    return found


def comparable(record: Record) -> Record:
    """Return a record without what depends on chance: ids of profiles, and parts whose order is that of arrival."""
    merged_from = tuple("" for _ in record.merged_from)
    devices = tuple(sorted(record.devices, key=lambda device: device.value))
    aliases, former = tuple(sorted(record.aliases)), tuple(sorted(record.former_keys))
    return replace(record, space="", merged_from=merged_from, devices=devices, aliases=aliases, former_keys=former)


def flat(requests: Sequence[Request]) -> list[Entry]:
    """Return the calls of some requests."""
    return [one for request in requests for one in request]


def flat_results(results: Sequence[Sequence[Added]]) -> list[Added]:
    """Return the results of some requests."""
    return [added for result in results for added in result]


async def by_itself(store: Store, requests: Sequence[Request]) -> Table:
    """Return the users table after requests that came one after the other to one worker."""
    alone = worker(store)
    for request in requests:
        await alone.add(request)
    return await table(store, flat(requests))


async def crash(store: Store, requests: Sequence[Request], step: int, done: float) -> bool:
    """
    Add requests one by one; the process dies in round trip *step*, of which a part is done.

    Another process adds the request again and those after it. Returns whether there was such a round trip.
    """
    trips = count()

    async def die(method: str, arguments: Sequence[Any]) -> None:
        if next(trips) == step:
            await getattr(store, method)(arguments[: ceil(len(arguments) * done)])
            raise StoreUnavailable("the process died")

    alive = worker(store, die)
    for request in requests:
        try:
            await alive.add(request)
        except StoreUnavailable:
            alive = worker(store)
            await alive.add(request)
    return next(trips) > step


def permanent(url: str, pids: set[str]) -> dict[str, bool]:
    """Tell for each profile whether it stays longer than a stub that nobody names."""
    with redis.Redis.from_url(url) as client:
        return {pid: cast(int, client.ttl(record_key(pid))) not in range(-2, 7200) for pid in sorted(pids)} | {
            pid: True for pid in pids if client.ttl(record_key(pid)) == -1
        }


async def contradictions(store: Store, calls: Request) -> list[str]:
    """
    Return where a profile's record and the rows of the calls' identifiers do not say the same.

    A key that several use is owned by one of them. Nothing may be left half done, and
    no row may name a profile that was merged.
    """
    rows = await owners_now(store, calls)
    pids = sorted(await pids_of(store, calls))
    stored = dict(zip(pids, await store.read_records(pids), strict=True))
    records = {pid: unpack(packed)[1] for pid, packed in stored.items() if packed}
    found = [f"{value}: {pid} is dead" for value, pid in rows.items() if pid and pid not in records]
    named = {value: owner(row) for value, row in (await owners(store, calls)).items()}
    found += [f"{value}: its row names a redirect" for value, pid in named.items() if pid != rows[value]]
    for pid, record in records.items():
        says = {device.value: True for device in record.devices} | ({record.key: record.owns_key} if record.key else {})
        found += [f"{value}: {record}" for value, mine in says.items() if (rows[value] == pid) != mine]
        users = {value for value in rows if rows[value] == pid and value.startswith("user")}
        said = {record.user, *record.aliases} - {None}
        found += [f"{value} owned by: {record}" for value in users - said] + [f"not owned: {said}"] * (users != said)
        found += [f"unfinished: {record}"] * record.unfinished
    return found
