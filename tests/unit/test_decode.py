from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.requests import call, destination, metadata

from emarsys_cdp.document.parts import parts_of
from emarsys_cdp.hosts.rudderstack import decode
from emarsys_cdp.hosts.rudderstack.decode import DEEP, Job, PartialReader, looks_deep

PARTS = parts_of(["traits.email"])


@settings(deadline=None, database=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from([b"]", b"}", b"}]", b"x", b"]}"]), st.integers(0, 80)), max_size=6))
@example([(b"x", 19), (b"}", 64), (b"x", 1)])
@example([(b"x", 1), (b"]}", 32), (b"]", 1)])
def test_a_deep_text_is_found_wherever_it_is(runs: list[tuple[bytes, int]]) -> None:
    """Looking at every twentieth byte first misses none."""
    data = b"".join(text * times for text, times in runs)

    assert looks_deep(data) == any(text in data for text in DEEP)


@pytest.mark.parametrize("text", DEEP)
@pytest.mark.parametrize("start", range(40))
def test_a_run_is_found_at_every_position(text: bytes, start: int) -> None:
    """Sixty-four bytes have three of every twenty."""
    assert looks_deep(b"x" * start + text + b"x" * 30)
    assert not looks_deep(b"x" * start + text[:-1] + b"x" * 30)


def request(*destinations: dict[str, Any]) -> bytes:
    """Return a router request with one call for each destination."""
    inputs = [
        {"message": call("identify", job), "metadata": metadata(job), "destination": one}
        for job, one in enumerate(destinations)
    ]
    return json.dumps({"input": inputs}).encode()


def read(reader: PartialReader, *destinations: dict[str, Any]) -> list[Job]:
    """Return the jobs of such a request."""
    jobs = reader.jobs(request(*destinations), array=False)
    assert jobs is not None
    return jobs


def test_a_destination_is_read_once() -> None:
    """The same bytes are the same object, within a request and in the next one; other bytes are another."""
    reader = PartialReader(PARTS)
    one, other = destination({"apiKey": "wsse:a:b"}), destination({"apiKey": "wsse:a:c"})
    found = [job.destination for request_ in ((one, other, one), (other, one)) for job in read(reader, *request_)]

    assert [each is found[0] for each in found] == [True, False, True, False, True]
    assert found[1] is found[3]


def test_remembered_destinations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read again when there was too much of them, but never in the middle of a request."""
    one, other = destination({"apiKey": "wsse:a:b"}), destination({"apiKey": "wsse:a:c"})
    monkeypatch.setattr(decode, "MAX_DESTINATIONS_BYTES", len(json.dumps(one)))
    reader = PartialReader(PARTS)
    first = [job.destination for job in read(reader, one, other, one, other)]
    second = [job.destination for job in read(reader, one)]

    assert first[0] is first[2]
    assert first[1] is first[3]
    assert second[0] is not first[0]
    assert second == first[:1]


@pytest.mark.parametrize("given_id", ["", None, 5, [], {}])
def test_a_call_without_a_message_id_is_not_read_in_part(given_id: Any) -> None:
    """Its id is made of all it says."""
    body = request(destination({})).replace(b'"messageId": "m-0"', b'"messageId": ' + json.dumps(given_id).encode())

    assert body != request(destination({}))
    assert PartialReader(PARTS).jobs(body, array=False) is None
    assert PartialReader(PARTS).jobs(request(destination({})), array=False) is not None
