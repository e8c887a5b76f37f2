"""The calls of a person as rules look at them: semantics.md 1.1, 2.6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.model.profiles import Version
from tests.model.reading import Json


@dataclass(frozen=True, eq=False)
class Entry:
    """
    A call that counted.

    `time` is its event time, `seen` when the service took it first; `turn` numbers calls and sendings in the order in
    which they happened, so that of two at one instant it is known which came first. `values` are those of the data
    maps, as they are shown.
    """

    type: str
    time: int
    mid: str
    seen: int
    turn: int
    values: Mapping[str, Json]

    @property
    def version(self) -> Version:
        """The place in the total order of calls."""
        return self.time, self.mid


Log = Sequence[Entry]
"""Calls in their total order, each messageId once."""


def united(one: Log, other: Log) -> list[Entry]:
    """Return two logs as one. *Chosen*: of two calls with one messageId the one that came first stays."""
    entries: dict[str, Entry] = {}
    for entry in sorted([*one, *other], key=lambda entry: entry.turn):
        entries.setdefault(entry.mid, entry)
    return sorted(entries.values(), key=lambda entry: entry.version)


def last_value(log: Log, name: str, *, before: Version | None = None, until: Version | int | None = None) -> Json:
    """Return the last value of a data map, before a call, or until one, or until a time; None for none."""
    found = None
    for entry in log:
        if before is not None and entry.version >= before:
            break
        if isinstance(until, int) and entry.time > until:
            break
        if isinstance(until, tuple) and entry.version > until:
            break
        found = entry.values.get(name, found)
    return found
