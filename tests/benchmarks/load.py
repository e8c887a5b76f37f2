"""Payloads and load for the benchmarks: router requests of 2.9 KB an event, sent over keep-alive connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from tests.support.requests import call, metadata

PEOPLE = 2000
"""Persons that the events of a run are spread over."""

PAGE = {
    "path": "/products/running/shoes",
    "referrer": "https://shop.example/products?category=running&sort=price",
    "search": "?utm_source=newsletter&utm_medium=email&utm_campaign=autumn",
    "title": "Running shoes for every ground | The Example Shop",
    "url": "https://shop.example/products/running/shoes?utm_source=newsletter&utm_medium=email&utm_campaign=autumn",
}
CONTEXT = {
    "app": {"name": "The Example Shop", "namespace": "com.example.shop", "version": "7.4.1", "build": "1042"},
    "campaign": {"source": "newsletter", "medium": "email", "name": "autumn", "content": "header"},
    "library": {"name": "RudderLabs JavaScript SDK", "version": "3.7.12"},
    "locale": "de-DE",
    "os": {"name": "macOS", "version": "14.6"},
    "page": PAGE,
    "screen": {"density": 2, "width": 1512, "height": 982, "innerWidth": 1512, "innerHeight": 860},
    "sessionId": 1732355999000,
    "timezone": "GMT+0100",
    "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0",
}
DESTINATION = {
    "ID": "2mfZ3xq4yT6uV8wX0zA1bC2dE3f",
    "Name": "Emarsys EU production",
    "DestinationDefinition": {
        "ID": "1mfZ3xq4yT6uV8wX0zA1bC2dE3f",
        "Name": "EMARSYS",
        "DisplayName": "Emarsys",
        "Config": {
            "transformAtV1": "router",
            "saveDestinationResponse": True,
            "secretKeys": ["apiKey"],
            "supportedSourceTypes": ["android", "ios", "web", "cloud", "warehouse", "reactnative", "flutter"],
            "supportedMessageTypes": ["identify", "track", "page", "screen", "group", "alias"],
            "destConfig": {"defaultConfig": ["apiKey", "fieldMapping", "eventsMapping", "defaultContactList"]},
        },
    },
    "Config": {
        "apiKey": "wsse:customer001:a-secret-of-usual-length",
        "discardEmptyProperties": True,
        "connectionMode": "cloud",
        "consentManagement": {},
    },
    "Enabled": True,
    "WorkspaceID": "1aBcDeFgHiJkLmNoPqRsTuVwXyZ",
    "Transformations": [],
    "IsProcessorEnabled": True,
    "RevisionID": "2nfZ3xq4yT6uV8wX0zA1bC2dE3f",
    "hasDynamicConfig": False,
}


def event(number: int) -> dict[str, object]:
    """Return an identify call of one of `PEOPLE` persons; each is later than the one before and changes a value."""
    person = number % PEOPLE
    traits = {
        "email": f"person{person}@shop.example",
        "firstName": f"First{number % 977}",
        "lastName": f"Last{person}",
        "plan": "premium",
        "city": "Berlin",
    }
    seconds, milliseconds = divmod(number, 1000)
    day, hour, minute = 1 + seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    timestamp = f"2026-11-2{day}T{hour:02d}:{minute:02d}:{seconds % 60:02d}.{milliseconds:03d}Z"
    return call(
        "identify",
        messageId=f"0b6f5a3e-58c1-4c1f-9a34-{number:012d}",
        userId=f"user-{person}",
        anonymousId=f"5d1f0d4c-7f3e-4a55-9c1e-{person:012d}",
        timestamp=timestamp,
        originalTimestamp=timestamp,
        traits=traits,
        context={**CONTEXT, "traits": traits},
        rudderId="8f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    )


def router_bodies(batch: int, first: int, count: int) -> Iterator[bytes]:
    """Yield *count* plain router requests of *batch* events, beginning with event number *first*."""
    for number in range(count):
        start = first + number * batch
        inputs = [
            {
                "message": event(start + index),
                "metadata": metadata(start + index, str(DESTINATION["ID"])),
                "destination": DESTINATION,
            }
            for index in range(batch)
        ]
        yield json.dumps({"input": inputs, "destType": "emarsys"}, separators=(",", ":")).encode()


async def send(host: str, port: int, bodies: list[bytes], connections: int) -> list[float]:
    """Post the bodies over some connections; return the seconds that each took."""
    queue = iter(bodies)
    results = await asyncio.gather(*[_connection(host, port, queue) for _ in range(connections)])
    return [seconds for result in results for seconds in result]


async def _connection(host: str, port: int, queue: Iterator[bytes]) -> list[float]:
    reader, writer = await asyncio.open_connection(host, port, limit=2**24)
    loop, times = asyncio.get_running_loop(), []
    for body in queue:
        started = loop.time()
        head = f"POST /routerTransform HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        if b" 200 " not in answer[:16]:
            raise RuntimeError(f"the service answered {answer[:60]!r}")
        times.append(loop.time() - started)
    writer.close()
    return times
