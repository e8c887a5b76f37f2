"""Looking at people and sending what came of it, while processes die, look too early or too late, or work at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import count
from random import Random
from typing import Any, cast

import pytest
from tests.storm.expect import simulated, space_of
from tests.storm.plan import SECOND, STORIES, Person, document, make_people
from tests.support.people import NAMER, MakeStore
from tests.support.stores import on

from emarsys_cdp.calls import make_call
from emarsys_cdp.credentials import OAuth, Secret, Wsse
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.merging import Merger
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.outbox.fates import Done
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.outbox.transport import Leased, Tried
from emarsys_cdp.pipeline import Pipeline
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.rules.book import CANCELLED, COMPLETED
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.keys import SHARDS, new_pid
from emarsys_cdp.store.lifetimes import usual
from emarsys_cdp.store.record import unpack
from emarsys_cdp.values.times import iso_time
from emarsys_cdp.waking import Waker, Woken
from emarsys_cdp_hooks import StopAndFix

BEGIN = 1_795_000_000_000
AGAIN = 30 * SECOND
LEASE = 61 * SECOND
"""After so long whatever a dead process had leased is free."""

ALL = range(SHARDS)
PEOPLE = make_people(len(STORIES), 1)
"""One person of each story."""

SPACE = space_of("direct")
DEADLY = ("fills a cart", "pays late", "sees offers")
"""Stories of those who are looked at by a process that dies."""


class _NoTokens:
    async def token(self, credentials: OAuth, left: int = 0, refused: str | None = None) -> str:  # noqa: ARG002
        raise StopAndFix("requests of these tests are thrown away")


class Mortal:
    """A store, and what receives effects, for one process; *left* round trips later it dies, *after* one or before."""

    def __init__(self, store: Store, left: int | None = None, *, after: bool = False) -> None:
        self._store, self._left, self._after = store, left, after
        self.dead = False

    def __getattr__(self, method: str) -> Any:
        async def trip(*arguments: Any) -> Any:
            if self.dies(after=False):
                raise StoreUnavailable("the process is dead")
            answer = await getattr(self._store, method)(*arguments)
            if self.dies(after=True):
                raise StoreUnavailable("the process is dead")
            return answer

        return trip

    def dies(self, *, after: bool) -> bool:
        """Count a round trip, and tell whether the process is dead."""
        if not self.dead and self._left is not None and after is self._after:
            self._left -= 1
            self.dead = self._left < 0
        return self.dead


class Post:
    """Where effects go: *accepted* are the ids of triggers that came, in their order."""

    ordered = True

    def __init__(self, mortal: Mortal, accepted: list[str]) -> None:
        self._mortal, self._accepted = mortal, accepted

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:  # noqa: ARG002 - a transport
        """Take effects; the process may die before or after."""
        if self._mortal.dies(after=False):
            raise StoreUnavailable("the process is dead")
        self._accepted += [one.effect.id for one in leased if one.effect.do == "trigger"]
        if self._mortal.dies(after=True):
            raise StoreUnavailable("the process is dead")
        return [Tried(one.effect, Done()) for one in leased]


class Time:
    """What all processes of a test have in common: the time (ms), and numbers that differ."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.random = Random(7)  # noqa: S311 - the same in every run
        self.accepted: list[str] = []


@cache
def _compiled() -> CompiledSpace:
    """Return the space of all tests."""
    compiler = build_compiler(build_plugin_manager([]))
    return compiler.compile(SPACE, "test", compiler.read("test", document("direct")), Wsse("test", Secret("test")))


class Process:
    """A worker: it takes calls, looks at people, and sends."""

    def __init__(self, store: Store, time: Time, left: int | None = None, *, after: bool = False) -> None:
        self.mortal = Mortal(store, left, after=after)
        alive, self._time = cast("Store", self.mortal), time
        self._space = _compiled()
        rules, numbers = self._space.rules, count(time.random.getrandbits(60))
        rounds = Rounds(alive, NAMER, lambda: new_pid(time.random.randbytes), lambda _: 0.0)
        signer = Signer(_NoTokens(), self._clock, time.random.randbytes)
        first_seen = FirstSeen(alive, NAMER)
        self._pipeline = Pipeline(
            Steps(build_plugin_manager([])), rounds, NAMER, signer, Metrics(), self._clock, "", first_seen
        )
        merger = Merger(alive, NAMER, numbers, usual)
        self.waker = Waker(alive, NAMER, merger, numbers, lambda _: rules, self._clock, rounds.forget)
        post = Post(self.mortal, time.accepted)
        holder = str(next(numbers))
        self.sender = OutboxSender(alive, holder, lambda: ALL, lambda _: post, Metrics(), self._clock, lambda: 0.5)

    def _clock(self) -> int:
        return self._time.now

    async def call(self, message: dict[str, Any], at: int) -> None:
        """Take a call that happened at a time."""
        call = make_call(0, {**message, "timestamp": iso_time(at)}, self._time.now)
        await self._pipeline.process(self._space, [call])

    async def work(self) -> None:
        """Look at everybody who is due, and send what is to be sent, until there is nothing or the process dies."""
        store = cast("Store", self.mortal)
        try:
            while due := await store.due_timers(ALL, self._time.now, 100, self._time.now + AGAIN):
                await self.waker.wake(due, self._time.now + AGAIN)
            while await store.queued(ALL, self._time.now, 100) and not self.mortal.dead:
                await self.sender.look()
                await self.sender.settled()
        except StoreUnavailable:
            assert self.mortal.dead


async def tell(store: Store, time: Time, people: Sequence[Person], wakes: Random | None = None) -> None:
    """Let people live through their stories; with *wakes* somebody looks at them at any time, twice, or not at all."""
    process = Process(store, time)
    steps = sorted(((step.at, person, step) for person in people for step in person.steps), key=lambda one: one[0])
    first = {id(step): _first(person, step.call["messageId"]) for _, person, step in steps}
    for at, _, step in steps:
        time.now = max(time.now, BEGIN + at)
        await process.call(step.call, BEGIN + first[id(step)])
        if wakes is not None:
            pids = [pid async for pid, _ in store.scan() if wakes.random() < 0.3]
            for _ in range(wakes.choice((0, 1, 2))):
                await process.waker.wake(pids)
            if wakes.random() < 0.2:
                await process.work()
    time.now = max(time.now, BEGIN + 100 * SECOND)


def _first(person: Person, message_id: str) -> int:
    return next(step.at for step in person.steps if step.call["messageId"] == message_id)


async def wanted(people: Sequence[Person]) -> list[str]:
    """Return the trigger ids that people get in a simulation."""
    return sorted(trigger.id for one in (await simulated(people, "direct")).values() for trigger in one.triggers)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_changes_nothing_that_is_sent(make_store: MakeStore, after: bool) -> None:
    """Wherever a process dies, another one sends the rest; nothing is missing, and a trigger comes twice at most."""

    async def once(store: Store, left: int) -> tuple[bool, list[str], list[str]]:
        people = [one for one in make_people(len(STORIES), 1, 1 + 100 * left) if one.story in DEADLY]
        time = Time()
        await tell(store, time, people)
        dying = Process(store, time, left, after=after)
        await dying.work()
        await dying.sender.settled()
        for _ in range(3):
            time.now += LEASE
            await Process(store, time).work()
        return dying.mortal.dead, time.accepted, await wanted(people)

    async def run(store: Store) -> list[tuple[bool, list[str], list[str]]]:
        found = [await once(store, 0)]
        while found[-1][0]:
            found.append(await once(store, len(found)))
        return found

    found = on(make_store, run)

    assert len(found) > 10
    assert [sorted(set(accepted)) for _, accepted, _ in found] == [every for _, _, every in found]
    assert max(max(Counter(accepted).values()) for _, accepted, _ in found) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_wake_ups_are_hints(make_store: MakeStore, seed: int) -> None:
    """Whoever looks too early, too often or too late changes when something is sent, and nothing else."""

    async def run(store: Store) -> list[str]:
        time = Time()
        await tell(store, time, PEOPLE, Random(seed))  # noqa: S311 - the same in every run
        for _ in range(3):
            await Process(store, time).work()
            time.now += LEASE
        return time.accepted

    assert sorted(on(make_store, run)) == asyncio.run(wanted(PEOPLE))


@pytest.mark.parametrize("seed", range(6))
def test_two_workers_at_once_do_what_one_after_the_other_does(make_store: MakeStore, seed: int) -> None:
    """A stop that comes while two workers look and send is there in time, or it is not: never a bit of both."""
    (person,) = [one for one in PEOPLE if one.story == "orders"]
    *others, stop = sorted(
        {step.call["messageId"]: step for step in person.steps}.values(), key=lambda step: step.call["messageId"]
    )

    async def run(store: Store) -> tuple[list[str], set[str], int]:
        time, chance = Time(), Random(seed)  # noqa: S311 - the same in every run
        one, other = Process(store, time), Process(store, time)
        for step in others:
            await one.call(step.call, BEGIN + step.at)
        pids = [pid async for pid, _ in store.scan()]
        time.now = BEGIN + 60 * SECOND

        async def late(what: Any) -> Any:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            return await what()

        async def send() -> None:
            await one.sender.look()
            await one.sender.settled()

        looked = await asyncio.gather(
            late(lambda: one.waker.wake(pids)),
            late(lambda: other.waker.wake(pids)),
            late(lambda: other.call(stop.call, BEGIN + stop.at)),
            late(send),
        )
        posted = [effect.id for some in looked[:2] for woken in cast("list[Woken]", some) for effect in woken.effects]
        for _ in range(3):
            await Process(store, time).work()
            time.now += LEASE
        (stored,) = await store.read_records(pids)
        assert stored is not None
        book = unpack(stored)[1].book
        assert book is not None
        states = {one.status for state in book.rules.values() for one in state.instances}
        return time.accepted, states, len(posted) - len(set(posted))

    accepted, states, twice = on(make_store, run)

    assert (len(accepted), states) in [(0, {CANCELLED}), (1, {COMPLETED})]
    assert twice == 0
