"""
The store's part for timers and effects: values that go in and out of it.

A profile's timer and its effects are in the profile's shard, so one command commits them with the record. An effect is
in one of these states:

| state | meaning | what may happen next |
|---|---|---|
| waiting | not sent yet | lease, withdraw, hand out |
| leased | somebody is sending it, until a time | settle; when the time is over: lease |
| handed | given to the host as an answer to a job | hand out again to that job |
| sent | Emarsys has taken it | nothing; it is kept for a time |
| dead | it will never be sent as it is | requeue, or nothing |
| withdrawn | a stop came before it was sent | commit of the same effect makes it wait again |
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

QUEUED: Final = "queued"
"""Waiting or leased: what `Store.list_effects` lists besides the dead."""

WAITING, LEASED, HANDED, SENT, DEAD, WITHDRAWN = "waiting", "leased", "handed", "sent", "dead", "withdrawn"

EFFECT_SECONDS: Final = 30 * 24 * 3600
"""An effect that is sent, handed out, dead or withdrawn is kept for this long (design.md section 1)."""


class Posting(Struct, frozen=True, gc=False):
    """An effect that a commit adds: its id, its content, and when (ms) it is to be sent. One that is there stays."""

    id: str
    content: bytes
    due: int


class EffectRef(Struct, frozen=True, gc=False):
    """Where an effect is: the shard of the profile that it was emitted for, and its id."""

    shard: int
    id: str


class StoredEffect(Struct, frozen=True, gc=False):
    """
    An effect as it is stored.

    *holder*: who has leased it, or the job it was handed to. *until* (ms): when the lease ends; of a waiting one when
    it is to be sent. *tries* counts leases. *note* says what became of the last try, *changed* (ms) when.
    """

    ref: EffectRef
    state: str
    content: bytes
    holder: str = ""
    until: int = 0
    tries: int = 0
    note: str = ""
    changed: int = 0


class Settlement(Struct, frozen=True, gc=False):
    """
    What becomes of an effect that *holder* has leased.

    *state*: sent, dead, waiting (Emarsys has certainly not taken it; it can be withdrawn again) or leased (nobody
    knows: it stays sent for whoever would withdraw it, and may be leased again from *due* on). *content*: replaces
    what is stored, when set.
    """

    ref: EffectRef
    holder: str
    state: str
    due: int = 0
    note: str = ""
    content: bytes | None = None
