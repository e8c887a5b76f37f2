"""The shipped calls of the demonstration, and the requests in which a RudderStack server sends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

import emarsys_cdp_manifests as manifests
from emarsys_cdp_hooks import Json

SPACE = "emarsys-demo"
"""ID of the destination."""

SOURCE = "shop"

Batch: TypeAlias = Sequence[Mapping[str, Json]]


class ShippedCalls(Struct, frozen=True):
    """The calls, batch by batch, and a sentence about them."""

    about: str
    batches: tuple[Batch, ...]


def read_calls() -> ShippedCalls:
    """Return the shipped calls."""
    return msgspec.json.decode(manifests.read("demo/calls.json"), type=ShippedCalls)


def router_request(calls: Batch, first_job: int, api_key: str) -> bytes:
    """Return the compacted body of `POST /routerTransform` for calls; their jobs are numbered from *first_job*."""
    inputs = [{"message": call, "metadata": _metadata(job, call)} for job, call in enumerate(calls, first_job)]
    connection = {"sourceId": "", "destinationId": "", "enabled": False, "config": None, "processorEnabled": False}
    return msgspec.json.encode(
        {
            "input": inputs,
            "destType": "emarsys",
            "destinations": {SPACE: _destination(api_key)},
            "connections": {f"{SOURCE}:{SPACE}": connection},
        }
    )


def _metadata(job: int, call: Mapping[str, Json]) -> dict[str, Json]:
    received = call["receivedAt"]
    return {
        "userId": f"<<>>{call.get('anonymousId', '')}<<>>{call.get('userId', '')}",
        "jobId": job,
        "sourceId": SOURCE,
        "sourceCategory": "",
        "destinationId": SPACE,
        "attemptNum": 0,
        "receivedAt": received,
        "createdAt": received,
        "firstAttemptedAt": "",
        "transformAt": "router",
        "workspaceId": "demo",
        "secret": None,
        "workerAssignedTime": received,
        "dontBatch": False,
        "traceparent": "",
    }


def _destination(api_key: str) -> dict[str, Json]:
    return {
        "ID": SPACE,
        "Name": "Emarsys",
        "DestinationDefinition": {
            "ID": "emarsys",
            "Name": "EMARSYS",
            "DisplayName": "Emarsys",
            "Config": {"transformAtV1": "router", "saveDestinationResponse": True},
        },
        "Config": {"apiKey": api_key},
        "Enabled": True,
        "WorkspaceID": "demo",
        "Transformations": None,
        "IsProcessorEnabled": True,
        "RevisionID": "1",
        "hasDynamicConfig": False,
    }
