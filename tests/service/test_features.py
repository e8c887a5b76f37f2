"""The answer of GET /features with stock up, down and never seen; the drop runs in a whole uvicorn server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from tests.service.test_upstream import NOWHERE, answer, answering, ask, listening

from emarsys_cdp.droppable import DroppableProtocol, drop
from emarsys_cdp.service.features import FeaturesSource, merge_features
from emarsys_cdp.service.upstream import Upstream

STOCK = {
    "routerTransform": {"MARKETO": True, "HS": True},
    "regulations": ["BRAZE", "EMARSYS"],
    "supportSourceTransformV1": True,
    "supportTransformerProxyV1": True,
    "newInStock": {"kept": 1},
}
BARE = b"GET /features HTTP/1.1\r\nHost: f\r\nConnection: close\r\n\r\n"


def test_stock_is_kept_and_emarsys_joins_its_router_destinations() -> None:
    """What stock can do is decided by stock; of it nothing is changed and nothing is lost."""
    before = msgspec.json.encode(STOCK)

    merged = merge_features(STOCK)

    assert merged == {**STOCK, "routerTransform": {"MARKETO": True, "HS": True, "EMARSYS": True}}
    assert before == msgspec.json.encode(STOCK)


@pytest.mark.parametrize("router", [{"EMARSYS": False}, {}, None, []])
def test_emarsys_is_at_the_router_whatever_stock_says(router: object) -> None:
    """Stock's own word about Emarsys does not count, nor does a shape that nobody expects."""
    assert merge_features({"routerTransform": router}) == {
        "routerTransform": {"EMARSYS": True},
        "regulations": ["EMARSYS"],
    }


def test_alone_the_features_are_all_that_the_host_needs() -> None:
    """Without a stock transformer the answer has both flags about sources, else the host panics."""
    assert merge_features(None) == {
        "routerTransform": {"EMARSYS": True},
        "regulations": ["EMARSYS"],
        "supportSourceTransformV1": True,
        "upgradedToSourceTransformV2": True,
        "supportTransformerProxyV1": True,
        "supportDestTransformCompactedPayloadV1": True,
    }


def test_without_an_upstream_the_source_stands_alone() -> None:
    """A service without EMARSYS_CDP_UPSTREAM answers at once."""
    assert merge_features(None) == asyncio.run(FeaturesSource(None).answer())


def test_the_last_good_answer_outlives_stock() -> None:
    """Each answer of stock replaces the one before; errors and nonsense do not."""
    newer = {**STOCK, "regulations": []}
    answers = [
        answer(b"starting", status=b"502 Bad Gateway"),
        answer(msgspec.json.encode(STOCK)),
        answer(msgspec.json.encode(newer)),
        answer(b"starting", status=b"503 Service Unavailable"),
        answer(b"", b"location: /login", status=b"302 Found"),
        answer(b"[]"),
        answer(b"{}"),
        answer(b'{"a":"\xff"}'),
        answer(b"", b"content-encoding: gzip", b"x: y") + b"nonsense",
        b"not HTTP\r\n\r\n",
    ]
    waiting = iter(answers)

    async def stock(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(next(waiting))(reader, writer)

    async def run() -> list[dict[str, Any] | None]:
        async with listening(stock) as url:
            upstream = Upstream(url)
            source = FeaturesSource(upstream)
            got = [await source.answer() for _ in answers]
        got.append(await source.answer())
        await upstream.close()
        return got

    first, second, *rest = asyncio.run(run())

    assert first is None
    assert merge_features(STOCK) == second
    assert [merge_features(newer)] * len(rest) == rest


def test_stock_that_is_slow_with_its_features_is_not_waited_for() -> None:
    """The host polls; it is answered from what is known rather than late."""

    async def stock(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> dict[str, Any] | None:
        async with listening(stock) as url:
            upstream = Upstream(url)
            try:
                return await upstream.features(patience=0.01)
            finally:
                await upstream.close()

    assert asyncio.run(run()) is None


def test_features_are_below_the_path_of_the_upstream() -> None:
    """A stock transformer behind a path has its features there too."""
    seen: list[bytes] = []

    async def run() -> None:
        async with listening(answering(answer(b"{}"), seen)) as url:
            upstream = Upstream(url + "/stock/")
            await upstream.features()
            await upstream.close()

    asyncio.run(run())

    assert seen[0].startswith(b"GET /stock/features HTTP/1.1\r\n")


@contextlib.asynccontextmanager
async def serving_features(source: FeaturesSource) -> AsyncIterator[str]:
    """Run uvicorn as the service does, with an application that drops what it has no answer for."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        features = await source.answer()
        if features is None and drop(scope):
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": msgspec.json.encode(features)})

    config = uvicorn.Config(app, http=DroppableProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_before_the_first_answer_of_stock_the_connection_is_dropped(
    loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    """The host sees a closed connection and not one byte of an answer; nothing is logged as an error."""

    async def run() -> tuple[list[bytes], bytes]:
        upstream = Upstream(NOWHERE)
        async with serving_features(FeaturesSource(upstream)) as base:
            dropped = [await ask(base, BARE) for _ in range(3)]
        await upstream.close()
        async with serving_features(FeaturesSource(None)) as base:
            return dropped, await ask(base, BARE)

    with caplog.at_level(logging.INFO), asyncio.Runner(loop_factory=loop) as runner:
        dropped, answered = runner.run(run())

    assert dropped == [b"", b"", b""]
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [r.getMessage()[-4:] for r in caplog.records if r.name == "uvicorn.access"] == [" 200"]


def test_a_dropped_connection_is_an_error_to_an_http_client() -> None:
    """What the host's client makes of it: no status at all, so it asks again."""

    async def run() -> httpx.Response:
        upstream = Upstream(NOWHERE)
        async with serving_features(FeaturesSource(upstream)) as base, httpx.AsyncClient() as host:
            return await host.get(base + "/features")

    with pytest.raises(httpx.RemoteProtocolError, match="Server disconnected without sending a response"):
        asyncio.run(run())


def test_a_server_without_the_way_out_says_so() -> None:
    """The caller has to answer something when its server cannot drop."""
    assert not drop({"type": "http"})
    assert not drop({"type": "http", "extensions": None})
