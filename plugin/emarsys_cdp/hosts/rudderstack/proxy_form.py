"""
The host's delivery requests: from bytes to a request of Emarsys with its jobs, and from outcomes to an answer. Pure.

Version 1 answers each job by itself, version 0 all of them with its HTTP status (reference: delivery proxy).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.delivery.parcel import Sent
from emarsys_cdp.emarsys.outcomes import Delivered, Dropped
from emarsys_cdp.emarsys.reply_rows import rows_of
from emarsys_cdp.hosts.rudderstack.decode import Metadata
from emarsys_cdp.settings import DEFAULT_API_BASE
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import DropCall, Request

DELIVERED: Final = 200
ABORTED: Final = 400
"""Statuses after which the host does not send a job again."""

RETRY: Final = 500
"""Sent again with growing waits, given up after three hours."""

UNREADABLE: Final = 502
"""Sent again like any 5xx: Emarsys answered 200 with something that is no answer."""

LASTING: Final = 429
"""Sent again however long it takes: the only status besides 408 by which the host never gives a job up."""

MAX_DELIVERY_BYTES: Final = 32 * 1024 * 1024
"""Largest delivery request: Emarsys itself takes at most 10 MB."""

MAX_ROWS: Final = 10_000
"""Most rows of any Emarsys request (contact list API)."""

_PATH: Final = re.compile(r"v[23]/(?P<path>[\w/-]+(?:\?[\w=&-]*)?)\Z", re.ASCII)
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class _Bodies(Struct):
    JSON: dict[str, Any] | None = None


class _Form(Struct):
    """A delivery request as the host sends it."""

    endpoint: str
    metadata: Raw
    method: str = "POST"
    type: str = "REST"
    headers: dict[str, Any] | None = None
    body: _Bodies = msgspec.field(default_factory=_Bodies)
    destinationConfig: dict[str, Any] | None = None  # noqa: N815 - names as the host sends them


class HostJob(Struct, frozen=True):
    """A job of a delivery request: its number, and the bytes to echo."""

    id: int
    raw: bytes
    space: str


class Delivery(Struct, frozen=True):
    """
    A delivery request, read.

    *endpoint* is its address as it came; *signed* are the headers that prove who sends, if it has some.
    """

    endpoint: str
    request: Request
    jobs: tuple[HostJob, ...]
    config: Mapping[str, Any]
    signed: Mapping[str, str]

    @property
    def space(self) -> str:
        """The destination that all jobs are of."""
        return self.jobs[0].space


class JobAnswer(Struct, frozen=True):
    """What the host learns of a job: a status, a text, and whether the job must come alone next time."""

    status: int
    error: str = ""
    alone: bool = False


_form = msgspec.json.Decoder(_Form)
_metadata = msgspec.json.Decoder(Metadata)
_raws = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class Undeliverable(DropCall):
    """A delivery request that can never be sent, and the jobs that learn of it."""

    def __init__(self, reason: str, jobs: tuple[HostJob, ...]) -> None:
        self.jobs = jobs
        super().__init__(reason)


def read_delivery(body: bytes, api_base: str) -> Delivery:
    """
    Return a delivery request.

    Raises:
        Undeliverable: it is not for Emarsys' API at *api_base*, or cannot be sent; the message says why.
        DropCall: it cannot be read; the message says what was expected.

    """
    if len(body) > MAX_DELIVERY_BYTES:
        raise DropCall(f"the delivery request has {len(body)} bytes: at most {MAX_DELIVERY_BYTES} are read")
    try:
        form = _form.decode(body)
        raws = _raws.decode(form.metadata) if bytes(form.metadata)[:1] == b"[" else [form.metadata]
        jobs = tuple([_job(raw) for raw in raws])
    except _UNREADABLE as error:
        raise DropCall(
            f"the delivery request cannot be read ({error}): it needs endpoint, method, body.JSON and metadata with "
            "jobIds"
        ) from error
    if not jobs:
        raise DropCall("the delivery request has no metadata: nobody would learn what became of it")
    problem = _problem(form, jobs, api_base)
    if problem is not None:
        raise Undeliverable(problem, jobs)
    request = Request(form.method.upper(), _path_of(form.endpoint, api_base) or "", form.body.JSON or {})
    return Delivery(form.endpoint, request, jobs, form.destinationConfig or {}, _signed(form.headers or {}))


def _problem(form: _Form, jobs: tuple[HostJob, ...], api_base: str) -> str | None:
    """Return why a delivery request cannot be sent, None when it can."""
    if len({job.space for job in jobs}) > 1:
        return "the delivery request has jobs of several destinations: each destination needs its own"
    if not form.body.JSON or form.type != "REST" or form.method.upper() not in _METHODS:
        return "the delivery request needs type REST, a method and a body.JSON: nothing else is ever sent to Emarsys"
    if form.body.JSON.get("external_id") and form.body.JSON.get("contacts"):
        return "the delivery request has external_id and contacts: it must be one of them, or rows would be mixed up"
    if _path_of(form.endpoint, api_base) is None:
        host = shorten(_host(form.endpoint))
        return f"{host} is no address of the Emarsys API: requests go to {api_base}/v2/ or /v3/ only"
    request = Request(form.method.upper(), _path_of(form.endpoint, api_base) or "", form.body.JSON)
    rows = len(rows_of(request))
    if rows > MAX_ROWS:
        return f"the delivery request has {rows} rows: at most {MAX_ROWS} are read"
    return None


def _job(raw: Raw) -> HostJob:
    metadata = _metadata.decode(raw)
    return HostJob(metadata.jobId, bytes(raw), metadata.destinationId or "")


def _path_of(endpoint: str, api_base: str) -> str | None:
    """
    Return the part of an address behind the API's version, None when it is not below the API of Emarsys.

    Nobody may use this service to reach other hosts.
    """
    for base in (api_base, DEFAULT_API_BASE):
        match = _PATH.match(endpoint, len(base) + 1) if endpoint.startswith(f"{base}/") else None
        if match is not None:
            return match["path"]
    return None


def _host(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).hostname or "the endpoint"
    except ValueError:
        return "the endpoint"


def _signed(headers: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in ("authorization", "x-wsse") and isinstance(value, str) and value.isprintable()
    }


def answer_of(sent: Sent) -> JobAnswer:
    """Return what the host learns of a row: 429 stays 429, 5xx stays 5xx, an unreadable 200 is a 502."""
    outcome = sent.outcome
    if isinstance(outcome, Delivered):
        return JobAnswer(DELIVERED, outcome.note or "success")
    if isinstance(outcome, Dropped):
        return JobAnswer(ABORTED, outcome.reason)
    if outcome.lasting:
        return JobAnswer(LASTING, outcome.reason, sent.alone)
    if sent.status == DELIVERED:
        return JobAnswer(UNREADABLE, outcome.reason, sent.alone)
    return JobAnswer(max(sent.status, RETRY), outcome.reason, sent.alone)


def worst(answers: Sequence[JobAnswer]) -> JobAnswer:
    """Return the answer of a job with several rows: what has to be sent again wins, then what is lost."""
    return max(answers, key=lambda one: (one.status == LASTING or one.status >= RETRY, one.status))


def encode_v1(jobs: Sequence[HostJob], answers: Sequence[JobAnswer]) -> bytes:
    """Return the answer of version 1: a status for each job, its metadata echoed."""
    overall = worst(answers)
    response = [
        {"statusCode": one.status, "error": one.error, "metadata": _alone(job) if one.alone else Raw(job.raw)}
        for job, one in zip(jobs, answers, strict=True)
    ]
    return _encode({"output": {**_output(overall), "response": response}})


def encode_v0(answers: Sequence[JobAnswer]) -> tuple[int, bytes]:
    """Return the HTTP status of version 0, which is that of every job, and its body."""
    overall = worst(answers)
    return overall.status, _encode({"output": _output(overall)})


def _output(overall: JobAnswer) -> dict[str, Any]:
    output: dict[str, Any] = {
        "status": overall.status,
        "message": overall.error,
        "destinationResponse": {"status": overall.status, "response": overall.error},
    }
    if overall.status != DELIVERED:
        output["statTags"] = _tags(overall.status)
    return output


def _tags(status: int) -> dict[str, str]:
    kind = "throttled" if status == LASTING else "retryable" if status >= RETRY else "aborted"
    return {
        "errorCategory": "network",
        "errorType": kind,
        "destType": "EMARSYS",
        "module": "destination",
        "implementation": "emarsys-cdp",
        "feature": "dataDelivery",
    }


def _alone(job: HostJob) -> dict[str, Any]:
    return {**_object.decode(job.raw), "dontBatch": True}
