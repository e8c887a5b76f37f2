"""Rules for people to read: a line for each, one of them in full, what a publication changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from emarsys_cdp.cli.tables import plain, table_of
from emarsys_cdp.document.rule_parts import LIFETIME_HOURS, status_of
from emarsys_cdp.document.versions import RuleVersion
from emarsys_cdp.publishing import Receipt, Shown
from emarsys_cdp.values.times import iso_time

_SOURCES: Final = {
    "default": "the space has no document, so the default one counts",
    "store": "published in the store",
}
_WHAT: Final = {
    "added": "new, version {version}",
    "new version": "version {version}; {mode}",
    "settings": "settings only, version {version} stays: they count at once for everybody",
    "unchanged": "unchanged, version {version}",
    "removed": "removed with version {version}; {mode}",
}
_MODES: Final = {
    "finish": "people who are in the rule go on with the version that they began with",
    "migrate": "people who are in the rule go over to it",
    "cancel": "people who were in the rule leave it",
}
_SETTINGS: Final = {
    "transaction": "transaction",
    "onRepeatStart": "repeated start",
    "reentry": "re-entry",
    "maxActive": "at most active",
    "holdForKey": "hold for key",
    "settle": "settle",
    "lateFireMax": "latest",
    "initialSync": "first sync",
    "quietHours": "quiet hours",
    "caps": "caps",
    "onPublish": "on publish",
}
_OPTIONS: Final = ("count", "countWithin", "lookback", "join", "onTimeout", "at", "onlyIf", "variables")


class Summary(Struct, frozen=True):
    """A rule in a line; *lifetime* as it was written, *conditions* is their number."""

    id: str
    name: str
    status: str
    version: int | None
    lifetime: Any
    transaction: str | None
    conditions: int


def summaries(shown: Shown) -> Iterator[Summary]:
    """Yield the rules of a document."""
    for rule in shown.document.get("rules", ()):
        yield Summary(
            rule["id"],
            rule.get("name", rule["id"]),
            status_of(rule),
            rule.get("version"),
            rule.get("lifetime", f"{LIFETIME_HOURS:g}h"),
            rule.get("transaction"),
            len(rule["conditions"]),
        )


def list_rules(space: str, shown: Shown, console: Console) -> None:
    """Print the rules of a document."""
    source = f"in the file {shown.file}" if shown.file is not None else _SOURCES[shown.source]
    console.print(plain(f"Space {space}, revision {shown.revision}: {source}."))
    rules = list(summaries(shown))
    if not rules:
        console.print("It has no rules.")
        return
    table = table_of("rule", "name", "status", "version", "lifetime", "transaction", "conditions")
    for one in rules:
        cells = (one.id, one.name, one.status, one.version, _time(one.lifetime), one.transaction, one.conditions)
        table.add_row(*(plain("-" if cell is None else str(cell)) for cell in cells))
    console.print(table)


def show_rule(rule: Mapping[str, Any], old: Sequence[RuleVersion], console: Console) -> None:
    """Print a rule in full."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    rows = {
        "rule": rule["id"],
        "name": rule.get("name", rule["id"]),
        "status": status_of(rule),
        "version": str(rule.get("version", "-")),
        "lifetime": _time(rule.get("lifetime", LIFETIME_HOURS)),
        "at a time": "several" if rule.get("multiple") else "one",
        **{word: _part(rule[name]) for name, word in _SETTINGS.items() if rule.get(name) is not None},
    }
    for name, text in rows.items():
        grid.add_row(name, plain(text))
    console.print(grid)
    console.print(_conditions(rule["conditions"]))
    for one in old:
        what = _WHAT["new version"].format(version=one.version, mode=_MODES[one.mode])
        console.print(plain(f"Replaced at {iso_time(one.until)}: {what}."))


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> Table:
    table = table_of("seq", "type", "on", "when", "wait", "within", "does", "options")
    for row in conditions:
        on = row.get("on", "any")
        cells = (
            str(row["seq"]),
            row["type"],
            on if isinstance(on, str) else ", ".join(on) or "any",
            _criteria(row.get("match")),
            _time(row.get("wait")),
            _time(row.get("within")),
            "\n".join(map(_action, row.get("actions", ()))),
            "\n".join(f"{name}: {_option(name, row[name])}" for name in _OPTIONS if row.get(name) is not None),
        )
        table.add_row(*map(plain, cells))
    return table


def _option(name: str, raw: Any) -> str:
    if name == "onlyIf":
        return _criteria(raw)
    if name == "variables":
        return ", ".join(one if isinstance(one, str) else f"{one.get('map')} as {one.get('as')}" for one in raw)
    return _part(raw)


def _criteria(raw: Any) -> str:
    """Return criteria as text: the short form as it is, several texts joined, everything else as JSON."""
    if raw is None:
        return ""
    if isinstance(raw, list):
        return " and ".join(map(str, raw))
    return _part(raw)


def _action(raw: Mapping[str, Any]) -> str:
    options = [f"{name} {_part(value)}" for name, value in raw.items() if name != "do"]
    return f"{raw['do']} {', '.join(options)}".strip()


def _part(raw: Any) -> str:
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def _time(raw: Any) -> str:
    """Return a duration; a bare number is hours."""
    if raw is None:
        return ""
    return raw if isinstance(raw, str) else f"{raw:g}h"


def show_changes(space: str, receipt: Receipt, console: Console) -> None:
    """Print what a publication changed."""
    console.print(plain(f"Space {space} has revision {receipt.revision}.", "bold"))
    changed = [one for one in receipt.changes if one.what != "unchanged"]
    for one in changed:
        what = _WHAT[one.what].format(version=one.version, mode=_MODES.get(one.mode or "", ""))
        console.print(plain(f"  {one.rule}: {what}"))
    same = len(receipt.changes) - len(changed)
    if same:
        console.print(f"  {same} {'rule is' if same == 1 else 'rules are'} unchanged")
