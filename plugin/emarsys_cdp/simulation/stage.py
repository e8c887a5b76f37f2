"""
A space on a time of its own: the pipeline that serves a host, the users table, rules, and what they send.

Nothing leaves it and no clock is read; the outbox is emptied the moment something is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from hashlib import blake2b
from itertools import count
from typing import Any, Final, TypeAlias, cast

from msgspec.structs import replace

from emarsys_cdp.calls import make_call
from emarsys_cdp.credentials import OAuth, Secret, Wsse
from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.lifetimes import lifetimes_of
from emarsys_cdp.document.model import Document
from emarsys_cdp.effect import Effect
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.extensions import Steps
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.merging import Merger
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.pipeline import Answer, Pipeline
from emarsys_cdp.rounds import Rounds
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.simulation.effects import SentEffects
from emarsys_cdp.simulation.timed import TimedStore
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer, new_pid
from emarsys_cdp.store.lifetimes import LifetimesOf
from emarsys_cdp.users_table import UsersTable
from emarsys_cdp.waking import Waker
from emarsys_cdp_hooks import StopAndFix

HOST = "simulate"
_UNUSED = Wsse("simulate", Secret("simulate"))
"""Requests are built and signed as always, and thrown away."""

YEARS: Final = 20 * 365 * 24 * 3_600_000
"""Longer (ms) than any recording."""

MakeRounds: TypeAlias = Callable[[Store, Namer, Callable[[int], bytes], LifetimesOf], Rounds]


class _NoTokens:
    """Where no access token is needed."""

    async def token(self, credentials: OAuth, left: int = 0, refused: str | None = None) -> str:  # noqa: ARG002
        raise StopAndFix("a simulation has no access token")


def plain_rounds(store: Store, namer: Namer, random_bytes: Callable[[int], bytes], lifetimes: LifetimesOf) -> Rounds:
    """Return the rounds of a worker who waits for nobody."""
    return Rounds(store, namer, lambda: new_pid(random_bytes), lambda _: 0.0, lifetimes=lifetimes)


class Stage:
    """
    A space with a document, over a store. *seed* makes all names and ids: the same seed, the same names.

    *now* is its time (ms). *note* is told of every effect when it is sent, *gone* of the records of people whose time
    is over. What rules see of a person is never forgotten; with *limited* no more of it is kept than by the service
    (`taking.MAX_LOG`).
    """

    def __init__(
        self,
        store: Store,
        steps: Steps,
        compiler: Compiler,
        document: Document,
        space: str,
        seed: str,
        now: int,
        note: Callable[[Effect, int], None],
        make_rounds: MakeRounds = plain_rounds,
        gone: Callable[[Sequence[bytes]], None] = lambda _: None,
        *,
        limited: bool = False,
    ) -> None:
        self.now = now
        self._gone = gone
        random_bytes = _bytes_of(seed)
        namer = Namer(random_bytes(32))
        compiled = compiler.compile(space, HOST, document, _UNUSED)
        rules = None if compiled.rules is None else _remembering(compiled.rules, limited=limited)
        self.rules = rules
        self.space = replace(compiled, rules=rules)
        self.timed = TimedStore(store, self._clock)
        self.store = cast("Store", self.timed)
        lifetimes = lifetimes_of(document.settings)
        self.rounds = make_rounds(self.store, namer, random_bytes, lambda _: lifetimes)
        revisions = count(int.from_bytes(random_bytes(7), "big"))
        self.users = UsersTable(self.store, namer, revisions, lambda _: lifetimes)
        signer, first_seen = Signer(_NoTokens(), self._clock, random_bytes), FirstSeen(self.store, namer)
        self._pipeline = Pipeline(steps, self.rounds, namer, signer, Metrics(), self._clock, "", first_seen)
        merger = Merger(self.store, namer, revisions, lambda _: lifetimes)
        self._waker = Waker(self.store, namer, merger, revisions, lambda _: rules, self._clock, self.rounds.forget)
        self._effects = SentEffects(self.store, self._clock, note)

    def _clock(self) -> int:
        return self.now

    async def take(self, message: Mapping[str, Any], arrival: int) -> Answer:
        """Take a call in that arrived at a time (ms)."""
        return await self._pipeline.process(self.space, [make_call(0, message, arrival)])

    async def wait(self, until: int) -> None:
        """Let time pass up to a time (ms); what is due at that instant comes after its calls."""
        if until <= self.now:
            return
        await self.wake(until - 1)
        self.now = until
        self._gone(await self.timed.expire())

    async def wake(self, until: int) -> None:
        """Look at everybody whose time comes until then (ms), one instant after the other."""
        while (due := self.timed.next_wake(until)) is not None:
            self.now = max(self.now, due[0])
            self._gone(await self.timed.expire())
            await self._look(due[1])

    async def wake_others(self, but: Collection[str]) -> None:
        """Look at everybody who is due now, but not at some people."""
        while pids := [pid for pid in self.timed.due(self.now) if pid not in but]:
            await self._look(pids)

    async def _look(self, pids: Iterable[str]) -> None:
        for pid in pids:
            await self._effects.send(await self._waker.wake([pid]))


def _remembering(rules: RuleSet, *, limited: bool) -> RuleSet:
    """Return rules that forget nothing for its age: what has happened is told afterwards."""
    if not limited:
        return rules.untrimmed()
    rules = copy(rules)
    rules.span += YEARS
    return rules


def _bytes_of(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that is the same for the same seed."""
    numbers = count()
    return lambda size: blake2b(f"{seed}\0{next(numbers)}".encode(), digest_size=size).digest()
