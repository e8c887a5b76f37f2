"""Scripted faults: what goes wrong, for which requests, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from http import HTTPStatus
from random import Random
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.records import Json
from emarsys_cdp.testing.fake_emarsys.replies import (
    BAD_GATEWAY_PAGE,
    HTML_TYPE,
    INVALID_PARAMETERS,
    INVALID_VALUE,
    TEXT_TYPE,
    TOO_MANY_REQUESTS,
    TOO_MANY_TEXT,
    UNROUTED,
    Reply,
    envelope,
)

FaultKind: TypeAlias = Literal["status", "reset", "lost", "rows", "garbage", "slow"]
_KINDS: Final = ("status", "reset", "lost", "rows", "garbage", "slow")
_STATUSES: Final = range(200, 600)

GARBAGE: Final = "<!doctype html><title>Emarsys</title><p>Please wait"
"""Body of a 200 that is no JSON."""

_ENVELOPES: Final[Mapping[int, tuple[int, str]]] = {
    HTTPStatus.BAD_REQUEST: (INVALID_PARAMETERS, "One or more parameters are invalid or missing."),
    HTTPStatus.UNAUTHORIZED: (UNROUTED, "Credentials are invalid"),
    HTTPStatus.TOO_MANY_REQUESTS: (TOO_MANY_REQUESTS, TOO_MANY_TEXT),
    HTTPStatus.INTERNAL_SERVER_ERROR: (UNROUTED, "Database connection error"),
}
_PLAIN: Final[Mapping[int, tuple[str, str]]] = {
    HTTPStatus.FORBIDDEN: ("Forbidden", TEXT_TYPE),
    HTTPStatus.BAD_GATEWAY: (BAD_GATEWAY_PAGE, HTML_TYPE),
    HTTPStatus.SERVICE_UNAVAILABLE: ("The system is overloaded for this resource.", TEXT_TYPE),
}


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Something that goes wrong.

    kind
        `status`: answered with *status* and, unless *body* is given, what Emarsys sends with it (*code* and *text* go
        into the envelope). `reset`: the connection is closed without an answer. `lost`: the request is processed, the
        answer never comes, and after *hold* seconds (None: when the client gives up) the connection is closed.
        `rows`: a 200 in which the rows of *keys* (none: all) are refused with *code* and *text*, the others done.
        `garbage`: a 200 whose body is no JSON. `slow`: done and answered as always, later.
    method, path
        Which requests: shell patterns; the path is what follows the API version, `contact`, `event/*/trigger`, or
        `oauth2/token`.
    times, skip
        How many of them, after letting *skip* pass. None: one, or with *probability* as many as there are.
    probability
        Each of them only with this probability, drawn from the fake's seeded source of chance.
    after
        The request is processed before it goes wrong. Otherwise it changes nothing. `lost`, `rows` and `slow` always
        process.
    delay
        Seconds to wait first, for any kind.
    headers
        Added to the answer, `Retry-After` for instance.
    """

    kind: FaultKind
    method: str = "*"
    path: str = "*"
    times: int | None = None
    skip: int = 0
    probability: float | None = None
    status: int = 500
    code: int | None = None
    text: str | None = None
    body: str | None = None
    headers: dict[str, str] = {}
    keys: tuple[str, ...] = ()
    delay: float = 0.0
    hold: float | None = None
    after: bool = False

    def __post_init__(self) -> None:
        """
        Check the parts.

        Raises:
            ValueError: a part is not possible; the message names it and what would be right.

        """
        if self.kind not in _KINDS:
            raise ValueError(f"kind={self.kind!r} is not known; give one of {', '.join(_KINDS)}")
        if self.status not in _STATUSES:
            raise ValueError(f"status={self.status!r} is no final HTTP status; give one from 200 to 599")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability!r} is not between 0 and 1")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times={self.times!r} is not above zero")
        if self.skip < 0 or self.delay < 0 or (self.hold or 0) < 0:
            raise ValueError("skip, delay and hold cannot be negative")
        if isinstance(self.keys, str):
            raise ValueError(f"keys={self.keys!r} is a text; give a tuple of key values")
        for name, value in self.headers.items():
            if not f"{name}{value}".isprintable() or not f"{name}{value}".isascii():
                raise ValueError(f"the header {name!r} is not of printable ASCII")

    @property
    def processes(self) -> bool:
        """Whether the request is done in spite of the fault."""
        return self.after or self.kind in ("lost", "rows", "slow")

    def problem(self) -> tuple[int, str]:
        """Return code and text of a row that fails."""
        return self.code or INVALID_VALUE, self.text or "Invalid value, as scripted"

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a request is meant; *path* is below the API version and has no slashes at its ends."""
        return fnmatchcase(method, self.method.upper()) and fnmatchcase(path, _trimmed(self.path))

    def reply(self, text_429: bool = False) -> Reply:
        """Return the wrong answer; *text_429* makes a 429 one without an envelope."""
        reply = self._reply(text_429)
        return Reply(reply.status, reply.body, reply.content_type, {**reply.headers, **self.headers})

    def _reply(self, text_429: bool) -> Reply:
        if self.kind == "garbage":
            return Reply(HTTPStatus.OK, (self.body or GARBAGE).encode(), HTML_TYPE)
        if self.body is not None:
            kind = "application/json" if self.body[:1] in ("{", "[") else TEXT_TYPE
            return Reply(self.status, self.body.encode(), kind)
        if self.code is None and self.text is None:
            if self.status in _PLAIN:
                text, content_type = _PLAIN[self.status]
                return Reply(self.status, text.encode(), content_type)
            if self.status == HTTPStatus.TOO_MANY_REQUESTS and text_429:
                return Reply(self.status, TOO_MANY_TEXT.encode(), TEXT_TYPE)
        code, text = _ENVELOPES.get(self.status, (UNROUTED, "Scripted fault"))
        return envelope(self.status, code if self.code is None else self.code, self.text or text)


def _trimmed(path: str) -> str:
    """Return a path or pattern without the API version and without slashes at its ends."""
    text = path.strip("/")
    for version in ("api/v2/", "api/v3/"):
        text = text.removeprefix(version)
    return text


class _Planned(Struct):
    """A fault with what is left of it; *left* None: there is no end."""

    fault: Fault
    skip: int
    left: int | None


class Script:
    """The faults to come, in order; chance is drawn from a source with a seed, once per request and fault."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.clear()

    def clear(self) -> None:
        """Forget all faults and begin the chances anew."""
        self._planned: list[_Planned] = []
        self._random = Random(self._seed)  # noqa: S311 - chance that can be repeated, no secret

    def add(self, faults: Iterable[Fault]) -> None:
        """Append faults."""
        for fault in faults:
            left = 1 if fault.times is None and fault.probability is None else fault.times
            self._planned.append(_Planned(fault, fault.skip, left))

    def left(self) -> list[tuple[Fault, int | None]]:
        """Return the faults that can still occur, each with how often; None: as often as chance wills."""
        return [(one.fault, one.left) for one in self._planned]

    def take(self, method: str, path: str, raw: bytes) -> Fault | None:
        """Return the fault that hits a request, and count it; the first that matches comes first."""
        trimmed = _trimmed(path)
        for one in self._planned:
            if one.fault.matches(method, trimmed) and _has_keys(one.fault, raw) and self._strikes(one):
                return one.fault
        return None

    def _strikes(self, one: _Planned) -> bool:
        if one.skip:
            one.skip -= 1
            return False
        if one.fault.probability is not None and self._random.random() >= one.fault.probability:
            return False
        if one.left is not None:
            one.left -= 1
            if not one.left:
                self._planned = [other for other in self._planned if other is not one]
        return True


def _has_keys(fault: Fault, raw: bytes) -> bool:
    """Tell whether a fault of chosen rows meets one of them in this body; any other fault does not ask."""
    if fault.kind != "rows" or not fault.keys:
        return True
    try:
        body: Json = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    if not isinstance(body, dict):
        return False
    rows = [body, *(row for name in body for row in _elements(body[name]))]
    values = (value for row in rows for value in (row.values() if isinstance(row, dict) else [row]))
    return any(str(value) in fault.keys for value in values if isinstance(value, (str, int)))


def _elements(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
