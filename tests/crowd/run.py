"""The crowd at work: processes, the requests in their hands, and orders to die."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from random import Random

from msgspec import Struct
from tests.crowd.check import Answered, faults, look, people_differ
from tests.crowd.plan import crowd, peaceful
from tests.crowd.steps import POSITIONS, STEPS, Order
from tests.crowd.worker import Answer, Call, Erasure, Request, work

PROCESSES = 8
IN_HAND = 3
"""Requests that a process has at once."""

KILLS_AT_ONCE = 25
"""Kills among fifty people; then what is left is compared, and others come."""

PATIENCE = 12
"""Requests that a process answers before it is told to die somewhere else."""

TWICE = 0.02
"""Share of the requests that the host delivers again although they were answered."""

MAX_CROWDS = 60
"""Groups of fifty people after which no step that nobody was killed in is waited for any more."""

SILENCE = 60.0
"""Seconds in which somebody has to answer."""

PRELOADED = ["emarsys_cdp.rounds", "emarsys_cdp.users_table", "emarsys_cdp.store.redis", "tests.crowd.worker"]


class Outcome(Struct, frozen=True, kw_only=True):
    """
    What came of a crowd.

    *hits* counts kills by step and position, *faults* says what is wrong with the users table. *crowds* are the
    groups of fifty people, *peaceful* those without conflicts. *again* counts requests that came again.
    """

    hits: dict[tuple[str, str], int]
    faults: list[str]
    crowds: int
    peaceful: int
    requests: int
    calls: int
    again: int
    refused: list[str]
    seconds: float

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(self.hits.values())

    @property
    def missed(self) -> list[str]:
        """Return the steps and positions that nobody was killed in."""
        return [f"{step}, {at}" for step in STEPS for at in POSITIONS if not self.hits.get((step, at))]


class _Process:
    """A worker process, from start to death: what it has in hand, and where it is to die."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        mine, its = context.Pipe()
        self.connection: Connection = mine
        self.process: BaseProcess = context.Process(target=work, args=(its, url), daemon=True)
        self.process.start()
        its.close()
        self.hand: dict[int, Request] = {}
        self.order: Order | None = None
        self.answered = 0

    def give(self, number: int, request: Request) -> None:
        """Hand a request over."""
        self.hand[number] = request
        try:
            self.connection.send((number, request))
        except OSError:
            return  # it is dead already, which is noticed when its answers are read

    def tell(self, order: Order) -> None:
        """Tell it where to die."""
        self.order, self.answered = order, 0
        try:
            self.connection.send(order)
        except OSError:
            return

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Crowd:
    """Eight processes that share the requests of fifty people after fifty people."""

    def __init__(self, url: str, seed: int, kills: int, told: Callable[[int], None], *, everywhere: bool) -> None:
        self._url = url
        self._random = Random(seed)  # noqa: S311 - a run that can be repeated, up to the processes' own timing
        self._wanted = kills
        self._everywhere = everywhere
        self._told = told
        self._processes: list[_Process] = []
        self._hits: Counter[tuple[str, str]] = Counter()
        self._again = 0
        self._twice: set[Call] = set()
        self._quota = 0
        self._refused: list[str] = []

    def run(self) -> Outcome:
        """Let crowds come until as many processes as wanted have died, and in every step; return what came of it."""
        started, found, crowds, requests, calls = time.monotonic(), list[str](), 0, 0, 0
        with ExitStack() as stack:
            stack.callback(self._end)
            self._processes = [_Process(self._url) for _ in range(PROCESSES)]
            while self._hits.total() < self._wanted or (self._missed() and crowds < MAX_CROWDS):
                space, peace = f"crowd {crowds}", crowds % 4 == 3
                made = (peaceful if peace else crowd)(space, self._random)
                answered = self._work(made)
                left = look(self._url, space, answered, frozenset(self._twice))
                found += [f"{space}: {one}" for one in faults(left, answered)]
                if peace:
                    found += [f"{space}: {one}" for one in people_differ(left, answered)]
                crowds, requests = crowds + 1, requests + len(made)
                calls += sum(len(one.profiles) for one in answered)
        return Outcome(
            hits=dict(self._hits),
            faults=found,
            crowds=crowds,
            peaceful=crowds // 4,
            requests=requests,
            calls=calls,
            again=self._again,
            refused=self._refused,
            seconds=time.monotonic() - started,
        )

    def _end(self) -> None:
        for each in self._processes:
            each.end()

    def _missed(self) -> bool:
        return self._everywhere and any(not self._hits[step, position] for step in STEPS for position in POSITIONS)

    def _work(self, requests: Sequence[Request]) -> list[Answered]:
        """Have requests done, each until it is answered; return them in the order of their answers."""
        todo, answered = deque(enumerate(requests)), list[Answered]()
        self._quota = KILLS_AT_ONCE
        for each in self._processes:
            self._arm(each)
        while todo or any(each.hand for each in self._processes):
            for each in self._processes:
                while todo and len(each.hand) < IN_HAND:
                    each.give(*todo.popleft())
            ready = wait([each.connection for each in self._processes], SILENCE)
            if not ready:
                raise TimeoutError(f"nobody answered for {SILENCE:.0f} s")
            for index, each in enumerate(self._processes):
                if each.connection in ready:
                    self._hear(index, each, todo, answered)
        return answered

    def _hear(self, index: int, each: _Process, todo: deque[tuple[int, Request]], answered: list[Answered]) -> None:
        """Read an answer, or learn of a death: another process begins, and what was in hand comes again."""
        try:
            answer: Answer = each.connection.recv()
        except (EOFError, OSError):
            self._processes[index] = self._buried(each)
            self._again += len(each.hand)
            for request in each.hand.values():
                self._repeat(request)
            todo.extendleft(each.hand.items())
            return
        request = each.hand.pop(answer.request)
        if answer.failure is not None:
            self._refused.append(answer.failure)
            todo.append((answer.request, request))
            return
        answered.append(Answered(request, answer.profiles))
        each.answered += 1
        if each.answered > PATIENCE:
            self._arm(each)
        if self._random.random() < TWICE:
            self._repeat(request)
            todo.append((answer.request, request))

    def _repeat(self, request: Request) -> None:
        if not isinstance(request, Erasure):
            self._twice.update(request)

    def _buried(self, dead: _Process) -> _Process:
        """Note where a process has died; return the one that comes after it."""
        dead.process.join()
        if dead.process.exitcode != -signal.SIGKILL or dead.order is None:
            raise RuntimeError(f"a process ended by itself: {dead.process.exitcode}")
        dead.connection.close()
        self._hits[dead.order.step, dead.order.position] += 1
        self._quota -= 1
        self._told(self._hits.total())
        new = _Process(self._url)
        self._arm(new)
        return new

    def _arm(self, process: _Process) -> None:
        """Tell a process where to die: where fewest have died or are about to, or anywhere."""
        if self._quota <= 0 or (self._hits.total() >= self._wanted and not self._missed()):
            return
        waiting = Counter((one.order.step, one.order.position) for one in self._processes if one.order is not None)
        every = [(step, position) for step in STEPS for position in POSITIONS]
        self._random.shuffle(every)
        if self._random.random() < 0.7:
            every.sort(key=lambda one: self._hits[one] + waiting[one])
        process.tell(Order(*every[0], skip=self._random.choice((0, 0, 1))))


def run(
    url: str,
    kills: int,
    *,
    seed: int = 1,
    everywhere: bool = True,
    told: Callable[[int], None] = lambda kills: None,  # noqa: ARG005 - the default does nothing
) -> Outcome:
    """
    Let crowds of fifty people come over eight processes until so many have been killed.

    *everywhere*: and until somebody was killed in every step, before, in and after it.
    """
    return Crowd(url, seed, kills, told, everywhere=everywhere).run()
