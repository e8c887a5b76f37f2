"""A load of requests as a RudderStack server makes it: several at a time, each answer checked, each outcome counted."""

from __future__ import annotations

import http.client
import select
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Event
from urllib.parse import urlsplit

import httpx
from tests.support.app import ROUTER
from tests.support.requests import call, router_request

from emarsys_cdp.testing import check_router_answer, expect

SENDERS = 6
LONGEST = 60.0
AGAIN_SECONDS = 0.02
REFUSED = "refused"
"""Nobody listened."""

LOST = "lost"
"""The connection was made and ended before the answer was whole."""


class Load:
    """
    Posts identify calls, each of a person of their own, one after another on each of `SENDERS` threads.

    *keep* keeps a connection for many requests; otherwise each request has its own, as is the host's default. What is
    not answered, or with something else than success, is sent again as the host does. With *to_the_end* a sender
    ends when nobody listens any more.
    """

    def __init__(self, url: str, *, keep: bool = False, to_the_end: bool = False) -> None:
        self._address = urlsplit(url).netloc
        self._keep = keep
        self._to_the_end = to_the_end
        self._people = count(1)
        self._over = Event()
        self.outcomes: Counter[str] = Counter()
        """How often a try ended how: "200", another status, "job 500", `REFUSED`, `LOST`."""
        self.answered: list[int] = []
        """The numbers of those whose call was answered with success; person n has the userId `u<n>`."""

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Send meanwhile, and see at the end that all went as it should."""
        with ThreadPoolExecutor(SENDERS) as pool:
            senders = [pool.submit(self._send_many) for _ in range(SENDERS)]
            try:
                yield self
            finally:
                self._over.set()
            for sender in senders:
                sender.result()

    def wait_for(self, more: int) -> None:
        """Wait until so many more requests are answered with success."""
        deadline, wanted = time.monotonic() + LONGEST, len(self.answered) + more
        while len(self.answered) < wanted:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.005)

    def _send_many(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=LONGEST)
        while not self._over.is_set():
            if not self._send(connection, next(self._people)):
                break
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, person: int) -> bool:
        body = router_request(
            [call("identify", person, userId=f"u{person}", traits={"email": f"{person}@example.com"})]
        )
        deadline = time.monotonic() + LONGEST
        while (outcome := self._try(connection, body)) != "200":
            self.outcomes[outcome] += 1
            if outcome == REFUSED and self._to_the_end:
                return False
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(AGAIN_SECONDS)
        self.outcomes[outcome] += 1
        self.answered.append(person)
        return True

    def _try(self, connection: http.client.HTTPConnection, body: bytes) -> str:
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()  # the other side has closed it meanwhile: Go's client sees that, too
        try:
            if connection.sock is None:
                connection.connect()
        except (ConnectionRefusedError, ConnectionResetError):  # reset while it is made: nobody has accepted it
            connection.close()
            return REFUSED
        try:
            connection.request("POST", ROUTER, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return LOST
        if not self._keep:
            connection.close()
        expect(check_router_answer(body, response.status, httpx.Headers(response.headers.items()), answer))
        if response.status != http.HTTPStatus.OK:
            return str(response.status)
        return "200" if b'"statusCode":200' in answer else "job 500"
