"""
Errors by what happens next: drop the call, retry it later, or stop until somebody has mended a setting.

Raise the class whose docstring says what the host shall do. Every message names the place, the value (never a
secret) and what would be right.
"""

from __future__ import annotations

from msgspec import Struct


class Problem(Struct, frozen=True):
    """
    One thing that is wrong in a document or a setting.

    *place* is a path a person can follow (`dataMaps[2].path`), *message* says what was found and what would
    be right.
    """

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class EmarsysCdpError(Exception):
    """Base of all errors of emarsys-cdp."""


class DropCall(EmarsysCdpError):
    """The call can never succeed: the host drops it and shows the message."""


class RetryLater(EmarsysCdpError):
    """
    Something is out of order for now: the host keeps its calls and sends them again.

    *at* is when another try makes sense, in ms since 1970 UTC; None: nobody knows.
    """

    def __init__(self, message: str = "", at: int | None = None) -> None:
        self.at = at
        super().__init__(message)


class StopAndFix(EmarsysCdpError):
    """A setting is wrong: nothing of this destination is sent until somebody has mended it."""


class InvalidDocument(StopAndFix):
    """
    A document has problems; all of them are in *problems*, in the order of their places.

    *source* is the file or space that the document belongs to.
    """

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
