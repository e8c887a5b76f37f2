"""
Does an API Key work? Asks Emarsys what can be asked without changing anything.

Each question is one request and needs one endpoint permission. Emarsys answers a missing one with a bare 403 that does
not name it, and permissions to write would only show by writing, so those are not tried.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from msgspec.structs import replace

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.emarsys.account_report import (
    CHECK_ADDRESS,
    CHECK_NETWORK,
    QUESTIONS,
    TRY_LATER,
    WHERE,
    Asked,
    Finding,
    NoToken,
    Question,
    RateLimit,
    Report,
    judge,
)
from emarsys_cdp.emarsys.client import NoAnswer, NotSent
from emarsys_cdp.emarsys.connection import Emarsys
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.emarsys.outcomes import Delivered
from emarsys_cdp.emarsys.reply_errors import plain
from emarsys_cdp.emarsys.sender import read_report
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.emarsys.tokens import SENT_AT_ONCE, KeyRefused
from emarsys_cdp_hooks import Request, RetryLater

PATIENCE: Final = 5.0
"""Seconds that a question waits for the API user's budget."""

_SPACE = "account check"
"""The space by which the budgets know the questions."""

_KINDS = (
    "credentials of the kind WSSE are written wsse:user:secret, and those of SAP Cloud Identity have a token URL of "
    "their own (EMARSYS_CDP_TOKEN_URL)"
)
_FETCHES = (
    "check EMARSYS_CDP_TOKEN_URL; after HTTP 429 wait an hour: Emarsys hands out 2 access tokens a minute and 10 an "
    "hour, those of the service included"
)
_LIMIT = "wait a minute; every program that uses the same API user shares its limit, which SAP can raise"
_LAST = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
"""Statuses after which the next question would fare no better."""


async def check_account(emarsys: Emarsys, credentials: Credentials, clock: Callable[[], int]) -> Report:
    """
    Ask Emarsys and return what came out, whatever goes wrong with it; *clock* gives ms since 1970 UTC.

    Raises:
        StoreUnavailable: the store of tokens and budgets does not answer.

    """
    no_token = await _fetch_token(emarsys.signer, credentials)
    asked = () if no_token is not None else await _ask_all(emarsys, credentials, clock)
    report = judge(credentials, no_token, asked, load_system_fields())
    if report.customer is None:
        return report
    return replace(report, customer=replace(report.customer, name=_without(credentials, plain(report.customer.name))))


async def _fetch_token(signer: Signer, credentials: Credentials) -> NoToken | None:
    """Let the access token be fetched that the questions use then; return why there is none."""
    try:
        await signer.sign(credentials, SENT_AT_ONCE)
    except RetryLater as error:
        what = str(error).partition("; ")[0]
        if isinstance(error, KeyRefused):
            step = f"check client_id and client_secret {WHERE}; {_KINDS}"
            return NoToken(Finding("error", what, step), refused=True)
        unreachable = isinstance(error.__cause__, (NotSent, NoAnswer))
        return NoToken(Finding("error", what, CHECK_NETWORK if unreachable else _FETCHES))
    return None


async def _ask_all(emarsys: Emarsys, credentials: Credentials, clock: Callable[[], int]) -> tuple[Asked, ...]:
    """Ask one question after another, until one has no answer or the key is refused."""
    asked: list[Asked] = []
    for first in QUESTIONS:
        question: Question | None = first
        while question is not None:
            answer = await _ask(emarsys, credentials, question, clock)
            asked.append(answer)
            if answer.reply is None or answer.status in _LAST:
                return tuple(asked)
            question = question.instead if answer.status == HTTPStatus.FORBIDDEN else None
    return tuple(asked)


async def _ask(emarsys: Emarsys, credentials: Credentials, question: Question, clock: Callable[[], int]) -> Asked:
    sent = clock()
    try:
        answered = await emarsys.sender.send(_SPACE, credentials, Request("GET", question.path, {}), PATIENCE)
    except RetryLater as error:
        return Asked(question, sent, clock(), reason=str(error), next_step=TRY_LATER)
    except (NotSent, NoAnswer) as error:
        return Asked(question, sent, clock(), reason=str(error), next_step=CHECK_NETWORK)
    outcome, found = answered.verdict.outcomes[0], read_report(answered.reply, answered.verdict)
    done = isinstance(outcome, Delivered)
    return Asked(
        question,
        sent,
        clock(),
        answered.reply,
        done=done,
        reason="" if isinstance(outcome, Delivered) else _without(credentials, outcome.reason),
        next_step="" if done else _next_step(answered.reply.status),
        rate_limit=None if found.limit is None else RateLimit(found.limit, found.left),
    )


def _next_step(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _LIMIT
    return TRY_LATER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else CHECK_ADDRESS


def _without(credentials: Credentials, text: str) -> str:
    """Return text of Emarsys without the secret, should that or something on the way have echoed it."""
    return text.replace(credentials.secret.reveal(), "***")
