"""Whole requests are answered without ASGI: the same answers, and everything that is not plain goes the usual way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import count
from typing import Any

import pytest
import structlog
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from tests.service.test_upstream import answering, head, listening
from tests.support.app import BATCH, PROCESSOR, ROUTER, started
from tests.support.requests import call, processor_request, router_request
from tests.support.world import make_service
from uvicorn.server import ServerState

from emarsys_cdp.credentials import Secret
from emarsys_cdp.service import app as app_module
from emarsys_cdp.service import short_way
from emarsys_cdp.service.app import App
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.service.short_way import ShortWayProtocol
from emarsys_cdp.store import Commit
from emarsys_cdp.store.memory import MemoryStore

CALLS = [call("identify", 1, userId="u-1", traits={"email": "1@example.com"})]
BODIES = {ROUTER: router_request(CALLS), BATCH: router_request(CALLS), PROCESSOR: processor_request(CALLS)}
FOREIGN = b'{"input":[],"destType":"webhook"}'
STOCK = b"HTTP/1.1 299 Odd\r\ncontent-length: 5\r\n\r\nstock"


class Counted(App):
    """An application that counts the requests that come over ASGI."""

    over_asgi = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request."""
        self.over_asgi += scope["type"] == "http"
        await super().__call__(scope, receive, send)


class Served:
    """An application behind the protocol, and its connections."""

    def __init__(self, app: Counted, port: int, state: ServerState) -> None:
        self.app = app
        self.port = port
        self.state = state

    def connections(self) -> list[ShortWayProtocol]:
        """Return the connections that are open."""
        return [one for one in self.state.connections if isinstance(one, ShortWayProtocol)]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection as the host does."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, *requests: bytes) -> list[bytes]:
        """Send requests one after another over one connection; return their answers."""
        reader, writer = await self.connect()
        with closing(writer):
            found = []
            for request in requests:
                writer.write(request)
                found.append(await answer_of(reader))
            return found


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """Read an answer that has a length."""
    lines = await head(reader)
    length = next(line for line in lines.split(b"\r\n") if line.startswith(b"content-length"))
    return lines + await reader.readexactly(int(length.split(b":")[1]))


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Served]:
    """Serve *service* on loopback; at the end every request has to be over."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Service]:
        yield service

    numbers, state = count(1), ServerState()
    app = Counted(opened, lambda: f"request-{next(numbers)}")
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ShortWayProtocol(config, state, {}), "127.0.0.1", 0)
    async with asyncio.timeout(30), started(app):
        served = Served(app, server.sockets[0].getsockname()[1], state)
        try:
            yield served
        finally:
            server.close()
            for connection in served.connections():
                connection.transport.abort()
            async with asyncio.timeout(10):
                await asyncio.gather(*state.tasks, return_exceptions=True)


def post(path: str, body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """Return a request with its length."""
    lines = (b"POST %b HTTP/%b" % (path.encode(), version), b"content-length: %d" % len(body), *headers)
    return b"\r\n".join((*lines, b"", body))


def without_id(answer: bytes) -> bytes:
    """Return an answer without the id that was made for its request."""
    return re.sub(rb"x-request-id: request-\d+\r\n", b"", answer)


def sorted_head(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return status line, headers in order and body."""
    lines, _, body = without_id(answer).partition(b"\r\n\r\n")
    first, *rest = lines.split(b"\r\n")
    return first, sorted(rest), body


async def both_ways(path: str, body: bytes, *headers: bytes, **settings: Any) -> tuple[bytes, bytes]:
    """Return the answers of two equal services: the short way, and the usual one, which a query makes it take."""
    found = []
    for target, over_asgi in ((path, 0), (f"{path}?usual", 1)):
        async with serving(make_service(MemoryStore(), **settings)) as served:
            found += await served.ask(post(target, body, *headers))
            assert served.app.over_asgi == over_asgi
    return found[0], found[1]


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
@pytest.mark.parametrize("headers", [(), (b"Connection: close",), (b"X-Request-Id: caf\xe9 7",)])
def test_both_ways_give_the_same_answer(path: str, headers: tuple[bytes, ...]) -> None:
    """Status, headers and body, byte for byte."""
    short, usual = asyncio.run(both_ways(path, BODIES[path], *headers))

    assert short.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sorted_head(short) == sorted_head(usual)


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
@pytest.mark.parametrize("body", [b"", b"no JSON", b'{"input":1}'])
def test_both_ways_refuse_alike(path: str, body: bytes) -> None:
    """What cannot be read is a 400 with the same words."""
    short, usual = asyncio.run(both_ways(path, body))

    assert short.startswith(b"HTTP/1.1 400 ")
    assert sorted_head(short) == sorted_head(usual)


def test_both_ways_ask_for_the_token() -> None:
    """Without the host token nothing is answered, with it everything."""
    token = Secret("token-of-the-host")
    refused = asyncio.run(both_ways(ROUTER, BODIES[ROUTER], host_token=token))
    taken = asyncio.run(both_ways(ROUTER, BODIES[ROUTER], b"Authorization: Bearer token-of-the-host", host_token=token))

    assert refused[0].startswith(b"HTTP/1.1 503 ")
    assert sorted_head(refused[0]) == sorted_head(refused[1])
    assert taken[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [ROUTER, PROCESSOR])
def test_both_ways_keep_the_calls_when_we_fail(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is down is a 503 at the processor stage, and calls that come again at the router."""

    async def fail(self: MemoryStore, commits: list[Commit]) -> list[bool]:
        raise RuntimeError("down")

    monkeypatch.setattr(MemoryStore, "read_rows", fail)
    with structlog.testing.capture_logs() as logs:
        short, usual = asyncio.run(both_ways(path, BODIES[path]))

    assert sorted_head(short) == sorted_head(usual)
    assert [one for one in logs if one["log_level"] == "error"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(ROUTER, BODIES[ROUTER], version=b"1.0"), b"200"),
        (post("/v0/destinations/EMARSYS", BODIES[PROCESSOR]), b"200"),
        (b"GET /routerTransform HTTP/1.1\r\ncontent-length: 0\r\n\r\n", b"501"),
        (b"GET /health HTTP/1.1\r\n\r\n", b"200"),
        (post("/other", b""), b"501"),
    ],
)  # fmt: skip
def test_what_is_not_plain_goes_the_usual_way(request_: bytes, status: bytes) -> None:
    """It is answered as ever."""

    async def run() -> tuple[bytes, int]:
        async with serving(make_service(MemoryStore())) as served:
            (answer,) = await served.ask(request_)
            return answer, served.app.over_asgi

    answer, over_asgi = asyncio.run(run())

    assert answer[9:12] == status
    assert over_asgi == 1


def test_a_host_that_waits_for_continue_gets_it() -> None:
    """The body comes only after 100 Continue."""

    async def run() -> tuple[bytes, bytes, int]:
        async with serving(make_service(MemoryStore())) as served:
            reader, writer = await served.connect()
            with closing(writer):
                lines, _, body = post(ROUTER, BODIES[ROUTER], b"Expect: 100-continue").partition(b"\r\n\r\n")
                writer.write(lines + b"\r\n\r\n")
                first = await head(reader)
                writer.write(body)
                return first, await answer_of(reader), served.app.over_asgi

    first, answer, over_asgi = asyncio.run(run())

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert over_asgi == 1


def test_a_body_may_come_in_pieces() -> None:
    """As the network cuts it, or as chunks."""

    async def run() -> tuple[list[bytes], int]:
        async with serving(make_service(MemoryStore())) as served:
            reader, writer = await served.connect()
            with closing(writer):
                found = []
                chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in BODIES[ROUTER]) + b"0\r\n\r\n"
                lines = b"POST /routerTransform HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
                for request in (post(ROUTER, BODIES[ROUTER]), lines + chunked):
                    for start in range(0, len(request), 400):
                        writer.write(request[start : start + 400])
                        await asyncio.sleep(0)
                    found.append(await answer_of(reader))
                return found, served.app.over_asgi

    found, over_asgi = asyncio.run(run())

    assert [answer[9:12] for answer in found] == [b"200", b"200"]
    assert over_asgi == 0


def test_requests_on_one_connection_may_be_of_both_kinds() -> None:
    """Each is answered on its own, in any order."""

    async def run() -> tuple[list[bytes], int]:
        short, usual = post(ROUTER, BODIES[ROUTER]), b"GET /health HTTP/1.1\r\n\r\n"
        async with serving(make_service(MemoryStore())) as served:
            found = await served.ask(short, usual, short, short, usual)
            return found, served.state.total_requests

    found, total = asyncio.run(run())

    assert [b"apiversion" in answer for answer in found] == [True, False, True, True, False]
    assert total == 5


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_requests_that_do_not_wait_are_answered_in_their_order(loop: type) -> None:
    """Pipelined requests, short and usual ones mixed."""

    async def run() -> list[bytes]:
        short, usual = post(ROUTER, BODIES[ROUTER]), b"GET /health HTTP/1.1\r\n\r\n"
        async with serving(make_service(MemoryStore())) as served:
            reader, writer = await served.connect()
            with closing(writer):
                writer.write(short + usual + short + short + usual + usual + short)
                return [await answer_of(reader) for _ in range(7)]

    with asyncio.Runner(loop_factory=loop) as runner:
        found = runner.run(run())

    assert [b"apiversion" in answer for answer in found] == [True, False, True, True, False, False, True]


@pytest.mark.parametrize(("limit", "over_asgi"), [(0, 0), (-1, 1)], ids=["fits", "too large"])
def test_a_larger_body_goes_the_usual_way(limit: int, over_asgi: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sender is held back by uvicorn; it is answered all the same."""
    body = router_request([call("identify", number, traits={"email": f"{number}@example.com"}) for number in range(99)])
    monkeypatch.setattr(short_way, "MAX_SHORT", len(body) + limit)

    async def run() -> tuple[bytes, int]:
        async with serving(make_service(MemoryStore())) as served:
            (answer,) = await served.ask(post(ROUTER, body))
            return answer, served.app.over_asgi

    answer, found = asyncio.run(run())

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b'"jobId"') == 99
    assert found == over_asgi


def test_a_body_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way it went at first does not matter."""
    monkeypatch.setattr(short_way, "MAX_SHORT", 10)
    monkeypatch.setattr(app_module, "MAX_BODY", 100_000)

    async def run() -> list[bytes]:
        async with serving(make_service(MemoryStore())) as served:
            return await served.ask(post(ROUTER, b" " * 100_001))

    assert asyncio.run(run())[0].startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("path", "is_stock"), [(ROUTER, True), (BATCH, True), (PROCESSOR, False)])
def test_what_is_for_stock_goes_there_whole(path: str, is_stock: bool) -> None:
    """Its body was read already; what is for Emarsys stays on the short way."""

    async def run() -> tuple[list[bytes], int, list[bytes]]:
        seen: list[bytes] = []
        async with (
            listening(answering(STOCK, seen)) as url,
            serving(make_service(MemoryStore(), upstream=url)) as served,
        ):
            found = await served.ask(post(path, FOREIGN), post(path, BODIES[path]))
            return found, served.app.over_asgi, seen

    found, over_asgi, seen = asyncio.run(run())

    assert (b"stock" in found[0], over_asgi) == (is_stock, int(is_stock))
    assert seen[1:] == [FOREIGN] * is_stock
    assert found[1].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("size", [100, 300_000])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_host_that_goes_away_in_its_request_is_logged(size: int, loop: type) -> None:
    """Nobody gets the answer; nothing of the request is done."""
    store = MemoryStore()

    async def run() -> None:
        async with serving(make_service(store)) as served:
            _, writer = await served.connect()
            writer.write(post(ROUTER, b"x" * 2 * size)[:-size])
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()
            async with asyncio.timeout(5):
                while served.state.connections or served.state.tasks:
                    await asyncio.sleep(0.01)
            assert served.app.over_asgi == 1

    with structlog.testing.capture_logs() as logs, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())

    assert [one["event"] for one in logs] == ["request_postponed"]


def test_a_host_that_goes_away_before_its_answer_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls are in the users table; the connection is forgotten."""
    store, gone = MemoryStore(), asyncio.Event()
    commit = MemoryStore.commit

    async def wait(self: MemoryStore, commits: list[Commit]) -> list[bool]:
        await gone.wait()
        return await commit(self, commits)

    monkeypatch.setattr(MemoryStore, "commit", wait)

    async def run() -> None:
        async with serving(make_service(store)) as served:
            _, writer = await served.connect()
            writer.write(post(ROUTER, BODIES[ROUTER]))
            async with asyncio.timeout(5):
                while not served.state.tasks:
                    await asyncio.sleep(0.01)
                writer.close()
                while served.state.connections:
                    await asyncio.sleep(0.01)
                gone.set()
                while served.state.tasks:
                    await asyncio.sleep(0.01)
            assert served.state.total_requests == 0

    with structlog.testing.capture_logs() as logs:
        asyncio.run(run())

    assert [one for one in logs if one["log_level"] == "error"] == []
    assert len(store.records) == 1


def test_a_request_is_answered_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the connection is closed afterwards; idle connections are closed at once."""
    stopping = asyncio.Event()
    commit = MemoryStore.commit

    async def wait(self: MemoryStore, commits: list[Commit]) -> list[bool]:
        await stopping.wait()
        return await commit(self, commits)

    monkeypatch.setattr(MemoryStore, "commit", wait)

    async def run() -> tuple[bytes, bytes, bytes]:
        async with serving(make_service(MemoryStore())) as served:
            (reader, writer), (idle, other) = await served.connect(), await served.connect()
            with closing(writer), closing(other):
                writer.write(post(ROUTER, BODIES[ROUTER]))
                while not served.state.tasks:
                    await asyncio.sleep(0.01)
                for connection in served.connections():
                    connection.shutdown()
                stopping.set()
                answer = await answer_of(reader)
                return answer, await reader.read(), await idle.read()

    answer, after, idle = asyncio.run(run())

    assert b"\r\nconnection: close\r\n" in answer
    assert (after, idle) == (b"", b"")


@pytest.mark.parametrize("limit", [100, 1_000_000], ids=["usual", "short"])
def test_a_request_that_is_still_read_when_the_server_stops_is_answered(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is closed afterwards, whichever way it goes."""
    monkeypatch.setattr(short_way, "MAX_SHORT", limit)
    request = post(ROUTER, BODIES[ROUTER])

    async def run() -> tuple[bytes, bytes]:
        async with serving(make_service(MemoryStore())) as served:
            reader, writer = await served.connect()
            with closing(writer):
                writer.write(request[:80])
                while not any(connection.cycle for connection in served.connections()):
                    await asyncio.sleep(0.01)
                for connection in served.connections():
                    connection.shutdown()
                writer.write(request[80:])
                return await answer_of(reader), await reader.read()

    answer, after = asyncio.run(run())

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer
    assert after == b""


def test_a_request_that_is_cancelled_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the time for stopping: without an answer the host sends its calls again."""

    async def wait(self: MemoryStore, commits: list[Commit]) -> list[bool]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(MemoryStore, "commit", wait)

    async def run() -> bytes:
        async with serving(make_service(MemoryStore())) as served:
            reader, writer = await served.connect()
            with closing(writer):
                writer.write(post(ROUTER, BODIES[ROUTER]))
                while not served.state.tasks:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
                for task in list(served.state.tasks):
                    task.cancel()
                try:
                    return await reader.read()
                except ConnectionResetError:
                    return b""

    assert asyncio.run(run()) == b""


def test_before_the_start_a_request_goes_the_usual_way() -> None:
    """There is no service yet that could answer it."""
    app = Counted(lambda: pytest.fail("not opened"), lambda: "id")

    assert app.directly(ROUTER, [], BODIES[ROUTER]) is None
