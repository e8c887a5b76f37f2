"""What a RudderStack server makes of a transformer's answer: the checks of `emarsys_cdp.testing`, acted upon. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from emarsys_cdp.testing.conformance import check_batch_answer, check_processor_answer, check_router_answer
from emarsys_cdp.testing.conformance_types import Breach, Rule
from emarsys_cdp.testing.fake_host.backoff import is_final
from emarsys_cdp.testing.fake_host.http_client import Response
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.values import Consequence

NULL: Final = b"null"

_UNREADABLE: Final = frozenset({Rule.STRICT_JSON, Rule.SHAPE, Rule.TYPES, Rule.REQUEST})
_THROWN_AWAY: Final = _UNREADABLE | {Rule.EVERY_JOB, Rule.FOREIGN_JOB, Rule.EMPTY_METADATA}
_LOSING: Final = frozenset({Rule.NOT_FOUND, Rule.NOT_LOST, Rule.WHOLE_STATUS})


class Found(Struct, frozen=True):
    """A breach, and what the server does about it."""

    breach: Breach
    consequence: Consequence


class Output(Struct, frozen=True):
    """
    One output of an answer for its jobs.

    *request* is the JSON of what is to be sent, *config* that of the destination's settings that came back with it.
    """

    records: tuple[Record, ...]
    status: int
    error: str = ""
    request: bytes = NULL
    config: bytes = NULL


class Verdict(Struct, frozen=True):
    """What an answer comes to: the outputs, none where it ended the server (*panicked*), and every breach."""

    outputs: tuple[Output, ...]
    found: tuple[Found, ...]
    panicked: bool = False


class _Metadata(Struct):
    job_id: int = field(name="jobId")
    message_id: str = field(name="messageId", default="")


class _Destination(Struct):
    config: Raw = field(name="Config", default_factory=lambda: Raw(NULL))


class _RouterOutput(Struct):
    metadata: list[_Metadata]
    status: int = field(name="statusCode", default=0)
    error: str | None = None
    request: Raw = field(name="batchedRequest", default_factory=lambda: Raw(NULL))
    destination: _Destination = field(default_factory=_Destination)


class _RouterAnswer(Struct):
    output: list[_RouterOutput]


class _Event(Struct):
    metadata: _Metadata
    status: int = field(name="statusCode", default=0)
    error: str | None = None
    request: Raw = field(name="output", default_factory=lambda: Raw(NULL))


def judge_router(records: Sequence[Record], request: bytes, response: Response, *, batch: bool = False) -> Verdict:
    """
    Judge an answer of /routerTransform, or of /batch (reference 1.3, rules 1 to 7).

    What breaks rule 3 is thrown away as a whole: every job gets a 500. Other breaches are only noted.
    """
    check = check_batch_answer if batch else check_router_answer
    breaches = check(request, response.status, response.headers, response.body, byte_for_byte=False)
    found = [Found(breach, _at_router(breach)) for breach in breaches]
    if response.status != HTTPStatus.OK:
        status = HTTPStatus.NOT_FOUND if response.status == HTTPStatus.NOT_FOUND else HTTPStatus.INTERNAL_SERVER_ERROR
        return _alike(records, status, _text(response), found)
    if any(one.consequence is Consequence.PANIC for one in found):
        return Verdict((), tuple(found), panicked=True)
    reason = next((one.breach for one in found if one.consequence is Consequence.THROWN_AWAY), None)
    if reason is not None:
        return _alike(records, HTTPStatus.INTERNAL_SERVER_ERROR, f"answer thrown away: {reason}", found)
    try:
        outputs = _router_outputs(records, response.body, batch=batch)
    except (msgspec.MsgspecError, KeyError) as error:
        breach = Breach(Rule.STRICT_JSON, f"the body cannot be read: {error}")
        found.append(Found(breach, Consequence.THROWN_AWAY))
        return _alike(records, HTTPStatus.INTERNAL_SERVER_ERROR, f"answer thrown away: {breach}", found)
    return Verdict(outputs, tuple(found))


def _at_router(breach: Breach) -> Consequence:
    place = breach.message.partition(" ")[0]
    if breach.rule == Rule.API_VERSION:
        return Consequence.PANIC
    if breach.rule in _THROWN_AWAY and ".batchedRequest" not in place:
        return Consequence.THROWN_AWAY
    return Consequence.LOST if breach.rule in _LOSING else Consequence.NOTED


def _alike(records: Iterable[Record], status: int, error: str, found: Iterable[Found]) -> Verdict:
    return Verdict(tuple(Output((record,), status, error) for record in records), tuple(found))


def _text(response: Response) -> str:
    return response.body.decode("utf-8", "replace")


def _router_outputs(records: Sequence[Record], body: bytes, *, batch: bool) -> tuple[Output, ...]:
    known = {record.id: record for record in records}
    if batch:
        answer = msgspec.json.decode(body, type=list[_RouterOutput])
    else:
        answer = msgspec.json.decode(body, type=_RouterAnswer).output
    outputs = [
        Output(
            tuple({entry.job_id: known[entry.job_id] for entry in output.metadata}.values()),
            output.status,
            output.error or "",
            bytes(output.request),
            bytes(output.destination.config),
        )
        for output in answer
    ]
    return tuple(sorted(outputs, key=lambda output: min(record.place for record in output.records)))


def judge_processor(records: Sequence[Record], request: bytes, response: Response) -> Verdict:
    """
    Judge an answer of /v0/destinations/<type> with a status that ends the request (reference 1.4).

    The outputs are in the order of the answer, which may have several for one job; a job without any is lost.
    """
    found = processor_breaches(request, response)
    if response.status != HTTPStatus.OK:
        return _alike(records, response.status, _text(response), found)
    if any(one.consequence is Consequence.PANIC for one in found):
        return Verdict((), tuple(found), panicked=True)
    known = {(record.id, record.call["messageId"]): record for record in records}
    try:
        answer = msgspec.json.decode(response.body, type=list[_Event])
    except msgspec.MsgspecError as error:
        unreadable = Found(Breach(Rule.STRICT_JSON, f"the body cannot be read: {error}"), Consequence.PANIC)
        return Verdict((), (*found, unreadable), panicked=True)
    outputs = [
        Output((known[name],), event.status, event.error or "", bytes(event.request))
        for event in answer
        if (name := (event.metadata.job_id, event.metadata.message_id)) in known
    ]
    answered = {output.records[0].id for output in outputs}
    dropped = [Output((record,), 0, "the answer lacks it") for record in records if record.id not in answered]
    return Verdict((*outputs, *dropped), tuple(found))


def processor_breaches(request: bytes, response: Response) -> list[Found]:
    """Return the breaches of an answer of /v0/destinations/<type>, whatever its status."""
    ends = is_final(response.status)
    breaches = check_processor_answer(request, response.status, response.headers, response.body, byte_for_byte=False)
    return [Found(breach, _at_processor(breach, ends=ends)) for breach in breaches]


def _at_processor(breach: Breach, *, ends: bool) -> Consequence:
    place = breach.message.partition(" ")[0]
    if breach.rule == Rule.API_VERSION or (breach.rule in _UNREADABLE and ".output" not in place):
        return Consequence.PANIC
    lost = breach.rule in (*_LOSING, Rule.ANSWERED) and ends
    return Consequence.LOST if lost else Consequence.NOTED
