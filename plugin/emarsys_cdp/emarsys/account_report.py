"""What the answers to the questions of an account check mean, and what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, TypeVar

from msgspec import Struct

from emarsys_cdp.credentials import Credentials, OAuth
from emarsys_cdp.emarsys.account import (
    Customer,
    read_choices,
    read_contact_lists,
    read_customer,
    read_events,
    read_fields,
)
from emarsys_cdp.emarsys.fields import FieldCatalogue
from emarsys_cdp.emarsys.replies import Reply
from emarsys_cdp.emarsys.reply_errors import UnreadableError

T = TypeVar("T")

WARN_SKEW: Final = 60
"""Seconds that the clocks may differ before it is worth a warning."""

WSSE_SKEW: Final = 300
"""Seconds above which Emarsys refuses a signature (authentication guide of API v2)."""

WSSE_END: Final = "2026-12-31"
"""Announced end of WSSE and API v2 (developer hub, changelog of 2024-11-08)."""

SHOWN_OF_USER: Final = 4
"""Characters of the API user's name that are shown."""

WHERE: Final = "in Emarsys under Management > Security Settings > API Credentials"
CHECK_ADDRESS: Final = "check the address of the API (EMARSYS_CDP_API_BASE)"
CHECK_NETWORK: Final = (
    "check the network, the proxy (EMARSYS_CDP_HTTP_PROXY) and the addresses (EMARSYS_CDP_API_BASE, "
    "EMARSYS_CDP_TOKEN_URL)"
)
TRY_LATER: Final = "try again in some minutes"

Result: TypeAlias = Literal["works", "incomplete", "refused", "unknown"]
Grant: TypeAlias = Literal["on", "off", "unknown", "not tried"]


class Question(Struct, frozen=True):
    """
    A GET of *path*, for which Emarsys wants *permission*; the product uses it for *purpose*.

    When the permission is off, *instead* is asked for the same thing. *optional*: nothing but the check uses it.
    """

    path: str
    permission: str
    purpose: str
    instead: Question | None = None
    optional: bool = False


CUSTOMER: Final = Question("settings", "customer.settings", "shows in this check whose account it is", optional=True)
FIELDS_TOO: Final = Question("field", "field.get", "lists the account's fields, too")
FIELDS: Final = Question("field/translate/en", "field.list", "lists the account's fields", FIELDS_TOO)
CHOICES: Final = Question(
    "field/choices?fields=5,46&language=en", "field.multichoice.list", "lists the choices of fields"
)
"""Asked for gender and salutation, which every account has (system field list)."""
LISTS: Final = Question("contactlist", "contactlist.list", "lists contact lists")
EVENTS: Final = Question("event", "externalevent.list", "lists external events")

QUESTIONS: Final = (CUSTOMER, FIELDS, CHOICES, LISTS, EVENTS)

WRITES: Final = (
    ("contact.update", "creates and updates contacts"),
    ("externalevent.trigger", "triggers external events"),
    ("contactlist.contact.add", "adds contacts to contact lists"),
    ("contactlist.contact.delete", "removes contacts from contact lists"),
    ("contact.delete", "deletes contacts of people who are erased"),
)
"""Permissions that only writing would show, with what they are used for."""


class RateLimit(Struct, frozen=True):
    """Requests of the API user in a minute, and how many of them were left (None: not told)."""

    limit: int
    left: int | None


class Asked(Struct, frozen=True):
    """
    A question and what came of it between *sent* and *received* (ms since 1970 by our own clock).

    *done*: Emarsys did what was asked. Otherwise *reason* says why not, and *next_step* what may help.
    """

    question: Question
    sent: int
    received: int
    reply: Reply | None = None
    done: bool = False
    reason: str = ""
    next_step: str = ""
    rate_limit: RateLimit | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status of the answer, None without one."""
        return None if self.reply is None else self.reply.status


class Finding(Struct, frozen=True):
    """Something to know and what to do about it; after an *error* the key does not work, or not for everything."""

    level: Literal["error", "warning"]
    what: str
    next_step: str


class Permission(Struct, frozen=True):
    """An endpoint permission by Emarsys' name, whether it is switched on, and what the product uses it for."""

    name: str
    state: Grant
    purpose: str


class Counts(Struct, frozen=True):
    """What the account has, None where that could not be read; *unreadable_rows* are in none of the numbers."""

    system_fields: int | None = None
    own_fields: int | None = None
    external_events: int | None = None
    contact_lists: int | None = None
    unreadable_rows: int = 0


class Report(Struct, frozen=True, kw_only=True):
    """
    What came out. No secret is in it, and of the API user's name only the beginning.

    *result*: the key `works`; it is right and something is missing (`incomplete`); Emarsys has `refused` it; that is
    `unknown`. *findings* begin with the errors. *token_fetched* is None with WSSE, which needs none.
    *clock_ahead_seconds* is negative when our clock is behind, None when Emarsys did not tell its time.
    """

    result: Result
    api: Literal["v2", "v3"]
    authentication: Literal["OAuth 2.0", "WSSE"]
    user: str
    token_fetched: bool | None
    customer: Customer | None
    clock_ahead_seconds: int | None
    rate_limit: RateLimit | None
    counts: Counts
    permissions: tuple[Permission, ...]
    findings: tuple[Finding, ...]


class NoToken(Struct, frozen=True):
    """Why there is no access token; *refused*: Emarsys knows the key and does not take it."""

    finding: Finding
    refused: bool = False


def judge(
    credentials: Credentials, no_token: NoToken | None, asked: Sequence[Asked], system_fields: FieldCatalogue
) -> Report:
    """Return what the answers mean; *system_fields* are those that every account has."""
    oauth = isinstance(credentials, OAuth)
    ahead = _least_ahead(asked)
    skewed = not oauth and ahead is not None and abs(ahead) > WSSE_SKEW
    unread: list[Finding] = []
    customer = _read(asked, (CUSTOMER,), read_customer, unread)
    counts = _count(asked, system_fields, unread)
    findings = (
        *(() if no_token is None else (no_token.finding,)),
        *_clock_findings(ahead, oauth, skewed),
        *_answer_findings(asked, oauth, skewed, ahead),
        *unread,
        *_other_findings(oauth, counts),
    )
    return Report(
        result=_result(no_token, asked, findings, skewed),
        api="v3" if oauth else "v2",
        authentication="OAuth 2.0" if oauth else "WSSE",
        user=_masked(credentials.client_id if isinstance(credentials, OAuth) else credentials.user),
        token_fetched=no_token is None if oauth else None,
        customer=customer,
        clock_ahead_seconds=ahead,
        rate_limit=next((one.rate_limit for one in reversed(asked) if one.rate_limit is not None), None),
        counts=counts,
        permissions=_permissions(asked),
        findings=tuple(sorted(findings, key=lambda one: one.level != "error")),
    )


def clock_ahead(date: str, sent: int, received: int) -> int | None:
    """
    Return by how many seconds our clock is ahead of a server's; negative: behind; None: *date* is no HTTP date.

    The server wrote its time, in whole seconds, at some moment between *sent* and *received* (ms by our clock); what
    that leaves open counts as no difference.
    """
    try:
        told = int(parsedate_to_datetime(date).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return None
    least, most = sent - told - 999, received - told
    return round((max(least, 0) + min(most, 0)) / 1000)


def _least_ahead(asked: Sequence[Asked]) -> int | None:
    """Return the least difference that an answer shows."""
    dates = [(one, one.reply.headers.get("date", "")) for one in asked if one.reply is not None]
    found = [clock_ahead(date, one.sent, one.received) for one, date in dates]
    return min((one for one in found if one is not None), key=abs, default=None)


def _masked(user: str) -> str:
    """Return the beginning of an API user's name, of a short one half."""
    return f"{user[: min(SHOWN_OF_USER, len(user) // 2)]}…"


def _result(no_token: NoToken | None, asked: Sequence[Asked], findings: Sequence[Finding], skewed: bool) -> Result:
    refused = any(one.status == HTTPStatus.UNAUTHORIZED for one in asked)
    if (refused and not skewed) or (no_token is not None and no_token.refused):
        return "refused"
    if not any(one.done or one.status == HTTPStatus.FORBIDDEN for one in asked):
        return "unknown"
    return "incomplete" if any(finding.level == "error" for finding in findings) else "works"


def _clock_findings(ahead: int | None, oauth: bool, skewed: bool) -> list[Finding]:
    if ahead is None or abs(ahead) <= WARN_SKEW:
        return []
    what = (
        f"the clock of this machine is {_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of Emarsys"
    )
    if skewed:
        what += ", and above 5 minutes Emarsys refuses every signature (WSSE)"
    elif not oauth:
        what += "; above 5 minutes Emarsys refuses every signature (WSSE)"
    return [Finding("error" if skewed else "warning", what, "set the clock, best by NTP, and check again")]


def _duration(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s"


def _answer_findings(asked: Sequence[Asked], oauth: bool, skewed: bool, ahead: int | None) -> list[Finding]:
    """Return what is wrong with the answers; a signature that the clock spoils says nothing about the key."""
    findings = []
    for one in asked:
        if one.status == HTTPStatus.UNAUTHORIZED and not skewed:
            findings.append(_unauthorized(oauth, ahead))
        elif one.status == HTTPStatus.FORBIDDEN and not _has_other_way(one, asked):
            findings.append(_forbidden(one.question))
        elif not one.done and one.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            path = one.question.path.partition("?")[0]
            findings.append(Finding("error", f"GET {path} failed: {one.reason}", one.next_step))
    return findings


def _unauthorized(oauth: bool, ahead: int | None) -> Finding:
    if oauth:
        what = "Emarsys gives an access token, and its API refuses it (HTTP 401)"
        step = f"check that EMARSYS_CDP_TOKEN_URL and EMARSYS_CDP_API_BASE belong together, and the credentials {WHERE}"
        return Finding("error", what, step)
    clock = "" if ahead is not None else "; check this machine's clock, too: more than 5 minutes spoil every signature"
    what = "Emarsys refuses user and secret (HTTP 401)"
    step = f"check them {WHERE}: a lost secret cannot be shown again, but new credentials can be created{clock}"
    return Finding("error", what, step)


def _has_other_way(one: Asked, asked: Sequence[Asked]) -> bool:
    """Tell whether a missing permission is made up for by another one, or was reported with the one it replaces."""
    granted = any(other.question == one.question.instead and other.done for other in asked)
    return granted or any(other.question.instead == one.question for other in asked)


def _forbidden(question: Question) -> Finding:
    what = f"the API Key lacks the permission {question.permission}, which {question.purpose}"
    if question.optional:
        return Finding("warning", what, f"leave it, or switch {question.permission} on {WHERE}")
    return Finding("error", what, f"switch {question.permission} on {WHERE}")


def _other_findings(oauth: bool, counts: Counts) -> list[Finding]:
    findings = []
    if counts.unreadable_rows:
        what = f"rows without a usable id or name, which are left out: {counts.unreadable_rows}"
        findings.append(Finding("warning", what, "look for fields, choices, lists, events without a name"))
    if not oauth:
        what = f"SAP has announced the end of WSSE and API v2 for {WSSE_END}"
        step = f"create credentials of the kind OpenID Connect {WHERE}, and write them client_id:client_secret"
        findings.append(Finding("warning", what, step))
    return findings


def _read(
    asked: Sequence[Asked], questions: Sequence[Question], read: Callable[[bytes], T], unread: list[Finding]
) -> T | None:
    """Return what *read* makes of the answer to one of the questions; an answer that it cannot read is a finding."""
    for one in asked:
        if one.done and one.reply is not None and one.question in questions:
            try:
                return read(one.reply.body)
            except UnreadableError as error:
                path = one.question.path.partition("?")[0]
                unread.append(Finding("error", f"the answer to GET {path} cannot be used: {error}", CHECK_ADDRESS))
    return None


def _count(asked: Sequence[Asked], system_fields: FieldCatalogue, unread: list[Finding]) -> Counts:
    fields = _read(asked, (FIELDS, FIELDS_TOO), read_fields, unread)
    choices = _read(asked, (CHOICES,), read_choices, unread)
    lists = _read(asked, (LISTS,), read_contact_lists, unread)
    events = _read(asked, (EVENTS,), read_events, unread)
    known = {field.id for field in system_fields.fields}
    ids = [] if fields is None else [field.id for field in fields.found]
    return Counts(
        system_fields=None if fields is None else sum(one in known for one in ids),
        own_fields=None if fields is None else sum(one not in known for one in ids),
        external_events=None if events is None else len(events.found),
        contact_lists=None if lists is None else len(lists.found),
        unreadable_rows=sum(one.skipped for one in (fields, choices, lists, events) if one is not None),
    )


def _permissions(asked: Sequence[Asked]) -> tuple[Permission, ...]:
    states = {one.question: _state(one) for one in asked}
    questions = [*states, *(one for one in QUESTIONS if one not in states)]
    return (
        *(Permission(one.permission, states.get(one, "unknown"), one.purpose) for one in questions),
        *(Permission(name, "not tried", purpose) for name, purpose in WRITES),
    )


def _state(one: Asked) -> Grant:
    if one.status == HTTPStatus.FORBIDDEN:
        return "off"
    return "on" if one.done else "unknown"
