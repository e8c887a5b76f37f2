"""
A token endpoint on loopback, for the demonstration only.

Emarsys' own is at https://auth.emarsys.net/oauth2/token and needs an account. This one speaks the same protocol for
one client, so that the service fetches its access token as it always does.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

from emarsys_cdp.credentials import OAuth

PATH = "/oauth2/token"
TOKEN_SECONDS = 3600
MAX_BODY = 10_000
STOP_POLL = 0.02
"""How often, in seconds, the server looks whether it is to stop."""


@contextmanager
def token_endpoint(client: OAuth, token: str) -> Iterator[str]:
    """Give *token* to who proves to be *client*; yields the URL to ask."""
    basic = b64encode(f"{client.client_id}:{client.secret.reveal()}".encode()).decode()
    server = _Server(f"Basic {basic}", token)
    thread = Thread(target=server.serve_forever, args=(STOP_POLL,), name="demo-token-endpoint")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Knows the header to expect and the token to give."""

    def __init__(self, authorization: str, token: str) -> None:
        self.authorization = authorization
        self.token = token
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        """Answer one request for a token."""
        size = min(int(self.headers.get("Content-Length") or 0), MAX_BODY)
        form = parse_qs(self.rfile.read(size).decode("latin-1"))
        given = self.headers.get("Authorization") or ""
        if self.path != PATH:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "not_found"})
        elif not hmac.compare_digest(given.encode(), self.server.authorization.encode()):
            self._answer(HTTPStatus.UNAUTHORIZED, {"error": "invalid_client"})
        elif form.get("grant_type") != ["client_credentials"]:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "unsupported_grant_type"})
        else:
            token = {"access_token": self.server.token, "token_type": "bearer", "expires_in": TOKEN_SECONDS}
            self._answer(HTTPStatus.OK, token)

    def _answer(self, status: HTTPStatus, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: the demonstration prints tables."""
