"""An effect of a rule: one action for one person, pinned when the gate let it pass."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from emarsys_cdp_hooks import Json, Value


class Sending(Struct, frozen=True, array_like=True, gc=False):
    """
    How far the sending of an effect has come.

    *pinned*: its options name everything by Emarsys' ids, and stay so. *posted* is when the host was given it (ms), 0
    never. *held*: it waits for somebody to mend a name or a setting. *unclear* counts the tries of which nobody knows
    whether Emarsys has taken them.
    """

    pinned: bool = False
    posted: int = 0
    held: bool = False
    unclear: int = 0


UNSENT: Final = Sending()


class Effect(Struct, frozen=True, array_like=True, gc=False):
    """
    Something to do in Emarsys for one person.

    *id* is 128 bits in hex that derive from the start call (semantics, amendment 6); it is the trigger_id. *pid* is the
    profile in whose shard the effect is kept. *do* and *options* are those of the rule's action, *data* the captured
    variables. *key* is the contact's value of Emarsys field *key_field*. *due* is the fire time F (ms), the event_time
    of a trigger; *emitted* is when the gate let it pass (ms). *passage* names what passed the gate together, *number*
    is the position in it: effects of one passage are done in order. *stops*: when this one fails for good, those after
    it are dropped. *fresh*: the contact may not exist in Emarsys yet. *sending* is the sender's own.
    *zone* is the person's time zone as a call gave it, as far as quiet hours ask for it.
    """

    id: str
    space: str
    pid: str
    rule: str
    version: int
    instance: str
    row: str
    do: str
    options: dict[str, Json]
    data: dict[str, Value]
    key_field: str
    key: str
    due: int
    emitted: int
    passage: str
    number: int
    stops: bool = False
    fresh: bool = False
    sending: Sending = UNSENT
    zone: str = ""


_decoder = msgspec.msgpack.Decoder(Effect)


def pack_effect(effect: Effect) -> bytes:
    """Return the stored form of an effect."""
    return msgspec.msgpack.encode(effect)


def unpack_effect(stored: bytes) -> Effect:
    """
    Return the effect of a stored form.

    Raises:
        msgspec.MsgspecError: it is none.

    """
    return _decoder.decode(stored)
