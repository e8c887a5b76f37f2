"""Tables for people to read; nothing is cut off at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def table_of(*columns: str, whole: Sequence[str] = ()) -> Table:
    """Return a table; columns in *whole* are never broken into lines."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    return table


def plain(text: str, style: str = "") -> Text:
    """Return a text of a call or a document: what would steer the terminal is shown as an escape."""
    return Text("".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text), style)
