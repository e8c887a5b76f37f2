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
from emarsys_cdp.credentials import OAuth, Secret
from emarsys_cdp.demo.calls import Batch, read_calls, router_request
from emarsys_cdp.demo.result import REFUSED, Reading, Result, ShownUser, shown_user
from emarsys_cdp.demo.token_endpoint import token_endpoint
from emarsys_cdp.service.server import make_server
from emarsys_cdp.settings import Settings
from emarsys_cdp.store.embedded import EmbeddedServer
from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore
from emarsys_cdp.testing import check_router_answer
from emarsys_cdp_hooks import StopAndFix

ROUTER = "/routerTransform"
CLIENT_ID = "demo-client"
SECRET_PREFIX = "demo-secret-"  # noqa: S105 - the rest is random, and nothing accepts it but the demonstration
TOKEN_PREFIX = "demo-token-"  # noqa: S105

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
    client = OAuth(CLIENT_ID, Secret(SECRET_PREFIX + secrets.token_hex()))
    (directory / "rules").mkdir()
    (directory / "rules" / "default.json").write_bytes(manifests.read("demo/document.json"))
    with token_endpoint(client, TOKEN_PREFIX + secrets.token_hex()) as token_url:
        settings = Settings(data_dir=directory / "data", rules_dir=directory / "rules", token_url=token_url)
        with _running_service(settings) as url:
            reading = _send(url, f"{client.client_id}:{client.secret.reveal()}")
            users = asyncio.run(_read_users(settings))
    return Result(tuple(reading.calls), users, tuple(reading.requests))


@contextmanager
def _running_service(settings: Settings) -> Iterator[str]:
    """Run the service in a thread on a free port of loopback; yields its URL."""
    started: Future[str] = Future()
    server = make_server(settings, "127.0.0.1", 0, on_start=started.set_result)

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


def _send(url: str, api_key: str) -> Reading:
    reading = Reading()
    with httpx.Client(base_url=url, trust_env=False, timeout=ANSWER_SECONDS) as client:
        for calls in read_calls().batches:
            request = router_request(calls, len(reading.calls) + 1, api_key)
            reading.add(calls, _answer(client, request))
    failed = [str(call.number) for call in reading.calls if call.status > REFUSED]
    if failed:
        raise Failed(f"calls {', '.join(failed)} were postponed: {reading.calls[int(failed[0]) - 1].note}")
    return reading


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
