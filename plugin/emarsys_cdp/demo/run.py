"""Runs the demonstration: the real service on its embedded server, in a directory that is removed afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import httpx
import msgspec

import emarsys_cdp_manifests as manifests
from emarsys_cdp.credentials import Secret
from emarsys_cdp.demo.calls import Batch, read_calls, router_request
from emarsys_cdp.demo.result import REFUSED, Reading, Result, ShownUser, shown_fired, shown_user
from emarsys_cdp.service.assembly import World
from emarsys_cdp.service.server import make_server
from emarsys_cdp.settings import VIRTUAL, Settings
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.testing import FakeEmarsys, check_router_answer
from emarsys_cdp.values.times import parse_time
from emarsys_cdp_hooks import StopAndFix

ROUTER = "/routerTransform"
CLIENT_ID = "demo-client"
SECRET_PREFIX = "demo-secret-"  # noqa: S105 - the rest is random, and nothing accepts it but the demonstration
ADMIN_PREFIX = "demo-admin-"
EVENTS = {1234: "coupon_reminder"}
"""The external event that the rule triggers."""

WAIT = "48h"
"""Time that passes after the calls."""

ANSWER_SECONDS = 10.0


class Failed(StopAndFix):
    """The service did not do what the demonstration shows: a fault of emarsys-cdp or of the machine."""


def run() -> Result:
    """
    Send the shipped calls to the service and return what became of them.

    Raises:
        Failed: the service did not start, did not answer, or gave an answer that a RudderStack server refuses.

    """
    with TemporaryDirectory(prefix="emarsys-cdp-demo-", ignore_cleanup_errors=True) as directory:
        return _run(Path(directory))


def _run(directory: Path) -> Result:
    secret, token = SECRET_PREFIX + secrets.token_hex(), ADMIN_PREFIX + secrets.token_hex()
    (directory / "rules").mkdir()
    (directory / "rules" / "default.json").write_bytes(manifests.read("demo/document.json"))
    with FakeEmarsys(oauth={CLIENT_ID: secret}, external_events=EVENTS) as emarsys:
        settings = Settings(
            data_dir=directory / "data",
            rules_dir=directory / "rules",
            api_base=emarsys.api_base,
            token_url=emarsys.token_url,
            admin_token=Secret(token),
            clock=VIRTUAL,
        )
        with _running_service(settings) as url:
            reading = _send(url, f"{CLIENT_ID}:{secret}", emarsys.api_base)
            now = _wait(url, token)
            users = asyncio.run(_read_users(settings))
        fired = shown_fired(now, emarsys.requests)
    return Result(tuple(reading.calls), users, tuple(reading.requests), fired)


@contextmanager
def _running_service(settings: Settings) -> Iterator[str]:
    """Run the service in a thread on a free port of loopback, at the time of the last call; yields its URL."""
    started: Future[str] = Future()
    began = parse_time(str(read_calls().batches[-1][-1]["receivedAt"])) or 0
    server = make_server(settings, "127.0.0.1", 0, world=World(lambda: began), on_start=started.set_result)

    def serve() -> None:
        try:
            server.run()
        finally:
            if not started.done():
                started.set_exception(Failed("the service of the demonstration did not start; its log says why"))

    thread = Thread(target=serve, name="demo-service")
    thread.start()
    try:
        yield started.result()
    finally:
        server.should_exit = True
        thread.join()


def _send(url: str, api_key: str, api_base: str) -> Reading:
    reading = Reading(api_base)
    with httpx.Client(base_url=url, trust_env=False, timeout=ANSWER_SECONDS) as client:
        for calls in read_calls().batches:
            request = router_request(calls, len(reading.calls) + 1, api_key)
            reading.add(calls, _answer(client, request))
    failed = [str(call.number) for call in reading.calls if call.status > REFUSED]
    if failed:
        raise Failed(f"calls {', '.join(failed)} were postponed: {reading.calls[int(failed[0]) - 1].note}")
    return reading


def _wait(url: str, token: str) -> str:
    """Let time pass, and what is due happen; return the time that it is then."""
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=ANSWER_SECONDS) as client:
            response = client.post("/api/v1/clock", json={"advance": WAIT}, headers=headers)
    except httpx.HTTPError as error:
        raise Failed(f"the service did not answer ({type(error).__name__})") from error
    if response.status_code != httpx.codes.OK:
        raise Failed(f"the clock was not moved: HTTP {response.status_code}: {response.text[:500]}")
    return str(response.json()["now"])


def _answer(client: httpx.Client, request: bytes) -> Batch:
    """Return the outputs of an answer that a RudderStack server would accept."""
    headers = {"Content-Type": "application/json; charset=utf-8", "X-Content-Format": "json+compactedv1"}
    try:
        response = client.post(ROUTER, content=request, headers=headers)
    except httpx.HTTPError as error:
        raise Failed(f"the service did not answer ({type(error).__name__})") from error
    if response.status_code != httpx.codes.OK:
        raise Failed(f"the service answered HTTP {response.status_code}: {response.text[:500]}")
    breaches = check_router_answer(request, response.status_code, response.headers, response.content)
    if breaches:
        raise Failed("a RudderStack server would refuse the answer:\n" + "\n".join(map(str, breaches)))
    outputs: Batch = msgspec.json.decode(response.content)["output"]
    return outputs


async def _read_users(settings: Settings) -> tuple[ShownUser, ...]:
    """Read the users table from the store, the person that was seen first at the top."""
    store = RedisStore(EmbeddedServer(settings.data_dir / "valkey").url)
    try:
        found = [unpack(stored)[1] async for _, stored in store.scan()]
        records = [record for record in found if not record.isolate and record.redirect is None]
    finally:
        await store.close()
    return tuple(shown_user(record) for record in sorted(records, key=lambda record: record.first_seen))
