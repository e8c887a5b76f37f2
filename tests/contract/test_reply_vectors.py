"""
Every vector of `vectors/replies`: a request, Emarsys' reply to it, and what becomes of each row.

`reply.body` is JSON, `reply.text` a body that is none. `want.rows` are the key values, if they matter. An outcome is
`delivered`, `dropped` or `retry` with the parts that its note or reason has, in this order; without parts a note is
empty. `never` lists what stands in no reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from msgspec import UNSET, Struct, UnsetType

from emarsys_cdp.emarsys.outcomes import Delivered, Dropped, Outcome, Retry
from emarsys_cdp.emarsys.replies import MAX_REASON, Reply, read_reply, rows_of
from emarsys_cdp.emarsys.reply_codes import CODES
from emarsys_cdp_hooks import Request

Json: TypeAlias = Any
VECTORS = Path(__file__).parent / "vectors" / "replies"
NOW = 1_795_514_400_000
"""2026-11-24T10:00:00Z, the time of a vector that names none."""


class Call(Struct, forbid_unknown_fields=True):
    """The request."""

    method: str
    path: str
    body: dict[str, Json] = {}


class Answer(Struct, forbid_unknown_fields=True):
    """The reply, with a JSON body or any text."""

    status: int
    headers: dict[str, str] = {}
    body: Json | UnsetType = UNSET
    text: str = ""


class Wanted(Struct, forbid_unknown_fields=True):
    """One outcome: exactly one of the three names, with parts of what it says."""

    delivered: list[str] | UnsetType = UNSET
    dropped: list[str] | UnsetType = UNSET
    retry: list[str] | UnsetType = UNSET
    at: int | None = None
    lasting: bool = False


class Want(Struct, forbid_unknown_fields=True):
    """The verdict; what is not named is not so."""

    outcomes: list[Wanted]
    rows: list[str] | None = None
    unauthorized: bool = False
    divisible: bool = False
    outage: bool = False
    missing: list[int] = []


class Vector(Struct, forbid_unknown_fields=True):
    """A behaviour."""

    note: str
    request: Call
    reply: Answer
    want: Want
    now: int = NOW
    never: list[str] = []


def read(path: Path) -> Vector:
    """Return the vector in a file; a name that no vector has is an error."""
    return msgspec.json.decode(path.read_bytes(), type=Vector)


VECTORS_BY_NAME = {path.stem: read(path) for path in sorted(VECTORS.glob("*.json"))}


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.note) for vector in VECTORS_BY_NAME.values()])
def test_vector(vector: Vector) -> None:
    """Each row gets the outcome that the vector wants, in words that can be shown."""
    request = Request(vector.request.method, vector.request.path, vector.request.body)
    answer = vector.reply
    body = answer.text if isinstance(answer.body, UnsetType) else json.dumps(answer.body)
    verdict = read_reply(request, Reply(answer.status, answer.headers, body.encode()), vector.now)
    want = vector.want

    assert [_shown(*pair) for pair in zip(verdict.outcomes, want.outcomes, strict=True)] == want.outcomes
    assert verdict.unauthorized == want.unauthorized
    assert verdict.divisible == want.divisible
    assert verdict.outage == want.outage
    assert list(verdict.missing) == want.missing
    assert want.rows is None or list(rows_of(request)) == want.rows
    said = [_said(outcome) for outcome in verdict.outcomes]
    assert all(text.isprintable() and len(text) <= MAX_REASON for text in said)
    assert not [part for part in vector.never for text in said if part in text]


def test_every_code_has_a_vector() -> None:
    """Each reply code of the table stands in the reply of some vector."""
    replies = " ".join(json.dumps(vector.reply.body) for vector in VECTORS_BY_NAME.values() if vector.reply.body)

    assert [code for code in CODES if f'"replyCode": {code},' not in replies and f'"{code}":' not in replies] == []


def _said(outcome: Outcome) -> str:
    return outcome.note if isinstance(outcome, Delivered) else outcome.reason


def _shown(outcome: Outcome, wanted: Wanted) -> Wanted:
    """Return an outcome in the words of a vector: the wanted parts, if it has them, otherwise all that it says."""
    said = _said(outcome)
    parts = next(one for one in (wanted.delivered, wanted.dropped, wanted.retry, []) if not isinstance(one, UnsetType))
    shown = parts if _has(said, parts) else [said]
    if isinstance(outcome, Delivered):
        return Wanted(delivered=shown)
    if isinstance(outcome, Dropped):
        return Wanted(dropped=shown)
    assert isinstance(outcome, Retry)
    return Wanted(retry=shown, at=outcome.at, lasting=outcome.lasting)


def _has(said: str, parts: list[str]) -> bool:
    """Tell whether a text has all parts one after another; no parts: it is empty."""
    start = 0
    for part in parts:
        found = said.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return bool(parts) or not said
