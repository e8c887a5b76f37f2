"""The gate: quiet hours in the zones of the world, and caps."""

from __future__ import annotations

import pytest
from tests.support.outbox import effect

from emarsys_cdp.gate_again import GateAgain
from emarsys_cdp.outbox.transport import Objection
from emarsys_cdp.rules.gate import quiet_until
from emarsys_cdp.rules.limits import Full, Places, release, reserve
from emarsys_cdp.rules.pattern import Cap, Gate, Quiet
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.values.times import iso_time, parse_time

NIGHT = ("21:00", "08:00")
CASES = [
    # from, to, zone, now, until
    (*NIGHT, "Europe/Berlin", "2025-01-06T21:10:00Z", "2025-01-07T07:00:00.000Z"),
    (*NIGHT, "Europe/Berlin", "2025-01-07T02:00:00Z", "2025-01-07T07:00:00.000Z"),
    (*NIGHT, "Europe/Berlin", "2025-01-06T20:00:00Z", "2025-01-07T07:00:00.000Z"),
    (*NIGHT, "Europe/Berlin", "2025-01-06T19:59:59Z", None),
    (*NIGHT, "Europe/Berlin", "2025-01-07T07:00:00Z", None),
    ("12:00", "13:30", "America/New_York", "2025-07-01T16:15:00Z", "2025-07-01T17:30:00.000Z"),
    ("12:00", "13:30", "America/New_York", "2025-07-01T17:30:00Z", None),
    # 30 March 2025: 02:30 is missing in Berlin and moves to 03:30; the night of 26 October has 02:30 twice.
    ("22:00", "02:30", "Europe/Berlin", "2025-03-30T00:30:00Z", "2025-03-30T01:30:00.000Z"),
    ("22:00", "02:30", "Europe/Berlin", "2025-03-30T01:30:00Z", None),
    ("22:00", "02:30", "Europe/Berlin", "2025-10-25T23:00:00Z", "2025-10-26T00:30:00.000Z"),
    ("22:00", "02:30", "Europe/Berlin", "2025-10-26T01:10:00Z", None),
    ("02:30", "09:00", "Europe/Berlin", "2025-10-26T01:10:00Z", "2025-10-26T08:00:00.000Z"),
    ("23:00", "24:00", "UTC", "2025-01-06T23:30:00Z", "2025-01-07T00:00:00.000Z"),
    ("00:00", "24:00", "UTC", "2025-01-06T23:59:00Z", "2025-01-07T00:00:00.000Z"),
]


def minutes(text: str) -> int:
    """Return the minute of the day of a time of day."""
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


@pytest.mark.parametrize(("begin", "end", "zone", "now", "until"), CASES)
def test_quiet_hours(begin: str, end: str, zone: str, now: str, until: str | None) -> None:
    """They end at the next `to` of the zone; a missing time moves forward, of a doubled one the first counts."""
    moment = parse_time(now)
    assert moment is not None

    found = quiet_until(Quiet(minutes(begin), minutes(end), zone), zone, moment)

    assert (None if found is None else iso_time(found)) == until


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../UTC", "a\0b"])
def test_a_zone_that_is_none_does_not_count(zone: str) -> None:
    """Asked again, the gate goes by the rule's zone where the one that a call gave for the person is none."""
    one = effect(1, zone=zone)
    gate = Gate("r1", "r1", quiet=Quiet(minutes("00:00"), minutes("24:00"), "UTC"))

    found = GateAgain(lambda _: RuleSet({"r1": gate}, {}, {}))(one, one.emitted)

    assert isinstance(found, Objection)
    assert found.until is not None
    assert found.until > one.emitted


def test_a_cap_slides() -> None:
    """A place is free again when it is older than the cap's time; the exact instant counts as older."""
    caps, places = [Cap(2, 1000)], Places()
    for name, now, want in [
        ("a", 0, None),
        ("b", 400, None),
        ("c", 999, Full(None)),
        ("c", 1000, None),
        ("d", 1399, Full(None)),
        ("d", 1400, None),
    ]:
        places, full = reserve(name, caps, now, places)
        assert full == want, (name, now)


def test_a_place_is_had_once() -> None:
    """Whoever asks again has the place from before, and gives it back once."""
    caps = [Cap(1, 1000)]
    places, _ = reserve("a", caps, 0, ())

    assert reserve("a", caps, 10, places) == (places, None)
    assert reserve("b", caps, 10, release("a", places)[0]) == ((("b", 10),), None)


def test_a_cap_that_lets_one_wait_comes_first() -> None:
    """One waits for the last of those that let one wait; the others are asked only then."""
    places: Places = (("a", 0), ("b", 500))
    waiting, final = Cap(1, 1000, defer=True), Cap(2, 2000)

    assert reserve("c", [waiting], 600, places)[1] == Full(1500)
    assert reserve("c", [waiting, final], 600, places)[1] == Full(1500)
    assert reserve("c", [waiting, Cap(2, 3000, defer=True)], 600, places)[1] == Full(3000)
    assert reserve("c", [waiting, final], 1500, places)[1] == Full(None)
    assert reserve("c", [], 600, places)[1] is None
