"""How long runs show how far they are and what came of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Row = tuple[str, str, bool]
"""What was looked at, what was found, and whether that is as it should be."""


def progress() -> Progress:
    """Return a bar on the terminal that counts."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def show_verdict(rows: Sequence[Row], console: Console, title: str | None = None) -> bool:
    """Print a table of what was found; tell whether all of it is well."""
    table = Table(title=title, show_header=False)
    for name, text, well in rows:
        table.add_row(name, text, "[green]well[/green]" if well else "[red]WRONG[/red]")
    console.print(table)
    return all(well for _, _, well in rows)
