"""
Runs vectors through the real engine: the pipeline that serves a host, over a store, at the times of the timeline.

Nothing is sent and no clock is read: a call arrives when its step says so. Every vector has a space of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, cast

from msgspec import UNSET, Struct
from msgspec.structs import replace

from emarsys_cdp.calls import make_call
from emarsys_cdp.credentials import OAuth, Secret, Wsse
from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.lifetimes import lifetimes_of
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.extensions import Steps
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.merging import Merger
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.simulation.effects import SentEffects, instances_of, late_stops_of
from emarsys_cdp.simulation.offsets import START, show_offset
from emarsys_cdp.simulation.outcome import CODES, DROPPED, DUPLICATE, OK, Outcome, people
from emarsys_cdp.simulation.reading import Person, Step, Vector
from emarsys_cdp.simulation.timed import TimedStore
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.lifetimes import LifetimesOf
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp.users_query import WORDS, NoIdentifier, read_identifier, reader_of
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp.users_view import is_person
from emarsys_cdp.values.times import iso_time
from emarsys_cdp.waking import Waker
from emarsys_cdp_hooks import StopAndFix

HOST = "simulate"
_UNUSED = Wsse("simulate", Secret("simulate"))
"""Requests are built and signed as always, and thrown away."""


class Engine(Struct, frozen=True):
    """
    What vectors run on. *seed* makes the names of spaces and profiles: the same seed, the same names.

    *note* is told what a person may want to know beside the outcome.
    """

    store: Store
    steps: Steps
    compiler: Compiler
    seed: str
    note: Callable[[str], None]


class _Table(Rounds):
    """The users table, which remembers what became of each call."""

    def __init__(
        self, store: Store, namer: Namer, random_bytes: Callable[[int], bytes], lifetimes: LifetimesOf
    ) -> None:
        super().__init__(store, namer, lambda: new_pid(random_bytes), lambda _: 0.0, lifetimes=lifetimes)
        self.calls: list[tuple[Entry, Added]] = []

    async def add(self, entries: Sequence[Entry]) -> list[Added]:
        """Add calls."""
        added = await super().add(entries)
        self.calls += zip(entries, added, strict=True)
        return added


class _NoTokens:
    """Where no access token is needed."""

    async def token(self, credentials: OAuth, left: int = 0, refused: str | None = None) -> str:  # noqa: ARG002
        raise StopAndFix("a simulation has no access token")


async def run_vector(engine: Engine, vector: Vector, number: int) -> Outcome:
    """
    Return what comes out of a vector; *number* tells it from others of the same engine.

    Raises:
        StoreUnavailable: the store does not answer.

    """
    run = _Run(engine, vector, f"{engine.seed}-{number}")
    try:
        for index in sorted(range(len(vector.steps)), key=lambda index: vector.steps[index].at):
            await run.take(index, vector.steps[index])
        return await run.outcome()
    finally:
        await run.leave()


class _Run:
    """One vector on its way."""

    def __init__(self, engine: Engine, vector: Vector, space: str) -> None:
        self._engine = engine
        self._vector = vector
        self._now = min([START, *(START + step.at for step in vector.steps)])
        random_bytes = _bytes_of(space)
        namer = Namer(random_bytes(32))
        compiled = engine.compiler.compile(space, HOST, vector.document, _UNUSED)
        self._space = replace(compiled, rules=None if compiled.rules is None else compiled.rules.untrimmed())
        self._timed = TimedStore(engine.store, self._clock)
        store = cast("Store", self._timed)
        lifetimes = lifetimes_of(vector.document.settings)
        self._table = _Table(store, namer, random_bytes, lambda _: lifetimes)
        revisions = count(int.from_bytes(random_bytes(7), "big"))
        self._users = UsersTable(store, namer, revisions, lambda _: lifetimes)
        signer, first_seen = Signer(_NoTokens(), self._clock, random_bytes), FirstSeen(store, namer)
        self._pipeline = Pipeline(engine.steps, self._table, namer, signer, Metrics(), self._clock, "", first_seen)
        merger = Merger(store, namer, revisions, lambda _: lifetimes)
        rules = self._space.rules
        self._waker = Waker(store, namer, merger, revisions, lambda _: rules, self._clock, self._table.forget)
        self._effects = SentEffects(store, self._clock)
        self._results: dict[int, str] = {}
        self._past: list[dict[str, Any]] = []
        self._seen: dict[str, set[str]] = {}

    def _clock(self) -> int:
        return self._now

    async def take(self, index: int, step: Step) -> None:
        """Let one step happen."""
        await self._wait(step.at)
        if step.call is not None:
            before = self._timed.due(self._now)  # for these, all calls of the instant come first
            self._results[index] = await self._call(step)
            await self._wake(self._now, before)
        elif (person := step.erase or step.unsuppress) is not None:
            self._results[index] = await self._remove(step, person)

    async def _wait(self, offset: int) -> None:
        """Let time pass."""
        until = max(self._now, START + offset)
        await self._wake(until - 1)  # what is due at that instant comes after its calls
        self._now = until
        await self._expire()

    async def _expire(self) -> None:
        """Let those go whose time is over; their instances are shown all the same."""
        self._past += instances_of([unpack(stored)[1] for stored in await self._timed.expire()])

    async def _wake(self, until: int, but: frozenset[str] = frozenset()) -> None:
        """Look at everybody whose time comes until then, one instant after the other, but not at some people."""
        while (due := self._timed.next_wake(until, but)) is not None:
            self._now = max(self._now, due[0])
            await self._expire()
            for pid in due[1]:
                await self._effects.send(await self._waker.wake([pid]))

    async def leave(self) -> None:
        """Leave the store as it was."""
        await self._timed.remove_all()

    async def _remove(self, step: Step, person: Person) -> str:
        """Erase a person or take a suppressed one back."""
        try:
            value = read_identifier(reader_of(self._vector.document, person.value), person.kind, person.value)
        except NoIdentifier as error:
            self._note(step, str(error))
            return DROPPED
        space, kind = self._space.id, person.kind
        if step.erase is None:
            if not await self._users.unsuppress(space, kind, value):
                self._note(step, f"{WORDS[kind]} {value!r} is not suppressed")
            return OK
        await self._users.erase(space, kind, value, step.mode, self._now)
        return OK

    async def _call(self, step: Step) -> str:
        message = dict(step.call or {})
        if step.time is not None or not (message.get("timestamp") or message.get("originalTimestamp")):
            message["timestamp"] = iso_time(START + (step.at if step.time is None else step.time))
        before = len(self._table.calls)
        answer = await self._pipeline.process(self._space, [make_call(0, message, self._now)])
        for entry, added in self._table.calls[before:]:
            if added.failure is None and added.profile is not None:
                return DUPLICATE if await self._is_known(added.profile.id, entry.message_id) else OK
        if 0 in answer.settled:
            self._note(step, answer.settled[0].reason)
        return DROPPED

    async def _is_shared(self, anon: str) -> bool:
        return await self._users.state(self._space.id, "anon", anon) == "shared"

    def _note(self, step: Step, reason: str) -> None:
        self._engine.note(f"{self._vector.name}, {show_offset(step.at)}: {reason}")

    async def _is_known(self, pid: str, message_id: str) -> bool:
        """Tell whether a person, or one who became part of this one, has had a call with this messageId before."""
        (stored,) = await self._timed.read_records([pid])
        earlier = self._seen.setdefault(message_id, set())
        people = {pid, *(() if stored is None else unpack(stored)[1].merged_from)}
        known = not earlier.isdisjoint(people)
        earlier.add(pid)
        return known

    async def outcome(self) -> Outcome:
        """Return what has come out at the end."""
        if self._vector.until is not None:
            await self._wait(self._vector.until)
            await self._wake(self._now)
        space, calls = self._space.id, self._table.calls
        anons = {entry.ids.anon for entry, _ in calls} | {entry.previous.value for entry, _ in calls if entry.previous}
        records = [one.record async for one in self._users.scan(space)]
        persons = people(filter(_is_shown, records))
        wants_values = "values" in (self._vector.expect or {})
        return Outcome(
            name=self._vector.name,
            effects=self._effects.shown,
            instances=sorted([*self._past, *instances_of(records)], key=lambda one: (one["rule"], one["start"])),
            profiles=[person for person, _ in persons],
            shared=[one for one in sorted(filter(None, anons)) if await self._is_shared(one)],
            warnings=[code for call in calls for code in _warnings(*call)],
            contradictions=late_stops_of(records),
            results=[self._results[index] for index in range(len(self._results))],
            values=[values for _, values in persons] if wants_values else UNSET,
        )


def _warnings(entry: Entry, added: Added) -> list[str]:
    """Return the warnings of a call in the order of their codes."""
    codes = (*entry.ids.warnings, *added.warnings)
    return sorted(codes, key=lambda code: CODES.index(code) if code in CODES else len(CODES))


def _is_shown(record: Record) -> bool:
    """Tell that a record is a person's, and not that of a shared device."""
    return is_person(record) and not record.isolate


def _bytes_of(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that is the same for the same seed."""
    numbers = count()
    return lambda size: blake2b(f"{seed}\0{next(numbers)}".encode(), digest_size=size).digest()
