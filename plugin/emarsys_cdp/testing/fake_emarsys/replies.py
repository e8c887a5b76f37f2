"""
Answers of Emarsys: the envelope, refusals, and the three shapes of row errors.

Texts and codes are those of Emarsys' tables of errors (https://dev.emarsys.com/docs/core-api-reference, pages
"HTTP 200 errors", "HTTP 400 errors", "HTTP 401-429 errors", "HTTP 500 errors").
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.options import NoErrors, RowErrorShape
from emarsys_cdp.testing.fake_emarsys.records import Json

JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html"
TEXT_TYPE: Final = "text/plain"

OK: Final = 0
UNROUTED: Final = 1
"""Also the code of wrong credentials, and of a database error with HTTP 500."""
BATCH_TOO_LARGE: Final = 1000
INVALID_PARAMETERS: Final = 1001
INVALID_LANGUAGE: Final = 1002
INVALID_METHOD: Final = 1009
INVALID_PAYLOAD: Final = 1010
IDS_TOO_MANY: Final = 2002
ARRAY_EXPECTED: Final = 2003
INVALID_KEY_FIELD: Final = 2004
NO_KEY_VALUE: Final = 2005
INVALID_FIELD: Final = 2006
INVALID_VALUE: Final = 2007
NO_CONTACT: Final = 2008
CONTACT_EXISTS: Final = 2009
MORE_CONTACTS: Final = 2010
INVALID_SOURCE: Final = 2013
INVALID_CONTACT_LIST: Final = 2020
LIST_WITHOUT_NAME: Final = 3001
LIST_TOO_LARGE: Final = 3002
LIST_NO_ARRAY: Final = 3003
LIST_NAME_EXISTS: Final = 3005
LIST_UNKNOWN: Final = 3006
EVENT_UNKNOWN: Final = 5001
EVENT_WITHOUT_NAME: Final = 5002
EVENT_NAME_EXISTS: Final = 5003
EVENT_ID_INVALID: Final = 5004
NOTHING_TRIGGERED: Final = 5005
EVENT_TOO_LARGE: Final = 5008
EVENT_DATA_NO_JSON: Final = 5009
EVENT_TIME_INVALID: Final = 5010
EVENT_DATA_NO_OBJECT: Final = 5011
TOO_MANY_REQUESTS: Final = 7003
INVALID_PARAMETER: Final = 10001

_ID_DIGITS: Final = 18

TOO_MANY_TEXT: Final = "Too many requests for this account and resource within the last minute."
BAD_GATEWAY_PAGE: Final = (
    "<html><head><title>502 Bad Gateway</title></head>"
    "<body><center><h1>502 Bad Gateway</h1></center><hr></body></html>\r\n"
)


class Reply(Struct, frozen=True):
    """An HTTP answer; *note* goes to the record of the request and not over the wire."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = {}
    note: str = ""


class Refusal(Exception):
    """The request is refused as a whole: nothing was changed, and the client gets *status*, *code* and *text*."""

    def __init__(self, status: int, code: int, text: str, note: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.note = note

    def reply(self) -> Reply:
        """Return the answer."""
        return envelope(self.status, self.code, self.text, note=self.note)


class RowRefusal(Exception):
    """One row of a request is refused for *problems*, pairs of a code and a text; the others go on."""

    def __init__(self, *problems: tuple[int, str]) -> None:
        super().__init__(problems[0][1])
        self.problems = problems


def refuse(code: int, text: str) -> Refusal:
    """Return the refusal that most are: HTTP 400."""
    return Refusal(HTTPStatus.BAD_REQUEST, code, text)


def envelope(status: int, code: int, text: str, data: Json = "", note: str = "") -> Reply:
    """Return an answer in the form that all of Emarsys' have."""
    body = msgspec.json.encode({"replyCode": code, "replyText": text, "data": data})
    return Reply(status, body, note=note)


def ok(data: Json) -> Reply:
    """Return the answer to a request that was done."""
    return envelope(HTTPStatus.OK, OK, "OK", data)


def bare(status: int, text: str, content_type: str = TEXT_TYPE, note: str = "") -> Reply:
    """Return an answer without an envelope, as gateways and missing permissions give."""
    return Reply(status, text.encode(), content_type, note=note)


def too_large() -> Reply:
    """Return the answer to a body above a limit of the whole API; what Emarsys answers is not documented."""
    return bare(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large")


def number_of(text: str) -> int | None:
    """Return the number that an id in a path or body is, None when it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS else None


class RowErrors:
    """The errors of a request's rows, by key value; several of one key fall together, as they do at Emarsys."""

    def __init__(self, shape: RowErrorShape, without: NoErrors) -> None:
        self._shape = shape
        self._without = without
        self._found: dict[str, dict[int, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, key: str, refusal: RowRefusal) -> None:
        """Take up why the row of *key* was refused."""
        of_key = self._found.setdefault(key, {})
        for code, text in refusal.problems:
            of_key.setdefault(code, text)

    def put_into(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return *data* with its `errors`."""
        if self._found:
            return {**data, "errors": self._shaped()}
        return data if self._without == "absent" else {**data, "errors": [] if self._without == "array" else {}}

    def _shaped(self) -> Json:
        if self._shape == "nested":
            return {key: {str(code): text for code, text in found.items()} for key, found in self._found.items()}
        if self._shape == "flat":
            return {key: "; ".join(found.values()) for key, found in self._found.items()}
        return [
            {"key": key, "errorCode": code, "errorMsg": text}
            for key, found in self._found.items()
            for code, text in found.items()
        ]
