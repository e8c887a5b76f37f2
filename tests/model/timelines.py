"""
Timelines to try users tables with, for Hypothesis.

`timelines` has few users, keys and devices, so that they get into each other's way all the time. In `peaceful` ones
nobody gets into anybody's way: each person has a user, keys and devices that nobody else has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.model.identifiers import LONGEST
from tests.model.reading import UNITS, iso
from tests.model.table import Call, Erase, Json, Step, Unsuppress
from tests.model.vectors import ORIGIN

MINUTE, DAY = UNITS["m"], UNITS["d"]
TYPES = ("page", "screen", "identify", "track", "group")
NEEDED: Mapping[str, Mapping[str, Json]] = {"track": {"event": "Seen"}, "group": {"groupId": "g1"}}
"""What a call of a type has to have besides."""

GAPS = (0, 0, MINUTE, 30 * MINUTE)
"""Between two arrivals."""

SHIFTS = (0, 0, 0, 0, -MINUTE, -10 * MINUTE, -DAY, -4 * DAY, 4 * MINUTE, 5 * MINUTE, 6 * MINUTE, 3 * DAY)
"""From the arrival to the event time: at once, late, and by clocks that are wrong."""

DATA_MAPS = (
    {"name": "plan", "path": "properties.plan", "type": "string"},
    {"name": "revenue", "path": "properties.revenue", "type": "numeric"},
    {"name": "vip", "path": "traits.vip", "type": "boolean"},
)
EMAIL_KEY = {"primaryKey": ["traits.email"], "keyType": "email"}
DOCUMENT: Mapping[str, Json] = {"format": "emarsys-rules/1", "identity": EMAIL_KEY, "dataMaps": DATA_MAPS, "rules": []}

VALUES: Sequence[tuple[str, str, Json]] = (
    ("properties", "plan", "gold"), ("properties", "plan", "free"), ("properties", "plan", {}),
    ("properties", "revenue", 12), ("properties", "revenue", "-1.50"), ("properties", "revenue", "much"),
    ("traits", "vip", True), ("traits", "vip", "no"),
)  # fmt: skip
"""Part of the call, name, value: some are none of the type."""

ODD: Sequence[Json] = (
    "", " ", "0", "000-00", "-1", "null", "NULL", '"undefined"', "'None'", "anonymousId", "{{user.id}}", "${id}",
    "%ID%", "<id>", "ffffffff-ffff-ffff-ffff-ffffffffffff", True, [], {}, ["u1"], "x" * (LONGEST + 1), "no address",
)  # fmt: skip
"""Values that are no identifier (the last one is none as a key only)."""

SAME: Mapping[str, Sequence[Json]] = {
    "111": (111, "111", 111.0, " 111 "),
    "zoë": ("zoë", "zoe\u0308", "zoë\t"),
    "a@x.com": ("a@x.com", " A@X.com "),
    "b@x.com": ("b@x.com", "B@x.COM"),
}
"""Ways to write one identifier."""


@dataclass(frozen=True)
class Names:
    """The identifiers that occur in a timeline."""

    users: tuple[str, ...] = ("u1", "u2", "111")
    keys: tuple[str, ...] = ("a@x.com", "b@x.com", "c@x.com")
    anons: tuple[str, ...] = ("d1", "d2", "zoë")
    odd: bool = True

    def other(self) -> Names:
        """Return as many names of other people."""
        users, anons = tuple(f"o-{each}" for each in self.users), tuple(f"o-{each}" for each in self.anons)
        return Names(users, tuple(f"o-{each}" for each in self.keys), anons, odd=self.odd)

    def some(self, names: tuple[str, ...], *, rarely: bool = False) -> st.SearchStrategy[Json]:
        """Return ways to write one of the names, or nothing, or at times what is no name."""
        written = [st.sampled_from(SAME.get(name, (name,))) if self.odd else st.just(name) for name in names]
        nothing: list[st.SearchStrategy[Json]] = [st.none()] * (4 if rarely else 2)
        odd: list[st.SearchStrategy[Json]] = [st.sampled_from(ODD)] if self.odd else []
        return st.one_of(*nothing, *written, *odd)


NAMES = Names()


def examples(quick: int, thorough: int) -> settings:
    """Return how much is tried: the same in every run, or with HYPOTHESIS_PROFILE=thorough more and new ones."""
    if os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
        slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
        return settings(max_examples=thorough, deadline=None, print_blob=True, suppress_health_check=slow)
    return settings(max_examples=quick, deadline=None, database=None, derandomize=True)


def message(
    kind: str,
    mid: str | None,
    time: int,
    *,
    ids: Mapping[str, Json],
    values: Sequence[tuple[str, str, Json]] = (),
) -> dict[str, Json]:
    """Return a call. `ids` has `userId`, `anonymousId`, `previousId` and `email` as far as there are any."""
    made: dict[str, Json] = {"type": kind, "timestamp": iso(time), **NEEDED.get(kind, {})}
    made |= {"messageId": mid} if mid is not None else {}
    made |= {name: value for name, value in ids.items() if value is not None and name != "email"}
    if ids.get("email") is not None:
        holder = made if kind in {"identify", "group"} else made.setdefault("context", {})
        holder.setdefault("traits", {})["email"] = ids["email"]
    for part, name, value in values:
        made.setdefault(part, {})[name] = value
    return made


@st.composite
def documents(draw: st.DrawFn, *, separate: bool = False) -> dict[str, Json]:
    """Draw a document in any of the modes, with limits that are met soon; `separate`: none that makes two users one."""
    modes = ("share", "refuse", "move") if separate else ("share", "refuse", "move", "merge")
    stitch = draw(st.sampled_from(("default", "default", "strict", "first-owner")))
    limits = {"anonLimit": draw(st.sampled_from((100, 2))), "mergeLimit": draw(st.sampled_from((100, 1)))}
    return {
        **DOCUMENT,
        "identity": {**EMAIL_KEY, "stitch": stitch, "onKeyShared": draw(st.sampled_from(modes))},
        "settings": {**limits, "aliasMergeKnown": not separate and draw(st.booleans())},
    }


@st.composite
def calls(draw: st.DrawFn, names: Names = NAMES, *, aliases: bool = True) -> Callable[[int, str], Call]:
    """Draw a call; it is made when its arrival and its number are known."""
    kind = draw(st.sampled_from((*TYPES, "alias") if aliases else TYPES))
    ids = {
        "userId": draw(names.some(names.users)),
        "anonymousId": draw(names.some(names.anons)),
        "email": draw(names.some(names.keys, rarely=True)),
        "previousId": draw(names.some((*names.users, *names.anons))) if kind == "alias" else None,
    }
    values = draw(st.lists(st.sampled_from(VALUES), max_size=2))
    shift = draw(st.sampled_from(SHIFTS))
    named = draw(st.sampled_from((True, True, True, True, False)))

    def make(arrival: int, mid: str) -> Call:
        return Call(message(kind, mid if named else None, arrival + shift, ids=ids, values=values), arrival)

    return make


@st.composite
def timelines(
    draw: st.DrawFn, names: Names = NAMES, *, erasures: bool = True, aliases: bool = True, size: int = 14
) -> list[Step]:
    """Draw calls in each other's way, some of them delivered again or with a messageId that was used already."""
    arrival, steps = ORIGIN, list[Step]()
    for number in range(draw(st.integers(1, size))):
        arrival += draw(st.sampled_from(GAPS))
        earlier = [step for step in steps if isinstance(step, Call)]
        what = draw(st.sampled_from(("call",) * 12 + ("again", "again", "reused") + ("erase", "unsuppress") * erasures))
        if what == "again" and earlier:
            steps.append(draw(st.sampled_from(earlier)))
        elif what in {"erase", "unsuppress"}:
            steps.append(draw(_ends(names, arrival, what)))
        else:
            mid = f"m{draw(st.integers(0, number))}" if what == "reused" else f"m{number}"
            steps.append(draw(calls(names, aliases=aliases))(arrival, mid))
    return steps


@st.composite
def _ends(draw: st.DrawFn, names: Names, arrival: int, what: str) -> Step:
    kind, value = draw(identifiers(names))
    if what == "unsuppress":
        return Unsuppress(kind, value)
    return Erase(kind, value, draw(st.sampled_from(("delete", "suppress"))), arrival)


def identifiers(names: Names = NAMES) -> st.SearchStrategy[tuple[str, str]]:
    """Draw an identifier."""
    kinds = (("user", names.users), ("key", names.keys), ("anon", names.anons))
    return st.sampled_from([(kind, value) for kind, values in kinds for value in values])


@st.composite
def peaceful(draw: st.DrawFn, *, people: int = 3, size: int = 12) -> list[Call]:
    """
    Draw calls without conflicts, each with a messageId of its own.

    A person has one user, two devices, and one key or two. Whoever has two keys says who he is when he names one on a
    device: else the two keys on one device were a conflict (I9).
    """
    keys = {person: draw(st.integers(1, 2)) for person in range(people)}
    made = []
    for number in range(draw(st.integers(1, size))):
        person = draw(st.integers(0, people - 1))
        made.append(draw(_peaceful_call(person, keys[person], number)))
    return made


@st.composite
def _peaceful_call(draw: st.DrawFn, person: int, keys: int, number: int) -> Call:
    user, device = f"u{person}", f"d{person}-{draw(st.integers(0, 1))}"
    key = f"k{person}-{draw(st.integers(1, keys))}@x.com"
    parts = [{"user"}, {"device"}, {"key"}, {"user", "device"}, {"user", "key"}, {"user", "device", "key"}]
    has = draw(st.sampled_from([*parts, {"device", "key"}] if keys == 1 else parts))
    kind = draw(st.sampled_from((*TYPES, "alias") if "user" in has else TYPES))
    ids = {
        "userId": user if "user" in has else None,
        "anonymousId": device if "device" in has else None,
        "email": key if "key" in has else None,
        "previousId": f"d{person}-{draw(st.integers(0, 1))}" if kind == "alias" else None,
    }
    arrival = ORIGIN + draw(st.integers(0, 5)) * MINUTE
    values = draw(st.lists(st.sampled_from(VALUES), max_size=2))
    time = arrival + draw(st.sampled_from(SHIFTS))
    return Call(message(kind, f"m{number}", time, ids=ids, values=values), arrival)


@st.composite
def orders(draw: st.DrawFn, made: Sequence[Call], *, count: int = 3) -> list[list[Call]]:
    """Draw orders of arrival, in which some calls come a second time."""
    again = draw(st.lists(st.sampled_from(made), max_size=4))
    return [draw(st.permutations([*made, *again])) for _ in range(count)]


@st.composite
def bystanders(draw: st.DrawFn, *, size: int = 5) -> list[tuple[int, Call]]:
    """Draw calls of nobody and of people who occur once, each with a place in a timeline."""
    made = []
    for number in range(draw(st.integers(1, size))):
        parts = draw(st.lists(st.sampled_from(("userId", "anonymousId", "email")), unique=True))
        ids: dict[str, Json] = {part: f"once-{number}-{part}@x.com" for part in parts}
        ids = ids or {"userId": draw(st.sampled_from(ODD[:-1])), "anonymousId": draw(st.sampled_from(ODD[:-1]))}
        call = message(draw(st.sampled_from(TYPES)), f"m{number}", ORIGIN, ids=ids, values=[VALUES[0]])
        made.append((draw(st.integers(0, 10)), Call(call, ORIGIN)))
    return made


@st.composite
def device_calls(draw: st.DrawFn, names: Names = NAMES, *, size: int = 4) -> list[Call]:
    """Draw calls that name a device and nobody else."""
    devices = st.lists(st.sampled_from(names.anons), min_size=1, max_size=size)
    return [
        Call(
            message("track", f"later-{number}", ORIGIN + DAY, ids={"anonymousId": device}, values=[VALUES[0]]),
            ORIGIN + DAY,
        )
        for number, device in enumerate(draw(devices))
    ]


@st.composite
def claims(draw: st.DrawFn, names: Names = NAMES, *, size: int = 10) -> list[Call]:
    """Draw identify calls in which users claim keys, also those of others, in any order of event time."""
    drawn = st.tuples(st.sampled_from(names.users), st.sampled_from(names.keys), st.integers(0, 3))
    return [
        Call(message("identify", f"m{number}", ORIGIN - minute * MINUTE, ids={"userId": user, "email": key}), ORIGIN)
        for number, (user, key, minute) in enumerate(draw(st.lists(drawn, min_size=1, max_size=size)))
    ]
