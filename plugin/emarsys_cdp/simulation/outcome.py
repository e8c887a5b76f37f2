"""What comes out of a vector: the values that are printed, in the form of semantics.md, amendment 3."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from emarsys_cdp.store.record import Record

OK, DUPLICATE, DROPPED = "ok", "duplicate", "dropped"
"""What becomes of a step."""

CODES = (
    "id_blocked",
    "id_wrong_type",
    "id_too_long",
    "key_not_email",
    "unidentifiable",
    "key_shared",
    "anon_shared",
    "alias_refused",
    "alias_incomplete",
    "merge_limit",
)
"""Warnings in the order in which a call has them (semantics.md, amendment 3)."""


class Person(Struct, frozen=True):
    """A person of the users table as a simulation shows it; *anons* and *former* (keys) are sorted."""

    user: str | None
    key: str | None
    anons: list[str]
    former: list[str]


class Outcome(Struct, frozen=True):
    """
    What came out of a vector.

    *effects* and *instances* are those of rules. *shared* are the anonymousIds that belong to nobody, *warnings* codes
    in their order, *contradictions* the number of stops that came after the sending, *results* one for each step.
    *values* are those of the data maps of each of the profiles; only a vector that expects some has them.
    """

    name: str
    effects: list[dict[str, Any]]
    instances: list[dict[str, Any]]
    profiles: list[Person]
    shared: list[str]
    warnings: list[str]
    contradictions: int
    results: list[str]
    values: list[dict[str, Any]] | UnsetType = UNSET


def people(records: Iterable[Record]) -> list[tuple[Person, dict[str, Any]]]:
    """Return people and their values in the order of userId, key, anonymousIds and former keys."""
    found = [
        (
            Person(
                record.user,
                record.key,
                sorted(device.value for device in record.devices),
                sorted(record.former_keys),
            ),
            {name: held.value for name, held in sorted(record.values.items())},
        )
        for record in records
    ]
    return sorted(found, key=lambda one: (one[0].user or "", one[0].key or "", one[0].anons, one[0].former))
