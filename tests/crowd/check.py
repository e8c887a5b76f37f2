"""Is what a crowd has left right? Every call in one person, no identifier lost or double, every value the last one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from tests.crowd.plan import ERASED, HOARDERS
from tests.crowd.worker import DEVICES, Call, Erasure, Request
from tests.model import straight
from tests.model import table as model
from tests.model.reading import iso
from tests.model.rules import rules_of
from tests.support.people import NAMER, people, sweeper

from emarsys_cdp.store import Store
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.store.rows import OWNED, SHARED, TOMBSTONE, Row, read_row

Identifier = tuple[str, str]
"""Kind (`u`, `k`, `a`) and value."""


class Answered(Struct, frozen=True):
    """A request with the profiles that its calls were answered with; one that came twice is there twice."""

    request: Request
    profiles: tuple[str | None, ...]


class Left(Struct, frozen=True):
    """
    What a crowd has left: its profiles by id, where merged ones have gone, the row of each identifier.

    *again* are the calls that were delivered more than once.
    """

    people: dict[str, Record]
    merged: dict[str, str]
    again: frozenset[Call]
    unfinished: list[str]
    rows: dict[Identifier, Row | None]

    def now(self, pid: str | None) -> str | None:
        """Return the profile that a profile is part of."""
        while pid in self.merged:
            pid = self.merged[pid]
        return pid


def _named(call: Call) -> list[Identifier]:
    given = (("u", "user", call.user), ("k", "key", call.key), ("a", "anon", call.anon))
    return [(kind, f"{word}{number}") for kind, word, number in given if number]


def _calls(answered: Sequence[Answered]) -> Iterator[tuple[Call, str | None]]:
    for one in answered:
        if not isinstance(one.request, Erasure):
            yield from zip(one.request, one.profiles, strict=True)


async def _look(store: Store, space: str, named: Sequence[Identifier], again: frozenset[Call]) -> Left:
    """Touch every identifier, as a call would, and what nobody has touched; then look at everything."""
    table, kinds = people(store), {"u": "user", "k": "key", "a": "anon"}
    for kind, value in named:
        await table.find(space, kinds[kind], value)
    await sweeper(store).run()
    contents = await store.read_rows([NAMER(space, *identifier) for identifier in named])
    rows = {identifier: read_row(content) for identifier, content in zip(named, contents, strict=True)}
    owners = {row.pid for row in rows.values() if row is not None}
    live, merged, unfinished = dict[str, Record](), dict[str, str](), list[str]()
    async for pid, stored in store.scan():
        record = unpack(stored)[1]
        if record.space != space or (record.stub and pid not in owners):
            continue
        if record.folded and record.redirect is not None:
            merged[pid] = record.redirect
            continue
        live[pid] = record
        if record.unfinished:
            unfinished.append(f"unfinished: {pid}: {_brief(record)}")
    return Left(live, merged, again, unfinished, rows)


def look(url: str, space: str, answered: Sequence[Answered], again: frozenset[Call]) -> Left:
    """Return what the calls of a space have left in a store."""
    named = sorted({identifier for call, _ in _calls(answered) for identifier in _named(call)})

    async def main() -> Left:
        store = RedisStore(url)
        try:
            return await _look(store, space, named, again)
        finally:
            await store.close()

    return asyncio.run(main())


def faults(left: Left, answered: Sequence[Answered]) -> list[str]:
    """Return what is wrong with what a crowd has left; nothing should be."""
    return [
        *left.unfinished,
        *_doubles(left),
        *_strangers(left),
        *_unmarked(left),
        *_lost(left, answered),
        *_misplaced(left, answered),
        *_outdated(left),
        *_together(left),
        *_not_erased(left, answered),
        *(_crowded(left) if any(isinstance(one.request, Erasure) for one in answered) else ()),
    ]


def _brief(record: Record) -> str:
    """Return what of a record matters for who is who."""
    said = {
        "user": record.user, "aliases": record.aliases, "key": record.key, "owns": record.owns_key,
        "former": record.former_keys, "devices": [device.value for device in record.devices],
        "calls": sorted(int(name[5:]) for name in record.values if name.startswith("call ")),
        "merged": record.merged_from, "isolate": record.isolate, "erased": record.erased, "intents": record.intents,
        "redirect": record.redirect, "erasing": record.erasing, "stub": record.stub,
    }  # fmt: skip
    return ", ".join(f"{name} {value}" for name, value in said.items() if value)


def _owned(record: Record) -> list[Identifier]:
    """Return the identifiers that nobody else may have."""
    users = [("u", user) for user in (record.user, *record.aliases) if user is not None]
    keys = [("k", record.key)] if record.key is not None and record.owns_key else []
    return [*users, *keys, *[("a", device.value) for device in record.devices]]


def _unmarked(left: Left) -> Iterator[str]:
    """Find people who have a key by its row, but think that it is another's."""
    for pid, record in left.people.items():
        row = left.rows.get(("k", record.key or ""))
        if row is not None and row.pid == pid and not record.owns_key:
            yield f"own key, unmarked: {_brief(record)}"


def _listed(record: Record) -> set[Identifier]:
    """Return all identifiers of a record, former keys and those of others as well."""
    return {*_owned(record), *[("k", key) for key in (record.key, *record.former_keys) if key is not None]}


def _is_spare(identifier: Identifier) -> bool:
    """Tell that a device is one of too many: it may have left its person, and its row may not have yet."""
    return identifier[0] == "a" and int(identifier[1][4:]) // 10 in HOARDERS


def _doubles(left: Left) -> Iterator[str]:
    holders: dict[Identifier, list[str]] = defaultdict(list)
    for pid, record in left.people.items():
        for identifier in _owned(record):
            holders[identifier].append(pid)
    for identifier, pids in holders.items():
        if len(pids) > 1:
            yield f"double: {identifier} is of {[_brief(left.people[pid]) for pid in pids]}"
        row = left.rows.get(identifier)
        wanted = SHARED if left.people[pids[0]].isolate else OWNED
        if identifier in left.rows and (row is None or row.kind != wanted or row.pid not in pids):
            yield f"not owned: {identifier} has the row {row}, and is in: {_brief(left.people[pids[0]])}"


def _strangers(left: Left) -> Iterator[str]:
    """Find rows that name a profile which is not there, or does not list them."""
    for (kind, value), row in left.rows.items():
        if row is None or row.kind != OWNED or row.pid is None:
            continue
        record = left.people.get(row.pid)
        if record is None:
            yield f"dead owner: {value} names {row.pid}"
            continue
        if (kind, value) not in _listed(record) and not _is_spare((kind, value)):
            yield f"not listed: {value} names: {_brief(record)}"


def _lost(left: Left, answered: Sequence[Answered]) -> Iterator[str]:
    """Find identifiers of accepted calls that nobody has; of a person with too many devices some have left."""
    for identifier in sorted({one for call, pid in _calls(answered) if pid is not None for one in _named(call)}):
        if left.rows[identifier] is None and not _is_spare(identifier):
            yield f"lost: {identifier}"


def _crowded(left: Left) -> Iterator[str]:
    """
    Find people who have more devices than there is room for, or far fewer, though they have used more.

    One may be missing: a device that leaves and comes again at the same moment is free then, until its next call.
    """
    for record in left.people.values():
        if (
            record.user is not None
            and int(record.user[4:]) in HOARDERS
            and len(record.devices) not in (DEVICES - 1, DEVICES)
        ):
            yield f"devices: {_brief(record)}"


def _misplaced(left: Left, answered: Sequence[Answered]) -> Iterator[str]:
    """
    Find calls that are not in the person they were answered with, or in another one as well.

    A call that comes again is another person's if one of its identifiers has gone to somebody else meanwhile. Then it
    is in both: the users table has no memory of single calls.
    """
    holders: dict[str, set[str]] = defaultdict(set)
    for pid, record in left.people.items():
        for name in record.values:
            holders[name].add(pid)
    told: dict[Call, set[str]] = defaultdict(set)
    for call, answer in _calls(answered):
        now = left.now(answer)
        if now is not None and call.user not in ERASED:
            told[call].add(now)
    for call, pids in told.items():
        found = holders[f"call {call.number}"]
        if not pids <= found:
            yield f"call lost: {call} of {pids} is in {found}"
        for other in found - pids if call in left.again else sorted(found)[1:]:
            if call not in left.again or set(_named(call)) <= _listed(left.people[other]):
                yield f"call in several: {call} of {pids} is in {[_brief(left.people[one]) for one in found]}"


def _outdated(left: Left) -> Iterator[str]:
    """Find values that are not the last ones by (event time, messageId) of the calls in the person."""
    for pid, record in left.people.items():
        wanted: dict[str, int] = {}
        for name in record.values:
            word, _, number = name.partition(" ")
            if word == "call":
                call = Call("", int(number))
                for told in ("last", *[told for told in call.values if told.startswith("tells")]):
                    wanted[told] = max(wanted.get(told, 0), call.number)
        found = {name: value.value for name, value in record.values.items() if not name.startswith("call")}
        if found != wanted:
            yield f"outdated: {pid} has {found} and should have {wanted}"


def _together(left: Left) -> Iterator[str]:
    """Find users of one record whom no alias call has joined."""
    for record in left.people.values():
        users = [user for user in (record.user, *record.aliases) if user is not None and user.startswith("user")]
        if len({int(user[4:]) % 500 for user in users}) > 1:
            yield f"together: {_brief(record)}"


def _not_erased(left: Left, answered: Sequence[Answered]) -> Iterator[str]:
    """Find calls that are still there although they are from before their person's erasure."""
    times = {one.request.user: one.request.time for one in answered if isinstance(one.request, Erasure)}
    there = {name for record in left.people.values() for name in record.values}
    for call, _ in _calls(answered):
        if call.number <= times.get(call.user, 0) and f"call {call.number}" in there:
            yield f"not erased: {call}"
    for user in times:
        row = left.rows[("u", f"user{user}")]
        if row is None or (row.kind != TOMBSTONE and not row.erased):
            yield f"not erased: user{user}"


DOCUMENT = {
    "dataMaps": [
        {"name": name, "path": f"properties.{name}", "type": "string"}
        for name in ("last", *(f"tells_{n}" for n in range(4)))
    ]
}


def _message(call: Call) -> dict[str, Any]:
    """Return a call as a host sends it."""
    said = {"last": call.number} | {name.replace(" ", "_"): value for name, value in call.values.items()}
    message: dict[str, Any] = {
        "messageId": f"m{call.number:04}", "timestamp": iso(call.number), "properties": said, "traits": {},
    }  # fmt: skip
    for name, word, number in (("userId", "user", call.user), ("anonymousId", "anon", call.anon)):
        if number:
            message[name] = f"{word}{number}"
    if call.key:
        message["traits"] = {"email": f"key{call.key}"}
    return message


def people_differ(left: Left, answered: Sequence[Answered]) -> list[str]:
    """Return where the users table is not the one that the model computes from calls that contradict nobody."""
    calls = {call.number: model.Call(_message(call), call.number) for call, _ in _calls(answered)}
    rules = rules_of(DOCUMENT)
    wanted = [straight.person(group, rules) for group in straight.people(calls.values())]
    found = [_shown(record) for record in left.people.values()]
    return [f"missing: {one}" for one in wanted if one not in found] + [
        f"not expected: {one}" for one in found if one not in wanted
    ]


def _shown(record: Record) -> dict[str, Any]:
    """Return a record as the model shows a profile."""
    values = {name: str(value.value) for name, value in record.values.items() if not name.startswith("call ")}
    return {
        "user": record.user,
        "key": record.key,
        "anons": sorted(device.value for device in record.devices),
        "former": sorted(record.former_keys),
        "values": dict(sorted((name.replace(" ", "_"), value) for name, value in values.items())),
    }
