"""
Pages of the users table: where one ends, and how the next goes on.

The store has no order, so a page goes on at a place of the server's own SCAN: everybody who is there all the time comes
at least once. A step of a scan gives whom it gives; when the page is full within a step, the place says how many of the
step's people are done, in the order of their ids, and a hash of who they are. When the step has others meanwhile, since
the server has moved its keys or somebody came, none of them counts as done: some may come twice, and nobody is missed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from emarsys_cdp.store import START
from emarsys_cdp_hooks import DropCall

STEP = 1000
"""Keys of one step."""

_WRITTEN = re.compile(r"(\d{1,4}\.\d{1,20})(?:-(\d{1,6})-([0-9a-f]{16}))?\Z", re.ASCII)


class NoPlace(DropCall):
    """What was given as the end of a page is none."""


class Place(Struct, frozen=True):
    """A place in the users table: a step *at* a place of the store, of which *done* people are done (by their hash)."""

    at: str
    done: int = 0
    whom: str = ""

    def __str__(self) -> str:
        return f"{self.at}-{self.done}-{self.whom}" if self.done else self.at

    def left(self, pids: Sequence[str]) -> int:
        """Return how many of a step's sorted people are done."""
        return self.done if hash_of(pids[: self.done]) == self.whom else 0


def read_place(text: str) -> Place:
    """
    Return the place that a text says; an empty one is the beginning.

    Raises:
        NoPlace: it is none.

    """
    if not text:
        return Place(START)
    match = _WRITTEN.match(text)
    if match is None:
        raise NoPlace("is the end of no page: give what the page before says as next")
    at, done, whom = match.groups()
    return Place(at, int(done or 0), whom or "")


def place_after(at: str, pids: Sequence[str]) -> Place:
    """Return the place after these people of the step at a place."""
    return Place(at, len(pids), hash_of(pids)) if pids else Place(at)


def hash_of(pids: Sequence[str]) -> str:
    """Return what tells these people from others."""
    return blake2b("".join(pids).encode(), digest_size=8).hexdigest()
