"""Timers and effects in Redis 7 or Valkey: the part of `redis.RedisStore` for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emarsys_cdp.store import Commit
from emarsys_cdp.store.keys import SHARDS, dead_key, effect_key, queue_key, shard, timers_key
from emarsys_cdp.store.outbox import (
    DEAD,
    EFFECT_SECONDS,
    QUEUED,
    WAITING,
    WITHDRAWN,
    EffectRef,
    Settlement,
    StoredEffect,
)
from emarsys_cdp.store.record import header
from emarsys_cdp.store.topology import Topology
from emarsys_cdp.store.wire import Command, Reply

SCRIPTS = ("post", "take_due", "drop_timer", "lease_effect", "settle", "turn", "hand_out", "remove_effect")

_FIELDS = ("state", "content", "holder", "until", "tries", "note", "changed")
"""Fields of an effect's hash, in the order in which the scripts return them; one without a value is not there."""


class RedisOutbox:
    """What a `Store` does with timers and effects. *shas* are those of `SCRIPTS`."""

    def __init__(self, topology: Topology, shas: Mapping[str, str]) -> None:
        self._topology = topology
        self._shas = shas

    def _posting(self, key: str, commit: Commit) -> Command:
        """Return the command that commits a record with its timer and effects."""
        number = shard(commit.pid)
        keys = [key, timers_key(number)]
        if commit.postings:  # while a slot of a cluster moves, a key that is not there makes a command wait
            keys += [queue_key(number), *(effect_key(number, posting.id) for posting in commit.postings)]
        effects = [part for posting in commit.postings for part in (posting.id, posting.content, posting.due)]
        expected = header(commit.expected) if commit.expected else b""
        wake = "" if commit.wake is None else commit.wake
        words = (expected, commit.record, commit.lifetime, commit.pid, wake, *effects)
        return ("EVALSHA", self._shas["post"], len(keys), *keys, *words)

    async def due_timers(self, shards: Sequence[int], now: int, limit: int, again: int) -> list[str]:
        """
        Return profiles whose timers are due, and set these to *again*.

        Two round trips where some are: only in their shards is a script run, which costs the server five times as much
        as the look that finds nothing.
        """
        keys = [timers_key(number) for number in shards]
        counts = await self._topology.run(keys, [("ZCOUNT", key, "-inf", now) for key in keys])
        keys = [key for key, count in zip(keys, counts, strict=True) if count]
        sha = self._shas["take_due"]
        due = await self._topology.run(keys, [("EVALSHA", sha, 1, key, now, limit, again) for key in keys])
        return [pid.decode() for each in due for pid in each]

    async def drop_timers(self, pids: Sequence[str], again: int) -> None:
        """Remove timers that still are at *again*."""
        keys = [timers_key(shard(pid)) for pid in pids]
        sha = self._shas["drop_timer"]
        commands = [("EVALSHA", sha, 1, key, pid, again) for key, pid in zip(keys, pids, strict=True)]
        await self._topology.run(keys, commands)

    async def timers_of(self, number: int) -> list[str]:
        """Return all profiles of a shard that have a timer."""
        key = timers_key(number)
        (found,) = await self._topology.run([key], [("ZRANGE", key, 0, -1)])
        return [pid.decode() for pid in found]

    async def count_timers(self) -> int:
        """Return how many timers there are."""
        keys = [timers_key(number) for number in range(SHARDS)]
        return sum(await self._topology.run(keys, [("ZCARD", key) for key in keys]))

    async def next_timer(self) -> int | None:
        """Return the time of the first timer."""
        keys = [timers_key(number) for number in range(SHARDS)]
        found = await self._topology.run(keys, [("ZRANGE", key, 0, 0, "WITHSCORES") for key in keys])
        return min((int(float(reply[1])) for reply in found if reply), default=None)

    async def queued(self, shards: Sequence[int], now: int, limit: int) -> list[EffectRef]:
        """Return effects that are to be sent by *now*."""
        return await self._first({number: queue_key(number) for number in shards}, str(now), limit)

    async def list_effects(self, state: str, shards: Sequence[int], limit: int) -> list[EffectRef]:
        """Return effects that are queued or dead."""
        if state not in (QUEUED, DEAD):
            raise ValueError(f"effects that are {state!r} are not listed: ask for {QUEUED!r} or {DEAD!r}")
        key_of = dead_key if state == DEAD else queue_key
        return await self._first({number: key_of(number) for number in shards}, "+inf", limit)

    async def _first(self, keys: Mapping[int, str], last: str, limit: int) -> list[EffectRef]:
        """Return the first effects of sorted sets, by their shards, in the order of their times."""
        names = list(keys.values())
        commands = [("ZRANGEBYSCORE", key, "-inf", last, "WITHSCORES", "LIMIT", 0, limit) for key in names]
        found = [
            (float(score), effect.decode(), number)
            for number, reply in zip(keys, await self._topology.run(names, commands), strict=True)
            for effect, score in zip(reply[::2], reply[1::2], strict=True)
        ]
        return [EffectRef(number, effect) for _, effect, number in sorted(found)]

    async def lease_effects(
        self, refs: Sequence[EffectRef], holder: str, now: int, until: int
    ) -> list[StoredEffect | None]:
        """Lease effects that are to be sent."""
        words = [(ref.id, holder, now, until) for ref in refs]
        replies = await self._change("lease_effect", refs, words, queue_key)
        return list(map(_read, refs, replies))

    async def settle_effects(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        """Note what became of leased effects."""
        words = [
            (one.ref.id, one.holder, one.state, one.due, one.note, now, EFFECT_SECONDS)
            + (() if one.content is None else (one.content,))
            for one in settlements
        ]
        refs = [one.ref for one in settlements]
        return [reply == 1 for reply in await self._change("settle", refs, words, queue_key, dead_key)]

    async def withdraw_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Withdraw effects that wait."""
        return await self._turn(refs, WAITING, WITHDRAWN, now)

    async def requeue_effects(self, refs: Sequence[EffectRef], now: int) -> list[bool]:
        """Let dead effects wait again."""
        return await self._turn(refs, DEAD, WAITING, now)

    async def drop_effects(self, refs: Sequence[EffectRef], note: str, now: int) -> list[bool]:
        """Make waiting effects dead."""
        return await self._turn(refs, WAITING, DEAD, now, note)

    async def _turn(self, refs: Sequence[EffectRef], old: str, new: str, now: int, *note: str) -> list[bool]:
        words = [(ref.id, old, new, now, EFFECT_SECONDS, *note) for ref in refs]
        return [reply == 1 for reply in await self._change("turn", refs, words, queue_key, dead_key)]

    async def hand_out(self, ref: EffectRef, job: str, now: int) -> StoredEffect | None:
        """Give an effect to the first job that comes, and to no other."""
        (reply,) = await self._change("hand_out", [ref], [(ref.id, job, now, EFFECT_SECONDS)], queue_key)
        return _read(ref, reply)

    async def read_effects(self, refs: Sequence[EffectRef]) -> list[StoredEffect | None]:
        """Return effects as they are stored."""
        keys = [effect_key(ref.shard, ref.id) for ref in refs]
        return list(map(_read, refs, await self._topology.run(keys, [("HMGET", key, *_FIELDS) for key in keys])))

    async def remove_effects(self, refs: Sequence[EffectRef]) -> None:
        """Remove all that is known of effects."""
        await self._change("remove_effect", refs, [(ref.id,) for ref in refs], queue_key, dead_key)

    async def _change(
        self, script: str, refs: Sequence[EffectRef], words: Sequence[tuple[Any, ...]], *others: Callable[[int], str]
    ) -> list[Reply]:
        """Run a script over each effect and *others*, keys of its shard."""
        keys = [effect_key(ref.shard, ref.id) for ref in refs]
        sha = self._shas[script]
        commands = [
            ("EVALSHA", sha, 1 + len(others), key, *(key_of(ref.shard) for key_of in others), *those)
            for key, ref, those in zip(keys, refs, words, strict=True)
        ]
        return await self._topology.run(keys, commands)


def _read(ref: EffectRef, reply: list[bytes | None] | None) -> StoredEffect | None:
    """Return the effect of the fields of its hash, None when there is none."""
    if reply is None or reply[0] is None:
        return None
    state, content, holder, until, tries, note, changed = (part or b"" for part in reply)
    numbers = int(until or 0), int(tries or 0)
    return StoredEffect(ref, state.decode(), content, holder.decode(), *numbers, note.decode(), int(changed or 0))
