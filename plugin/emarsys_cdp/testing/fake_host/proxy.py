"""Sending by way of the transformer: POST /v1 or /v0/destinations/<type>/proxy, to the letter of reference 1.5."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from emarsys_cdp.testing.conformance_types import Breach, Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp.testing.fake_host.backoff import is_final
from emarsys_cdp.testing.fake_host.http_client import Address, HttpClient, NoAnswer, Response
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.outcome import NO_RESPONSE, Outcome, Request
from emarsys_cdp.testing.fake_host.requests import Item, proxy_metadata
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.transform import HostRule
from emarsys_cdp.testing.fake_host.values import Consequence, Delivery
from emarsys_cdp.testing.fake_host.verdict import NULL, Output

_MILLISECONDS: Final = 1000


class _Metadata(Struct):
    job_id: int = field(name="jobId", default=0)
    dont_batch: bool = field(name="dontBatch", default=False)


class _Entry(Struct):
    status: int = field(name="statusCode", default=0)
    error: str | None = None
    metadata: _Metadata = field(default_factory=_Metadata)


class _AnswerV1(Struct):
    response: list[_Entry] | None = None
    message: str | None = None


class _AnswerV0(Struct):
    message: str | None = None


class _Whole(Struct):
    output: Raw = field(default_factory=lambda: Raw(b""))


class ProxyDelivery:
    """Hands requests to the transformer for sending. *v1*: its proxy has a status for each job."""

    def __init__(self, address: Address, client: HttpClient, run: Run, *, v1: bool) -> None:
        self._address = address
        self._client = client
        self._run = run
        self._v1 = v1

    async def send(self, requests: Sequence[Request], output: Output, items: Sequence[Item]) -> Outcome:
        """
        Hand over requests one after another and return what the last one came to.

        A retryable status of one before it turns all into 500 and ends it; no answer at all does not, and so the
        next request decides.
        """
        outcome, texts = Outcome({}, {}, sent=True), list[dict[int, str]]()
        for number, request in enumerate(requests, 1):
            outcome = await self._one(request, output, items)
            if number < len(requests) and not all(map(is_final, outcome.statuses.values())):
                failed = dict.fromkeys(outcome.statuses, int(HTTPStatus.INTERNAL_SERVER_ERROR))
                return Outcome(failed, outcome.errors, outcome.dont_batch, sent=True)
            texts.append(outcome.errors)
        joined = {job: " ".join(one.get(job, "") for one in texts) for job in outcome.errors}
        return Outcome(outcome.statuses, joined, outcome.dont_batch, sent=True)

    async def _one(self, request: Request, output: Output, items: Sequence[Item]) -> Outcome:
        path = f"/{'v1' if self._v1 else 'v0'}/destinations/{items[0].destination.type}/proxy"
        body, timeout = proxy_request(request, output, items, v1=self._v1), self._run.pace.delivery_timeout
        headers = {
            "User-Agent": "Go-http-client/1.1",
            "Content-Type": "application/json",
            "RdProxy-Timeout": str(round(timeout * _MILLISECONDS)),
            **self._address.authorization,
        }
        patience = timeout + self._run.pace.transform_timeout
        for record in output.records:
            record.error = f"in POST {path}"
        started = self._run.seconds()
        try:
            response = await self._client.request("POST", self._address.base + path, headers, body, patience)
            status, outcome = response.status, self._outcome(path, response, output.records)
            error = "" if status == HTTPStatus.OK else response.body.decode("utf-8", "replace")
        except NoAnswer as no_answer:
            status = HTTPStatus.GATEWAY_TIMEOUT if no_answer.timed_out else HTTPStatus.INTERNAL_SERVER_ERROR
            error = f"POST {path}: {no_answer}"
            outcome = nothing(output.records, error)
        self._note(request, output.records, items[0].destination.id, started, int(status), error, outcome)
        return outcome

    def _outcome(self, path: str, response: Response, records: Sequence[Record]) -> Outcome:
        if response.status == HTTPStatus.NOT_FOUND:
            self._breach(path, HostRule.PROXY_FOUND, "the status is 404", records)
            return nothing(records, f"post {path!r} not found")
        try:
            output = bytes(msgspec.json.decode(response.body, type=_Whole).output)
            read = (read_v1 if self._v1 else read_v0)(output, response.status, records)
        except msgspec.MsgspecError as error:
            self._breach(path, HostRule.PROXY_FORM, f"output cannot be read: {error}", records)
            return nothing(records, f"the proxy's answer cannot be read (HTTP {response.status})")
        if sorted(read.answered) != sorted(record.id for record in records):
            what = f"jobs {sorted(record.id for record in records)} were asked, {sorted(read.answered)} answered"
            self._breach(path, HostRule.PROXY_JOBS, what, records)
        return read.outcome

    def _breach(self, path: str, rule: HostRule, message: str, records: Sequence[Record]) -> None:
        self._run.breach(path, Breach(rule, message), Consequence.NOTED, records)

    def _note(
        self,
        request: Request,
        records: Sequence[Record],
        destination: str,
        started: float,
        status: int,
        error: str,
        outcome: Outcome,
    ) -> None:
        statuses = {record.id: outcome.status(record) for record in records}
        delivery = Delivery(
            destination,
            request.method or "",
            request.endpoint or "",
            True,
            tuple(statuses),
            started,
            self._run.seconds(),
            status,
            error,
            statuses,
        )
        self._run.delivered(delivery, records)


class Read(Struct, frozen=True):
    """A proxy's answer: what it comes to, and the jobs that it names."""

    outcome: Outcome
    answered: list[int]


def nothing(records: Sequence[Record], reason: str) -> Outcome:
    """Return the outcome of a request without a usable answer: no statuses, which counts as 500 for each job."""
    errors = {record.id: f"{NO_RESPONSE}: {reason}" for record in records}
    return Outcome({}, errors, {record.id: record.dont_batch for record in records}, sent=True)


def read_v1(output: bytes, status: int, records: Sequence[Record]) -> Read:  # noqa: ARG001 - v1 has no use for it
    """Return what an answer of the proxy v1 says; of several entries for a job the last counts. Raises MsgspecError."""
    answer = msgspec.json.decode(output, type=_AnswerV1 | None)
    entries = (answer and answer.response) or []
    directives = {record.id: record.dont_batch for record in records}
    outcome = Outcome(
        {entry.metadata.job_id: entry.status for entry in entries},
        {entry.metadata.job_id: entry.error or "" for entry in entries},
        directives | {entry.metadata.job_id: entry.metadata.dont_batch for entry in entries},
        sent=True,
    )
    return Read(outcome, [entry.metadata.job_id for entry in entries])


def read_v0(output: bytes, status: int, records: Sequence[Record]) -> Read:
    """Return what an answer of the proxy v0 says: the HTTP status is that of every job. Raises MsgspecError."""
    msgspec.json.decode(output, type=_AnswerV0 | None)
    ids = [record.id for record in records]
    text = output.decode("utf-8", "replace")
    directives = {record.id: record.dont_batch for record in records}
    return Read(Outcome(dict.fromkeys(ids, status), dict.fromkeys(ids, text), directives, sent=True), ids)


def proxy_request(request: Request, output: Output, items: Sequence[Item], *, v1: bool) -> bytes:
    """
    Return the body of a request to the proxy. Its objects have gone through Go maps: names sorted, float64.

    Raises:
        ValueError: a number in it is too large.

    """
    metadata = [proxy_metadata(item.record, item) for item in items]
    parts: dict[str, Json] = {"type": request.type or "", "endpoint": request.endpoint or ""}
    if request.endpoint_path:
        parts["endpointPath"] = request.endpoint_path
    parts |= {
        "method": request.method or "",
        "userId": request.user_id or "",
        "headers": _through_go(request.headers),
        "params": _through_go(request.params),
        "body": _through_go(request.body),
        "files": _through_go(request.files),
        "metadata": metadata if v1 else metadata[0],
    }
    if v1:
        parts["destinationConfig"] = _config(output, items[0])
    return msgspec.json.encode(parts)


def _through_go(value: Json) -> Raw:
    return Raw(go_json.recoded(msgspec.json.encode(value)))


def _config(output: Output, item: Item) -> Raw:
    """Return the settings that came back with the output; the server knows no others there (reference 1.3, rule 2)."""
    if output.config in (NULL, item.destination.config_json):
        return Raw(output.config)
    return Raw(go_json.recoded(output.config))
