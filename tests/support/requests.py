"""Requests as a RudderStack server sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

API_KEY = {"apiKey": "wsse:customer001:s3cret"}
OAUTH_KEY = {"apiKey": "client-1:s3cret-of-client-1"}


def destination(
    config: Mapping[str, Any] | None = None, space: str = "dest-1", *, dynamic: bool = False
) -> dict[str, Any]:
    """Return a destination as the host describes it."""
    return {
        "ID": space,
        "Name": f"Emarsys {space}",
        "DestinationDefinition": {
            "ID": "def-1",
            "Name": "EMARSYS",
            "DisplayName": "Emarsys",
            "Config": {"transformAtV1": "router", "saveDestinationResponse": True},
        },
        "Config": dict(API_KEY if config is None else config),
        "Enabled": True,
        "WorkspaceID": "ws-1",
        "Transformations": None,
        "IsProcessorEnabled": True,
        "RevisionID": "",
        "hasDynamicConfig": dynamic,
    }


def metadata(job: int, space: str = "dest-1", **changes: Any) -> dict[str, Any]:
    """Return a router job's metadata."""
    return {
        "userId": f"<<>>anon-{job}<<>>user-{job}",
        "jobId": job,
        "sourceId": "src-1",
        "sourceCategory": "",
        "destinationId": space,
        "attemptNum": 0,
        "receivedAt": "2026-11-23T10:00:00.100Z",
        "createdAt": "2026-11-23T10:00:01.000Z",
        "firstAttemptedAt": "",
        "transformAt": "router",
        "workspaceId": "ws-1",
        "secret": None,
        "workerAssignedTime": "2026-11-23T10:00:02.123456789Z",
        "dontBatch": False,
        "traceparent": "",
        **changes,
    }


def call(kind: str, number: int = 1, **parts: Any) -> dict[str, Any]:
    """Return a call with the envelope that every SDK adds."""
    return {
        "type": kind,
        "messageId": f"m-{number}",
        "channel": "web",
        "integrations": {"All": True},
        "originalTimestamp": "2026-11-23T09:59:59.000Z",
        "sentAt": "2026-11-23T10:00:00.000Z",
        "timestamp": f"2026-11-23T09:59:{number % 60:02d}.100Z",
        "receivedAt": "2026-11-23T10:00:00.100Z",
        "request_ip": "192.0.2.1",
        **parts,
    }


def router_request(
    calls: Sequence[Any],
    config: Mapping[str, Any] | None = None,
    *,
    compacted: bool = False,
    space: str = "dest-1",
    first_job: int = 101,
) -> bytes:
    """Return the body of `POST /routerTransform` for calls of one destination."""
    target = destination(config, space)
    inputs = [{"message": one, "metadata": metadata(first_job + i, space)} for i, one in enumerate(calls)]
    if compacted:
        connections = {f"src-1:{space}": {"sourceId": "", "destinationId": "", "enabled": False}}
        body = {
            "input": inputs,
            "destType": "emarsys",
            "destinations": {space: target},
            "connections": connections,
        }
    else:
        body = {"input": [{**one, "destination": target} for one in inputs], "destType": "emarsys"}
    return json.dumps(body).encode()


def processor_request(
    calls: Sequence[Any], config: Mapping[str, Any] | None = None, *, compacted: bool = False
) -> bytes:
    """Return the body of `POST /v0/destinations/emarsys` for calls of one destination."""
    target = destination(config)
    inputs = [
        {
            "message": one,
            "metadata": {
                "jobId": 1 + i,
                "workspaceId": "ws-1",
                "rudderId": "<<>>anon-1<<>>user-1",
                "receivedAt": "2026-11-23T10:00:00.100Z",
                "messageId": f"m-{i}",
                "eventType": "track",
                "sourceId": "src-1",
                "destinationId": "dest-1",
                "destinationType": "EMARSYS",
            },
        }
        for i, one in enumerate(calls)
    ]
    if compacted:
        return json.dumps({"input": inputs, "destinations": {"dest-1": target}, "connections": {}}).encode()
    return json.dumps([{**one, "destination": target} for one in inputs]).encode()
