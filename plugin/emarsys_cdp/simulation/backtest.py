"""
Recorded calls through one set of rules or two, and what differs (semantics 2.10).

The engine is that of the service, so a backtest of recorded live traffic with the rules and the space of then says what
the service has sent, with the same ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, cast

import msgspec
from msgspec import Struct

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import Document
from emarsys_cdp.effect import Effect
from emarsys_cdp.extensions import Steps
from emarsys_cdp.rules.book import ACTIVE, DUE, SUPERSEDED, Book, Instance
from emarsys_cdp.rules.explaining import Decision, explain
from emarsys_cdp.rules.passing import Sight
from emarsys_cdp.simulation.effects import late_stops_of
from emarsys_cdp.simulation.recorded import Recorded
from emarsys_cdp.simulation.stage import Stage
from emarsys_cdp.store import Commit, Store
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp_hooks import Json, Refused


class Made(Struct, frozen=True):
    """An effect as far as two runs are compared: what, for whom, and when (ms)."""

    rule: str
    instance: str
    row: str
    do: str
    options: dict[str, Json]
    key: str
    at: int
    due: int
    data: dict[str, Json]
    pid: str


class Difference(Struct, frozen=True):
    """An effect that only one of two runs has, or that they have otherwise: its id, and what each has."""

    id: str
    first: Made | None
    second: Made | None


class Run:
    """
    The calls through the rules of one document.

    *effects* are those sent, by their ids. *dropped* counts calls that were refused by their reason, *disordered* those
    that came after one that arrived later: they are taken then.
    """

    def __init__(self, store: Store, steps: Steps, compiler: Compiler, document: Document, space: str) -> None:
        self.effects: dict[str, Made] = {}
        self.dropped: Counter[str] = Counter()
        self.disordered = 0
        self._space = space
        self._seen: dict[str, tuple[str, str]] = {}
        self._stage = Stage(
            cast("Store", _Watched(store, self._look)),
            steps,
            compiler,
            document,
            space,
            f"backtest-{space}",
            0,
            self._sent,
            limited=True,
        )
        self._any = False

    async def take(self, call: Recorded) -> None:
        """Take a call in, when everything of before it has happened."""
        if not self._any:
            self._any, self._stage.now = True, call.arrival
        if call.arrival < self._stage.now:
            self.disordered += 1
        await self._stage.wait(call.arrival)
        answer = await self._stage.take(call.message, call.arrival)
        for decision in answer.settled.values():
            if isinstance(decision, Refused):
                self.dropped[decision.reason] += 1
        await self._stage.wake(self._stage.now)

    async def finish(self, milliseconds: int) -> None:
        """Let time pass after the last call."""
        end = self._stage.now + milliseconds
        await self._stage.wait(end)
        await self._stage.wake(end)

    async def statuses(self) -> Counter[tuple[str, str]]:
        """Return how many instances there were of each rule and status."""
        there = set()
        async for found in self._stage.users.scan(self._space):
            there |= {one.id for _, one in _instances(found.record.book)}
        counted: Counter[tuple[str, str]] = Counter()
        for name, (rule, status) in self._seen.items():
            gone = status in (ACTIVE, DUE) and name not in there
            counted[rule, SUPERSEDED if gone else status] += 1
        return counted

    async def late_stops(self) -> int:
        """Return how many stops came after the sending, of what the rules have not forgotten."""
        return late_stops_of([found.record async for found in self._stage.users.scan(self._space)])

    async def timeline(self, made: Made) -> tuple[Decision, ...]:
        """Return the decisions about the instance of an effect, as far as they are not forgotten."""
        record = await self._record(made.pid)
        rules = self._stage.rules
        if record is None or record.book is None or rules is None:
            return ()
        chain = explain(rules, made.rule, record.book, Sight(self._space, record.key, self._stage.now))
        return tuple([one for one in chain.decisions if one.instance == made.instance])

    async def _record(self, pid: str) -> Record | None:
        """Return the record of a profile, or of that which it became part of."""
        while True:
            (stored,) = await self._stage.store.read_records([pid])
            record = None if stored is None else unpack(stored)[1]
            if record is None or record.redirect is None:
                return record
            pid = record.redirect

    def _look(self, record: bytes) -> None:
        """Note the instances of a record that is written."""
        if record:
            for rule, one in _instances(unpack(record)[1].book):
                self._seen[one.id] = (rule, one.status)

    def _sent(self, effect: Effect, now: int) -> None:
        self.effects[effect.id] = Made(
            effect.rule,
            effect.instance,
            effect.row,
            effect.do,
            effect.options,
            effect.key,
            now,
            effect.due,
            msgspec.to_builtins(effect.data),
            effect.pid,
        )


class _Watched:
    """A store that tells of every record that is written."""

    def __init__(self, store: Store, look: Callable[[bytes], None]) -> None:
        self._store = store
        self._look = look

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, commits: list[Commit]) -> list[bool]:
        """Write records, and tell of them."""
        done = await self._store.commit(commits)
        for one, written in zip(commits, done, strict=True):
            if written:
                self._look(one.record)
        return done


def _instances(book: Book | None) -> Iterator[tuple[str, Instance]]:
    for rule, state in () if book is None else book.rules.items():
        for one in state.instances:
            yield rule, one


def differences(first: Run, second: Run) -> list[Difference]:
    """Return the effects that differ, in the order of their times."""
    found = [
        Difference(name, first.effects.get(name), second.effects.get(name))
        for name in dict.fromkeys((*first.effects, *second.effects))
    ]
    differing = [one for one in found if _comparable(one.first) != _comparable(one.second)]
    return sorted(differing, key=lambda one: (one.first or one.second or _NOTHING).at)


_NOTHING: Final = Made("", "", "", "", {}, "", 0, 0, {}, "")


def _comparable(made: Made | None) -> object:
    """Return an effect without the id of the profile, which depends on chance."""
    return None if made is None else msgspec.structs.replace(made, pid="")


def counts(effects: Iterable[Made]) -> Counter[tuple[str, str]]:
    """Return how many effects there are of each rule and kind of action."""
    return Counter((one.rule, one.do) for one in effects)
