"""A service between a host that hands requests back for sending and a real fake Emarsys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from tests.support.app import ROUTER, Host, answers, host_of
from tests.support.requests import router_request
from tests.support.world import make_service

from emarsys_cdp.service.assembly import World
from emarsys_cdp.store import Store
from emarsys_cdp.testing import FakeEmarsys

PROXY_V1: Final = "/v1/destinations/emarsys/proxy"
PROXY_V0: Final = "/v0/destinations/emarsys/proxy"

_PASSED: Final = ("type", "endpoint", "endpointPath", "method", "userId", "headers", "params", "body", "files")


class Delivering:
    """A host with the proxy on, in steps: *transform* gives the delivery requests, *deliver* sends one."""

    def __init__(self, host: Host, config: Mapping[str, Any], space: str) -> None:
        self.host = host
        self.config = config
        self.space = space

    async def transform(self, calls: Sequence[Any], first_job: int = 101) -> list[dict[str, Any]]:
        """Post calls to the router's transform and return the delivery requests of its answer."""
        body = router_request(calls, self.config, space=self.space, first_job=first_job)
        outputs = answers(ROUTER, await self.host.send(ROUTER, body))
        return [
            self.request_of(made, output["metadata"])
            for output in outputs
            if output["statusCode"] == 200
            for made in _listed(output["batchedRequest"])
        ]

    def request_of(self, made: Mapping[str, Any], metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the delivery request for a batchedRequest, as the host makes it (reference 1.5)."""
        return {
            **{name: made[name] for name in _PASSED},
            "metadata": [{**one, "userId": ""} for one in metadata],
            "destinationConfig": dict(self.config),
        }

    async def deliver(self, request: Mapping[str, Any]) -> dict[int, tuple[int, str, bool]]:
        """Hand a request over for sending; return status, text and dontBatch of each job."""
        response = await self.host.client.post(PROXY_V1, json=request)
        assert response.status_code == 200, response.text
        assert response.headers["apiVersion"] == "2"
        found = response.json()["output"]["response"]
        assert sorted(one["metadata"]["jobId"] for one in found) == sorted(one["jobId"] for one in request["metadata"])
        return {
            one["metadata"]["jobId"]: (one["statusCode"], one["error"], one["metadata"]["dontBatch"]) for one in found
        }

    async def send(self, calls: Sequence[Any], first_job: int = 101) -> dict[int, tuple[int, str, bool]]:
        """Transform calls and deliver what comes of it, request by request."""
        found: dict[int, tuple[int, str, bool]] = {}
        for request in await self.transform(calls, first_job):
            found |= await self.deliver(request)
        return found


def _listed(batched: Any) -> list[Any]:
    return batched if isinstance(batched, list) else [batched]


def statuses(found: Mapping[int, tuple[int, str, bool]]) -> dict[int, int]:
    """Return the status of each job."""
    return {job: status for job, (status, _, _) in found.items()}


@asynccontextmanager
async def delivering(
    emarsys: FakeEmarsys,
    store: Store,
    *,
    config: Mapping[str, Any] | None = None,
    space: str = "dest-1",
    world: World | None = None,
    **settings: Any,
) -> AsyncIterator[Delivering]:
    """Run a service over *store* that sends to *emarsys*."""
    async with httpx.AsyncClient(trust_env=False) as http:
        service = make_service(
            store,
            world=world or World(),
            client=http,
            **{"api_base": emarsys.api_base, "token_url": emarsys.token_url, **settings},
        )
        async with host_of(service) as host:
            yield Delivering(host, config or {"apiKey": emarsys.api_key}, space)
