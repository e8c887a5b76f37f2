"""
Sending one request as an API user: within the budget, signed at that moment, and what the answer says of each row.

A request is sent once. Only when Emarsys refuses the signature, which means that it has processed nothing, is it signed
anew and sent a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from emarsys_cdp.credentials import Credentials, OAuth
from emarsys_cdp.emarsys.budget import Granted, Report, Wait
from emarsys_cdp.emarsys.budgets import Budgets
from emarsys_cdp.emarsys.client import Client
from emarsys_cdp.emarsys.replies import Reply, Verdict, read_reply
from emarsys_cdp.emarsys.signing import JSON, Signer, endpoint
from emarsys_cdp.emarsys.tokens import SENT_AT_ONCE
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import Request, RetryLater

LONGEST_SLEEP: Final = 1.0
"""Seconds: who waits for the budget looks again at least this often, since others may give requests back."""

_DIGITS: Final = 10

_log = structlog.get_logger("emarsys_cdp.sender")
_encode = msgspec.json.Encoder().encode


class Answered(Struct, frozen=True):
    """An answer of Emarsys, and what it says of each row of the request."""

    reply: Reply
    verdict: Verdict


class Sender:
    """
    Sends requests of all spaces. *clock* gives ms since 1970 UTC; an answer is waited for *seconds*.

    An API user is known to the budgets by a hash of its name and the API's address.
    """

    def __init__(
        self,
        client: Client,
        signer: Signer,
        budgets: Budgets,
        api_base: str,
        clock: Callable[[], int],
    ) -> None:
        self._client = client
        self._signer = signer
        self._budgets = budgets
        self._api_base = api_base
        self._clock = clock
        self.seconds = client.seconds

    async def send(
        self,
        space: str,
        credentials: Credentials,
        request: Request,
        patience: float,
        signed: Mapping[str, str] | None = None,
    ) -> Answered:
        """
        Send a request of a space; wait at most *patience* seconds until the budget allows it.

        *signed* are headers that were made earlier, for credentials that nobody knows any more.

        Raises:
            RetryLater: nothing was sent: the budget is used up, Emarsys is out of order, or there is no access token.
            NotSent: there was no connection.
            NoAnswer: nobody knows whether the request was processed.

        """
        if signed is not None:
            return await self._send_once(space, credentials, request, patience, {**JSON, **signed})
        headers = await self._signer.sign(credentials, SENT_AT_ONCE)
        answered = await self._send_once(space, credentials, request, patience, headers)
        if answered.verdict.unauthorized and isinstance(credentials, OAuth):
            fresh = await self._signer.sign(credentials, SENT_AT_ONCE, refused=headers)
            return await self._send_once(space, credentials, request, patience, fresh)
        return answered

    async def _send_once(
        self, space: str, credentials: Credentials, request: Request, patience: float, headers: Mapping[str, str]
    ) -> Answered:
        user = api_user(self._api_base, credentials)
        granted = await self._reserve(user, space, patience)
        url = endpoint(self._api_base, credentials, request.path)
        found = Report(failed=True)
        try:
            body = b"" if request.method == "GET" else _encode(request.body)
            reply = await self._client.exchange(request.method, url, headers, body)
            verdict = read_reply(request, reply, self._clock())
            found = read_report(reply, verdict)
            return Answered(reply, verdict)
        finally:
            await asyncio.shield(self._report(user, granted, found))

    async def _report(self, user: str, granted: Granted, found: Report) -> None:
        """Give the grant back; when the store is out of order the request counts until its time is over."""
        try:
            await self._budgets.report(user, granted, found)
        except StoreUnavailable as error:
            _log.warning("budget_not_reported", reason=str(error))

    async def _reserve(self, user: str, space: str, patience: float) -> Granted:
        """Wait until a request may be sent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            answer = await self._budgets.reserve(user, space)
            if isinstance(answer, Granted):
                return answer
            wait = (answer.until - self._clock()) / 1000
            if loop.time() + wait > deadline:
                raise _later(answer)
            await asyncio.sleep(max(0.01, min(wait, LONGEST_SLEEP)))


def api_user(api_base: str, credentials: Credentials) -> str:
    """Return the name by which the budgets know an API user: a hash that shows nothing of it."""
    name = credentials.client_id if isinstance(credentials, OAuth) else credentials.user
    return sha256("\0".join((api_base, credentials.version, name)).encode()).hexdigest()[:32]


def read_report(reply: Reply, verdict: Verdict) -> Report:
    """Return what an answer says of the API user's budget (rate limit headers, reference: Core API guide)."""
    limited = reply.status == HTTPStatus.TOO_MANY_REQUESTS
    reset = _number(reply.headers.get("x-ratelimit-reset"))
    return Report(
        failed=verdict.outage and not limited,
        limited=limited,
        limit=_number(reply.headers.get("x-ratelimit-limit")),
        left=_number(reply.headers.get("x-ratelimit-remaining")),
        reset=None if reset is None else reset * 1000,
    )


def _number(text: str | None) -> int | None:
    """Return the whole number in a header's text; one that is too long to be true is none."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _later(wait: Wait) -> RetryLater:
    return RetryLater(f"not sent yet: {wait.reason}", wait.until)
