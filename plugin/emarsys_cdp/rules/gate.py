"""
The gate: whether the effects of an act stage may be sent now (semantics 2.8). Pure; times in ms since 1970 UTC.

Patterns are pinned to instances; the settings of the gate are those in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
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
    *at_fire* are the values known at F, *own_zone* is the person's time zone as a call gave it (None: not known).
    """

    gate: Gate | None
    instance: Instance
    passage: Passage
    rows: Sequence[Row]
    fact: Fact | None
    key: str | None
    at_fire: Values
    own_zone: str | None


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
    until = None if gate.quiet is None else quiet_until(gate.quiet, asked.own_zone, now)
    return Passes(rows) if until is None else Waits(until)


def _is_wanted(row: Row, asked: Question) -> bool:
    """Tell whether the row's onlyIf holds at F."""
    if row.only_if is None:
        return True
    fire = asked.passage.fire
    variables = asked.passage.variables
    variables = asked.instance.variables if variables is None else variables
    return row.only_if.holds(Facts({}, fire, asked.at_fire, asked.at_fire, variables))


def _place(own: str | None, usual: str) -> tzinfo:
    """Return the time zone that a call gave as a person's own, the usual one if it gave none or one that is none."""
    with suppress(ValueError):
        return zone(own or usual)
    return zone(usual)


def quiet_until(quiet: Quiet, own_zone: str | None, now: int) -> int | None:
    """
    Return when the quiet hours end that it is in now, None when it is in none.

    They are those of the person's *own_zone* if that is a time zone, else of the rule's. A local time that is missing
    moves forward; of one that comes twice the first is meant.
    """
    place = _place(own_zone, quiet.zone)
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
