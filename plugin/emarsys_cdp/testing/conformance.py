"""
The host's verdict: whether a RudderStack server would accept an answer of a transformer.

A server throws the whole answer away over one fault and tries again for ever, without a word in its log; at
the processor stage it loses the calls. So the checks find every breach of an answer, not the first. Where a part
of the request cannot be read, they judge by the rest: the inputs that can be read are answered as ever, and each
input that names no job is refused alone.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TypeAlias

from msgspec import UNSET

from emarsys_cdp.testing.conformance_requests import batch_breaches, request_breaches
from emarsys_cdp.testing.conformance_types import (
    DESTINATION_KINDS,
    METADATA_KINDS,
    OUTPUT_KINDS,
    Breach,
    Json,
    Kind,
    Rule,
    difference,
    is_integer,
    shown,
    type_breaches,
)
from emarsys_cdp.testing.conformance_wire import (
    Asked,
    Job,
    header,
    read_outputs,
    read_request,
    version_breaches,
)

FILTERED = 298
DELIVER = (0, HTTPStatus.OK)
RETRIED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)

Known: TypeAlias = Mapping[int, Sequence[Job]]
"""The jobs of a request by their jobId."""


def check_router_answer(
    request: bytes, status: int, headers: Mapping[str, str], body: bytes, *, byte_for_byte: bool = True
) -> tuple[Breach, ...]:
    """
    Return the breaches of an answer of /routerTransform; none where the server takes it.

    *byte_for_byte*: the metadata of every job must stand in the body as it stands in the request.
    """
    return tuple(_router(request, status, headers, body, name="output", byte_for_byte=byte_for_byte))


def check_batch_answer(
    request: bytes, status: int, headers: Mapping[str, str], body: bytes, *, byte_for_byte: bool = True
) -> tuple[Breach, ...]:
    """Return the breaches of an answer of /batch: as of /routerTransform, but the body is the bare array."""
    return tuple(_router(request, status, headers, body, name="", byte_for_byte=byte_for_byte))


def check_processor_answer(
    request: bytes, status: int, headers: Mapping[str, str], body: bytes, *, byte_for_byte: bool = True
) -> tuple[Breach, ...]:
    """Return the breaches of an answer of /v0/destinations/<type>, where a status can lose calls."""
    return tuple(_processor(request, status, headers, body, byte_for_byte=byte_for_byte))


def expect(breaches: Iterable[Breach]) -> None:
    """
    Do nothing where there are no breaches.

    Raises:
        AssertionError: there are some; lists them, one a line.

    """
    lines = [str(breach) for breach in breaches]
    if lines:
        raise AssertionError("\n".join(lines))


def _router(
    request: bytes, status: int, headers: Mapping[str, str], body: bytes, *, name: str, byte_for_byte: bool
) -> Iterator[Breach]:
    if status == HTTPStatus.NOT_FOUND:
        yield Breach(Rule.NOT_FOUND, "the status is 404: the host aborts every job of the request")
    if status != HTTPStatus.OK:
        return
    yield from version_breaches(headers)
    asked = read_request(request, body, bare=False)
    outputs = read_outputs(body, name, asked)
    if isinstance(outputs, Breach):
        yield outputs
    elif asked is None or _is_of_nobody(asked, outputs):
        yield _unreadable()
    else:
        known = _by_id(asked.jobs)
        for index, output in _judged(asked, outputs):
            yield from _output(output, f"{name}[{index}]", known)
        yield from _every_job(known, outputs, name)
        yield from _nameless_answered(asked, outputs, Rule.EVERY_JOB)
        yield from _verbatim(asked.jobs, body) if byte_for_byte else ()


def _unreadable() -> Breach:
    return Breach(Rule.REQUEST, "the status is 200, but the request is unreadable or of the wrong shape")


def _by_id(jobs: Iterable[Job]) -> Known:
    known: defaultdict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        known[job.metadata["jobId"]].append(job)
    return dict(known)


def _judged(asked: Asked, outputs: Sequence[Mapping[str, Json]]) -> list[tuple[int, Mapping[str, Json]]]:
    """Return the outputs, by their index, that are no refusal of an input that names no job."""
    return [pair for pair in enumerate(outputs) if not _refuses_nameless(asked, pair[1])]


def _refuses_nameless(asked: Asked, output: Mapping[str, Json]) -> bool:
    """Tell whether an output is final, has an error, and echoes an input without a jobId, or `{}` for it."""
    metadata, status = output.get("metadata"), output.get("statusCode")
    (entry,) = metadata if isinstance(metadata, list) and len(metadata) == 1 else (metadata,)
    refused = is_integer(status) and _is_final(output["statusCode"]) and bool(output.get("error"))
    return refused and bool(asked.nameless) and (entry == {} or entry in asked.nameless)


def _is_of_nobody(asked: Asked, outputs: Sequence[Mapping[str, Json]]) -> bool:
    """Tell whether no input names a job, and yet an output is more than a refusal of one."""
    return not asked.jobs and bool(asked.nameless) and bool(_judged(asked, outputs))


def _nameless_answered(asked: Asked, outputs: Sequence[Mapping[str, Json]], rule: Rule) -> Iterator[Breach]:
    refusals, inputs = len(outputs) - len(_judged(asked, outputs)), len(asked.nameless)
    if refusals != inputs:
        yield Breach(rule, f"{inputs} inputs name no job, but {refusals} outputs refuse one")


def _output(output: Mapping[str, Json], place: str, known: Known) -> Iterator[Breach]:
    yield from type_breaches(output, OUTPUT_KINDS, place)
    metadata = output.get("metadata", UNSET)
    if not isinstance(metadata, list) or not metadata:
        found = shown(metadata, f"{place}.metadata")
        yield Breach(Rule.EMPTY_METADATA, f"{place}.metadata must be an array of jobs, is {found}")
    else:
        for index, entry in enumerate(metadata):
            yield from _router_metadata(entry, f"{place}.metadata[{index}]", known)
    yield from _destination(output, f"{place}.destination", known)
    if output.get("statusCode") in DELIVER:
        yield from batch_breaches(output.get("batchedRequest", UNSET), f"{place}.batchedRequest")
    yield from _error(output, place)


def _router_metadata(entry: Json, place: str, known: Known) -> Iterator[Breach]:
    if not isinstance(entry, dict):
        yield Breach(Rule.TYPES, f"{place} must be an object, is {shown(entry, place)}")
        return
    jobs = known.get(entry["jobId"], ()) if is_integer(entry.get("jobId")) else ()
    yield from _echo_breaches(entry, [job.metadata for job in jobs], METADATA_KINDS, place)
    if not is_integer(entry.get("jobId")):
        return
    if not jobs:
        yield Breach(Rule.FOREIGN_JOB, f"{place}.jobId is {entry['jobId']}, which the request does not have")
    elif all(found := [difference(entry, job.metadata, place) for job in jobs]):
        yield Breach(Rule.METADATA, str(found[0]))


def _echo_breaches(
    value: Mapping[str, Json], given: Iterable[Mapping[str, Json]], kinds: Mapping[str, Kind], place: str
) -> Iterator[Breach]:
    """Yield the breaches of an echo's types that are not the request's own."""
    own = {breach for one in given for breach in type_breaches(one, kinds, place)}
    yield from (breach for breach in type_breaches(value, kinds, place) if breach not in own)


def _destination(output: Mapping[str, Json], place: str, known: Known) -> Iterator[Breach]:
    destination = output.get("destination", UNSET)
    if not isinstance(destination, dict):
        yield Breach(Rule.DESTINATION, f"{place} must be an object, is {shown(destination, place)}")
        return
    asked = {job_id: [job.destination for job in known[job_id]] for job_id in _job_ids(output) if job_id in known}
    asked = {job_id: [] if None in named else named for job_id, named in asked.items()}
    every = [given for named in asked.values() for given in named]
    if every or not asked:
        yield from _echo_breaches(destination, every, DESTINATION_KINDS, place)
    here = destination.get("ID")
    for job_id, named in asked.items():
        if named and all(given.get("ID") != here for given in named):
            what = f"jobId {job_id} is of {named[0].get('ID')!r}"
            yield Breach(Rule.ONE_DESTINATION, f"{place}.ID is {shown(here, place)}, but {what}")
    found = [difference(destination, given, place) for given in every if given.get("ID") == here]
    if found and all(found):
        yield Breach(Rule.DESTINATION, str(found[0]))


def _job_ids(output: Mapping[str, Json]) -> set[int]:
    metadata = output.get("metadata")
    entries = [entry for entry in metadata if isinstance(entry, dict)] if isinstance(metadata, list) else []
    return {entry["jobId"] for entry in entries if is_integer(entry.get("jobId"))}


def _error(output: Mapping[str, Json], place: str) -> Iterator[Breach]:
    status, error = output.get("statusCode"), output.get("error", UNSET)
    failed = is_integer(status) and output["statusCode"] >= HTTPStatus.MULTIPLE_CHOICES
    if failed and (error is UNSET or error in ("", None)):
        found = shown(error, f"{place}.error")
        yield Breach(Rule.ERROR, f"{place}.error must say why the statusCode is {status}, is {found}")


def _every_job(known: Known, outputs: Sequence[Mapping[str, Json]], name: str) -> Iterator[Breach]:
    places: defaultdict[int, list[str]] = defaultdict(list)
    for index, output in enumerate(outputs):
        for job_id in _job_ids(output):
            places[job_id].append(f"{name}[{index}]")
    for job_id, jobs in known.items():
        if not 1 <= len(places[job_id]) <= len(jobs):
            found = ", ".join(places[job_id]) or "no output"
            yield Breach(Rule.EVERY_JOB, f"jobId {job_id} must be in one output, is in {found}")


def _verbatim(jobs: Iterable[Job], body: bytes) -> Iterator[Breach]:
    for job in jobs:
        if job.raw not in body:
            what = f"input[{job.index}].metadata (jobId {job.metadata['jobId']})"
            yield Breach(Rule.VERBATIM, f"the bytes of {what} are not in the answer")


def _processor(
    request: bytes, status: int, headers: Mapping[str, str], body: bytes, *, byte_for_byte: bool
) -> Iterator[Breach]:
    asked = read_request(request, body, bare=True)
    if status != HTTPStatus.OK:
        yield from _whole_status(status, headers, asked)
        return
    yield from version_breaches(headers)
    outputs = read_outputs(body, "", asked)
    if isinstance(outputs, Breach):
        yield outputs
    elif asked is None or _is_of_nobody(asked, outputs):
        yield _unreadable()
    else:
        judged = _judged(asked, outputs)
        for index, output in judged:
            yield from _event(output, f"[{index}]")
        yield from _in_order(asked.jobs, judged)
        yield from _nameless_answered(asked, outputs, Rule.ANSWERED)
        yield from _verbatim(asked.jobs, body) if byte_for_byte else ()


def _whole_status(status: int, headers: Mapping[str, str], asked: Asked | None) -> Iterator[Breach]:
    asks = header(headers, "X-Rudder-Should-Retry")
    unreadable = asked is None or not asked.strict or not asked.jobs
    if status == HTTPStatus.NOT_FOUND:
        yield Breach(Rule.NOT_FOUND, "the status is 404: the host aborts every event of the request")
    elif status == HTTPStatus.SERVICE_UNAVAILABLE and asks != "true":
        found = asks or "absent"
        yield Breach(Rule.SHOULD_RETRY, f"header X-Rudder-Should-Retry of a 503 must be true, is {found}")
    elif status != HTTPStatus.SERVICE_UNAVAILABLE and not (_is_final(status) and unreadable):
        yield Breach(Rule.WHOLE_STATUS, f"the status is {status}: the host loses the events, or ends itself")


def _is_final(status: int) -> bool:
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and status not in RETRIED


def _event(output: Mapping[str, Json], place: str) -> Iterator[Breach]:
    yield from type_breaches(output, OUTPUT_KINDS, place)
    yield from _error(output, place)
    status = output.get("statusCode")
    if status == HTTPStatus.OK:
        yield from _event_request(output.get("output", UNSET), f"{place}.output")
    elif is_integer(status) and status != FILTERED and not _is_final(output["statusCode"]):
        what = "is aborted at the processor stage, the call is lost"
        yield Breach(Rule.NOT_LOST, f"{place}.statusCode is {status}: that {what}")


def _event_request(request: Json, place: str) -> Iterator[Breach]:
    if not isinstance(request, dict):
        yield Breach(Rule.HAS_REQUEST, f"{place} must be a request, is {shown(request, place)}")
        return
    yield from request_breaches(request, place)
    if "userId" not in request:
        yield Breach(Rule.TYPES, f"{place}.userId must be a string, is absent")


def _in_order(jobs: Sequence[Job], outputs: Sequence[tuple[int, Mapping[str, Json]]]) -> Iterator[Breach]:
    inputs: defaultdict[str, list[int]] = defaultdict(list)
    for position, job in enumerate(jobs):
        inputs[_event_key(job.metadata)].append(position)
    last = 0
    for index, output in outputs:
        metadata, place = output.get("metadata", UNSET), f"[{index}].metadata"
        asked = inputs.get(_event_key(metadata), [])
        yield from _event_metadata(metadata, [jobs[position].metadata for position in asked], place)
        following = [position for position in asked if position >= last]
        if asked and not following:
            late, answered = jobs[asked[-1]].index, jobs[last].index
            yield Breach(Rule.ORDER, f"[{index}] answers input[{late}] after input[{answered}] was answered")
        last = following[0] if following else last
    yield from _answered(jobs, inputs, Counter(_event_key(output.get("metadata")) for _, output in outputs))


def _event_key(metadata: Json) -> str:
    """Two events of one gateway job have its jobId; the messageId tells them apart."""
    if not isinstance(metadata, dict):
        return ""
    return json.dumps([metadata.get("jobId"), metadata.get("messageId")])


def _event_metadata(metadata: Json, asked: Sequence[Mapping[str, Json]], place: str) -> Iterator[Breach]:
    if not isinstance(metadata, dict):
        yield Breach(Rule.METADATA, f"{place} must be an object, is {shown(metadata, place)}")
        return
    yield from _echo_breaches(metadata, asked, METADATA_KINDS, place)
    found = [difference(metadata, given, place) for given in asked]
    if not asked:
        yield Breach(Rule.METADATA, f"{place} (jobId, messageId {_event_key(metadata)}) is of no input")
    elif all(found):
        yield Breach(Rule.METADATA, str(found[0]))


def _answered(jobs: Sequence[Job], inputs: Mapping[str, Sequence[int]], answers: Mapping[str, int]) -> Iterator[Breach]:
    for key, positions in inputs.items():
        for position in positions[answers.get(key, 0) :]:
            where = f"input[{jobs[position].index}]"
            yield Breach(Rule.ANSWERED, f"{where} (jobId, messageId {key}) has no answer")
