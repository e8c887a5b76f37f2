"""The fake's account as a whole, and a request to it that has passed authentication."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.contact_book import ContactBook
from emarsys_cdp.testing.fake_emarsys.event_book import EventBook
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.fields import Fields
from emarsys_cdp.testing.fake_emarsys.list_book import ListBook
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.records import Json, ViolationKind
from emarsys_cdp.testing.fake_emarsys.replies import (
    INVALID_PARAMETER,
    INVALID_PAYLOAD,
    Refusal,
    RowErrors,
    RowRefusal,
    refuse,
)


class Account(Struct):
    """What requests read and change."""

    options: Options
    fields: Fields
    contacts: ContactBook
    lists: ListBook
    events: EventBook

    def row_errors(self) -> RowErrors:
        """Return a collection of row errors, in the form that is asked for or the usual one."""
        return RowErrors(self.options.row_errors or "nested", self.options.no_errors)


class Call(Struct, kw_only=True):
    """
    A request to one endpoint.

    *number* is that of its record, *parameters* are the parts of the path that vary, *fault* makes chosen rows fail.
    *breaches* collects the rules that it broke, with words for each.
    """

    number: int
    now: int
    parameters: tuple[str, ...]
    query: Mapping[str, str]
    raw: bytes
    content_type: str
    fault: Fault | None
    breaches: list[tuple[ViolationKind, str]]

    def body(self) -> dict[str, Json]:
        """
        Return the JSON object in the body.

        Raises:
            Refusal: there is none.

        """
        if self.content_type.partition(";")[0].strip().lower() != "application/json":
            raise _no_payload(f"Content-Type is {self.content_type or 'missing'}, not application/json")
        try:
            found: Any = msgspec.json.decode(self.raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise _no_payload(f"the body is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise _no_payload(f"the body is {type(found).__name__}, not an object")
        return found

    def check_planned(self, key: str) -> None:
        """
        Let the row of *key* fail when the script says so.

        Raises:
            RowRefusal: it does.

        """
        if self.fault is not None and (not self.fault.keys or key in self.fault.keys):
            raise RowRefusal(self.fault.problem())


def _no_payload(note: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, INVALID_PAYLOAD, "Invalid request payload.", note)


def missing(parameter: str) -> Refusal:
    """Return the refusal of a request that lacks a parameter."""
    return refuse(INVALID_PARAMETER, f"Missing parameter: `{parameter}`")


def single(refusal: RowRefusal) -> Refusal:
    """Return the refusal of a request that has only one row, which was refused."""
    return refuse(*refusal.problems[0])
