"""Taking the rows of an Emarsys request apart and putting some of them together. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emarsys_cdp.emarsys.fields import EMAIL_FIELD
from emarsys_cdp.emarsys.reply_rows import key_text
from emarsys_cdp_hooks import Json, Request


def fields_of(request: Request, row: int) -> Mapping[str, Json]:
    """Return what a row of a request says: of a contact its fields, the key among them."""
    name = _list_name(request)
    found = request.body if name is None else request.body[name][row]
    return found if isinstance(found, Mapping) else {}


def key_field(request: Request) -> str:
    """Return the id of the field that holds the rows' keys; without one Emarsys takes the e-mail address."""
    return key_text(request.body.get("key_id")) or EMAIL_FIELD


def part_of(request: Request, rows: Sequence[int], left_out: Mapping[int, frozenset[str]] | None = None) -> Request:
    """
    Return the request with these rows only, and without the fields in *left_out* of some of them.

    Rows are numbered as by `reply_rows.rows_of`. A request without a list of rows is one row.
    """
    name, without = _list_name(request), left_out or {}
    if name is None:
        return Request(request.method, request.path, _without(request.body, without.get(0)))
    kept = [_without(request.body[name][row], without.get(row)) for row in rows]
    return Request(request.method, request.path, {**request.body, name: kept})


def _list_name(request: Request) -> str | None:
    """Return the member of the body that holds the rows; None when the body itself is the only row."""
    body = request.body
    names = ["contacts", "external_ids"]
    if request.path.startswith("contact/delete"):
        names.insert(0, key_field(request))
    return next((name for name in names if isinstance(body.get(name), list) and body[name]), None)


def _without(row: Any, fields: frozenset[str] | None) -> Any:
    return row if not fields else {name: value for name, value in row.items() if name not in fields}
