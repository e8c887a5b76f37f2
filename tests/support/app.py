"""The application as a server runs it, in this process, and a host that judges every answer it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, TypeAlias

import httpx
from starlette.types import Message
from tests.support.world import NOW, counted_bytes, milliseconds

from emarsys_cdp.service.app import App
from emarsys_cdp.service.assembly import Service, World
from emarsys_cdp.testing import (
    Breach,
    check_batch_answer,
    check_processor_answer,
    check_router_answer,
    expect,
)

ROUTER: Final = "/routerTransform"
BATCH: Final = "/batch"
PROCESSOR: Final = "/v0/destinations/emarsys"

Check: TypeAlias = Callable[..., tuple[Breach, ...]]
CHECKS: Final[Mapping[str, Check]] = {
    ROUTER: check_router_answer,
    BATCH: check_batch_answer,
    PROCESSOR: check_processor_answer,
}


def make_app(service: Service) -> App:
    """Return the application over *service*; ids of requests that bring none are counted."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Service]:
        try:
            yield service
        finally:
            await service.close()

    numbers = count(1)
    return App(opened, lambda: f"request-{next(numbers)}")


@asynccontextmanager
async def started(app: App) -> AsyncIterator[App]:
    """Run the lifespan of *app*: started when this is entered, stopped when it is left."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    message = await from_app.get()
    assert message["type"] == "lifespan.startup.complete", message
    try:
        yield app
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        async with asyncio.timeout(10):
            await lifespan


class Host:
    """A host of the application: every answer of a transform endpoint must be one that RudderStack takes."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def send(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Post *body*, check the answer as the host would, and return it."""
        response = await self.client.post(path, content=body, headers=headers)
        expect(CHECKS[path](body, response.status_code, response.headers, response.content))
        return response

    async def metric(self, name: str, **labels: str) -> float:
        """Return the value of a counter that /metrics shows, 0 when it has not been counted."""
        text = (await self.client.get("/metrics")).text
        shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        found = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name}{{{shown}}} ")]
        return float(found[0]) if found else 0.0


class Clock:
    """The time of a world, in ms since 1970 UTC; it moves when a test says so."""

    def __init__(self, now: str = NOW) -> None:
        self.now = milliseconds(now)

    def __call__(self) -> int:
        """Return the time of now."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.now += int(seconds * 1000)

    def world(self) -> World:
        """Return a world with this clock and counted randomness."""
        return World(self, counted_bytes(), lambda: 1, lambda _: 0.0)


@asynccontextmanager
async def host_of(service: Service) -> AsyncIterator[Host]:
    """Run the application over *service* and give a host that talks to it."""
    async with started(make_app(service)) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://emarsys-cdp") as client:
            yield Host(client)


def answers(path: str, response: httpx.Response) -> list[dict[str, Any]]:
    """Return the outputs of an answer of a transform endpoint."""
    assert response.status_code == 200, response.text
    answer = json.loads(response.content.decode("utf-8", "replace"))  # metadata is echoed as it came
    outputs: list[dict[str, Any]] = answer["output"] if path == ROUTER else answer
    return outputs


def by_job(path: str, response: httpx.Response) -> dict[int, list[dict[str, Any]]]:
    """Return the outputs of each job."""
    found: dict[int, list[dict[str, Any]]] = {}
    for output in answers(path, response):
        metadata = output["metadata"]
        for entry in metadata if isinstance(metadata, list) else [metadata]:
            found.setdefault(entry.get("jobId"), []).append(output)
    return found
