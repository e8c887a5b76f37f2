"""The result of the demonstration as tables; nothing is cut off at 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.json import JSON
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from emarsys_cdp.demo.calls import read_calls
from emarsys_cdp.demo.result import DELIVER, FILTERED, FiredRequest, Result, ShownCall, ShownRequest, ShownUser
from emarsys_cdp_hooks import Json

UUID_LENGTH = 36
SHORT_UUID = 8


def show(result: Result, console: Console) -> None:
    """Print everything, in the order in which it happened."""
    _section(console, "1. What RudderStack sent, and what it was told", read_calls().about)
    console.print(_calls(result.calls))
    _section(console, "2. The users table", "Who these calls are of, read back from the store. Times are UTC.")
    _show_users(result.users, console)
    _section(console, "3. What goes to Emarsys", "Handed to RudderStack for sending; the demonstration sends nothing.")
    for request in result.requests:
        console.print(_request(request))
    text = "No order followed the coupon of call 12, so the rule fires without another call. Sent to a stand-in."
    _section(console, f"4. Two days later, {_day(result.fired.now)}", text)
    for fired in result.fired.requests:
        console.print(_fired(fired))
    _show_next(console)


def _section(console: Console, title: str, text: str) -> None:
    console.print(Text.assemble("\n", (title, "bold cyan"), "\n", (text, "dim")))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _calls(calls: tuple[ShownCall, ...]) -> Table:
    table = _table("#", "time", "call", "who", "what became of it")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for call in calls:
        kind = Text.assemble((call.type or "(no type)", "bold"), f" {call.event}" if call.event else "")
        table.add_row(str(call.number), _clock(call.time), kind, _short(call.who), _outcome(call))
    return table


def _outcome(call: ShownCall) -> Text:
    style = {DELIVER: "green", FILTERED: "dim"}.get(call.status, "red")
    if call.status != DELIVER:
        return Text.assemble((call.outcome, style), f": {call.note}" if call.note else "")
    numbers = ", ".join(map(str, call.requests))
    return Text.assemble((f"request {numbers}", style), f", left out: {call.note}" if call.note else "")


def _show_users(users: tuple[ShownUser, ...], console: Console) -> None:
    table = _table("anonymousId", "userId", "primary key", "first seen", "last seen")
    values = _table("who", "values of data maps")
    for column in (*table.columns, values.columns[0]):
        column.no_wrap = True
    for user in users:
        anonymous = "\n".join(map(_short, user.anonymous_ids)) or "-"
        seen = _day(user.first_seen), _day(user.last_seen)
        table.add_row(anonymous, user.user_id or "-", user.primary_key or "-", *seen)
        values.add_row(user.user_id or anonymous, _values(user.values))
    console.print(table, values)


def _values(values: Mapping[str, Json]) -> Text:
    text = Text()
    for name, value in values.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        text.append(", " if text else "")
        text.append(f"{name} ", "dim").append(shown)
    return text


def _request(request: ShownRequest) -> Panel:
    calls = ", ".join(map(str, request.calls))
    head = Text.assemble((request.method, "bold"), " ", (request.url, "cyan"))
    headers = [Text.assemble((f"{name}: ", "dim"), value) for name, value in request.headers.items()]
    parts: list[RenderableType] = [head, *headers, Text(), JSON(msgspec.json.encode(request.body).decode())]
    if request.left_out:
        parts += [Text(), Text.assemble(("left out: ", "yellow"), request.left_out)]
    title = f"request {request.number}, for {'call' if len(request.calls) == 1 else 'calls'} {calls}"
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


def _fired(request: FiredRequest) -> Panel:
    head = Text.assemble((request.method, "bold"), " ", (request.url, "cyan"))
    body = JSON(msgspec.json.encode(request.body).decode())
    return Panel(Group(head, Text(), body), title="rule coupon-no-order", title_align="left", border_style="green")


def _show_next(console: Console) -> None:
    pages = files("emarsys_cdp") / "help"
    console.print(
        Text.assemble(
            ("\nNext: ", "bold cyan"),
            ("emarsys-cdp serve", "bold"),
            " runs the service for your RudderStack. Every step is in\n",
            f"{pages / 'rudderstack.md'}; how to change one is in\n{pages / 'extensions.md'}",
        ),
        soft_wrap=True,
    )


def _short(identifier: str) -> str:
    """Return an identifier as the tables show it: of a UUID the beginning."""
    return f"{identifier[:SHORT_UUID]}…" if len(identifier) == UUID_LENGTH else identifier


def _clock(time: str) -> str:
    return f"{datetime.fromisoformat(time):%H:%M:%S}"


def _day(time: str) -> str:
    return f"{datetime.fromisoformat(time):%d %b %H:%M}"
