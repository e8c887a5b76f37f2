"""What a FakeHost makes of answers: thrown away, noted, the end of the server; and of the proxy's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.requests import processor_request, router_request

from emarsys_cdp.testing.fake_host import Consequence
from emarsys_cdp.testing.fake_host.http_client import Response
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.proxy import read_v0, read_v1
from emarsys_cdp.testing.fake_host.verdict import Verdict, judge_processor, judge_router

OUTPUT_REQUEST = {
    "type": "REST",
    "method": "PUT",
    "endpoint": "http://x/contact",
    "headers": {},
    "params": {},
    "body": {"JSON": {"a": 1}, "JSON_ARRAY": {}, "XML": {}, "FORM": {}},
    "files": {},
    "userId": "",
}
Change = Callable[[Any], object]


def records(first: int) -> list[Record]:
    """Return the two jobs of a request."""
    return [
        Record(
            id=first + number,
            place=(first + number, 0),
            source="src-1",
            destination="dest-1",
            call={"messageId": f"m-{number}"},
            message=b"{}",
            order_key=f"<<>>anon-{number}<<>>user-{number}",
            received="",
        )
        for number in range(2)
    ]


def router(change: Change = len, *, status: int = 200, version: str = "2", raw: bytes | None = None) -> Verdict:
    """Judge an answer to jobs 101 and 102 that is right but for *change*."""
    request = router_request([{"n": 1}, {"n": 2}])
    inputs = json.loads(request)["input"]
    answer = {
        "output": [
            {
                "batchedRequest": dict(OUTPUT_REQUEST),
                "metadata": [one["metadata"]],
                "destination": one["destination"],
                "batched": False,
                "statusCode": 200,
            }
            for one in inputs
        ]
    }
    change(answer)
    body = json.dumps(answer).encode() if raw is None else raw
    return judge_router(records(101), request, Response(status, {"apiversion": version}, body))


def statuses(verdict: Verdict) -> list[tuple[int, int]]:
    """Return jobId and status of every output."""
    return [(record.id, output.status) for output in verdict.outputs for record in output.records]


def consequences(verdict: Verdict) -> set[Consequence]:
    """Return what the breaches led to."""
    return {one.consequence for one in verdict.found}


def test_a_right_answer_is_taken() -> None:
    """Its outputs come with their requests and the settings that came back."""
    verdict = router()

    assert statuses(verdict) == [(101, 200), (102, 200)]
    assert json.loads(verdict.outputs[0].request) == OUTPUT_REQUEST
    assert json.loads(verdict.outputs[0].config) == {"apiKey": "wsse:customer001:s3cret"}
    assert consequences(verdict) <= {Consequence.NOTED}


def test_outputs_are_sorted_by_their_first_job() -> None:
    """Whatever their order in the answer."""
    assert statuses(router(lambda answer: answer["output"].reverse())) == [(101, 200), (102, 200)]


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer["output"].pop(),
        lambda answer: answer["output"].append(answer["output"][0]),
        lambda answer: answer["output"][0]["metadata"].clear(),
        lambda answer: answer["output"][0]["metadata"][0].update(jobId=999),
        lambda answer: answer["output"][0]["metadata"][0].update(jobId="101"),
        lambda answer: answer["output"][0].update(statusCode="200"),
        lambda answer: answer["output"][0].update(statTags={"a": 1}),
        lambda answer: answer["output"][1].update(error=5),
        lambda answer: answer.update(output={}),
        lambda answer: answer.clear(),
    ],
    ids=["job left out", "twice", "no jobs", "foreign", "jobId", "statusCode", "statTags", "error", "no array", "none"],
)
def test_what_breaks_rule_3_is_thrown_away_as_a_whole(change: Change) -> None:
    """Every job gets a 500, also those of outputs that were right."""
    verdict = router(change)

    assert statuses(verdict) == [(101, 500), (102, 500)]
    assert Consequence.THROWN_AWAY in consequences(verdict)
    assert verdict.outputs[0].error.startswith("answer thrown away: 1.")


@pytest.mark.parametrize("raw", [b"", b"<html>", b'{"output": [', b"\xff"])
def test_what_cannot_be_read_is_thrown_away(raw: bytes) -> None:
    """Garbage with status 200 is a 500 for every job."""
    assert statuses(router(raw=raw)) == [(101, 500), (102, 500)]


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer["output"][0]["metadata"][0].update(userId="x"),
        lambda answer: answer["output"][0]["destination"].update(Name="x"),
        lambda answer: answer["output"][0]["batchedRequest"].update(headers={"a": 1}),
        lambda answer: answer["output"][0]["batchedRequest"].update(type="SOAP"),
    ],
    ids=["metadata changed", "destination changed", "request unreadable", "nothing would be sent"],
)
def test_other_breaches_are_noted_and_the_answer_is_used(change: Change) -> None:
    """The server goes on with what came back, whatever comes of it."""
    verdict = router(change)

    assert statuses(verdict) == [(101, 200), (102, 200)]
    assert consequences(verdict) == {Consequence.NOTED}


@pytest.mark.parametrize("version", ["", "1", "two"])
def test_another_version_ends_the_server(version: str) -> None:
    """No job gets anything from such an answer."""
    verdict = router(version=version)

    assert verdict.panicked
    assert verdict.outputs == ()
    assert Consequence.PANIC in consequences(verdict)


@pytest.mark.parametrize(("status", "want"), [(404, 404), (400, 500), (429, 500), (500, 500), (503, 500)])
def test_other_statuses_of_the_router(status: int, want: int) -> None:
    """404 aborts every job; all others are tried again."""
    verdict = router(status=status, version="", raw=b"no")

    assert statuses(verdict) == [(101, want), (102, want)]
    assert [output.error for output in verdict.outputs] == ["no", "no"]
    assert (Consequence.LOST in consequences(verdict)) == (status == 404)


def processor(change: Change = len, *, status: int = 200, version: str = "2", raw: bytes | None = None) -> Verdict:
    """Judge an answer to events 1 and 2 that is right but for *change*."""
    request = processor_request([{"n": 1}, {"n": 2}])
    outputs = [
        {"output": dict(OUTPUT_REQUEST), "metadata": one["metadata"], "statusCode": 200} for one in json.loads(request)
    ]
    change(outputs)
    body = json.dumps(outputs).encode() if raw is None else raw
    return judge_processor(records(1), request, Response(status, {"apiversion": version}, body))


def test_outputs_of_the_processor_keep_their_order() -> None:
    """One event may have several; what the answer lacks is lost."""
    twice = processor(lambda outputs: outputs.__setitem__(1, outputs[0]))

    assert statuses(processor()) == [(1, 200), (2, 200)]
    assert statuses(twice) == [(1, 200), (1, 200), (2, 0)]
    assert Consequence.LOST in consequences(twice)


@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_refused_processor_request_is_lost(status: int) -> None:
    """Every event is aborted with the status of the whole."""
    verdict = processor(status=status, raw=b"no")

    assert statuses(verdict) == [(1, status), (2, status)]
    assert consequences(verdict) == {Consequence.LOST}


@pytest.mark.parametrize(("version", "raw"), [("1", None), ("2", b"garbage"), ("2", b'{"output": []}')])
def test_what_ends_the_server_at_the_processor(version: str, raw: bytes | None) -> None:
    """Another version, and what cannot be read."""
    assert processor(version=version, raw=raw).panicked


def test_a_request_of_wrong_types_is_found_out_later() -> None:
    """The processor does not look into it; the router will answer it with a 599."""
    verdict = processor(lambda outputs: outputs[0]["output"].update(headers={"a": 1}))

    assert statuses(verdict) == [(1, 200), (2, 200)]
    assert consequences(verdict) == {Consequence.NOTED}


def test_a_retryable_status_of_an_event_is_a_loss() -> None:
    """The processor stage aborts on 500, which the transformer hardly means."""
    verdict = processor(lambda outputs: outputs[0].update(statusCode=500, error="later"))

    assert statuses(verdict) == [(1, 500), (2, 200)]
    assert consequences(verdict) == {Consequence.LOST}


def entry(job: int, status: int, *, dont_batch: bool = False, error: str | None = "e") -> dict[str, Any]:
    """Return what the proxy says about a job."""
    return {"statusCode": status, "error": error, "metadata": {"jobId": job, "dontBatch": dont_batch}}


def test_the_proxy_has_a_status_for_each_job() -> None:
    """The HTTP status does not count, of two entries the last does, and a job without an entry has a 500."""
    jobs = records(101)
    entries = [entry(101, 400), entry(101, 200, dont_batch=True, error=None)]

    read = read_v1(json.dumps({"status": 207, "response": entries}).encode(), 503, jobs)

    assert [read.outcome.status(record) for record in jobs] == [200, 500]
    assert [read.outcome.error(record) for record in jobs] == ["", "Response for this job is expected but not found"]
    assert read.outcome.dont_batch == {101: True, 102: False}
    assert read.answered == [101, 101]


@pytest.mark.parametrize(
    "output",
    [b"", b"[]", b'{"response": [{"statusCode": "200"}]}', b'{"response": [{"metadata": {"jobId": 1.5}}]}'],
)
def test_a_proxy_answer_of_wrong_types_cannot_be_read(output: bytes) -> None:
    """One badly typed entry spoils the whole answer."""
    with pytest.raises(msgspec.MsgspecError):
        read_v1(output, 200, records(101))


def test_no_list_of_the_proxy_is_an_empty_one() -> None:
    """Null, or nothing: no job has a status."""
    assert read_v1(b'{"response": null}', 200, records(101)).answered == []
    assert read_v1(b"{}", 200, records(101)).answered == []


def test_the_old_proxy_has_one_status_for_all() -> None:
    """It is the HTTP status."""
    jobs = records(101)

    read = read_v0(b'{"message": "m"}', 429, jobs)

    assert [read.outcome.status(record) for record in jobs] == [429, 429]
    with pytest.raises(msgspec.MsgspecError):
        read_v0(b"", 200, jobs)
