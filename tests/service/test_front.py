"""Beside the stock transformer: what is ours is answered here, everything else passes through the application."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from tests.service.test_upstream import answering, listening
from tests.support.app import BATCH, PROCESSOR, ROUTER, answers, host_of
from tests.support.requests import call, processor_request, router_request
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret
from emarsys_cdp.store.memory import MemoryStore

OTHER = b'{"input":[{"message":\xff"\\ud800"}], "destType" : "WEBHOOK"}'
STOCK_BODY = b'{"output":[\x00\xff]}'
STOCK = b"HTTP/1.1 299 Odd\r\napiVersion: 7\r\nX-Response-Time: 3 ms\r\ncontent-length: %d\r\n\r\n%s" % (
    len(STOCK_BODY), STOCK_BODY,
)  # fmt: skip


async def beside_stock(path: str, body: bytes, seen: list[bytes], **more: Any) -> httpx.Response:
    """Post to a service that has a stock transformer behind it, a real one on loopback."""
    async with listening(answering(STOCK, seen)) as url, host_of(make_service(MemoryStore(), upstream=url)) as host:
        return await host.client.post(path, content=body, **more)


@pytest.mark.parametrize("path", [ROUTER, BATCH])
@pytest.mark.parametrize(
    "body",
    [
        b'{"input":[],"destType":"webhook"}', b'{ "destType": "braze",\n "input": [1.0, 1e400]}', b'{"input":[]}',
        b"no JSON", b"", b"[]", b'{"destType":5}', b'{"destType":"emarsys"', OTHER,
    ],
)  # fmt: skip
def test_what_is_not_for_emarsys_passes_byte_for_byte(path: str, body: bytes) -> None:
    """Another type, and what nobody can read: stock gets it as it came, and the host gets stock's answer."""
    seen: list[bytes] = []
    response = asyncio.run(beside_stock(path, body, seen))

    assert seen[0].startswith(b"POST " + path.encode() + b" HTTP/1.1\r\n")
    assert seen[1] == body
    assert (response.status_code, response.content) == (299, STOCK_BODY)
    assert response.headers["apiversion"] == "7"
    assert response.headers["x-response-time"] == "3 ms"


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
def test_what_is_for_emarsys_is_ours(path: str) -> None:
    """Stock does not see it."""
    seen: list[bytes] = []
    build = processor_request if path == PROCESSOR else router_request
    response = asyncio.run(beside_stock(path, build([call("identify", traits={"email": "a@example.com"})]), seen))

    assert seen == []
    assert answers(path, response)[0]["statusCode"] == 200


def test_every_other_path_is_stock_s() -> None:
    """Other destinations, the delivery proxy of others, sources: whatever it is."""
    seen: list[bytes] = []
    response = asyncio.run(beside_stock("/v0/destinations/webhook", b"[{}]", seen))

    assert (response.status_code, response.content, seen[1]) == (299, STOCK_BODY, b"[{}]")


def test_stock_is_behind_the_host_token_as_well() -> None:
    """Without the token nothing goes through."""
    seen: list[bytes] = []

    async def run() -> httpx.Response:
        async with listening(answering(STOCK, seen)) as url:
            service = make_service(MemoryStore(), upstream=url, host_token=Secret("token-of-the-host"))
            async with host_of(service) as host:
                return await host.client.post("/v0/destinations/webhook", content=b"[{}]")

    assert (asyncio.run(run()).status_code, seen) == (503, [])
