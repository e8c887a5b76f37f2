"""A storm: people do things, a fake host hands their calls to workers, and workers are killed while timers fire."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, Final

from msgspec import Struct
from tests.soak.chaos import HOSTS_SEE, WE_SEE
from tests.storm.expect import Trigger, Wanted, show_data, simulate, space_of
from tests.storm.plan import EVENTS, FIELD, LIST, MARGIN, SECOND, SETTLE, Person, document, make_people
from tests.storm.worker import Tempo, Worker

from emarsys_cdp.credentials import Secret
from emarsys_cdp.settings import Settings
from emarsys_cdp.store.keys import SHARDS
from emarsys_cdp.store.outbox import DEAD, QUEUED
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.testing import FakeEmarsys, FakeHost, Fault
from emarsys_cdp.values.times import iso_time

DIRECT, HOST = "direct", "host"
WORKERS: Final = 4
TEMPO: Final = 4
"""Time runs so many times as quick: what a dead worker has leased is free after 15 real seconds instead of 60."""

EVERY: Final = 0.8
"""A worker is killed about every so many (real) seconds."""

SLOW: Final = Fault("slow", path="event/*", delay=0.15, probability=1.0)
"""Emarsys takes its time, so that many workers die with a request under way."""

QUIET: Final = 40 * SECOND
"""When everything has come nothing more comes in this time, in which each timer that a dead worker had comes again."""

DRAINED: Final = 400 * SECOND
"""After the last call everything has to come within this time."""

TOO_LATE: Final = SETTLE + MARGIN - 4 * SECOND
"""The calls of somebody that were answered so late may rightly change what he gets: he is not judged."""

LIMIT: Final = 6000
_SECRET: Final = "a secret of the storm"  # noqa: S105 - it protects nothing


class Outcome(Struct, frozen=True, kw_only=True):
    """
    What came of a storm.

    *faults* says what is wrong, each person with timeline and both lists; nothing should be. *late* are people who are
    not judged. *double* are triggers that Emarsys accepted twice, *repeated* those that it knew when they
    came again, *most* is how often one came at most. *ids* are the trigger ids of everybody who is judged, *errors*
    what waits still, was given up, or went wrong in a worker.
    """

    people: int
    kills: int
    wanted: int
    received: int
    late: int
    faults: list[str]
    repeated: int
    most: int
    requests: int
    troubles: dict[str, int]
    seconds: float
    double: int
    ids: dict[int, list[str]]
    errors: list[str]


class _Crew:
    """The workers: somebody always takes the place of one that was killed."""

    def __init__(self, listener: socket.socket, settings: Settings, clock: Tempo, log: Path) -> None:
        self._make: Callable[[int], Worker] = lambda number: Worker(number, listener, settings, clock, log)
        self._workers = {number: self._make(number) for number in range(WORKERS)}
        self.kills = 0

    def kill(self, random: Random) -> bool:
        """Kill one of those that take requests; False when none does."""
        ready = [number for number, worker in self._workers.items() if worker.listens()]
        if not ready:
            return False
        number = random.choice(ready)
        self._workers[number].kill()
        self._workers[number] = self._make(number)
        self.kills += 1
        return True

    def stop(self) -> None:
        """End them."""
        for worker in self._workers.values():
            worker.stop()


class _Killing:
    """Kills workers, one after the other, until so many are dead."""

    def __init__(self, crew: _Crew, random: Random, kills: int, told: Callable[[int], None]) -> None:
        self._crew, self._random, self._kills, self._told = crew, random, kills, told
        self._stop = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._fault: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether all that were to be killed are."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._crew.kills < self._kills and not self._stop.wait(EVERY * (0.5 + self._random.random())):
                if self._crew.kill(self._random):
                    self._told(self._crew.kills)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._fault = error

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Kill meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()
        if self._fault is not None:
            raise self._fault


class Storm:
    """
    One storm over a store at *url*, in an empty *directory*. *transports* are those that people's effects leave by.

    *kills* workers are killed; *spread*: people begin within so many (real) seconds. *troubles*: Emarsys fails as well.
    *told* hears how many were killed.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        people: int,
        kills: int,
        spread: float,
        transports: Sequence[str] = (DIRECT, HOST),
        seed: int = 1,
        troubles: bool = False,
        told: Callable[[int], None] = lambda kills: None,  # noqa: ARG005 - the default does nothing
    ) -> None:
        self._url, self._directory, self._transports = url, directory, tuple(transports)
        self._kills, self._spread, self._told = kills, spread, told
        self._random = Random(seed)  # noqa: S311 - a run that can be repeated, up to the processes' own timing
        self._troubles = troubles
        self._people: Mapping[str, tuple[Person, ...]] = {
            transport: _some(make_people(people, seed), index, len(self._transports))
            for index, transport in enumerate(self._transports)
        }
        self._clock = Tempo(time.time_ns() // 1_000_000, TEMPO)
        self._late: Counter[int] = Counter()
        self._sent: dict[int, tuple[int, int]] = {}
        self._host_began = 0

    def run(self) -> Outcome:
        """Let it come and go; return what is left."""
        started = time.monotonic()
        wanted: dict[int, Wanted] = {}
        for transport, people in self._people.items():
            wanted |= simulate(people, transport)
        with ExitStack() as stack:
            emarsys = stack.enter_context(self._emarsys())
            listener = stack.enter_context(_listener())
            host = stack.enter_context(self._host(listener, emarsys))
            self._host_began = self._clock()
            log = self._directory / "workers.log"
            crew = _Crew(listener, self._settings(emarsys, host), self._clock, log)
            stack.callback(crew.stop)
            killing = _Killing(crew, self._random, self._kills, self._told)
            with killing.going_on():
                self._feed(host, killing)
            emarsys.clear_faults()
            stuck = self._drain(host, emarsys, wanted)
        found = _Found(self._people, wanted, emarsys, self._lateness(host))
        return found.outcome(crew.kills, time.monotonic() - started, [*stuck, *_errors(log)])

    def _emarsys(self) -> FakeEmarsys:
        emarsys = FakeEmarsys(clock=self._clock, external_events=EVENTS, limit=LIMIT)
        emarsys.add_list("those with a cart", LIST)
        emarsys.script(*(HOSTS_SEE + WE_SEE if self._troubles else ()), SLOW)
        return emarsys

    def _host(self, listener: socket.socket, emarsys: FakeEmarsys) -> FakeHost:
        definition = {"id": "def-1", "name": "EMARSYS", "displayName": "Emarsys", "config": {"transformAtV1": "router"}}
        sources = [
            {
                "id": f"src-{transport}",
                "writeKey": transport,
                "enabled": True,
                "destinations": [
                    {
                        "id": space_of(transport),
                        "enabled": True,
                        "isProcessorEnabled": True,
                        "config": {"apiKey": emarsys.api_key},
                        "destinationDefinition": definition,
                    }
                ],
            }
            for transport in self._transports
        ]
        return FakeHost(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            workspace={"sources": sources},
            proxy=True,
            batch_timeout=0.05,
            give_up_after=3600.0,
            clock=lambda: self._clock() / 1000,
        )

    def _settings(self, emarsys: FakeEmarsys, host: FakeHost) -> Settings:
        rules = self._directory / "rules"
        rules.mkdir(parents=True)
        for transport in self._transports:
            (rules / f"{space_of(transport)}.json").write_text(json.dumps(document(transport)))
        return Settings(
            redis_url=Secret(self._url),
            secret=Secret(_SECRET),
            data_dir=self._directory,
            api_base=emarsys.api_base,
            token_url=emarsys.token_url,
            send_seconds=2.0,
            rules_dir=rules,
            ingest_url=host.url,
            ingest_write_key=Secret(",".join(f"{space_of(one)}={one}" for one in self._transports)),
            log_level="warning",
        )

    def _feed(self, host: FakeHost, killing: _Killing) -> None:
        """Let everybody live through his story, and wait for the last kill."""
        begin = self._clock()
        every = [(person, transport) for transport, people in self._people.items() for person in people]
        starts = {
            person.number: begin + int(self._random.random() * self._spread * SECOND * TEMPO) for person, _ in every
        }
        calls = sorted(
            ((starts[person.number] + step.at, person, step.call, transport) for person, transport in every
             for step in person.steps),
            key=lambda one: one[0],
        )  # fmt: skip
        times: dict[str, str] = {}
        for at, person, call, transport in calls:
            time.sleep(max(0.0, (at - self._clock()) / 1000 / TEMPO))
            happened = times.setdefault(call["messageId"], iso_time(at))
            self._late[person.number] = max(self._late[person.number], self._clock() - at)
            (job,) = host.send([{**call, "timestamp": happened, "originalTimestamp": happened}], write_key=transport)
            self._sent[job] = (person.number, at)
        while not killing.over:
            time.sleep(0.1)

    def _lateness(self, host: FakeHost) -> dict[int, int]:
        """Return by how much the latest call of each person was late, ms."""
        for job in host.jobs:
            if job.id in self._sent and job.transforms:
                person, at = self._sent[job.id]
                answered = self._host_began + int(job.transforms[-1] * SECOND * TEMPO)
                self._late[person] = max(self._late[person], answered - at)
        return dict(self._late)

    def _drain(self, host: FakeHost, emarsys: FakeEmarsys, wanted: Mapping[int, Wanted]) -> list[str]:
        """Wait until everything has come, and whether more comes; return what has not come to its end."""
        ids = {trigger.id for one in wanted.values() for trigger in one.triggers}
        until = self._clock() + DRAINED
        while self._clock() < until and not (
            ids <= {event.trigger_id for event in emarsys.events} and not asyncio.run(_queue(self._url, QUEUED))
        ):
            time.sleep(0.25)
        time.sleep(QUIET / SECOND / TEMPO)
        host.drain(60)
        queued, dead = asyncio.run(_queue(self._url, QUEUED)), asyncio.run(_queue(self._url, DEAD))
        aborted = [f"aborted: {job.status} {job.error} {job.call}" for job in host.jobs if job.state == "aborted"]
        refused = [f"not taken: {one}" for one in host.breaches if "truncated" not in str(one)]
        return [*(f"waits still: {one}" for one in queued), *(f"given up: {one}" for one in dead), *aborted, *refused]


def _some(people: Sequence[Person], index: int, count: int) -> tuple[Person, ...]:
    return tuple([person for person in people if person.number % count == index])


@contextmanager
def _listener() -> Iterator[socket.socket]:
    """Give the socket that all workers listen on."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield listener


async def _queue(url: str, state: str) -> list[str]:
    """Return what is queued or dead."""
    store = RedisStore(url)
    try:
        refs = await store.list_effects(state, range(SHARDS), 1000)
        return [str(one) for one in await store.read_effects(refs)]
    finally:
        await store.close()


def _errors(log: Path) -> list[str]:
    """Return the faults of ours that workers have logged."""
    lines = [line for line in log.read_text().splitlines() if '"exception"' in line or "Traceback" in line]
    return [f"logged: {line}" for line in lines]


class _Found:
    """What is left after a storm, compared with what has to be."""

    def __init__(
        self,
        people: Mapping[str, Sequence[Person]],
        wanted: Mapping[int, Wanted],
        emarsys: FakeEmarsys,
        late: Mapping[int, int],
    ) -> None:
        self._people = [person for some in people.values() for person in some]
        self._wanted, self._emarsys = wanted, emarsys
        self._late = {number for number, ms in late.items() if ms > TOO_LATE}
        self._got: dict[str, list[Trigger]] = {}
        for event in emarsys.events:
            got = Trigger(event.trigger_id or "", event.event_id, event.external_id, show_data(event.data))
            self._got.setdefault(event.external_id, []).append(got)

    def outcome(self, kills: int, seconds: float, errors: list[str]) -> Outcome:
        """Return everything that is worth knowing."""
        emarsys = self._emarsys
        late = [person for person in self._people if person.number in self._late]
        times = Counter(event.trigger_id for event in (*emarsys.events, *emarsys.repeats))
        return Outcome(
            people=len(self._people),
            kills=kills,
            wanted=sum(len(one.triggers) for one in self._wanted.values()),
            received=len(emarsys.events),
            late=len(self._late),
            faults=[*self._strangers(), *(fault for person in self._people for fault in self._faults(person))],
            repeated=len(emarsys.repeats),
            most=max(times.values(), default=0),
            requests=emarsys.counts.requests,
            troubles=Counter(one.fault.split(":")[0] for one in emarsys.requests if one.fault),
            seconds=seconds,
            double=len(emarsys.events) - len({event.trigger_id for event in emarsys.events}),
            ids={
                person.number: sorted(one.id for one in self._got.get(_address(person), ()))
                for person in self._people
                if person.number not in self._late
            },
            errors=[error for error in errors if not any(_address(one) in error for one in late)],
        )

    def _strangers(self) -> list[str]:
        known = {_address(person) for person in self._people}
        return [f"of nobody: {got}" for address, got in self._got.items() if address not in known]

    def _faults(self, person: Person) -> Iterator[str]:
        """Yield what is wrong with what somebody got."""
        wanted, got = list(self._wanted[person.number].triggers), sorted(self._got.get(_address(person), []))
        double = [one for one in got if got.count(one) > 1]
        if person.number in self._late and not double:
            return
        contact = self._emarsys.contact("3", _address(person)) or {}
        field, listed = contact.get(FIELD), _address(person) in self._emarsys.members(LIST)
        state = (self._wanted[person.number].field, self._wanted[person.number].listed)
        if wanted != got or state != (field, listed):
            yield "\n".join(
                [
                    f"{_address(person)} ({person.story})",
                    *(f"  at {step.at / SECOND:g} s: {_short(step.call)}" for step in person.steps),
                    f"  wanted: field {state[0]}, listed {state[1]}, {[_show(one) for one in wanted]}",
                    f"  got:    field {field}, listed {listed}, {[_show(one) for one in got]}",
                ]
            )


def _address(person: Person) -> str:
    return f"person-{person.number}@example.com"


def _show(trigger: Trigger) -> str:
    return f"{EVENTS[trigger.event]} {trigger.id} {trigger.data}"


def _short(call: Mapping[str, Any]) -> str:
    who = call.get("userId") or call.get("anonymousId")
    return f"{call['messageId']} of {who}: {call['type']} {call.get('event', '')} {call.get('properties', '')}"
