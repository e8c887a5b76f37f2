"""The verdict on answers to requests that can be read in part only: what can be read decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.requests import call, destination, metadata

from emarsys_cdp.testing import Breach, Rule, check_processor_answer, check_router_answer, expect

CALL = json.dumps(call("identify")).encode()
TARGET = json.dumps(destination()).encode()
NAN = b'{"type":"track","x":NaN}'
DEEP = b"[" * 100_000 + b"]" * 100_000
NOT_UTF8 = b'{"type":"\xff"}'
REFUSED = {"statusCode": 400, "error": "no"}


def meta(job: int) -> bytes:
    """Return the metadata of a job."""
    return json.dumps(metadata(job)).encode()


def ask(*inputs: tuple[bytes, bytes], target: bytes = TARGET) -> bytes:
    """Return a router request for pairs of message and metadata."""
    items = [b'{"message":%s,"metadata":%s,"destination":%s}' % (*pair, target) for pair in inputs]
    return b'{"input":[%s],"destType":"emarsys"}' % b",".join(items)


def events(*inputs: tuple[bytes, bytes]) -> bytes:
    """Return a processor request for pairs of message and metadata."""
    return ask(*inputs)[len(b'{"input":') : -len(b',"destType":"emarsys"}')]


def outputs(*metadata: bytes, target: bytes = TARGET, **fields: Any) -> list[bytes]:
    """Return a refusal for each metadata, with other fields where some are given."""
    rest = json.dumps({**REFUSED, **fields}).encode()[1:-1]
    return [b'{"metadata":[%s],"destination":%s,%s}' % (one, target, rest) for one in metadata]


def verdict(request: bytes, answers: list[bytes]) -> list[str]:
    """Return the rules that a router's answer breaks."""
    body = b'{"output":[%s]}' % b",".join(answers)
    return [breach.rule for breach in check_router_answer(request, 200, {"apiVersion": "2"}, body)]


def event_verdict(request: bytes, *metadata: bytes, status: int = 400) -> list[str]:
    """Return the rules that a processor's answer breaks: a refusal, or another status, for each metadata."""
    answers = [b'{"metadata":%s,"statusCode":%d,"error":"no"}' % (one, status) for one in metadata]
    body = b"[%s]" % b",".join(answers)
    return [breach.rule for breach in check_processor_answer(request, 200, {"apiVersion": "2"}, body)]


@pytest.mark.parametrize("message", [NAN, DEEP, NOT_UTF8, b'{"a":1,}', b"nonsense"])
def test_a_call_that_is_no_json_needs_its_answer_all_the_same(message: bytes) -> None:
    """Its metadata can be read, so it is a job like the others, in both kinds of answers."""
    jobs = ((CALL, meta(1)), (message, meta(2)), (CALL, meta(3)))

    assert verdict(ask(*jobs), outputs(meta(1), meta(2), meta(3))) == []
    assert event_verdict(events(*jobs), meta(1), meta(2), meta(3)) == []
    assert verdict(ask(*jobs), outputs(meta(1), meta(3))) == [Rule.EVERY_JOB, Rule.VERBATIM]
    assert event_verdict(events(*jobs), meta(1), meta(3)) == [Rule.ANSWERED, Rule.VERBATIM]


@pytest.mark.parametrize("bad", [b"{}", b"5", b'{"jobId":"2"}', b'{"jobId":NaN}', b'{"jobId":1e400}'])
def test_an_input_without_a_job_is_refused_alone(bad: bytes) -> None:
    """Nobody is lost by that: `{}`, or its metadata, stands for the job that it does not name."""
    jobs = ((CALL, meta(1)), (CALL, bad))

    assert verdict(ask(*jobs), outputs(meta(1), b"{}")) == []
    assert event_verdict(events(*jobs), meta(1), b"{}") == []


def test_an_input_without_a_job_may_get_its_metadata_back() -> None:
    """What is an object is echoed as it came."""
    text = b'{"jobId":"2","userId":"u"}'

    assert verdict(ask((CALL, meta(1)), (CALL, text)), outputs(meta(1), text)) == []


def test_an_input_without_a_job_is_not_passed_over() -> None:
    """One refusal for each such input, no more and no fewer."""
    jobs = ((CALL, meta(1)), (CALL, b"{}"))

    assert verdict(ask(*jobs), outputs(meta(1))) == [Rule.EVERY_JOB]
    assert verdict(ask(*jobs), outputs(meta(1), b"{}", b"{}")) == [Rule.EVERY_JOB]
    assert event_verdict(events(*jobs), meta(1)) == [Rule.ANSWERED]


@pytest.mark.parametrize("fields", [{"statusCode": 200}, {"statusCode": 500}, {"statusCode": 298}, {"error": ""}])
def test_only_a_refusal_stands_for_an_input_without_a_job(fields: dict[str, Any]) -> None:
    """Anything else that names no job is what it always was: an answer that the host cannot place."""
    jobs = ((CALL, meta(1)), (CALL, b"{}"))

    assert Rule.TYPES in verdict(ask(*jobs), [*outputs(meta(1)), *outputs(b"{}", **fields)])


def test_nothing_stands_for_an_input_that_is_not_there() -> None:
    """Where every input names its job, an output without one is none of them."""
    assert Rule.TYPES in verdict(ask((CALL, meta(1))), outputs(meta(1), b"{}"))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1] + b',"userId":"x"}',
        lambda raw: raw.replace(b"anon-", b"\xff"),
        lambda raw: raw.replace(b"anon-", b"\\ud800"),
    ],
    ids=["name twice", "no UTF-8", "lone surrogate"],
)
def test_loose_metadata_may_be_echoed_or_refused(change: Callable[[bytes], bytes]) -> None:
    """The host reads its own bytes again; who cannot read them says so."""
    loose = change(meta(1))
    request = ask((CALL, loose), (CALL, meta(2)))

    assert loose != meta(1)
    assert verdict(request, outputs(loose, meta(2))) == []
    assert verdict(request, outputs(b"{}", meta(2))) == []
    assert verdict(request, outputs(meta(2))) == [Rule.EVERY_JOB]


def test_loose_bytes_are_taken_in_an_echo_only() -> None:
    """What the answer says itself is strict, whatever the request was like."""
    loose = meta(1).replace(b"anon-", b"\xff")
    (answer,) = outputs(loose)

    assert verdict(ask((CALL, loose)), [answer.replace(b'"no"', b'"\xff"')]) == [Rule.STRICT_JSON]


def test_a_type_that_the_host_sent_may_come_back() -> None:
    """An echo is no fault of the answer; another value of the wrong type is."""
    odd = meta(1).replace(b'"attemptNum": 0', b'"attemptNum": "many"')
    target = TARGET.replace(b'"Enabled": true', b'"Enabled": "yes"')
    request = ask((CALL, odd), target=target)
    other = odd.replace(b'"many"', b'"few"')

    assert verdict(request, outputs(odd, target=target)) == []
    assert verdict(request, outputs(other, target=target)) == [Rule.TYPES, Rule.METADATA, Rule.VERBATIM]


@pytest.mark.parametrize("target", [b"5", b'{"ID":NaN}', b"[]", b'{"ID":"dest-1",}'])
def test_a_destination_that_cannot_be_read_is_not_compared(target: bytes) -> None:
    """The jobs are judged as ever; any object stands for their destination."""
    request = ask((CALL, meta(1)), target=target)

    assert verdict(request, outputs(meta(1), target=b"{}")) == []
    assert verdict(request, outputs(meta(1), target=b"5")) == [Rule.DESTINATION]


def test_a_job_that_is_asked_twice_may_be_answered_twice() -> None:
    """One answer for both is taken as well, a third is too many."""
    request = ask((CALL, meta(1)), (CALL, meta(1)))

    assert verdict(request, outputs(meta(1))) == []
    assert verdict(request, outputs(meta(1), meta(1))) == []
    assert verdict(request, outputs(meta(1), meta(1), meta(1))) == [Rule.EVERY_JOB]


def test_a_request_of_bad_inputs_only_may_be_refused_as_a_whole() -> None:
    """No event is lost by it; one good event among them would be."""
    nobody = events((CALL, b"{}"), (CALL, b'{"jobId":"2"}'))
    mixed = events((CALL, b"{}"), (CALL, meta(1)))
    found = check_processor_answer(mixed, 400, {}, b"no")

    expect(check_processor_answer(nobody, 400, {}, b"no"))
    assert [breach.rule for breach in found] == [Rule.WHOLE_STATUS]


@pytest.mark.parametrize(
    "request_",
    [b"", b"5", b"null", b"{", b'{"input":5}', b'{"input":[{"metadata":{"jobId":1}', b'{"destType":"emarsys"}'],
)
def test_a_request_that_cannot_be_taken_apart_has_no_200(request_: bytes) -> None:
    """Where no input is to be found, no answer can be right."""
    breaches: tuple[Breach, ...] = check_router_answer(request_, 200, {"apiVersion": "2"}, b'{"output":[]}')

    assert [breach.rule for breach in breaches] == [Rule.REQUEST]
    expect(check_router_answer(request_, 400, {}, b"no"))
