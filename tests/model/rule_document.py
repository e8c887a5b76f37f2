"""The rules of a document, with the defaults of semantics.md 2.1 to 2.3 and its amendment 2. Times in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from tests.model.reading import UNITS, Json
from tests.model.rule_criteria import milliseconds, normal

HOUR, DAY = UNITS["h"], UNITS["d"]
ACTS = ("action", "exit")


@dataclass(frozen=True)
class Row:
    """A condition; `seq` is None for `*`, `number` its place in the rule."""

    number: int
    seq: int | None
    type: str
    on: tuple[str, ...]
    match: Json
    wait: int | None
    within: int | None
    variables: tuple[tuple[str, str], ...]
    count: int
    count_within: int | None
    lookback: int | None
    joins: bool
    goes_on: bool
    at: tuple[str, int] | None
    actions: tuple[Mapping[str, Json], ...]
    only_if: Json

    def is_armed(self, since: int, time: int, *, default: int | None = None) -> bool:
        """Tell whether it is armed at a time, in a stage entered at *since* (2.3): both ends belong to the window."""
        within = default if self.within is None else self.within
        return since + (self.wait or 0) <= time and (within is None or time <= since + within)


@dataclass(frozen=True)
class Node:
    """A place in the plan (2.2): the events that end the wait for it, or what is done there."""

    is_act: bool
    seq: int
    rows: tuple[Row, ...]

    @property
    def is_exit(self) -> bool:
        """Whether the instance ends here."""
        return any(row.type == "exit" for row in self.rows)


@dataclass(frozen=True)
class Cap:
    """At most so many in so long a time; more are dropped or, deferred, wait."""

    count: int
    per: int
    defer: bool


@dataclass(frozen=True)
class Quiet:
    """Quiet hours: minutes of the day, and where the zone comes from."""

    start: int
    end: int
    zone_map: str | None
    zone: str | None


@dataclass(frozen=True)
class Rule:
    """A rule."""

    id: str
    order: int
    status: str
    lifetime: int
    multiple: bool
    transaction: str | None
    on_repeat: str
    cool_down: int
    max_entries: int | None
    max_active: int
    hold: int
    settle: int
    late_fire_max: int
    max_lateness: int
    initial_sync: int | None
    quiet: Quiet | None
    caps: tuple[Cap, ...]
    rows: tuple[Row, ...]
    plan: tuple[Node, ...]
    variable_types: Mapping[str, str]

    def of_type(self, kind: str, seq: int | None = None) -> list[Row]:
        """Return the rows of a type in a stage; None: those for the whole instance."""
        return [row for row in self.rows if row.type == kind and row.seq == seq]

    @property
    def last_act(self) -> Node | None:
        """The stage that ends an instance, if something is done there."""
        return self.plan[-1] if self.plan[-1].is_act else None

    @property
    def starts(self) -> bool:
        """Whether it opens instances at all (2.9); a draft does in a simulation."""
        return self.status in {"active", "shadow", "draft"}


def rules_in(document: Mapping[str, Json]) -> tuple[Rule, ...]:
    """Read the rules of a document."""
    types = {row["name"]: row["type"] for row in document.get("dataMaps", ())}
    settings = document.get("settings", {})
    return tuple(_rule(order, raw, settings, types) for order, raw in enumerate(document.get("rules", ())))


def caps_in(raw: Mapping[str, Json]) -> tuple[Cap, ...]:
    """Read the caps of a rule, or of the settings."""
    return tuple(Cap(cap["count"], milliseconds(cap["per"]), cap.get("defer", False)) for cap in raw.get("caps", ()))


def _rule(order: int, raw: Mapping[str, Json], settings: Mapping[str, Json], types: Mapping[str, str]) -> Rule:
    rows = tuple(_row(number, row) for number, row in enumerate(raw["conditions"]))
    lifetime = milliseconds(raw.get("lifetime", 48))
    both = {**settings, **raw}
    reentry = raw.get("reentry", {})
    return Rule(
        id=raw["id"],
        order=order,
        status=raw.get("status", "active"),
        lifetime=lifetime,
        multiple=raw.get("multiple", False),
        transaction=raw.get("transaction"),
        on_repeat=raw.get("onRepeatStart", "ignore"),
        cool_down=milliseconds(reentry.get("after", 0)),
        max_entries=reentry.get("maxEntries"),
        max_active=raw.get("maxActive", 25),
        hold=milliseconds(raw["holdForKey"]) if "holdForKey" in raw else lifetime,
        settle=milliseconds(both.get("settle", 0)),
        late_fire_max=milliseconds(both.get("lateFireMax", "24h")),
        max_lateness=milliseconds(settings.get("maxLateness", "72h")),
        initial_sync=milliseconds(both["initialSync"]) if "initialSync" in both else None,
        quiet=_quiet(raw["quietHours"]) if raw.get("quietHours") else None,
        caps=caps_in(raw),
        rows=rows,
        plan=_plan(rows),
        variable_types={name: types[source] for row in rows for source, name in row.variables},
    )


def _row(number: int, raw: Mapping[str, Json]) -> Row:
    on = raw.get("on", ())
    at = raw.get("at")
    kind = raw["type"]
    return Row(
        number=number,
        seq=None if raw["seq"] == "*" else raw["seq"],
        type="step" if kind == "include" else kind,
        on=(on,) if isinstance(on, str) else tuple(on),
        match=normal(raw.get("match")),
        wait=_maybe(raw.get("wait")),
        within=_maybe(raw.get("within")),
        variables=tuple(_variable(one) for one in raw.get("variables", ())),
        count=raw.get("count", 1),
        count_within=_maybe(raw.get("countWithin")),
        lookback=_maybe(raw.get("lookback")),
        joins=raw.get("join") == "all",
        goes_on=raw.get("onTimeout") == "continue",
        at=(at["var"], milliseconds(at.get("offset", 0))) if at else None,
        actions=tuple(raw.get("actions", ())),
        only_if=normal(raw.get("onlyIf")),
    )


def _maybe(value: Json) -> int | None:
    return None if value is None else milliseconds(value)


def _variable(raw: Json) -> tuple[str, str]:
    return (raw, raw) if isinstance(raw, str) else (raw["map"], raw.get("as", raw["map"]))


def _quiet(raw: Mapping[str, Json]) -> Quiet:
    start, end = (int(raw[name][:2]) * 60 + int(raw[name][3:]) for name in ("from", "to"))
    return Quiet(start, end, raw.get("zoneMap"), raw.get("zone"))


def _plan(rows: tuple[Row, ...]) -> tuple[Node, ...]:
    """2.2: the start, then for each stage its events and what is done in it."""
    staged = sorted((row for row in rows if row.seq is not None), key=lambda row: (row.seq, row.number))
    nodes: list[Node] = []
    for seq, group in groupby(staged, key=lambda row: row.seq or 0):
        of_stage = list(group)
        waits = tuple(row for row in of_stage if row.type in {"start", "step"})
        acts = tuple(row for row in of_stage if row.type in ACTS)
        nodes += [Node(is_act=False, seq=seq, rows=waits)] if waits else []
        nodes += [Node(is_act=True, seq=seq, rows=acts)] if acts else []
    return tuple(nodes)
