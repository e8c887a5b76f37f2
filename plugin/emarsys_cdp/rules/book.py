"""
What a person's record keeps for rules: the calls that some rule looks at, and where each rule stands.

The log and the facts of the gate are the truth. Instances are what `fold.py` makes of them; they are kept so that a
call that is the newest, as nearly all are, costs one step instead of all of them. Times are in ms since 1970 UTC.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp_hooks import StoredValue, Value

ACTIVE, DUE = "active", "due"
"""Statuses of instances that are alive."""

COMPLETED, CANCELLED, EXPIRED, SUPERSEDED = "completed", "cancelled", "expired", "superseded"
UNREACHABLE, STALE, CAPPED, FILTERED, ARCHIVED = "unreachable", "stale", "capped", "filtered", "archived"
"""
Statuses of instances that have ended; those of the second line are decided at the gate.

What is superseded is no longer in a book: another start has taken its place (semantics 1.4).
"""

SENT, RECORDED = "sent", "recorded"
"""Outcomes of the gate beside the statuses: the effects are in the outbox, or only noted (status shadow)."""

WAITS: Final = ""
"""Outcome of a passage that is still at the gate."""

TIMEOUT, NO_DATE, REPLACED = "timeout", "no_date", "replaced"
"""Why an instance has expired, or was cancelled by a new version."""

AT_ONCE: Final = 1
"""A time that is over: what has it as its next look is looked at as soon as possible."""


class Logged(Struct, frozen=True, array_like=True, gc=False):
    """
    A call that some rule looks at.

    (*time*, *message_id*) orders the calls of a person; *seen* is when it was taken first. *values* are those of the
    data maps that rules read. *opens* are the rules that it may start, with their versions then: decided once, when it
    was seen. *who* is the person as the call names it, for the ids of what it starts. *sync*: see `criteria.Facts`.
    """

    time: int
    message_id: str
    type: str
    seen: int
    values: dict[str, Value]
    opens: dict[str, int] = {}
    who: str = ""
    sync: tuple[str, ...] = ()


class Passage(Struct, frozen=True, array_like=True, gc=False):
    """
    An act stage that an instance has reached, at the gate or past it.

    *node* is its place in the plan; that of an exclude row's own actions is `~row.index`. *fire* is F; *left* is when
    the stage before it was entered. *outcome* is `WAITS` until the gate has decided. *variables* are those of then;
    None for an exit, which takes the instance's when it is sent.
    """

    node: int
    fire: int
    left: int
    outcome: str = WAITS
    variables: dict[str, Value] | None = None


class Instance(Struct, frozen=True, array_like=True, gc=False):
    """
    A run of a rule for a person, pinned to a *version*.

    *start* is the messageId of the call that opened it, at *began*. It has been standing at *node* of its plan since
    *since*. *done* are the rows of a join that have matched, *found* the times at which calls matched rows that need
    several: (row, time). *fire* is F of its exit, 0 before that. *why*: the messageId of the stop, or a reason. *ended*
    is when it ended, by the time of the calls.
    """

    id: str
    version: int
    start: str
    began: int
    node: int = 0
    since: int = 0
    status: str = ACTIVE
    transaction: str | None = None
    variables: dict[str, Value] = {}
    done: tuple[int, ...] = ()
    passages: tuple[Passage, ...] = ()
    fire: int = 0
    why: str | None = None
    ended: int = 0
    found: tuple[tuple[int, int], ...] = ()

    @property
    def alive(self) -> bool:
        """Tell that it has not ended."""
        return self.status in (ACTIVE, DUE)

    @property
    def unfinished(self) -> bool:
        """Tell that it is alive, or that something of it still waits at the gate."""
        return self.alive or any(one.outcome == WAITS for one in self.passages)


class Fact(Struct, frozen=True, array_like=True, gc=False):
    """
    What the gate has decided, or seen first, of a passage: it stays, whatever is folded later.

    *outcome* is `WAITS` while it has only been looked at; *at* is when it was decided; *sight* when it was looked at
    first. *until* is when it is to be looked at next; *held*: it waits for a key. *rows* are the rows whose actions
    were let pass, *pid* is the profile in whose shard their effects are. *sure*: they can no longer be withdrawn.
    *transaction* is that of the instance.
    """

    node: int
    outcome: str = WAITS
    at: int = 0
    sight: int = 0
    until: int = 0
    held: bool = False
    rows: tuple[int, ...] = ()
    pid: str = ""
    sure: bool = False
    transaction: str | None = None


Facts: TypeAlias = dict[str, tuple[Fact, ...]]
"""Facts by the id of their instance."""


class RuleState(Struct, frozen=True, array_like=True, gc=False):
    """
    Where one rule stands.

    *horizon* is the time up to which timers have run: a call from before it is folded anew. *wake* is when something is
    due next, 0 never. *entries* and *last_fire* are of instances that the log does not reach back to: how many, and the
    last F of their exits. *late_stops* counts stops that came after the sending.
    """

    instances: tuple[Instance, ...] = ()
    facts: Facts = {}
    horizon: int = 0
    wake: int = 0
    entries: int = 0
    last_fire: int = 0
    late_stops: int = 0


class Posted(Struct, frozen=True, array_like=True, gc=False):
    """An effect that went to the outbox: its id, the shard it is kept in, and when (ms)."""

    id: str
    shard: int
    at: int


class Book(Struct, frozen=True, array_like=True, gc=False):
    """
    All that rules need of a person.

    *log* is in the order of (time, messageId). Calls before *floor* are no longer in it. *base* are the values of
    before the log, for rules that ask what was known. *rules* are the states by the rules' ids. *stale*: everything has
    to be folded anew (two profiles became one). *doubts* are (rule, instance id) whose sent effects a stop may still
    withdraw. *wake* is the earliest of all rules, 0 never. *held*: something waits for a key. *posted* are effects that
    may still be in the outbox, whatever became of them: an erasure removes them.

    *seen* and *decided* are the last moments at which a call was seen and at which the gate decided something: of two
    in the same millisecond the later one has the greater number.
    """

    log: tuple[Logged, ...] = ()
    floor: int = 0
    base: dict[str, StoredValue] = {}
    rules: dict[str, RuleState] = {}
    stale: bool = False
    doubts: tuple[tuple[str, str], ...] = ()
    wake: int = 0
    held: bool = False
    seen: int = 0
    decided: int = 0
    posted: tuple[Posted, ...] = ()


EMPTY = Book()
