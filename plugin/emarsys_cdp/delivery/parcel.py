"""What is sent together, and what becomes of each row of it."""

from __future__ import annotations

from msgspec import Struct

from emarsys_cdp.emarsys.outcomes import Outcome

Version = tuple[int, str]
"""Event time (ms since 1970 UTC) and messageId of a call: what orders the calls of a person."""


class RowOrigin(Struct, frozen=True, array_like=True, gc=False):
    """
    Where a row of a request comes from.

    *pid* is the person's profile (None: unknown), *versions* are those of the calls that it carries, *jobs* the host's
    numbers of them.
    """

    pid: str | None = None
    versions: tuple[Version, ...] = ()
    jobs: tuple[int, ...] = ()


class Sent(Struct, frozen=True):
    """
    What became of one row.

    *status* is the HTTP status that Emarsys answered with, 0 when there was no answer. *alone*: the row should be sent
    again without the others, since nobody knows which of them is to blame. *missing*: Emarsys has no such contact, and
    the row was dropped for that.
    """

    outcome: Outcome
    status: int = 0
    alone: bool = False
    missing: bool = False
