"""What becomes of one row of a request to Emarsys: delivered, dropped for good, or to be sent again."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Delivered(Struct, frozen=True):
    """Emarsys has taken the row; *note* is a warning worth showing (the event is connected to nothing, say)."""

    note: str = ""


class Dropped(Struct, frozen=True):
    """Emarsys will never take the row as it is, so it is not sent again; *reason* says what has to be mended."""

    reason: str


class Retry(Struct, frozen=True):
    """
    The row has not been taken for now and is sent again, not before *at* (ms since 1970 UTC).

    Without *at* the sender's back-off says when. *lasting*: nothing about the row is wrong, so it is not given up
    however long it takes (rate limit, API Key refused, permission missing); otherwise a number of tries is enough.
    """

    reason: str
    at: int | None = None
    lasting: bool = False


Outcome: TypeAlias = Delivered | Dropped | Retry
