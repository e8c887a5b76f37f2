"""A service with rules whose time a test moves: calls come in as from a host, timers fire, effects are taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.support.app import Clock
from tests.support.requests import router_request
from tests.support.world import NOW, make_service, milliseconds

from emarsys_cdp.effect import Effect, unpack_effect
from emarsys_cdp.store import Store
from emarsys_cdp.store.outbox import QUEUED, SENT, Settlement
from emarsys_cdp.store.record import unpack
from emarsys_cdp.values.times import iso_time

SPACE: Final = "dest-1"
SHARDS: Final = range(1024)
HOLDER: Final = "a sender of the tests"
START: Final = milliseconds(NOW)
HOUR: Final = 3_600_000
FULL_SCAN: Final = 1_000


class Live:
    """
    A service over *store*, without its loops: what they do is done when a test lets time pass.

    *recorded* are the calls as they came, *taken* the effects that were sent. Times are hours since *start* (ms).
    """

    def __init__(self, store: Store, start: int = START) -> None:
        self.store = store
        self.start = start
        self.clock = Clock()
        self.clock.now = start
        self.service = make_service(store, world=self.clock.world())
        self.recorded: list[dict[str, Any]] = []
        self.taken: list[Effect] = []
        self.sends = True
        self._job = 100

    async def publish(self, document: Mapping[str, Any]) -> None:
        """Put a document in force."""
        await self.service.publisher.publish(SPACE, dict(document), None)
        await self.service.documents.refresh()

    async def call(self, at: float, kind: str, message_id: str, *, happened: float | None = None, **parts: Any) -> None:
        """Take a call that arrives at a time; *happened* is when it says that it did."""
        await self.until(at)
        time = self.start + round((at if happened is None else happened) * HOUR)
        message = {
            "type": kind,
            "messageId": message_id,
            "timestamp": iso_time(time),
            "receivedAt": iso_time(self.clock.now),
            **parts,
        }
        self.recorded.append(message)
        self._job += 1
        body = json.loads(router_request([message], first_job=self._job))
        for one in body["input"]:
            one["metadata"]["receivedAt"] = message["receivedAt"]
        answer = json.loads(await self.service.rudderstack.router(json.dumps(body).encode()))
        assert [one["statusCode"] for one in answer["output"]] in ([200], [298]), answer
        await self.look()

    async def track(self, at: float, message_id: str, event: str, **parts: Any) -> None:
        """Take a track call."""
        await self.call(at, "track", message_id, event=event, **parts)

    async def until(self, at: float) -> None:
        """Let time pass, from one timer to the next."""
        end = self.start + round(at * HOUR)
        while (wake := await self._next()) is not None and wake <= end - 1:
            self.clock.now = max(self.clock.now, wake)
            await self.look()
        self.clock.now = max(self.clock.now, end)

    async def _next(self) -> int | None:
        books = [unpack(stored)[1].book async for _, stored in self.store.scan()]
        return min([book.wake for book in books if book is not None and book.wake], default=None)

    async def look(self) -> None:
        """Do what a worker does once a second: look at who is due, and send."""
        await self.service.timers.look()
        if self.sends:
            await self.send()

    async def send(self) -> None:
        """Take what is to be sent out of the outbox."""
        now = self.clock.now
        refs = await self.store.queued(SHARDS, now, FULL_SCAN)
        leased = [one for one in await self.store.lease_effects(refs, HOLDER, now, now + 1000) if one is not None]
        await self.store.settle_effects([Settlement(one.ref, HOLDER, SENT) for one in leased], now)
        self.taken += [unpack_effect(one.content) for one in leased]

    async def waiting(self) -> list[Effect]:
        """Return what waits in the outbox."""
        refs = await self.store.list_effects(QUEUED, SHARDS, FULL_SCAN)
        stored = await self.store.read_effects(refs)
        return [unpack_effect(one.content) for one in stored if one is not None]
