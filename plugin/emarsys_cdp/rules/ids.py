"""
Ids of instances and effects: of what calls say, never of a profile, so that they survive merges and a loss of state.

Semantics, amendment 6: 128 bits of SHA-256 in hex.
"""

from __future__ import annotations

from hashlib import sha256


def instance_id(space: str, rule: str, start: str, who: str, transaction: str | None) -> str:
    """Return the id of an instance: *start* is the messageId of its start call, *who* the person as it names it."""
    return _digest(space, rule, start, who, transaction or "")


def effect_id(instance: str, seq: str, row: str, number: int) -> str:
    """Return the id of an effect: the sequence and id of its row, and the position of its action there."""
    return _digest(instance, seq, row, str(number))


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
