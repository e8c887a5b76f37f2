"""Rows of the users table for people to read; nothing is cut off at 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emarsys_cdp.cli.tables import plain as _plain
from emarsys_cdp.cli.tables import table_of as _table
from emarsys_cdp.sweeping import Swept
from emarsys_cdp.users_desk import SUPPRESS, Removed
from emarsys_cdp.users_query import WORDS

_STATES: Final = {
    "shared": "This anonymousId is shared: different people used it, so it belongs to nobody.",
    "quarantined": "This primary key is in quarantine: too many people used it, so nobody is found by it.",
    "delete": "This identifier was erased at {at}: calls that happened until then are dropped.",
    "suppress": "This identifier was suppressed at {at}: all calls with it are dropped until it is unsuppressed.",
}
_FLAGS: Final = {
    "isolate": "of calls that have nothing but a shared anonymousId; nothing is ever sent to it",
    "merging": "another person is just becoming part of this one",
    "erasing": "just being erased",
    "suppressed": "suppressed",
}


def show_user(shown: Mapping[str, Any], kind: str, value: str, console: Console) -> None:
    """Print what an identifier names: a person, or in words what it is instead."""
    if "state" in shown:
        until = f" It stays so until {shown['until']}, if nobody shares it again." if "until" in shown else ""
        console.print(Text(_STATES[shown["state"]] + until, "yellow"))
        if "isolate" in shown:
            console.print(
                Text(f"Calls that have nothing else go to profile {shown['isolate']}, which is never mailed.")
            )
    elif "tombstone" in shown:
        console.print(Text(_STATES[shown["mode"]].format(at=shown["at"]), "yellow"))
    elif "redirect" in shown:
        console.print(Text(f"Profile {shown['redirect']} became part of {shown['to']}.", "yellow"))
    else:
        if kind == "key" and value.strip().lower() in [key.lower() for key in shown["formerKeys"]]:
            console.print(Text("This is a former primary key of the person.", "yellow"))
        _show_person(shown, console)


def _show_person(shown: Mapping[str, Any], console: Console) -> None:
    call = shown["lastCall"]
    rows = {
        "profile": shown["pid"],
        "userId": shown["userId"],
        "also known as": ", ".join(shown["userIdAliases"]),
        "primary key": _key(shown),
        "former keys": ", ".join(shown["formerKeys"]),
        "anonymousIds": "\n".join(f"{one['value']} (last seen {one['lastSeen']})" for one in shown["anonymousIds"]),
        "first seen": shown["firstSeen"],
        "last seen": shown["lastSeen"],
        "last call": f"{call['type']} {call['mid']}" if call else None,
        "merged from": ", ".join(shown["mergedFrom"]),
        "running rules": ", ".join(f"{rule} ({number})" for rule, number in shown["running"].items()),
        "note": "\n".join(_FLAGS[flag] for flag in shown["flags"]),
    }
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in rows.items():
        if text:
            table.add_row(name, _plain(text))
    console.print(table)
    if shown["values"]:
        console.print(_values(shown["values"]))
    if shown["pendingFields"]:
        waiting = ", ".join(f"{field} = {_text(one['v'])}" for field, one in shown["pendingFields"].items())
        console.print(_plain(f"Waiting for a primary key: field {waiting}"))


def _key(shown: Mapping[str, Any]) -> str | None:
    key: str | None = shown["primaryKey"]
    return key if key is None or shown["ownsKey"] else f"{key} (another person had it first)"


def _values(values: Mapping[str, Any]) -> Table:
    table = _table("data map", "value", "since", "messageId", whole=("since",))
    for name, one in values.items():
        table.add_row(_plain(name), _plain(_text(one["v"])), one["te"], _plain(one["mid"]))
    return table


def show_people(people: Sequence[Mapping[str, Any]], total: int, console: Console) -> None:
    """Print people, one a line."""
    if not people:
        console.print("Nobody is in the users table of this space.")
        return
    table = _table("anonymousId", "userId", "primary key", "last seen", "values", whole=("last seen",))
    for one in people:
        more = len(one["anonymousIds"]) - 1
        anon = f"{one['anonymousId'] or '-'}" + (f" and {more} more" if more > 0 else "")
        values = ", ".join(f"{name} {_text(value['v'])}" for name, value in one["values"].items())
        row = (anon, one["userId"] or "-", _key(one) or "-", one["lastSeen"], values)
        table.add_row(*map(_plain, row))
    console.print(table)
    if total > len(people):
        console.print(Text(f"The {len(people)} of {total} people that were seen last; --limit shows more.", "dim"))


def show_removed(removed: Removed, console: Console) -> None:
    """Print what was erased, and what is left to do."""
    done = "Suppressed" if removed.mode == SUPPRESS else "Erased"
    if not removed.identifiers:
        console.print("Nothing was erased: the identifier is shared or in quarantine, so it is nobody's.")
        return
    named = [f"{WORDS[one.kind]} {one.value}" for one in removed.identifiers]
    console.print(Text(f"{done}: {', '.join(named)}.", "bold"))
    if removed.keys:
        console.print(Text(f"What is in Emarsys stays: delete the contact with the key {', '.join(removed.keys)}"))


def show_swept(swept: Swept, console: Console) -> None:
    """Print what a sweep has seen and done."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(justify="right")
    rows = {
        "people": swept.people,
        "rows of identifiers": swept.rows,
        "rows removed, of people who are gone": swept.removed,
        "merges and erasures finished": swept.finished,
        "people who had what is another's": swept.mended,
    }
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    table.add_row("seconds", f"{swept.seconds:,.1f}")
    console.print(table)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
