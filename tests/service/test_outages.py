"""What is out of order for a while, a store or the token endpoint: nothing is lost, and the next try works."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from msgspec import Struct
from tests.service.test_upstream import head, listening
from tests.support.app import BATCH, PROCESSOR, ROUTER, Clock, answers, host_of
from tests.support.requests import OAUTH_KEY, call, processor_request, router_request
from tests.support.world import SECRET, TOKEN, make_service

from emarsys_cdp.secrets import Seal, derive
from emarsys_cdp.store import Store
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore

MakeStore = Callable[[], Store]
CALLS = [call("identify", n, userId=f"user-{n}", traits={"email": f"{n}@example.com"}) for n in (1, 2)]


def request_of(path: str, calls: Sequence[Any] = CALLS) -> bytes:
    """Return the request of an endpoint, with an OAuth API Key."""
    return (processor_request if path == PROCESSOR else router_request)(calls, OAUTH_KEY)


def statuses(path: str, response: httpx.Response) -> list[int]:
    """Return the status of every output."""
    return [output["statusCode"] for output in answers(path, response)]


def assert_kept(path: str, response: httpx.Response, reason: str) -> None:
    """Check that the host keeps every call: a 500 for each at the router, a 503 for the request at the processor."""
    assert reason in response.text
    if path == PROCESSOR:
        assert response.status_code == 503
        assert response.headers["x-rudder-should-retry"] == "true"
    else:
        assert statuses(path, response) == [500, 500]


async def people(store: Store) -> dict[str | None, str | None]:
    """Return the userId of everybody in the users table with their key."""
    return {(found := unpack(record)[1]).user: found.key async for _, record in store.scan()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Run a Valkey of the test's own, which it may stop."""
    server = EmbeddedServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("path", [ROUTER, BATCH, PROCESSOR])
def test_while_the_store_is_down_the_host_keeps_its_calls(path: str, server: EmbeddedServer) -> None:
    """And when it is back, the same request over the same service is answered in full."""

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(RedisStore(server.url))) as host:
            found = [await host.send(path, request_of(path, CALLS[:1]))]
            for change in (server.stop, server.start):
                await asyncio.to_thread(change)
                found.append(await host.send(path, request_of(path)))
            return found

    before, during, after = asyncio.run(run())

    assert statuses(path, before) == [200]
    assert_kept(path, during, "Redis at ")
    assert set(statuses(path, after)) == {200}


def test_readiness_follows_the_store(server: EmbeddedServer) -> None:
    """Not ready with the reason while it is down; health does not change, so nobody restarts us for it."""

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(RedisStore(server.url))) as host:
            found = [await host.client.get("/ready")]
            for change in (server.stop, server.start):
                await asyncio.to_thread(change)
                found += [await host.client.get("/ready"), await host.client.get("/health")]
            return found

    before, during, health, after, _ = asyncio.run(run())

    assert [before.status_code, during.status_code, health.status_code, after.status_code] == [200, 503, 200, 200]
    assert during.json()["status"] == "not ready"
    assert "cannot be reached" in during.json()["problems"][0] or "did not answer" in during.json()["problems"][0]


def test_a_full_store_loses_nothing(server: EmbeddedServer) -> None:
    """A server without memory left refuses to write; the calls come again."""

    async def run() -> httpx.Response:
        store = RedisStore(server.url)
        await store.ping()
        async with host_of(make_service(store)) as host:
            await asyncio.to_thread(configure, server.url, "maxmemory", "1")
            return await host.send(ROUTER, request_of(ROUTER))

    assert_kept(ROUTER, asyncio.run(run()), "Redis refuses: OOM")


def configure(url: str, name: str, value: str) -> None:
    """Change a setting of a running server."""
    with redis.Redis.from_url(url) as client:
        client.config_set(name, value)


class Endpoint(Struct):
    """A token endpoint: *reply* answers, *asked* counts the fetches."""

    reply: httpx.Response | Exception
    asked: int = 0

    def client(self) -> httpx.AsyncClient:
        """Return a client that reaches nothing else."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        if isinstance(self.reply, Exception):
            raise self.reply
        return httpx.Response(self.reply.status_code, content=self.reply.content)


def granted(seconds: float | None = 3600, text: str = TOKEN) -> httpx.Response:
    """Return the answer that has a token."""
    life = {} if seconds is None else {"expires_in": seconds}
    return httpx.Response(200, json={"access_token": text, "token_type": "Bearer", **life})


BAD = {
    "down": (httpx.ConnectError("refused"), "cannot be reached (no connection: ConnectError)"),
    "slow": (httpx.ReadTimeout("slow"), "cannot be reached (no whole answer: ReadTimeout)"),
    "refusing 400": (httpx.Response(400, text="invalid_client"), "Emarsys refuses the API Key (HTTP 400)"),
    "refusing 401": (httpx.Response(401), "Emarsys refuses the API Key (HTTP 401)"),
    "refusing 403": (httpx.Response(403), "Emarsys refuses the API Key (HTTP 403)"),
    "busy": (httpx.Response(429), "answered HTTP 429"),
    "broken": (httpx.Response(500), "answered HTTP 500"),
    "redirecting": (httpx.Response(302), "answered HTTP 302"),
    "no JSON": (httpx.Response(200, text="<html>"), "answered HTTP 200"),
    "another JSON": (httpx.Response(200, text='{"token":"x"}'), "answered HTTP 200"),
}


@pytest.mark.parametrize("path", [ROUTER, PROCESSOR])
@pytest.mark.parametrize(("reply", "says"), BAD.values(), ids=BAD)
def test_without_a_token_the_host_keeps_its_calls(reply: httpx.Response | Exception, says: str, path: str) -> None:
    """The users table has them all the same, and the next try is sent."""
    endpoint, store = Endpoint(reply), MemoryStore()

    async def run() -> list[httpx.Response]:
        async with host_of(make_service(store, client=endpoint.client())) as host:
            failed = await host.send(path, request_of(path))
            assert await people(store) == {"user-1": "1@example.com", "user-2": "2@example.com"}
            endpoint.reply = granted()
            return [failed, await host.send(path, request_of(path))]

    failed, mended = asyncio.run(run())

    assert_kept(path, failed, f"no access token: {'Emarsys' if 'refuses' in says else 'https://'}")
    assert says in failed.text
    assert set(statuses(path, mended)) == {200}


def test_a_token_endpoint_that_hangs_is_given_up() -> None:
    """The wait for it has an end."""

    async def hanging(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await head(reader)
        await reader.read()

    async def run() -> httpx.Response:
        async with (
            listening(hanging) as url,
            httpx.AsyncClient(trust_env=False) as client,
            host_of(make_service(MemoryStore(), client=client, token_url=url, send_seconds=0.1)) as host,
        ):
            return await host.send(ROUTER, request_of(ROUTER))

    assert_kept(ROUTER, asyncio.run(run()), "cannot be reached (no answer within 0.1 s)")


def test_calls_that_need_no_token_go_on_without_one() -> None:
    """An outage of the token endpoint costs those only that would have been sent."""
    endpoint = Endpoint(httpx.ConnectError("refused"))

    async def run() -> list[int]:
        async with host_of(make_service(MemoryStore(), client=endpoint.client())) as host:
            return statuses(ROUTER, await host.send(ROUTER, request_of(ROUTER, [call("page"), call("erase")])))

    assert sorted(asyncio.run(run())) == [298, 400]
    assert endpoint.asked == 0


def test_a_token_is_fetched_once_and_shared_through_the_store(make_store: MakeStore) -> None:
    """Many requests and a second service on the same store: one fetch."""
    first, second = Endpoint(granted()), Endpoint(granted())

    async def run() -> list[int]:
        found = []
        for endpoint in (first, second):
            async with host_of(make_service(make_store(), client=endpoint.client())) as host:
                for path in (ROUTER, PROCESSOR, ROUTER):
                    found += statuses(path, await host.send(path, request_of(path)))
        return found

    assert set(asyncio.run(run())) == {200}
    assert (first.asked, second.asked) == (1, 0)


def test_a_token_of_another_secret_is_not_read() -> None:
    """What is in the store is sealed: a service with another API Key fetches its own."""
    endpoint, store = Endpoint(granted()), MemoryStore()

    async def run() -> None:
        async with host_of(make_service(store, client=endpoint.client())) as host:
            for key in ("client-1:one", "client-1:two"):
                await host.send(ROUTER, router_request(CALLS, {"apiKey": key}))

    asyncio.run(run())

    assert endpoint.asked == 2
    seal = Seal(derive(SECRET, "seal"), bytes)
    opened = [plain for name, sealed in store.kept.items() if (plain := seal.open(sealed, name)) is not None]
    assert sum(TOKEN.encode() in plain for plain in opened) == 2
    assert not any(TOKEN.encode() in sealed for sealed in store.kept.values())


async def bearer(endpoint: Endpoint, clock: Clock, *moments: float) -> list[str | int]:
    """Return the token sent at each of some moments, in seconds after the start, else the status."""
    found: list[str | int] = []
    start = clock.now
    async with host_of(make_service(MemoryStore(), world=clock.world(), client=endpoint.client())) as host:
        for moment in moments:
            clock.now = start + int(moment * 1000)
            (output,) = answers(ROUTER, await host.send(ROUTER, request_of(ROUTER)))[:1]
            sent = output.get("batchedRequest")
            found.append(sent["headers"]["Authorization"].removeprefix("Bearer ") if sent else output["statusCode"])
            if not isinstance(endpoint.reply, Exception):
                endpoint.reply = granted(text=f"token-{endpoint.asked + 1}")
    return found


def test_a_token_is_refreshed_at_half_its_life() -> None:
    """Early enough that an outage of the endpoint is not felt at once."""
    endpoint = Endpoint(granted(text="token-1"))
    found = asyncio.run(bearer(endpoint, Clock(), 0, 1799, 1800, 3599, 3600))

    assert found == ["token-1", "token-1", "token-2", "token-2", "token-3"]
    assert endpoint.asked == 3


def test_an_old_token_serves_until_it_has_fifteen_minutes_left() -> None:
    """A host that sends by itself may wait that long, and an end in between would abort its jobs."""
    endpoint = Endpoint(granted(text="old"))

    async def run() -> list[str | int]:
        clock = Clock()
        async with host_of(make_service(MemoryStore(), world=clock.world(), client=endpoint.client())) as host:
            found: list[str | int] = []
            for step in (0, 1800, 900, 1):
                clock.advance(step)
                (output, *_) = answers(ROUTER, await host.send(ROUTER, request_of(ROUTER)))
                sent = output.get("batchedRequest")
                found.append(sent["headers"]["Authorization"] if sent else output["statusCode"])
                endpoint.reply = httpx.ConnectError("refused")
            return found

    assert asyncio.run(run()) == ["Bearer old", "Bearer old", "Bearer old", 500]


def test_a_token_that_begins_too_short_is_not_handed_out() -> None:
    """One of ten minutes would end before the host may have sent."""
    assert asyncio.run(bearer(Endpoint(granted(600)), Clock(), 0)) == [500]


def test_a_token_without_a_life_is_taken_for_an_hour() -> None:
    """The answer need not tell."""
    endpoint = Endpoint(granted(None, "token-1"))

    assert asyncio.run(bearer(endpoint, Clock(), 0, 1799, 1800)) == ["token-1", "token-1", "token-2"]


def test_the_budget_of_fetches_is_kept() -> None:
    """Two a minute and ten an hour, however many requests come; then it says when the next one is due."""
    endpoint = Endpoint(httpx.ConnectError("refused"))

    async def run() -> tuple[list[int], str]:
        clock, asked = Clock(), []
        async with host_of(make_service(MemoryStore(), world=clock.world(), client=endpoint.client())) as host:
            for _ in range(7):
                for _ in range(4):
                    last = await host.send(ROUTER, request_of(ROUTER))
                asked.append(endpoint.asked)
                clock.advance(60)
        return asked, last.text

    asked, last = asyncio.run(run())

    assert asked == [2, 4, 6, 8, 10, 10, 10]
    assert "Emarsys hands out the next one in 3241 s" in last


def test_the_budget_of_one_api_key_is_not_another_s() -> None:
    """A wrong key of one destination does not stop the others."""
    endpoint = Endpoint(httpx.Response(401))

    async def run() -> list[int]:
        async with host_of(make_service(MemoryStore(), client=endpoint.client())) as host:
            for _ in range(3):
                await host.send(ROUTER, request_of(ROUTER))
            endpoint.reply = granted()
            return statuses(ROUTER, await host.send(ROUTER, router_request(CALLS, {"apiKey": "client-2:other"})))

    assert asyncio.run(run()) == [200]
