"""Endpoints for people and machines that look after the service: /health, /ready, /metrics, /ui, /api/v1."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emarsys_cdp import __version__
from emarsys_cdp.metrics import USER_LENGTH
from emarsys_cdp.service.api import api_routes
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.settings import VIRTUAL
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.values.times import iso_time


def operations(current: Callable[[], Service | None]) -> Starlette:
    """Return the application of these endpoints; *current* is the running service, None before its start."""

    async def health(request: Request) -> Response:  # noqa: ARG001 - the signature of a route
        return JSONResponse({"status": "ok", "version": __version__})

    async def ready(request: Request) -> Response:  # noqa: ARG001
        service = current()
        if service is None:
            return JSONResponse({"status": "starting"}, 503)
        try:
            await service.store.ping()
        except StoreUnavailable as error:
            return JSONResponse({"status": "not ready", "problems": [str(error)]}, 503)
        waiting = [
            {"api_user": one.user[:USER_LENGTH], "circuit": one.circuit, "reason": one.reason}
            for one in service.emarsys.budgets.health()
            if one.reason
        ]
        virtual = service.virtual
        clock = {} if virtual is None else {"clock": VIRTUAL, "now": iso_time(virtual.now)}
        return JSONResponse({"status": "ready", "emarsys": waiting, **clock})

    async def metrics(request: Request) -> Response:  # noqa: ARG001
        service = current()
        if service is None:
            return Response(b"", media_type=CONTENT_TYPE_LATEST)
        for one in service.emarsys.budgets.health():
            service.metrics.show_budget(one.user, one.used, one.limit, one.circuit)
        return Response(service.metrics.expose(), media_type=CONTENT_TYPE_LATEST)

    routes = [Route("/health", health), Route("/ready", ready), Route("/metrics", metrics), *api_routes(current)]
    return Starlette(routes=routes)
