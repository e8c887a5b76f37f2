"""The application: each request is recorded, hit by the fault that the script has for it, processed, answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
from starlette.types import Receive, Scope, Send

from emarsys_cdp.droppable import drop
from emarsys_cdp.testing.fake_emarsys.control import PREFIX, answer_control
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.handling import caller_of, faulty, process
from emarsys_cdp.testing.fake_emarsys.incoming import Incoming, read, send_reply, until_left
from emarsys_cdp.testing.fake_emarsys.records import Log, ReceivedRequest
from emarsys_cdp.testing.fake_emarsys.replies import Reply
from emarsys_cdp.testing.fake_emarsys.world import World


class App:
    """An ASGI application over *world*; *pause* waits some seconds and tells whether the server still runs."""

    def __init__(self, world: World, pause: Callable[[float], Awaitable[bool]]) -> None:
        self._world = world
        self._pause = pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        incoming = await read(scope, receive)
        if incoming.path.startswith(PREFIX):
            with self._world.lock:
                reply: Reply | None = answer_control(self._world, incoming)
        else:
            reply = await self._answer(incoming, receive)
        if reply is None:
            drop(scope)
        else:
            await send_reply(send, reply)

    async def _answer(self, incoming: Incoming, receive: Receive) -> Reply | None:
        """Return the answer to a request, None when it gets none and its connection is to be closed."""
        log, number, fault = self._begin(incoming)
        if not incoming.complete:
            return None
        if fault is not None and fault.delay and not await self._pause(fault.delay):
            return None
        reply = self._act(incoming, log, number, fault)
        if fault is not None and fault.kind == "lost":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(until_left(receive), fault.hold)
        return reply

    def _begin(self, incoming: Incoming) -> tuple[Log[ReceivedRequest], int, Fault | None]:
        """Record a request before anything is done with it, and choose its fault; returns where it is recorded."""
        world = self._world
        with world.lock:
            fault = None
            if incoming.complete and not incoming.is_too_large:
                fault = world.script.take(incoming.method, incoming.path, incoming.raw)
            number = world.requests.add(
                ReceivedRequest(
                    number=world.requests.total + 1,
                    time=world.now(),
                    method=incoming.method,
                    path=incoming.path,
                    query=incoming.query,
                    user=caller_of(world, incoming).user,
                    raw=incoming.raw,
                    size=incoming.size,
                    fault=None if fault is None else fault.kind,
                    note="" if incoming.complete else "the client left before its body was complete",
                )
            )
            return world.requests, number, fault

    def _act(self, incoming: Incoming, log: Log[ReceivedRequest], number: int, fault: Fault | None) -> Reply | None:
        """Process a request, unless a fault prevents it, and record its answer before the client can see it."""
        world = self._world
        with world.lock:
            done = process(world, incoming, number, fault) if fault is None or fault.processes else None
            reply = done
            if fault is not None and fault.kind in ("reset", "lost"):
                reply = None
            elif fault is not None and fault.kind in ("status", "garbage"):
                reply = faulty(world, incoming, fault)
            record = log.get(number)
            if record is not None:
                status, note = (int(reply.status) if reply else None), (done.note if done else "")
                log.replace(number, msgspec.structs.replace(record, status=status, note=note))
            return reply
