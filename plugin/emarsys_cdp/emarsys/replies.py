"""
The reply of Emarsys to one request, as one outcome per row. Pure.

Emarsys answers HTTP 200 with code 0 when every row has failed, so only what the reply says about a row's own key value
counts for it, and a row whose failure is possible but not certain is sent again: it is neither delivered nor dropped
by a guess. Each reason says what was not done, why, and what Emarsys wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from msgspec import Struct

from emarsys_cdp.emarsys.outcomes import Delivered, Dropped, Outcome, Retry
from emarsys_cdp.emarsys.reply_codes import NO_CONTACT, OK, PERMANENT_AT_500, Blame, Meaning, code_of, meaning_of
from emarsys_cdp.emarsys.reply_errors import (
    Envelope,
    Report,
    RowError,
    UnreadableError,
    plain,
    read_envelope,
    read_report,
)
from emarsys_cdp.emarsys.reply_rows import Kind, Rows, rows_of
from emarsys_cdp_hooks import Request

__all__ = ["Reply", "Verdict", "read_reply", "rows_of"]

MAX_REASON = 500
"""Characters of a reason or a note."""

_RESET_DIGITS = 12

MAX_WAIT = 10 * 60 * 1000
"""Milliseconds within which the end of a rate limit's minute is believed."""

NO_KEY = "<NO_KEY_ID>"
"""Key of an error that concerns the whole request (fixture of RudderStack's Emarsys destination)."""

WAIT_AND_SEE = frozenset((408, 423, 425))
"""Statuses by which a server asks for the same request once more: time-out, busy (HTTP 401-429 errors), too early."""

ACCEPTED = 202
"""Emarsys asks to call again until it is done (HTTP 200 errors)."""

UNAUTHORIZED = 401
FORBIDDEN = 403
TOO_LARGE = 413
TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500

_CREDENTIALS = "in Emarsys under Management > Security Settings > API Credentials"
_DOUBT = "Emarsys reports an error under a value that is not certainly one of those sent"
_SHOWN_TEXTS = 3
_CONFIRMED = (Kind.UPSERT, Kind.CREATE, Kind.TRIGGER)
"""Kinds of requests whose replies list the contacts that were done."""


class Reply(Struct, frozen=True):
    """An HTTP reply; the names of its *headers* are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Verdict(Struct, frozen=True):
    """
    What a reply means for the rows of its request: *outcomes* in their order, one for each.

    *unauthorized*: nothing was processed, and a fresh token or signature may help. *divisible*: no row is known to be
    taken, and one may be to blame, so the request is sent again in halves; the outcomes are for those who cannot.
    *outage*: the reply counts as a failure of Emarsys. *missing*: the positions of rows that were dropped because the
    contact does not exist.
    """

    outcomes: tuple[Outcome, ...]
    unauthorized: bool = False
    divisible: bool = False
    outage: bool = False
    missing: tuple[int, ...] = ()


def read_reply(request: Request, reply: Reply, now: int) -> Verdict:
    """Return what *reply* means for the rows of *request* (`rows_of`) at *now* (ms since 1970 UTC); never raises."""
    rows = Rows(request)
    if reply.status == UNAUTHORIZED:
        return _unauthorized(rows)
    if reply.status == TOO_MANY_REQUESTS:
        return _rate_limited(rows, reply.headers, now)
    if reply.status == TOO_LARGE:
        meaning = Meaning(Blame.ROW, "the request is larger than Emarsys takes (HTTP 413)")
        return _refused(rows, RowError(None, None, ""), meaning)
    try:
        envelope = read_envelope(reply.body)
        if 200 <= reply.status < 300:  # noqa: PLR2004 - the class of success
            return _accepted(rows, reply.status, envelope)
    except UnreadableError as error:
        return _unreadable(rows, reply.status, f"{error}")
    return _failed(rows, reply.status, envelope)


def _unauthorized(rows: Rows) -> Verdict:
    why = f"Emarsys refuses the API Key; check it {_CREDENTIALS}, and with WSSE the clock of this machine"
    return Verdict(_all_again(rows, why, lasting=True), unauthorized=True)


def _forbidden(rows: Rows, quoted: str = "") -> Verdict:
    permission = rows.permission or f"for {rows.address}"
    why = f"the API Key lacks the permission {permission}; switch it on {_CREDENTIALS}{quoted}"
    return Verdict(_all_again(rows, why, lasting=True))


def _rate_limited(rows: Rows, headers: Mapping[str, str], now: int) -> Verdict:
    """Let all rows wait, until the time that Emarsys names (Unix time in seconds) if that can be believed."""
    named = headers.get("x-ratelimit-reset", "").strip()
    reset = int(named) * 1000 if named.isascii() and named.isdigit() and len(named) <= _RESET_DIGITS else 0
    at = reset if now < reset <= now + MAX_WAIT else None
    why = "Emarsys takes no more requests at the moment (rate limit)"
    return Verdict(_all_again(rows, why, at=at, lasting=True), outage=True)


def _unreadable(rows: Rows, status: int, why: str) -> Verdict:
    """Judge a reply that is not Emarsys' own: something on the way has answered, and nothing is known of the rows."""
    if status == FORBIDDEN:
        return _forbidden(rows)
    if 400 <= status < 500:  # noqa: PLR2004 - the class of refusals
        why = f"{rows.address} was refused with HTTP {status}, but not by Emarsys itself; check the API address"
        return Verdict(_all_again(rows, why))
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success
        return Verdict(_all_again(rows, f"the reply of Emarsys cannot be read: {why} (HTTP {status})"), outage=True)
    return _outage(rows, status)


def _outage(rows: Rows, status: int, quoted: str = "") -> Verdict:
    why = (
        "Emarsys is out of order or overloaded" if status >= SERVER_ERROR else "unexpected reply; check the API address"
    )
    return Verdict(_all_again(rows, f"{why} (HTTP {status}){quoted}"), outage=True)


def _put_off(rows: Rows, status: int, quoted: str) -> Verdict:
    return Verdict(_all_again(rows, f"Emarsys wants {rows.address} to be sent again (HTTP {status}){quoted}"))


def _failed(rows: Rows, status: int, envelope: Envelope) -> Verdict:
    """Judge a reply of Emarsys with a status that is no success."""
    error = RowError(None, envelope.code, envelope.text)
    if status == FORBIDDEN:
        return _forbidden(rows, _quoted(error))
    if status == SERVER_ERROR and error.code in PERMANENT_AT_500:
        return _refused(rows, error)
    if not 400 <= status < 500:  # noqa: PLR2004 - the class of refusals
        return _outage(rows, status, _quoted_to_all(rows, error))
    if status in WAIT_AND_SEE or error.code == OK:
        return _put_off(rows, status, _quoted_to_all(rows, error))
    return _refused(rows, error)


def _accepted(rows: Rows, status: int, envelope: Envelope) -> Verdict:
    """Judge a reply with a status of success: a refusal of the whole request, or a report on its rows."""
    error = RowError(None, envelope.code, envelope.text)
    if envelope.code != OK and status == ACCEPTED:
        return _put_off(rows, status, _quoted_to_all(rows, error))
    if envelope.code != OK:
        return _refused(rows, error)
    report = read_report(envelope.data, len(rows), lists=rows.kind is Kind.OTHER)
    code = None if report.errors else code_of(envelope.text)
    if code is not None:  # `No contact found` comes with code 0 (Get Contact Data)
        return _refused(rows, RowError(None, code, envelope.text))
    whole = next((error for error in report.errors if error.key == NO_KEY), None)
    if whole is not None and NO_KEY not in rows.keys:
        return _refused(rows, whole)
    return _judged(rows, report)


def _refused(rows: Rows, error: RowError, meaning: Meaning | None = None) -> Verdict:
    """Judge a refusal of the whole request; of several rows one may be to blame, which the halves show."""
    meaning = meaning or _meaning(rows, error)
    why = f"{_words(rows, meaning)}{_quoted_to_all(rows, error)}"
    if meaning.blame is Blame.EMARSYS:
        return Verdict(_all_again(rows, why))
    if meaning.blame is not Blame.SETTING and len(rows) > 1:
        why = f"Emarsys refused the {len(rows)} contacts of {rows.address} together: {why}"
        return Verdict(_all_again(rows, why), divisible=True)
    outcomes = {key: _outcome(rows, key, [(meaning, error)]) for key in rows.values}
    return _verdict(rows, outcomes, {rows.keys[0]: [error]} if len(rows) == 1 else {})


def _judged(rows: Rows, report: Report) -> Verdict:
    """Judge rows by their own errors, those that may be their own, and the number of contacts Emarsys confirms."""
    own: dict[str, list[RowError]] = {}
    doubtful: list[str | None] = []
    for error in report.errors:
        written = None if error.key == NO_KEY and len(rows) > 1 else error.key
        key = rows.certain(written)
        if key is None:
            doubtful.append(written)
        else:
            own.setdefault(key, []).append(error)
    outcomes: dict[str, Outcome] = {
        key: _outcome(rows, key, [(_meaning(rows, error), error) for error in errors]) for key, errors in own.items()
    }
    suspects = rows.possible(doubtful) - own.keys()
    outcomes |= {key: Retry(_cut(f"{rows.failure(key)}, perhaps: {_DOUBT}")) for key in suspects}
    outcomes |= _clean(rows, report, [key for key in rows.values if key not in outcomes])
    return _verdict(rows, outcomes, own, suspects)


def _clean(rows: Rows, report: Report, keys: Sequence[str]) -> dict[str, Outcome]:
    """
    Judge the rows about which there is no error.

    `ids` has the contacts that were updated or triggered (contact and event API). If it is there and has none, none
    was, except that an event which is connected to nothing triggers nobody. If it has fewer than there should be,
    nobody can tell whose is missing or whether two rows are one contact: that is worth a note and no more.
    """
    confirmed = report.confirmed if rows.kind in _CONFIRMED else None
    if confirmed == 0 and not report.unconnected:
        why = "Emarsys confirms no contact and names no error"
        return {key: Retry(_cut(f"{rows.failure(key)}: {why}")) for key in keys}
    general = ["the external event is connected to no active program and no e-mail in Emarsys"] * report.unconnected
    if confirmed and confirmed < len(keys):
        general.append(f"Emarsys confirms only {confirmed} of {len(keys)} contacts and names no error")
    own: dict[str, list[str]] = {}
    for warning in report.warnings:
        key, text = rows.certain(warning.key), f"Emarsys warns{_quoted(warning)}"
        if key is None:
            general.append(f"{text} about the request")
        else:
            own.setdefault(key, []).append(text)
    return {key: Delivered(_joined([*own.get(key, ())[:_SHOWN_TEXTS], *general[:_SHOWN_TEXTS]])) for key in keys}


def _verdict(
    rows: Rows, outcomes: Mapping[str, Outcome], own: Mapping[str, Sequence[RowError]], suspects: Set[str] = frozenset()
) -> Verdict:
    """Put the outcomes of key values in the order of the rows."""
    missing = [
        position
        for position, key in enumerate(rows.keys)
        if key in own and isinstance(outcomes[key], Dropped) and all(one.code == NO_CONTACT for one in own[key])
    ]
    nothing_taken = not any(isinstance(outcome, Delivered) for outcome in outcomes.values())
    return Verdict(
        outcomes=tuple([outcomes[key] for key in rows.keys]),
        divisible=nothing_taken and sum(key in suspects for key in rows.keys) > 1,
        missing=tuple(missing),
    )


def _outcome(rows: Rows, key: str, said: Sequence[tuple[Meaning, RowError]]) -> Outcome:
    """Judge a row by all that is said about it: one permanent error is enough to drop it."""
    if rows.kind is Kind.DELETE and all(error.code == NO_CONTACT for _, error in said):
        return Delivered("there was nothing to delete: Emarsys has no contact with this value")
    permanent = [one for one in said if one[0].blame in (Blame.ROW, Blame.SETTING)]
    shown = (permanent or said)[:_SHOWN_TEXTS]
    why = _joined([f"{_words(rows, meaning)}{_quoted(error)}" for meaning, error in shown])
    reason = _cut(f"{rows.failure(key)}: {why}")
    return Dropped(reason) if permanent else Retry(reason)


def _meaning(rows: Rows, error: RowError) -> Meaning:
    """Return what an error means here: only where contacts are made if there are none can two calls collide."""
    meaning = meaning_of(error.code, error.text)
    if meaning.blame is Blame.RACE and rows.kind is not Kind.UPSERT:
        return Meaning(Blame.ROW, "there is already a contact with this value in field {field}")
    return meaning


def _all_again(rows: Rows, why: str, *, at: int | None = None, lasting: bool = False) -> tuple[Outcome, ...]:
    return (Retry(_cut(why), at, lasting),) * len(rows)


def _quoted(error: RowError) -> str:
    """Return what Emarsys wrote, in brackets; nothing if it wrote nothing."""
    said = [plain(error.text)] if error.text else []
    said += [] if error.code is None else [f"code {error.code}"]
    return f" (Emarsys: {', '.join(said)})" if said else ""


def _quoted_to_all(rows: Rows, error: RowError) -> str:
    """Return what Emarsys wrote about a whole request; to several rows the code only: it may name one of them."""
    return _quoted(error if len(rows) == 1 else RowError(None, error.code, ""))


def _words(rows: Rows, meaning: Meaning) -> str:
    return meaning.words.format(field=rows.field, list=rows.contact_list)


def _joined(texts: Sequence[str]) -> str:
    return _cut("; ".join(dict.fromkeys(texts)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"
