"""
The body of a reply, read within bounds: envelope, errors of rows in every shape, warnings, counts. Pure.

Row errors come as an object key value -> {code: message}, key value -> message, or as an array of {key, errorCode,
errorMsg}; without errors they are absent, null, {} or [] (examples of the contact, contact list and event API). Only as
much is decoded as the rows of a request can need: whatever a reply holds besides costs no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.emarsys.reply_codes import OK, code_of
from emarsys_cdp.emarsys.reply_rows import key_text
from emarsys_cdp_hooks import Json

MAX_REPLY_BYTES = 8_000_000
"""A longer reply is not read: errors of 10,000 rows with keys of 255 characters fit."""

ROW_BYTES = 1024
"""Bytes of errors that are read for each row of the request, on average."""

VALUE_BYTES = 4096
"""Bytes of one row's error, or of another value, that are read."""

ID_BYTES = 128
"""Bytes of the list of ids that are read for each row of the request."""

ERRORS_PER_ROW = 8
"""Errors that are read for each row of the request, on average."""

SPARE_ROWS = 16
"""Rows by which a reply may be longer than its request before it counts as unreadable."""

MAX_TEXT = 300
"""Characters of Emarsys' own text in a reason."""

_CUT = 3 * MAX_TEXT
_MAX_DEPTH = 4
_CODE_DIGITS = 6
_LEAST_CODE = 1000
_CODE_NAMES = ("errorCode", "replyCode", "code")
_TEXT_NAMES = ("errorMsg", "replyText", "message", "error")
_SECRETS = re.compile(
    r"(?i)\b(?:bearer|basic)\s+\S+|\beyJ[\w-]{8,}[\w.-]*"
    r"|(?:digest|nonce|secret|token|password|api_?key)\w*[\"']?\s*[:=]\s*(?:\"[^\"]*\"?|'[^']*'?|\S+)"
)


class RowError(Struct, frozen=True):
    """One error; *key* is the key value it is about (None: it says none), *code* None when it has none."""

    key: str | None
    code: int | None
    text: str


class Envelope(Struct, frozen=True):
    """What every reply of Emarsys has: a code, a text, and undecoded *data*."""

    code: int
    text: str
    data: Raw


class Report(Struct, frozen=True):
    """
    What the data of a reply with code 0 says.

    *confirmed* is the number of contacts that Emarsys lists as updated or triggered, None when it lists none at all.
    *unconnected*: the event is connected to no program and no e-mail.
    """

    errors: tuple[RowError, ...] = ()
    warnings: tuple[RowError, ...] = ()
    confirmed: int | None = None
    unconnected: bool = False


class _Body(Struct, rename="camel"):
    reply_code: Raw
    reply_text: Raw = Raw()
    data: Raw = Raw()


class _Data(Struct):
    errors: Raw = Raw()
    warnings: Raw = Raw()
    ids: Raw = Raw()
    connected_to: Raw = msgspec.field(default=Raw(), name="connectedTo")


class UnreadableError(Exception):
    """The reply is not one of Emarsys' or cannot be read within bounds."""


def read_envelope(body: bytes) -> Envelope:
    """
    Return the envelope of a reply.

    Raises:
        UnreadableError: the body is too long, no JSON object, or has no code.

    """
    if len(body) > MAX_REPLY_BYTES:
        raise UnreadableError("it is too long")
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        raise UnreadableError("it is empty")
    if body.startswith(b"<"):
        raise UnreadableError("it is an HTML page")
    outer = _decode(body, _Body)
    code = _code(_value(outer.reply_code))
    if code is None:
        raise UnreadableError("it has no reply code")
    text = _lenient(outer.reply_text)
    return Envelope(code, text[:_CUT] if isinstance(text, str) else "", outer.data)


def read_report(data: Raw, rows: int, lists: bool = False) -> Report:
    """
    Return what the data of a reply with code 0 says about a request with so many rows.

    Empty data is a report without errors: a single trigger is answered that way. *lists*: so is an array, the answer
    to a request for fields or contact lists.

    Raises:
        UnreadableError: the data or its errors are of a type about which nothing is known, or too long.

    """
    if _first(data) == b"[" and lists:
        return Report()
    if _first(data) != b"{":
        value = _value(data)
        if value in (None, "", []) or type(value) is int:
            return Report()
        raise UnreadableError("its data is neither an object nor empty")
    inner = _decode(data, _Data)
    rows += SPARE_ROWS
    errors = tuple(islice(_errors(inner.errors, ROW_BYTES * rows), ERRORS_PER_ROW * rows + 1))
    if len(errors) > ERRORS_PER_ROW * rows:
        raise UnreadableError("its errors are too many")
    return Report(
        errors=errors,
        warnings=_warnings(inner.warnings, rows),
        confirmed=_count(inner.ids, ID_BYTES * rows),
        unconnected=_is_unconnected(_lenient(inner.connected_to)),
    )


def plain(text: str) -> str:
    """Return text of Emarsys in one printable line of at most `MAX_TEXT` characters, without what looks secret."""
    cut = _SECRETS.sub("***", text[:_CUT])
    if not cut.isprintable():
        cut = "".join([one if one.isprintable() else " " for one in cut])
    line = " ".join(cut.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def _decode(data: bytes | Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise UnreadableError("it is not JSON as Emarsys sends it") from error


def _first(raw: Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


def _value(raw: Raw) -> Json:
    """Return a value that has to be small; None where there is none."""
    size = len(memoryview(raw))
    if size > VALUE_BYTES:
        raise UnreadableError("a value in it is too long")
    return _decode(raw, Any) if size else None


def _lenient(raw: Raw) -> Json:
    """Return a value without which the reply can still be read, None if it cannot be read itself."""
    try:
        return _value(raw)
    except UnreadableError:
        return None


def _errors(raw: Raw, most: int) -> Iterator[RowError]:
    if len(memoryview(raw)) > most:
        raise UnreadableError("its errors are too long")
    if _first(raw) == b"{":
        for key, value in _decode(raw, dict[str, Raw]).items():
            yield from _errors_of(key, _lenient(value))
    elif _first(raw) == b"[":
        for element in _decode(raw, list[Raw]):
            yield from _errors_of_element(_lenient(element))
    elif _value(raw):
        raise UnreadableError("its errors are neither an object nor an array")


def _errors_of_element(value: Json) -> Iterator[RowError]:
    """Read an element of an array of errors: one error with its key, or an object by key value as elsewhere."""
    if isinstance(value, dict) and "key" in value:
        rest = {name: one for name, one in value.items() if name != "key"}
        yield from _errors_of(key_text(value["key"]), rest)
    elif not isinstance(value, dict) or not value or any(name in value for name in (*_CODE_NAMES, *_TEXT_NAMES)):
        yield from _errors_of(None, value)
    else:
        for key, one in value.items():
            yield from _errors_of(key, one)


def _errors_of(key: str | None, value: Json) -> list[RowError]:
    """Return the errors of one key value, at least one: an entry is an error even if it says nothing."""
    said = [(code, text[:_CUT]) for code, text in _said(value, None, _MAX_DEPTH) if code != OK]
    return [RowError(key, code_of(text) if code is None else code, text) for code, text in said or [(None, "")]]


def _said(value: Json, code: int | None, depth: int) -> list[tuple[int | None, str]]:
    """Return the codes and texts in the value of an error, however they are nested."""
    if isinstance(value, str):
        return [(code, value)] if value or code is not None else []
    if isinstance(value, dict):
        named, text = _code(_named(value, _CODE_NAMES)), _named(value, _TEXT_NAMES)
        if named is not None or isinstance(text, str):
            return [(code if named is None else named, text if isinstance(text, str) else "")]
        inner = [(_code_name(name) or code, one) for name, one in value.items()]
    elif isinstance(value, list):
        inner = [(code, one) for one in value]
    else:
        code, inner = _code(value) if code is None else code, []
    said = [one for number, nested in inner for one in _said(nested, number, depth - 1)] if depth else []
    return said or ([] if code is None else [(code, "")])


def _named(value: dict[str, Json], names: tuple[str, ...]) -> Json:
    return next((value[name] for name in names if name in value), None)


def _code(value: Json) -> int | None:
    """Return a code that is given as a number or as digits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:
        return value if abs(value) < 10**_CODE_DIGITS else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _CODE_DIGITS:
        return int(value)
    return None


def _code_name(name: str) -> int | None:
    """Return the code that names a message; smaller numbers count the elements of an array."""
    code = _code(name)
    return code if code is not None and code >= _LEAST_CODE else None


def _warnings(raw: Raw, rows: int) -> tuple[RowError, ...]:
    """Return the warnings; their shape is not documented, so they are read like errors, and a text is one too."""
    if _first(raw) in (b"{", b"["):
        try:
            return tuple(islice(_errors(raw, ROW_BYTES * rows), rows))
        except UnreadableError:
            return (RowError(None, None, ""),)
    text = _lenient(raw)
    return (RowError(None, None, text[:_CUT]),) if isinstance(text, str) and text else ()


def _count(ids: Raw, most: int) -> int | None:
    """Return how many contacts a list of ids names; an inner list is those of one contact (Update Contacts)."""
    if _first(ids) != b"[" or len(memoryview(ids)) > most:
        return None
    return len(_decode(ids, list[Raw]))


def _is_unconnected(connected: Json) -> bool:
    """Tell whether an event starts nothing: false, or an object of false values (Trigger an External Event)."""
    if isinstance(connected, dict):
        return bool(connected) and all(value is False for value in connected.values())
    return connected is False
