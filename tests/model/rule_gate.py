"""The gate: semantics.md 2.8, on the wall clock. It only decides; nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tests.model.reading import EPOCH, Json
from tests.model.rule_criteria import Moment, Space, holds
from tests.model.rule_document import Cap, Quiet, Row, Rule
from tests.model.rule_instance import Instance, Passage
from tests.model.rule_log import Log, last_value

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Sending:
    """The gate has let something pass: when, of which rule, to which key."""

    at: int
    rule: str
    key: str


@dataclass(frozen=True)
class Person:
    """What the gate looks at of a person."""

    key: str | None
    log: Log


@dataclass(frozen=True)
class Look:
    """
    What comes of looking at a passage: a decision, or when to look again.

    `rows` are those whose onlyIf holds. `is_in_time`: the settling is over and the question of lateness was asked.
    """

    what: str | None = None
    again: int | None = None
    rows: tuple[Row, ...] = ()
    is_in_time: bool = False


@dataclass(frozen=True)
class Gate:
    """The gate of a space at a time."""

    space: Space
    caps: Sequence[Cap]
    sendings: Sequence[Sending]
    now: int

    def look(self, instance: Instance, passage: Passage, person: Person, *, was_in_time: bool) -> Look:
        """Look at what is due, in the order of 2.8."""
        rule, now = instance.rule, self.now
        settled = passage.due + rule.settle
        if now < settled:
            return Look(again=settled)
        if not was_in_time and now > settled + rule.late_fire_max:
            return Look("stale")
        if rule.status in {"archived", "shadow"}:
            return Look(rule.status)
        variables = instance.variables if passage.variables is None else passage.variables
        rows = tuple(row for row in passage.rows if self._holds(row, rule, passage.due, person, variables))
        if not rows:
            return Look("filtered")
        if person.key is None:
            end = settled + rule.hold
            return Look("unreachable") if now >= end else Look(again=end, is_in_time=True)
        quiet = self._quiet_until(rule.quiet, person)
        if quiet is not None:
            return Look(again=quiet, is_in_time=True)
        return self._capped(rule, person.key) or Look("sent", rows=rows)

    def _holds(self, row: Row, rule: Rule, due: int, person: Person, variables: Mapping[str, Json]) -> bool:
        moment = Moment(self.space, person.log, due, None, variables=variables, variable_types=rule.variable_types)
        return holds(row.only_if, moment)

    def _quiet_until(self, quiet: Quiet | None, person: Person) -> int | None:
        """Return the end of the quiet hours in which now is."""
        if quiet is None:
            return None
        named = last_value(person.log, quiet.zone_map) if quiet.zone_map else None
        zone = _zone(named) or _zone(quiet.zone) or ZoneInfo(self.space.zone)
        today = (EPOCH + timedelta(milliseconds=self.now)).astimezone(zone).date()
        over_midnight = timedelta(days=1 if quiet.end <= quiet.start else 0)
        for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
            start, end = _instant(day, quiet.start, zone), _instant(day + over_midnight, quiet.end, zone)
            if start <= self.now < end:
                return end
        return None

    def _capped(self, rule: Rule, key: str) -> Look | None:
        """Return what caps say against sending. *Chosen*: one that drops wins over one that defers."""
        of_key = [one for one in self.sendings if one.key == key]
        of_rule = [one for one in of_key if one.rule == rule.id]
        waits, over = list[int](), False
        for cap, counted in [(cap, of_rule) for cap in rule.caps] + [(cap, of_key) for cap in self.caps]:
            recent = sorted(one.at for one in counted if one.at > self.now - cap.per)
            if len(recent) >= cap.count and not cap.defer:
                over = True
            elif len(recent) >= cap.count:
                waits.append(recent[-cap.count] + cap.per)
        # Chosen: as long as a cap lets it wait it waits; however often one looks meanwhile, the others are asked then.
        if waits:
            return Look(again=max(waits), is_in_time=True)
        return Look("capped") if over else None


def _zone(name: Json) -> ZoneInfo | None:
    """Return the zone of an IANA name, None for what is none."""
    try:
        return ZoneInfo(name) if name else None
    except (ValueError, KeyError, OSError, TypeError):
        return None


def _instant(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return the instant of a local time: one that is missing moves forward, of a doubled one it is the first."""
    local = datetime.combine(day, time(minutes // 60, minutes % 60), zone)
    return (local - EPOCH) // MILLISECOND
