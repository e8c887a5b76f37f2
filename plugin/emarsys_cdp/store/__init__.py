"""
The store port: what the users table needs of a database, and the values that go in and out.

Two implementations, one suite of tests: `memory.MemoryStore` and `redis.RedisStore`. Every method is one
pipelined round trip and answers in the order of its arguments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from emarsys_cdp.store.outbox import EffectRef, Posting, Settlement, StoredEffect
from emarsys_cdp_hooks import RetryLater

STUB_SECONDS = 3600
"""A profile that no identifier names yet disappears after this long."""


DAY_SECONDS = 24 * 3600
ANONYMOUS_SECONDS = 30 * DAY_SECONDS
"""A profile that has neither user nor key disappears when nobody has called for this long (semantics 1.8)."""

KNOWN_SECONDS = 365 * DAY_SECONDS
"""A profile that has a user but no key disappears when nobody has called for this long (semantics 1.8)."""

SHARED_SECONDS = 90 * DAY_SECONDS
"""An anonymousId is nobody's for this long after the last call that made it so (semantics 1.8)."""

REDIRECT_SECONDS = 60 * DAY_SECONDS
"""The id of a profile that was merged into another leads there for this long (semantics 1.8)."""

CELL_SECONDS = 90 * 24 * 3600
"""A state that workers share disappears when nobody has changed it for this long."""


START = "0.0"
"""The first place of `Store.step`."""

UNCHANGED = -1
"""Seconds of a claim that leaves the time at which a row disappears as it is."""


class StoreUnavailable(RetryLater):
    """The store does not answer or refuses to write: the host keeps its calls and sends them again."""


class Commit(Struct, frozen=True, gc=False):
    """
    A profile record to write, if the stored one still has the revision *expected* (0: there is none).

    *stub*: nobody names the record yet; it disappears after `STUB_SECONDS` unless it is written again. *seconds*: how
    long it stays, 0 for ever. An empty *record* removes it. *wake*: when the person is to be looked at (ms), 0 never,
    None as before. *postings* are effects to add.
    """

    pid: str
    expected: int
    record: bytes
    stub: bool = False
    seconds: int = 0
    wake: int | None = None
    postings: tuple[Posting, ...] = ()

    @property
    def lifetime(self) -> int:
        """Seconds until the record disappears unless it is written again; 0: never."""
        return STUB_SECONDS if self.stub else self.seconds


class Claim(Struct, frozen=True):
    """
    An identifier row to set to *new*, if its content is still *old* (None: there is no row), or *new* already.

    An empty *new* removes the row. *seconds*: how long it stays, 0 for ever, `UNCHANGED` as long as it would have.
    """

    name: str
    old: bytes | None
    new: bytes
    seconds: int = 0


class Publication(Struct, frozen=True):
    """
    A document to put on a *shelf* under a *name*, if the one there still has the revision *expected* (0: none).

    It stays for ever. Revisions are positive.
    """

    shelf: str
    name: str
    expected: int
    revision: int
    content: bytes


class Store(Protocol):
    """Identifier rows and profile records. Every method may raise `StoreUnavailable`."""

    async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of identifier rows."""
        ...

    async def read_records(self, pids: Sequence[str]) -> list[bytes | None]:
        """Return stored profile records."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records by compare-and-set on their revision; tell for each whether it was written."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set identifier rows by compare-and-set on their content; tell for each whether it was set."""
        ...

    async def read_kept(self, name: str) -> bytes | None:
        """Return bytes that workers share, None when there are none or their time is over."""
        ...

    async def keep(self, contents: Mapping[str, bytes], seconds: int) -> None:
        """Keep bytes that workers share, by their names, for some seconds."""
        ...

    async def read_cell(self, name: str) -> bytes | None:
        """Return the content of a cell: a small state that all workers change together."""
        ...

    async def swap_cell(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Set a cell if its content is still *old* (None: there is none); tell whether it was set."""
        ...

    async def publish(self, publication: Publication) -> bool:
        """Put a document on a shelf by compare-and-set on its revision; tell whether it was put there."""
        ...

    async def read_shelf(self, shelf: str) -> dict[str, int]:
        """Return the revisions of the documents on a shelf by their names."""
        ...

    async def read_published(self, shelf: str, name: str) -> bytes | None:
        """Return a document of a shelf, None when there is none of this name."""
        ...

    async def lease(self, names: Sequence[str], holder: str, milliseconds: int) -> list[bool]:
        """Take names for a time, unless somebody else has them; tell for each whether *holder* has it now."""
        ...

    async def release(self, names: Sequence[str], holder: str) -> None:
        """Give names back that *holder* still has."""
        ...

    def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the id and the record of every profile of all spaces, in no order."""
        ...

    async def step(self, at: str, size: int) -> tuple[list[tuple[str, bytes]], str | None]:
        """
        Return the records among about *size* keys from a place on, and the place after them, None at the end.

        A place is `<number>.<number>`, the first one `START`. Somebody who is there all the time comes at least
        once, unless the records change their servers meanwhile.
        """
        ...

    def walk(self, step: int) -> AsyncIterator[tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]]:
        """
        Go through everything in steps of about *step* keys, whatever they are; yield the records and rows among them.

        One that is written or changes its server meanwhile may come twice or not at all.
        """
        ...

    async def seconds_left(self, names: Sequence[str]) -> list[int | None]:
        """Return how long identifier rows stay, None for ever or when that is not known."""
        ...

    async def due_timers(self, shards: Sequence[int], now: int, limit: int, again: int) -> list[str]:
        """
        Return profiles of some shards whose timers are due, at most *limit* of each shard.

        Their timers are set to *again* (ms), so that nobody else gets them before; a commit sets them anew.
        """
        ...

    async def drop_timers(self, pids: Sequence[str], again: int) -> None:
        """Remove the timers of profiles that are gone, those that still are at *again*."""
        ...

    async def timers_of(self, number: int) -> list[str]:
        """Return all profiles of a shard that have a timer."""
        ...

    async def count_timers(self) -> int:
        """Return how many timers there are."""
        ...

    async def next_timer(self) -> int | None:
        """Return the time (ms) of the first timer of all shards, None when there is none."""
        ...

    async def queued(self, shards: Sequence[int], now: int, limit: int) -> list[EffectRef]:
        """
        Return effects of some shards that are to be sent by *now* (ms), at most *limit* of each shard.

        The longest due of all of them comes first.
        """
        ...

    async def lease_effects(
        self, refs: Sequence[EffectRef], holder: str, now: int, until: int
    ) -> list[StoredEffect | None]:
        """
        Lease effects until a time (ms); None for those that others have, or that are not there.

        Those can be leased that wait and are to be sent by *now*, and those whose lease is over by then. A holder who
        has one already does not get it a second time.
        """
        ...

    async def settle_effects(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        """
        Note what became of leased effects; tell for each whether its holder still had it.

        A lease that is over is still its holder's until somebody else takes the effect. Nobody holds it afterwards.
        """
        ...

    async def withdraw_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Withdraw effects that wait; tell for each whether it is withdrawn now. One that is not there is not."""
        ...

    async def hand_out(self, ref: EffectRef, job: str, now: int) -> StoredEffect | None:
        """
        Give an effect to a job of the host: the first job that comes has it, and gets it again.

        Return the effect as it is then - state `handed` with another job's holder when somebody else has it -, None
        when there is none. A waiting or leased one is taken from the queue.
        """
        ...

    async def requeue_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Let dead effects wait again, with no tries behind them; tell for each whether it waits now."""
        ...

    async def drop_effects(self, refs: Sequence[EffectRef], note: str, now: int) -> list[bool]:
        """Make waiting effects dead, by hand; tell for each whether it is dead now."""
        ...

    async def read_effects(self, refs: Sequence[EffectRef]) -> list[StoredEffect | None]:
        """Return effects as they are stored."""
        ...

    async def list_effects(self, state: str, shards: Sequence[int], limit: int) -> list[EffectRef]:
        """
        Return effects of some shards that are `QUEUED` or `DEAD`, the oldest first, at most *limit* of each shard.

        A dead one whose time is over may still be listed; it is read as None.

        Raises:
            ValueError: *state* is another one; those are not listed.

        """
        ...

    async def remove_effects(self, refs: Sequence[EffectRef]) -> None:
        """Remove all that is known of effects, whatever their state."""
        ...

    async def size(self) -> int:
        """Return how many keys there are, whatever they are."""
        ...

    async def ping(self) -> None:
        """Do nothing but raise `StoreUnavailable` when the store does not answer."""
        ...

    async def close(self) -> None:
        """Close connections; the store is not used afterwards."""
        ...
