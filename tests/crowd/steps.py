"""Which step of the protocol a round trip to the store is, and dying in it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from random import Random
from types import FrameType
from typing import Any, Final, NoReturn

from msgspec import Struct

from emarsys_cdp import merging, one_round, reading, settled_round, users_table, writing
from emarsys_cdp.store import Store, wire
from emarsys_cdp.store.record import unpack

BEFORE, PART, AFTER = "before", "part", "after"
POSITIONS: Final = (BEFORE, PART, AFTER)
"""
Dying before a round trip is sent, with a part of it sent, and when the store has it but the reply was not handled.

A part is some of the commands of a pipeline, or half the bytes of its only command.
"""

STEPS: Final = (
    "read rows",
    "read records",
    "look again",
    "commit",
    "commit of the remembered",
    "release",
    "claim user",
    "claim key",
    "claim device",
    "remove evicted",
    "detach: read",
    "detach: write",
    "merge 1: intent",
    "merge 2: redirect",
    "merge 3: fold",
    "merge 4: read rows",
    "merge 4: repoint",
    "merge 5: let go",
    "merge: read",
    "erase: mark",
    "erase: tombstones",
    "erase: remove",
)
"""Every step that a process is killed in. Others are rare, and leave nothing behind that these do not."""

_CLAIMS: Final = ("claim user", "claim key", "claim device")

_PLAIN: Final = {
    reading.Reading._read_rows.__code__: "read rows",
    reading.Reading._fetch.__code__: "read records",
    one_round.find_outdated.__code__: "look again",
    settled_round.Settler._write.__code__: "commit of the remembered",
    writing.Writing._release.__code__: "release",
    writing.Writing.write.__code__: "commit",
    writing.Writing._remove_evicted.__code__: "remove evicted",
    merging.Merger.read.__code__: "merge: read",
    merging.Merger.remove.__code__: "erase: remove",
}
"""Functions all of whose round trips, of their own or by a helper below them, are one step."""

_CLAIM: Final = writing.Writing._claim.__code__
_MERGE: Final = merging.Merger.merge.__code__
_FOLD: Final = merging.Merger._fold.__code__

_BY_METHOD: Final = {
    (writing.Writing._detach.__code__, "read_records"): "detach: read",
    (writing.Writing._not_back.__code__, "read_rows"): "detach: read",
    (writing.Writing._detach.__code__, "commit"): "detach: write",
    (merging.Merger._repoint.__code__, "read_rows"): "merge 4: read rows",
    (merging.Merger._repoint.__code__, "claim"): "merge 4: repoint",
    (merging.Merger._erase.__code__, "claim"): "erase: tombstones",
    (users_table.UsersTable.erase.__code__, "commit"): "erase: mark",
}
"""Functions of several steps, by the method of the store."""


def step_now(method: str, arguments: Sequence[Any]) -> str:
    """Return the step that calls the store now: the innermost function that tells, else the method's name."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        step = _step(frame, method, arguments)
        if step is not None:
            return step
        frame = frame.f_back
    return method


def _step(frame: FrameType, method: str, arguments: Sequence[Any]) -> str | None:
    code = frame.f_code
    if code is _CLAIM:
        return _CLAIMS[frame.f_locals["rank"]]
    if code is _MERGE:
        return "merge 2: redirect" if "noted" in frame.f_locals else "merge 1: intent"
    if code is _FOLD and method == "commit":
        return "merge 5: let go" if unpack(arguments[0].record)[1].folded else "merge 3: fold"
    return _BY_METHOD.get((code, method)) or _PLAIN.get(code)


class Order(Struct, frozen=True):
    """Where to die: in which step, at which position of it, after how many round trips of the step."""

    step: str
    position: str
    skip: int = 0


class Deadly:
    """A store that kills this process where the order says so."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random
        self._left = 0
        self._order: Order | None = None

    def obey(self, order: Order | None) -> None:
        """Die where this order says, not where the last one said."""
        self._order, self._left = order, order.skip if order is not None else 0

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._store, method)
        if method in ("scan", "walk", "close"):
            return real

        async def trip(arguments: Sequence[Any]) -> Any:
            order = self._order
            if order is None or step_now(method, arguments) != order.step:
                return await real(arguments)
            if self._left:
                self._left -= 1
                return await real(arguments)
            if order.position == PART and len(arguments) > 1:
                await real(arguments[: self._random.randrange(1, len(arguments))])
            elif order.position == PART:
                _cut_the_next_pipeline()
                await real(arguments)
            elif order.position == AFTER:
                await real(arguments)
            die()

        return trip


def die() -> NoReturn:
    """Kill this process as nobody can prevent."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL was survived")


def _cut_the_next_pipeline() -> None:
    """Let this process send half the bytes of the next pipeline, and die."""

    def send(self: Any, packed: bytes, count: int) -> NoReturn:
        self.transport.write(packed[: len(packed) // 2])
        die()

    wire._Protocol.send = send  # type: ignore[method-assign]
