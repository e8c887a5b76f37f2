"""Collects what is wrong in a document while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Problem

T = TypeVar("T")

MAX_SHOWN = 30
"""Most names that a message lists."""


class TooMany(Exception):
    """There are so many problems that looking for more helps nobody."""


class Findings:
    """
    The problems found so far, each with its place. *most*: as soon as there are more, the reading ends.

    *patterns* counts the regular expressions that were read: each may take half a megabyte for as long as it is used.
    """

    def __init__(self, most: int | None = None) -> None:
        self.problems: list[Problem] = []
        self.patterns = 0
        self._most = most

    def add(self, place: str, message: str) -> None:
        """
        Note a problem.

        Raises:
            TooMany: there are enough.

        """
        if len(self.problems) == self._most:
            raise TooMany
        self.problems.append(Problem(place, message))

    def attempt(self, place: str, action: Callable[[], T]) -> T | None:
        """Return what an action returns; a ValueError of it is a problem of this place, and None is returned."""
        try:
            return action()
        except ValueError as error:
            self.add(place, str(error))
            return None


def unknown(value: object, kind: str, known: Iterable[str]) -> str:
    """Return the message for a name that is not known: the nearest one, or all there are."""
    names = list(dict.fromkeys(known))
    near = get_close_matches(value, names, n=1) if isinstance(value, str) else []
    if near:
        return f"{shorten(value)} is no {kind}: did you mean {near[0]}?"
    shown = ", ".join(names[:MAX_SHOWN]) + (", …" if len(names) > MAX_SHOWN else "")
    return f"{shorten(value)} is no {kind}; known are {shown or 'none'}"
