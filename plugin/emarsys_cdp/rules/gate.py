"""
The gate: whether the effects of an act stage may be sent now (semantics 2.8). Pure; times in ms since 1970 UTC.

Patterns are pinned to instances; the settings of the gate are those in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp.rules.book import ARCHIVED, FILTERED, RECORDED, STALE, UNREACHABLE, Fact, Instance, Passage
from emarsys_cdp.rules.criteria import Facts, Values
from emarsys_cdp.rules.pattern import ARCHIVED as ARCHIVED_RULE
from emarsys_cdp.rules.pattern import SHADOW, Gate, Quiet, Row
from emarsys_cdp.values.times import zone

_DAY: Final = 24 * 60
"""Minutes of a day."""


class Waits(Struct, frozen=True):
    """The passage waits: it is looked at again at *until* at the latest; *held*: it waits for a key."""

    until: int
    held: bool = False


class Ends(Struct, frozen=True):
    """The passage is decided without anything being sent."""

    outcome: str


class Passes(Struct, frozen=True):
    """The actions of these rows may be sent, if the caps allow it."""

    rows: tuple[int, ...]


Verdict: TypeAlias = Waits | Ends | Passes


class Question(Struct, frozen=True):
    """
    What the gate is asked.

    *rows* are those of the passage, *fact* is what is known of it from before. *key* is the person's key of now,
    *at_fire* are the values known at F, *zone_name* is the person's own time zone (None: not known), *timezone* that of
    the space.
    """

    gate: Gate | None
    instance: Instance
    passage: Passage
    rows: Sequence[Row]
    fact: Fact | None
    key: str | None
    at_fire: Values
    zone_name: str | None
    timezone: str


def decide(asked: Question, now: int) -> Verdict:
    """Return whether a passage waits, ends or passes."""
    gate = asked.gate
    if gate is None or gate.status == ARCHIVED_RULE:
        return Ends(ARCHIVED)
    due = asked.passage.fire + gate.settle
    if now < due:
        return Waits(due)
    first_seen = now if asked.fact is None or not asked.fact.sight else asked.fact.sight
    if first_seen > due + gate.late_max:
        return Ends(STALE)
    rows = tuple([row.index for row in asked.rows if _is_wanted(row, asked)])
    if gate.status == SHADOW:
        return Ends(RECORDED if rows else FILTERED)
    if not rows:
        return Ends(FILTERED)
    if asked.key is None:
        last = due + gate.hold
        return Ends(UNREACHABLE) if now >= last else Waits(last, held=True)
    until = None if gate.quiet is None else quiet_until(gate.quiet, _zone(gate.quiet, asked), now)
    return Passes(rows) if until is None else Waits(until)


def _is_wanted(row: Row, asked: Question) -> bool:
    """Tell whether the row's onlyIf holds at F."""
    if row.only_if is None:
        return True
    fire = asked.passage.fire
    variables = asked.passage.variables
    variables = asked.instance.variables if variables is None else variables
    return row.only_if.holds(Facts({}, fire, asked.at_fire, asked.at_fire, variables))


def _zone(quiet: Quiet, asked: Question) -> str:
    """Return the time zone of a person: its own if it is one, else the rule's, else the space's."""
    for name in (asked.zone_name, quiet.zone):
        if name:
            try:
                return zone(name).key
            except ValueError:
                continue
    return asked.timezone


def quiet_until(quiet: Quiet, zone_name: str, now: int) -> int | None:
    """
    Return when the quiet hours end that it is in now, None when it is in none.

    A local time that is missing moves forward; of one that comes twice the first is meant.
    """
    place = zone(zone_name)
    today = datetime.fromtimestamp(now / 1000, place).date()
    nights = 1 if quiet.begin > quiet.end else 0
    for day in (today - timedelta(days=1), today):
        begin, end = _moment(day, quiet.begin, place), _moment(day + timedelta(days=nights), quiet.end, place)
        if begin <= now < end:
            return end
    return None


def _moment(day: date, minute: int, place: tzinfo) -> int:
    """Return the time of a minute of a day in a zone."""
    days, minute = divmod(minute, _DAY)
    local = datetime.combine(day + timedelta(days=days), time(*divmod(minute, 60)), place)
    return round(local.timestamp() * 1000)
