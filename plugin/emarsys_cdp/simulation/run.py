"""
Runs vectors through the real engine: the pipeline that serves a host, over a store, at the times of the timeline.

Nothing is sent and no clock is read: a call arrives when its step says so. Every vector has a space of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec import UNSET, Struct

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.effect import Effect
from emarsys_cdp.extensions import Steps
from emarsys_cdp.identity.entries import Entry
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.simulation.effects import instances_of, late_stops_of, show_effect
from emarsys_cdp.simulation.offsets import START, show_offset
from emarsys_cdp.simulation.outcome import CODES, DROPPED, DUPLICATE, OK, Outcome, people
from emarsys_cdp.simulation.reading import Person, Step, Vector
from emarsys_cdp.simulation.stage import Stage
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.lifetimes import LifetimesOf
from emarsys_cdp.store.record import Record, unpack
from emarsys_cdp.users_query import WORDS, NoIdentifier, read_identifier, reader_of
from emarsys_cdp.users_view import is_person
from emarsys_cdp.values.times import iso_time


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
        self._shown: list[dict[str, Any]] = []
        document, now = vector.document, min([START, *(START + step.at for step in vector.steps)])
        self._stage = Stage(
            engine.store, engine.steps, engine.compiler, document, space, space, now, self._sent, _Table, self._gone
        )
        self._results: dict[int, str] = {}
        self._past: list[dict[str, Any]] = []
        self._seen: dict[str, set[str]] = {}

    def _gone(self, records: Sequence[bytes]) -> None:
        """Keep the instances of people whose time is over: they are shown all the same."""
        self._past += instances_of([unpack(stored)[1] for stored in records])

    def _sent(self, effect: Effect, now: int) -> None:
        self._shown.append(show_effect(effect, now))

    @property
    def _calls(self) -> list[tuple[Entry, Added]]:
        return cast("_Table", self._stage.rounds).calls

    async def take(self, index: int, step: Step) -> None:
        """Let one step happen."""
        await self._stage.wait(START + step.at)
        if step.call is not None:
            before = self._stage.timed.due(self._stage.now)  # for these, all calls of the instant come first
            self._results[index] = await self._call(step)
            await self._stage.wake_others(before)
        elif (person := step.erase or step.unsuppress) is not None:
            self._results[index] = await self._remove(step, person)

    async def leave(self) -> None:
        """Leave the store as it was."""
        await self._stage.timed.remove_all()

    async def _remove(self, step: Step, person: Person) -> str:
        """Erase a person or take a suppressed one back."""
        try:
            value = read_identifier(reader_of(self._vector.document, person.value), person.kind, person.value)
        except NoIdentifier as error:
            self._note(step, str(error))
            return DROPPED
        space, kind = self._stage.space.id, person.kind
        if step.erase is None:
            if not await self._stage.users.unsuppress(space, kind, value):
                self._note(step, f"{WORDS[kind]} {value!r} is not suppressed")
            return OK
        await self._stage.users.erase(space, kind, value, step.mode, self._stage.now)
        return OK

    async def _call(self, step: Step) -> str:
        message = dict(step.call or {})
        if step.time is not None or not (message.get("timestamp") or message.get("originalTimestamp")):
            message["timestamp"] = iso_time(START + (step.at if step.time is None else step.time))
        before = len(self._calls)
        answer = await self._stage.take(message, self._stage.now)
        for entry, added in self._calls[before:]:
            if added.failure is None and added.profile is not None:
                return DUPLICATE if await self._is_known(added.profile.id, entry.message_id) else OK
        if 0 in answer.settled:
            self._note(step, answer.settled[0].reason)
        return DROPPED

    async def _is_shared(self, anon: str) -> bool:
        return await self._stage.users.state(self._stage.space.id, "anon", anon) == "shared"

    def _note(self, step: Step, reason: str) -> None:
        self._engine.note(f"{self._vector.name}, {show_offset(step.at)}: {reason}")

    async def _is_known(self, pid: str, message_id: str) -> bool:
        """Tell whether a person, or one who became part of this one, has had a call with this messageId before."""
        (stored,) = await self._stage.store.read_records([pid])
        earlier = self._seen.setdefault(message_id, set())
        people = {pid, *(() if stored is None else unpack(stored)[1].merged_from)}
        known = not earlier.isdisjoint(people)
        earlier.add(pid)
        return known

    async def outcome(self) -> Outcome:
        """Return what has come out at the end."""
        if self._vector.until is not None:
            await self._stage.wait(START + self._vector.until)
            await self._stage.wake(self._stage.now)
        space, calls = self._stage.space.id, self._calls
        anons = {entry.ids.anon for entry, _ in calls} | {entry.previous.value for entry, _ in calls if entry.previous}
        records = [one.record async for one in self._stage.users.scan(space)]
        persons = people(filter(_is_shown, records))
        wants_values = "values" in (self._vector.expect or {})
        return Outcome(
            name=self._vector.name,
            effects=self._shown,
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
