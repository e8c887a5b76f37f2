"""Effects of the outbox for people to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from emarsys_cdp.cli.tables import plain, table_of
from emarsys_cdp.outbox.desk import SHORT, Changed

_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_STYLES: Final = {"dead": "red", "held": "yellow", "unclear": "yellow", "sent": "green", "handed": "green"}
_WORDS: Final = {
    "keyField": "key field",
    "next": "next try",
    "changed": "last changed",
    "posted": "given to the host",
    "unclearTries": "unclear tries",
    "job": "handed to job",
}


def show_effects(effects: Sequence[Mapping[str, Any]], *, dead: bool, more: bool, console: Console) -> None:
    """Print effects, one a line."""
    if not effects:
        console.print("No effect is dead." if dead else "The outbox is empty: every effect was sent.")
        return
    table = table_of("id", "space", "state", "rule", "do", "key", "due", "age", "tries", "reason", whole=("id", "age"))
    for one in effects:
        age = _age(one["age"]) if "age" in one else ""
        row = [str(one.get(name) or "") for name in ("space", "state", "rule", "do", "key", "due")]
        cells = [plain(text) for text in (one["id"][:SHORT], *row, age, str(one["tries"]), one["reason"] or "")]
        cells[2].stylize(_STYLES.get(one["state"], ""))
        table.add_row(*cells)
    console.print(table)
    if more:
        console.print(Text(f"The first {len(effects)}; --limit shows more.", "dim"))


def show_effect(one: Mapping[str, Any], console: Console) -> None:
    """Print everything that is known of an effect."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in one.items():
        if value in (None, "", {}):
            continue
        text = (
            _age(value) if name == "age" else value if isinstance(value, str) else msgspec.json.encode(value).decode()
        )
        table.add_row(_WORDS.get(name, name), plain(text))
    console.print(table)


def show_changed(changed: Changed, done: str, console: Console) -> None:
    """Print how many effects were changed, and which were not."""
    console.print(Text(f"{len(changed.done)} {'effect' if len(changed.done) == 1 else 'effects'} {done}.", "bold"))
    for name, state in changed.left.items():
        console.print(plain(f"{name[:SHORT]} stays as it is: {state}"))


def _age(seconds: int) -> str:
    """Return a time in its two largest units: `2h 5m`."""
    parts = []
    for unit, size in _UNITS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
