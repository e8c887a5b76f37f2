"""The requests that the host sends to a transformer, as JSON text (reference 1.2-1.5). Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.values import Stage
from emarsys_cdp.testing.fake_host.workspace import ZERO_CONNECTION, Destination, Source

_CONNECTION = Raw(ZERO_CONNECTION)


class Item(Struct, frozen=True):
    """A job of a request, with where it comes from and goes to. *assigned* is when a worker got it."""

    record: Record
    source: Source
    destination: Destination
    assigned: str = ""

    @property
    def pair(self) -> str:
        """Return the name of its connection in the compacted form."""
        return f"{self.source.id}:{self.destination.id}"


def router_request(items: Sequence[Item], *, compacted: bool) -> bytes:
    """Return the body of POST /routerTransform or /batch."""
    inputs = [_input(item, router_metadata(item), whole=not compacted) for item in items]
    body = {"input": inputs, "destType": items[0].destination.type}
    return msgspec.json.encode({**body, **_shared(items)} if compacted else body)


def processor_request(items: Sequence[Item], *, compacted: bool) -> bytes:
    """Return the body of POST /v0/destinations/<type>."""
    if compacted:
        inputs = [_input(item, processor_metadata(item), whole=False) for item in items]
        return msgspec.json.encode({"input": inputs, **_shared(items)})
    plain = [_input(item, processor_metadata(item), whole=True) for item in items]
    return msgspec.json.encode([{**one, "libraries": None, "credentials": None} for one in plain])


def _input(item: Item, metadata: dict[str, Json], *, whole: bool) -> dict[str, Json]:
    parts = {"message": Raw(item.record.request or item.record.message), "metadata": metadata}
    return {**parts, "destination": Raw(item.destination.payload), "connection": _CONNECTION} if whole else parts


def _shared(items: Sequence[Item]) -> dict[str, Json]:
    return {
        "destinations": {item.destination.id: Raw(item.destination.payload) for item in items},
        "connections": {item.pair: _CONNECTION for item in items},
    }


def router_metadata(item: Item) -> dict[str, Json]:
    """Return the metadata of a job at the router stage."""
    record = item.record
    return {
        "userId": record.order_key,
        "jobId": record.id,
        "sourceId": item.source.id,
        "sourceCategory": item.source.source_definition.category or "",
        "destinationId": item.destination.id,
        "attemptNum": record.attempts,
        "receivedAt": record.received,
        "createdAt": record.created,
        "firstAttemptedAt": record.first_attempted,
        "transformAt": str(Stage.ROUTER if record.request is None else Stage.PROCESSOR),
        "workspaceId": item.destination.workspace_id,
        "secret": None,
        "workerAssignedTime": item.assigned,
        "dontBatch": record.dont_batch,
        "traceparent": "",
    }


def processor_metadata(item: Item) -> dict[str, Json]:
    """Return the metadata of an event at the processor stage."""
    record, kind, source = item.record, item.destination.destination_definition, item.source
    event = record.call.get("event")
    return {
        "sourceId": source.id,
        "originalSourceId": "",
        "sourceName": source.name,
        "sourceType": source.source_definition.name,
        "sourceCategory": source.source_definition.category or "",
        "sourceDefinitionId": source.source_definition.id,
        "workspaceId": item.destination.workspace_id,
        "destinationId": item.destination.id,
        "destinationName": item.destination.name,
        "destinationType": kind.name,
        "destinationDefinitionId": kind.id,
        "messageId": record.call["messageId"],
        "jobId": record.id,
        "rudderId": record.order_key,
        "receivedAt": record.received,
        "eventName": event if isinstance(event, str) else "",
        "eventType": str(record.call.get("type") or ""),
    }


def proxy_metadata(record: Record, item: Item) -> dict[str, Json]:
    """Return what the proxy gets of a job: its user is left out."""
    return {
        "jobId": record.id,
        "attemptNum": record.attempts,
        "userId": "",
        "sourceId": item.source.id,
        "destinationId": item.destination.id,
        "workspaceId": item.destination.workspace_id,
        "secret": None,
        "dontBatch": record.dont_batch,
    }
