"""Calls that are nested deep, in every place whose value is kept or sent."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
import structlog
from tests.support.app import PROCESSOR, ROUTER, by_job, host_of
from tests.support.requests import call, destination, metadata
from tests.support.world import make_service

from emarsys_cdp.store.memory import MemoryStore

CONFIG = {
    "emersysUsername": "customer001",
    "emersysUserSecret": "s3cret",
    "fieldMapping": [{"rudderProperty": "deep", "emersysProperty": "9001"}],
    "eventsMapping": [{"from": "Bought", "to": "5678"}],
}
PLACES = {
    "mapped trait": b'{"type":"identify","messageId":"m","traits":{"email":"a@example.com","deep":%s}}',
    "call without an id": b'{"type":"identify","traits":{"email":"a@example.com"},"context":{"deep":%s}}',
    "event data": b'{"type":"track","event":"Bought","traits":{"email":"a@b.de"},"properties":{"data":{"a":%s}}}',
    "attachment": b'{"type":"track","event":"Bought","traits":{"email":"a@b.de"},"properties":{"attachment":%s}}',
}
BRACKETS = {
    "arrays": (b"[", b"]"),
    "arrays with space": (b"[", b" ] "),
    "objects": (b'{"a":', b"}"),
    "objects with space": (b'{"a":', b"\n}"),
}
DEPTHS = (60, 100, 300, 480, 495, 700, 900, 985, 1100)
"""Around the limits of decoders, encoders and our own."""


def request_of(path: str, messages: tuple[bytes, bytes]) -> bytes:
    """Return a request for two calls, jobs 1 and 2."""
    target = json.dumps(destination(CONFIG)).encode()
    inputs = b",".join(
        b'{"message":%s,"metadata":%s,"destination":%s}' % (message, json.dumps(metadata(job)).encode(), target)
        for job, message in enumerate(messages, 1)
    )
    return b"[%s]" % inputs if path == PROCESSOR else b'{"input":[%s],"destType":"emarsys"}' % inputs


@pytest.mark.parametrize("path", [ROUTER, PROCESSOR])
@pytest.mark.parametrize(("opening", "closing"), BRACKETS.values(), ids=BRACKETS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_no_depth_makes_a_call_come_for_ever(place: bytes, opening: bytes, closing: bytes, path: str) -> None:
    """However deep and however written it is sent or refused, as often as it comes; the call beside it is sent."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    other = json.dumps(call("identify", 3, traits={"email": "b@example.com"})).encode()

    async def run() -> dict[int, list[list[int]]]:
        statuses = {}
        async with host_of(make_service(MemoryStore())) as host:
            for depth in DEPTHS:
                body = request_of(path, (place % (opening * depth + b"1" + closing * depth), other))
                found = [await host.send(path, body) for _ in range(2)]
                assert [response.status_code for response in found] == [200, 200], (depth, found[0].text)
                statuses[depth] = [[by_job(path, one)[job][0]["statusCode"] for job in (1, 2)] for one in found]
        return statuses

    for depth, (first, again) in asyncio.run(run()).items():
        assert first in ([200, 200], [400, 200]), depth
        assert again == first
