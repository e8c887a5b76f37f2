"""A server protocol whose application may close the connection without any answer."""

from __future__ import annotations

from typing import Any, Final

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

DROP: Final = "emarsys_cdp.drop"
"""Name of the ASGI extension: a function without arguments."""


class DroppableProtocol(HttpToolsProtocol):
    """uvicorn's protocol (`http` of uvicorn.Config), with a way out in the scope of each request."""

    def on_message_begin(self) -> None:
        """Put the way out into the scope that uvicorn has made for the request."""
        super().on_message_begin()
        extensions: dict[str, Any] = {DROP: self.drop_connection}
        self.scope["extensions"] = extensions

    def drop_connection(self) -> None:
        """
        Close the connection without sending anything more.

        The request counts as disconnected at once and not only when the loop has closed the socket: else
        uvicorn would log a missing answer and a 500 that nobody gets.
        """
        self.cycle.disconnected = True
        self.transport.abort()


def drop(scope: Scope) -> bool:
    """Close the connection of *scope* without an answer; False when its server has no way to do that."""
    drop_connection = (scope.get("extensions") or {}).get(DROP)
    if drop_connection is None:
        return False
    drop_connection()
    return True
