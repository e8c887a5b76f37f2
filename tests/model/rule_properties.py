"""
What has to be true of any engine of rules: semantics.md 5.1, as functions that raise AssertionError.

Each takes `play`, which makes of a vector what `emarsys-cdp simulate` does; the other arguments are drawn by
`rule_timelines.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from tests.model.reading import UNITS, event_time, iso
from tests.model.rule_criteria import milliseconds
from tests.model.rule_timelines import LAST, shifted
from tests.model.table import Call, Json, Step
from tests.model.vectors import ORIGIN, Vector, offset

Document: TypeAlias = Mapping[str, Json]
Outcome: TypeAlias = Mapping[str, Any]
Play: TypeAlias = Callable[[Vector], Outcome]

COMPARED = ("effects", "instances", "contradictions")
BERLIN = 60
"""Minutes that Berlin is ahead in the winter of the timelines."""


def vector_of(document: Document, steps: Sequence[Step], until: int | None = None) -> Vector:
    """Return a vector that runs until nothing is left to happen."""
    last = max([ORIGIN, *(step.arrival for step in steps if isinstance(step, Call))])
    end = last + LAST if until is None else until
    return Vector("drawn", document, tuple(steps), (None,) * len(steps), end, {})


def seen_of(outcome: Outcome) -> dict[str, Any]:
    """Return the parts of an outcome that are compared; of effects of one instant the order is nobody's business."""
    effects = sorted(outcome["effects"], key=lambda effect: (offset(effect["at"]), repr(sorted(effect.items()))))
    return {**{name: outcome[name] for name in COMPARED}, "effects": effects}


def same_as(reference: Play, play: Play, vector: Vector, parts: Iterable[str] = ()) -> None:
    """P9: the outcome is that of the reference, with further parts if asked for."""
    want, got = reference(vector), play(vector)
    wants = {**seen_of(want), **{part: want[part] for part in parts}}
    gots = {**seen_of(got), **{part: got[part] for part in parts}}
    wrong = {part: (gots[part], wants[part]) for part in wants if gots[part] != wants[part]}
    assert wrong == {}, f"got and expected {wrong}"


def redelivery_changes_nothing(play: Play, document: Document, calls: Sequence[Call], more: Sequence[Call]) -> None:
    """P1: calls that come again at any later time change nothing. P7: nor do all since some time before a crash."""
    end = max(call.arrival for call in [*calls, *more]) + LAST
    once, again = play(vector_of(document, calls, end)), play(vector_of(document, [*calls, *more], end))
    assert seen_of(again) == seen_of(once)


def order_of_arrival_does_not_matter(
    play: Play, document: Document, calls: Sequence[Call], orders: Sequence[Sequence[Call]]
) -> None:
    """P2: for calls of which the last arrives before F + settle of the first, in every order the outcome is one."""
    first = max(call.arrival for call in calls)
    times = [first + number * UNITS["m"] for number in range(len(calls))]
    outcomes = [
        seen_of(play(vector_of(document, [Call(one.message, at) for one, at in zip(order, times, strict=True)])))
        for order in orders
    ]
    assert [outcome for outcome in outcomes if outcome != outcomes[0]] == []


def nothing_is_sent_twice(play: Play, document: Document, steps: Sequence[Step]) -> None:
    """P3: every action happens at most once for an instance. For timelines without erasures."""
    outcome = play(vector_of(document, steps))
    messages = Counter((one["event"], one["data"].get("mid")) for one in outcome["effects"] if one["do"] == "trigger")
    assert [each for each, times in messages.items() if times > 1] == []
    of_rule = Counter(row["rule"] for row in outcome["instances"])
    done = Counter((one["rule"], one["do"], one.get("event", one.get("value"))) for one in outcome["effects"])
    assert [each for each, times in done.items() if times > of_rule[each[0]]] == []


def a_stop_takes_one_message_away(
    play: Play, document: Document, calls: Sequence[Call], stopped: int, share: float
) -> None:
    """
    P4: one stop between start and exit of an instance takes away exactly what it would have sent.

    The stop is of the transaction of the call number *stopped*; *share* says how much of the wait is over then.
    """
    start = calls[stopped]
    wait = milliseconds(document["rules"][0]["conditions"][-1]["wait"])
    at = start.arrival + int(share * wait) // UNITS["s"] * UNITS["s"]
    message = {**start.message, "messageId": "stop", "event": "Stop", "timestamp": iso(at)}
    # At one instant the exit of a start without a wait goes before the next call: the stop has to come before it.
    with_stop = [*calls[:stopped], Call(message, at), *calls[stopped:]]
    end = max(call.arrival for call in with_stop) + LAST
    before, after = play(vector_of(document, calls, end)), play(vector_of(document, with_stop, end))
    mid = start.message["messageId"]
    assert [one for one in before["effects"] if one["data"]["mid"] == mid] != []
    assert after["effects"] == [one for one in before["effects"] if one["data"]["mid"] != mid]
    assert [row for row in after["instances"] if row["start"] == mid] == [
        {"rule": "r0", "start": mid, "status": "cancelled", "why": "stop"}
    ]


def instances_do_not_overlap(play: Play, document: Document, calls: Sequence[Call]) -> None:
    """P5: with `multiple: no` an instance starts when the one before has reached its exit, or was stopped."""
    wait = milliseconds(document["rules"][0]["conditions"][-1]["wait"])
    times = _times(calls)
    rows = sorted(play(vector_of(document, calls))["instances"], key=lambda row: times[row["start"]])
    for earlier, later in pairwise(rows):
        if earlier["status"] == "cancelled":
            assert times[later["start"]] >= times[earlier["why"]]
        else:
            assert times[later["start"]] > times[earlier["start"]] + wait


def time_does_not_matter(play: Play, document: Document, calls: Sequence[Call], by: int) -> None:
    """P14: what happens later happens later. For documents without quiet hours and dates; *by* in whole seconds."""
    early, late = play(vector_of(document, calls)), play(vector_of(document, shifted(calls, by)))
    moved = [{**one, "at": offset(one["at"]) + by} for one in early["effects"]]
    assert [{**one, "at": offset(one["at"])} for one in late["effects"]] == moved
    assert {**seen_of(late), "effects": []} == {**seen_of(early), "effects": []}


def calls_of_others_change_nothing(
    play: Play, document: Document, steps: Sequence[Step], others: Sequence[Call]
) -> None:
    """P15: calls of others that no rule is about change nothing."""
    end = max([ORIGIN, *(step.arrival for step in [*steps, *others] if isinstance(step, Call))]) + LAST
    without, mixed = play(vector_of(document, steps, end)), play(vector_of(document, [*steps, *others], end))
    assert seen_of(mixed) == seen_of(without)


def the_gate_is_kept(play: Play, document: Document, calls: Sequence[Call]) -> None:
    """P17: nothing is sent too early, too late, in quiet hours or above a cap, and what is completed was sent."""
    (rule,) = document["rules"]
    outcome, times = play(vector_of(document, calls)), _times(calls)
    wait, settle, late, hold = (
        milliseconds(value)
        for value in (
            rule["conditions"][-1]["wait"], rule.get("settle", 0), rule.get("lateFireMax", "24h"),
            rule.get("holdForKey", rule["lifetime"]),
        )
    )  # fmt: skip
    quiet, waits_for_caps = rule.get("quietHours"), any(cap.get("defer") for cap in rule.get("caps", ()))
    sent = [(offset(one["at"]), one["key"]) for one in outcome["effects"]]
    for effect in outcome["effects"]:
        due, at = times[effect["data"]["mid"]] + wait, offset(effect["at"])
        assert due + settle <= at
        assert waits_for_caps or at <= due + settle + max(late, hold) + (_length(quiet) if quiet else 0)
        assert not quiet or not _is_quiet(quiet, at)
    for cap in rule.get("caps", ()):
        for at, key in sent:
            assert (
                sum(1 for other, of in sent if of == key and at - milliseconds(cap["per"]) < other <= at)
                <= cap["count"]
            )
    # A stop of before that a merge brings after the sending cancels an instance, but takes nothing back.
    status = {row["start"]: row["status"] for row in outcome["instances"]}
    mids = [effect["data"]["mid"] for effect in outcome["effects"]]
    assert {mid for mid, one in status.items() if one == "completed"} <= set(mids)
    assert {status[mid] for mid in mids} <= {"completed", "cancelled"}


def every_instance_ends(play: Play, document: Document, steps: Sequence[Step]) -> None:
    """P18: when all windows, holds and quiet hours are over no instance is left."""
    rows = play(vector_of(document, steps))["instances"]
    assert [row for row in rows if row["status"] in {"active", "held"}] == []


def _times(calls: Iterable[Call]) -> dict[str, int]:
    return {call.message["messageId"]: event_time(call.message, call.arrival) for call in calls}


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _length(quiet: Mapping[str, str]) -> int:
    return (_minutes(quiet["to"]) - _minutes(quiet["from"])) % 1_440 * UNITS["m"]


def _is_quiet(quiet: Mapping[str, str], at: int) -> bool:
    minutes = (at // UNITS["m"] + BERLIN) % 1_440
    return (minutes - _minutes(quiet["from"])) % 1_440 < (_minutes(quiet["to"]) - _minutes(quiet["from"])) % 1_440
