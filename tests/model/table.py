"""What a users table can do, and the steps that are done to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Json: TypeAlias = Any


class UsersTable(Protocol):
    """
    The users table of one space. Times are milliseconds since 1970.

    A profile is `{"user", "key", "anons", "former"}`, the lists sorted; profiles are sorted by these four, with a
    missing user or key before all others, and are without the profiles of devices that belong to nobody.
    """

    def call(self, message: Mapping[str, Json], arrival: int) -> str:
        """Take a call in: `ok`, `duplicate` (counted as well, but its person had this messageId), or `dropped`."""

    def erase(self, kind: str, value: str, mode: str, now: int) -> None:
        """Erase the person behind an identifier (`user`, `key`, `anon`); the mode is `delete` or `suppress`."""

    def unsuppress(self, kind: str, value: str) -> None:
        """Take the calls of a suppressed person again."""

    def profiles(self) -> list[dict[str, Json]]:
        """Return all profiles."""

    def values(self) -> list[dict[str, Json]]:
        """Return all profiles, each with `values` as well: for each data map that has one, the last value."""

    def shared(self) -> list[str]:
        """Return the anonymousIds that belong to nobody, sorted."""

    def warnings(self) -> list[str]:
        """Return the codes of all warnings so far, in the order of the calls."""


Make: TypeAlias = Callable[[Mapping[str, Json]], UsersTable]
"""Makes an empty users table of a space with this document."""


@dataclass(frozen=True)
class Call:
    """A call arrives. A redelivery is the same call once more, with the arrival of the first time."""

    message: Mapping[str, Json]
    arrival: int


@dataclass(frozen=True)
class Erase:
    """A person is erased."""

    kind: str
    value: str
    mode: str
    now: int


@dataclass(frozen=True)
class Unsuppress:
    """A suppression ends."""

    kind: str
    value: str


Step: TypeAlias = Call | Erase | Unsuppress


def do(table: UsersTable, step: Step) -> str:
    """Do one step; return the result of a call, and `ok` for the others."""
    if isinstance(step, Call):
        return table.call(step.message, step.arrival)
    if isinstance(step, Erase):
        table.erase(step.kind, step.value, step.mode, step.now)
    else:
        table.unsuppress(step.kind, step.value)
    return "ok"


def play(table: UsersTable, steps: Iterable[Step]) -> list[str]:
    """Do all steps; return their results."""
    return [do(table, step) for step in steps]
