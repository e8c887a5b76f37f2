"""
Rules and timelines to try rules with, for Hypothesis.

All times lie on a coarse grid, so that calls, ends of windows and wake-ups meet at one instant again and again. Every
start captures its messageId, and every action has an event of its own: what was sent says by which instance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st
from tests.model.reading import UNITS, iso, time_of
from tests.model.table import Call, Erase, Json, Step
from tests.model.timelines import EMAIL_KEY, Names, identifiers, message
from tests.model.vectors import ORIGIN

MINUTE, HOUR, DAY = UNITS["m"], UNITS["h"], UNITS["d"]

DATA_MAPS = (
    {"name": "event", "path": "event", "type": "string"},
    {"name": "mid", "path": "messageId", "type": "string"},
    {"name": "cart", "path": "properties.cart", "type": "string"},
    {"name": "amount", "path": "properties.amount", "type": "numeric"},
    {"name": "due", "path": "properties.due", "type": "date"},
    {"name": "vip", "path": "traits.vip", "type": "boolean"},
    {"name": "zone", "path": "context.timezone", "type": "string"},
)
EVENTS = ("Start", "Stop", "Step", "Other")
NOTHING = "Nothing"
"""An event that no rule is about."""

NAMES = Names(users=("u1", "u2"), keys=("a@x.com", "b@x.com"), anons=("d1", "d2"), odd=False)
"""So few that they get into each other's way."""

GAPS = (0, 0, MINUTE, 10 * MINUTE, 30 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR)
LATE = (0,) * 8 + (-10 * MINUTE, -30 * MINUTE, -30 * MINUTE, -HOUR, -3 * HOUR, -DAY)
WRONG = (*LATE, 4 * MINUTE, 5 * MINUTE, 3 * DAY)
"""From the arrival to the event time: late ones, and clocks that are ahead."""

WAITS = ("0s", "10m", "30m", "1h", "2h")
ONLY_IF: Sequence[dict[str, Json]] = (
    {"onlyIf": {"map": "amount", "op": "gte", "value": 10, "scope": "instance"}},
    {"onlyIf": {"map": "vip", "op": "not_true", "scope": "profile"}},
)
STEP_PARTS: Sequence[Mapping[str, Json]] = (
    {}, {"within": "1h"}, {"wait": "10m", "within": "2h"}, {"count": 2}, {"count": 2, "countWithin": "30m"},
)  # fmt: skip
LAST = 20 * DAY
"""So long after the last call nothing is left to happen: windows, holds and caps are hours. Nobody is forgotten yet."""

PROPERTIES: Sequence[tuple[str, str, Json]] = (
    ("properties", "amount", 5), ("properties", "amount", "20.50"), ("properties", "amount", "much"),
    ("properties", "due", "2025-01-06T12:00:00Z"), ("properties", "due", "2025-01-06T16:30:00Z"),
    ("properties", "due", "soon"), ("traits", "vip", True), ("traits", "vip", False),
    ("context", "timezone", "America/New_York"), ("context", "timezone", "Nowhere/None"),
)  # fmt: skip

Maybe = st.SearchStrategy[Mapping[str, Json]]


def maybe(name: str, values: Sequence[Json], *, rarely: bool = False) -> Maybe:
    """Return a part of a document that may be missing."""
    return st.sampled_from(({},) * (3 if rarely else 1) + tuple({name: value} for value in values))


# Rules


@st.composite
def criteria(draw: st.DrawFn, *events: str, captured: bool = False, first_syncs: bool = True) -> Json:
    """Draw criteria about one of these events, in long and short forms."""
    event = draw(st.sampled_from(events))
    one: Json = draw(
        st.sampled_from(
            (f"event = {event}", {"map": "event", "op": "equals", "value": event}, f"event in {event}, Never")
        )
    )
    more: list[Json] = [None] * 12 + ["amount >= 20", "amount < 20", {"not": "amount exists"}]
    more += [{"map": "vip", "op": "is_true", "scope": "profile"}, {"map": "amount", "op": "not_changed"}]
    more += [{"map": "cart", "op": "equals", "var": "cart"}] * 2 if captured else []
    more += [{"any": ["amount changed to 5", "vip changed to true"]}] if first_syncs else []
    another = draw(st.sampled_from(more))
    return one if another is None else {"all": [one, another]}


@st.composite
def exclude_rows(draw: st.DrawFn, rule: str, seq: Json, *, syncs: bool = True) -> list[dict[str, Json]]:
    """Draw no or one or two rows that stop an instance."""
    rows = []
    for number in range(draw(st.sampled_from((0, 0, 1, 1, 2)))):
        row = {
            "seq": seq,
            "type": "exclude",
            "match": draw(criteria("Stop", "Stop", "Other", captured=True, first_syncs=syncs)),
        }
        if seq != "*":
            row |= draw(st.sampled_from(({}, {}, {"within": "1h"}, {"wait": "30m"}, {"wait": "10m", "within": "2h"})))
        if seq in {0, "*"}:
            row |= draw(maybe("lookback", ("1h",), rarely=True))
        if draw(st.sampled_from((False, False, True))):
            row["actions"] = [{"do": "trigger", "event": f"{rule} stop {seq} {number}"}]
        rows.append(row)
    return rows


@st.composite
def waiting_rows(draw: st.DrawFn, seq: int, *, syncs: bool = True) -> list[dict[str, Json]]:
    """Draw one or two events to wait for in a stage."""
    count = draw(st.sampled_from((1, 1, 2)))
    join = draw(maybe("join", ("all",))) if count > 1 else {}
    shared = {**join, **draw(maybe("onTimeout", ("continue", "expire")))}
    return [
        {
            "seq": seq,
            "type": draw(st.sampled_from(("step", "include"))),
            "match": draw(criteria("Step", "Other", captured=True, first_syncs=syncs)),
            **shared,
            **draw(st.sampled_from(STEP_PARTS)),
            **draw(maybe("variables", (["amount"],))),
        }
        for _ in range(count)
    ]


@st.composite
def acting_rows(draw: st.DrawFn, rule: str, seq: int, kind: str, *, dates: bool = True) -> list[dict[str, Json]]:
    """Draw one or two rows in which something is done, at one time."""
    when: Mapping[str, Json] = draw(maybe("wait", WAITS))
    if dates and draw(st.sampled_from((False,) * 9 + (True,))):
        when = {"at": {"var": "due", "offset": draw(st.sampled_from(("0s", "-1h")))}}
    rows = []
    for number in range(draw(st.sampled_from((1, 1, 2)))):
        only = draw(st.sampled_from(({}, {}, {}, *ONLY_IF)))
        actions: list[Json] = [{"do": "trigger", "event": f"{rule} {seq} {number}"}]
        actions += draw(
            st.sampled_from(([], [], [{"do": "update", "field": "9001", "value": f"{rule} {seq} {number}"}]))
        )
        rows.append({"seq": seq, "type": kind, **when, **only, "actions": actions})
    return rows


@st.composite
def rules(
    draw: st.DrawFn, rule: str, *, dates: bool = True, quiet: bool = True, caps: bool = True, syncs: bool = True
) -> dict[str, Json]:
    """Draw a rule: a start, up to two stages in between, and an exit at most times."""
    first: dict[str, Json] = {
        "seq": 0, "type": "start", "match": draw(criteria("Start", "Start", "Other", first_syncs=syncs)),
        "on": draw(st.sampled_from(("track", ["track", "page"], ["track", "identify"]))),
        "variables": ["mid", "cart", "amount", "due"],
        **draw(st.sampled_from((*({},) * 6, {"count": 2}, {"count": 2, "countWithin": "1h"}))),
    }  # fmt: skip
    conditions = [first, *draw(exclude_rows(rule, 0, syncs=syncs)), *draw(exclude_rows(rule, "*", syncs=syncs))]
    stages = draw(st.sampled_from((0, 0, 1, 1, 2)))
    for seq in range(1, stages + 1):
        parts = draw(st.sampled_from(("waits", "acts", "both")))
        conditions += draw(waiting_rows(seq, syncs=syncs)) if parts != "acts" else []
        conditions += draw(acting_rows(rule, seq, "action", dates=dates)) if parts != "waits" else []
        conditions += draw(exclude_rows(rule, seq, syncs=syncs))
    conditions += draw(
        acting_rows(rule, stages + 1, draw(st.sampled_from(("exit", "exit", "exit", "action"))), dates=dates)
    )
    return {
        "id": rule,
        "conditions": conditions,
        "lifetime": draw(st.sampled_from((1, 2, "2h", "4h"))),
        "multiple": draw(st.booleans()),
        "transaction": draw(st.sampled_from((None, None, "cart"))),
        **draw(maybe("onRepeatStart", ("ignore", "restart", "restart", "refresh"))),
        **draw(maybe("reentry", ({"after": "2h"}, {"maxEntries": 1}, {"after": "1h", "maxEntries": 3}), rarely=True)),
        **draw(maybe("holdForKey", ("1h", "6h"))),
        **draw(maybe("settle", ("10m", "1h"))),
        **draw(maybe("lateFireMax", ("1h",))),
        **draw(maybe("maxActive", (2,), rarely=True)),
        **(draw(maybe("quietHours", QUIET)) if quiet else {}),
        **(draw(maybe("caps", CAPS)) if caps else {}),
    }


QUIET: Sequence[Json] = (
    {"from": "12:30", "to": "14:00", "zone": "Europe/Berlin"},
    {"from": "21:00", "to": "12:30", "zoneMap": "zone", "zone": "Europe/Berlin"},
)
CAPS: Sequence[Json] = (
    [{"count": 1, "per": "1h"}], [{"count": 1, "per": "2h", "defer": True}],
    [{"count": 2, "per": "6h"}, {"count": 1, "per": "30m", "defer": True}],
)  # fmt: skip


@st.composite
def documents(
    draw: st.DrawFn,
    *,
    dates: bool = True,
    quiet: bool = True,
    caps: bool = True,
    syncs: bool = True,
    settle: str | None = None,
) -> dict[str, Json]:
    """Draw a document with one to three rules; *settle* is that of all rules."""
    made = [
        draw(rules(f"r{number}", dates=dates, quiet=quiet, caps=caps, syncs=syncs))
        for number in range(draw(st.sampled_from((1, 1, 2, 3))))
    ]
    if settle is not None:
        made = [{**rule, "settle": settle, "lateFireMax": "30d"} for rule in made]
    settings = {
        **draw(maybe("settle", ("5m",), rarely=True)),
        **draw(maybe("maxLateness", ("2h",), rarely=True)),
        **(draw(maybe("initialSync", ("1h", "6h"))) if syncs else {}),
        **(draw(maybe("caps", CAPS, rarely=True)) if caps else {}),
    }
    return {"identity": EMAIL_KEY, "settings": settings if settle is None else {}, "dataMaps": DATA_MAPS, "rules": made}


# Timelines


def sizes(most: int) -> st.SearchStrategy[int]:
    """Return how many calls a timeline has: seldom few, since nothing happens then."""
    return st.sampled_from((*range(1, most + 1), *range(most // 2, most + 1), *range(most // 2, most + 1)))


def call(
    mid: str,
    time: int,
    arrival: int,
    *,
    event: str | None,
    ids: Mapping[str, Json],
    values: Sequence[tuple[str, str, Json]] = (),
    kind: str = "track",
) -> Call:
    """Return a call."""
    made = message(kind, mid, time, ids=ids, values=values)
    if kind in {"track", "page"} and event is not None:
        made["event"] = event
    return Call(made, arrival)


@st.composite
def happenings(draw: st.DrawFn) -> tuple[str, str, list[tuple[str, str, Json]]]:
    """Draw what a call tells of: its type, its event, values."""
    kind = draw(st.sampled_from(("track",) * 8 + ("page", "identify")))
    event = draw(st.sampled_from((*EVENTS, "Start", "Start", "Start", "Step", NOTHING)))
    values = draw(st.lists(st.sampled_from(PROPERTIES), max_size=2))
    cart = draw(st.sampled_from(("k1", "k1", "k2", None)))
    return kind, event, values + ([("properties", "cart", cart)] if cart else [])


@st.composite
def timelines(draw: st.DrawFn, *, size: int = 12, erasures: bool = True) -> list[Step]:
    """
    Draw calls of people in each other's way: anonymous and known, late, with wrong clocks, delivered again.

    Each arrives in a millisecond of its own: what happened first on two devices that turn out to be one person's is not
    known within one. The times at which things happened are on the grid.
    """
    clock, steps = ORIGIN, list[Step]()
    for number in range(draw(sizes(size))):
        clock += draw(st.sampled_from(GAPS))
        arrival = clock + number
        earlier = [step for step in steps if isinstance(step, Call)]
        what = draw(st.sampled_from(("call",) * 10 + ("again", "again") + ("erase",) * erasures))
        if what == "again" and earlier:
            steps.append(Call(draw(st.sampled_from(earlier)).message, arrival))
        elif what == "erase":
            kind, value = draw(identifiers(NAMES))
            steps.append(Erase(kind, value, draw(st.sampled_from(("delete", "suppress"))), arrival))
        else:
            kind, event, values = draw(happenings())
            ids = {
                "userId": draw(st.sampled_from(("u1", "u1", "u2", None))),
                "anonymousId": draw(st.sampled_from(("d1", "d1", "d2", None))),
                "email": draw(st.sampled_from(("a@x.com", "a@x.com", "b@x.com", None, None))),
            }
            time = clock + draw(st.sampled_from(WRONG))
            steps.append(call(f"m{number:02}", time, arrival, event=event, ids=ids, values=values, kind=kind))
    return steps


@st.composite
def peaceful(draw: st.DrawFn, *, size: int = 12, people: int = 2) -> list[Call]:
    """
    Draw calls of people who are in nobody's way, late or not: anonymous on two devices, and known.

    Each arrives in a millisecond of its own, for the devices of a person.
    """
    clock, made = ORIGIN, list[Call]()
    for number in range(draw(sizes(size))):
        clock += draw(st.sampled_from(GAPS))
        person = draw(st.integers(0, people - 1))
        kind, event, values = draw(happenings())
        ids = draw(st.sampled_from(_ids_of(person)))
        time = clock + draw(st.sampled_from(LATE))
        made.append(call(f"m{number:02}", time, clock + number, event=event, ids=ids, values=values, kind=kind))
    return made


def _ids_of(person: int) -> list[dict[str, Json]]:
    """Return the ways in which a person calls."""
    user, key = f"u{person}", f"k{person}@x.com"
    devices = [f"d{person}-{number}" for number in range(2)]
    known: list[dict[str, Json]] = [{"userId": user, "email": key}, {"userId": user}]
    return [
        *known,
        *({"anonymousId": device} for device in devices),
        *({"userId": user, "anonymousId": device} for device in devices),
        *({"userId": user, "anonymousId": device, "email": key} for device in devices),
    ]


@st.composite
def again(draw: st.DrawFn, calls: Sequence[Call], *, size: int = 4) -> list[Call]:
    """Draw redeliveries of calls, each some time after the first delivery."""
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(calls), st.sampled_from((0, MINUTE, HOUR, 5 * HOUR, 3 * DAY))), max_size=size
        )
    )
    return [Call(one.message, one.arrival + later) for one, later in drawn]


@st.composite
def bystanders(draw: st.DrawFn, until: int, *, size: int = 5) -> list[Call]:
    """Draw calls of others that no rule is about."""
    arrivals = draw(st.lists(st.integers(0, max(1, (until - ORIGIN) // HOUR)), min_size=1, max_size=size))
    times = [ORIGIN + hours * HOUR for hours in arrivals]
    return [
        call(f"x{number}", time, time, event=NOTHING, ids={"userId": f"other-{number}"})
        for number, time in enumerate(times)
    ]


def shifted(calls: Sequence[Call], by: int) -> list[Call]:
    """Return calls that happen and arrive later."""
    return [
        Call({**one.message, "timestamp": iso((time_of(one.message["timestamp"]) or 0) + by)}, one.arrival + by)
        for one in calls
    ]


# Rules of one shape, for what can be said of the outcome without a second engine

START = {"seq": 0, "type": "start", "on": "track", "match": "event = Start", "variables": ["mid", "cart"]}
STOP = {"seq": 0, "type": "exclude", "on": "track", "match": "event = Stop"}


@st.composite
def simple_rules(draw: st.DrawFn, *parts: Maybe) -> dict[str, Json]:
    """Draw a document with a rule that has a start, a stop, and an exit that sends one message some time later."""
    wait = draw(st.sampled_from(WAITS))
    leave = {"seq": 1, "type": "exit", "wait": wait, "actions": [{"do": "trigger", "event": "e"}]}
    rule: dict[str, Json] = {"id": "r0", "lifetime": 4, "conditions": [START, STOP, leave]}
    for part in parts:
        rule |= draw(part)
    return {"identity": EMAIL_KEY, "settings": {}, "dataMaps": DATA_MAPS, "rules": [rule]}


@st.composite
def simple_calls(
    draw: st.DrawFn, *, people: int = 1, known: bool = True, late: bool = True, size: int = 12
) -> list[Call]:
    """Draw starts and stops of people with an address, or who may be anonymous as well, one after the other."""
    clock, made = ORIGIN, list[Call]()
    for number in range(draw(sizes(size))):
        clock += draw(st.sampled_from(GAPS))
        person = draw(st.integers(0, people - 1))
        ids = _ids_of(person)[0] if known else draw(st.sampled_from(_ids_of(person)))
        time = clock + draw(st.sampled_from(LATE if late else (0,)))
        event = draw(st.sampled_from(("Start", "Start", "Stop", NOTHING)))
        made.append(call(f"m{number:02}", time, clock + number, event=event, ids=ids))
    return made


@st.composite
def carts(draw: st.DrawFn, *, size: int = 6) -> list[Call]:
    """Draw starts of one known person, each of a transaction of its own."""
    arrival, made = ORIGIN, list[Call]()
    for number in range(draw(sizes(size))):
        arrival += draw(st.sampled_from(GAPS))
        values = [("properties", "cart", f"k{number}")]
        made.append(call(f"m{number:02}", arrival, arrival, event="Start", ids=_ids_of(0)[0], values=values))
    return made
