"""The model of rules: what has to be true of any engine of rules (semantics.md 5.1)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.model import rule_properties as properties
from tests.model import rule_timelines as timelines
from tests.model.rule_vectors import outcome
from tests.model.table import Call, Json, Step
from tests.model.timelines import DAY, examples
from tests.model.vectors import ORIGIN


@examples(60, 2_000)
@given(data=st.data(), document=timelines.documents(), calls=timelines.peaceful())
def test_redelivery_changes_nothing(data: st.DataObject, document: dict[str, Json], calls: list[Call]) -> None:
    """P1, for people who are in nobody's way."""
    properties.redelivery_changes_nothing(outcome, document, calls, data.draw(timelines.again(calls)))


@examples(60, 2_000)
@given(data=st.data(), document=timelines.documents(), calls=timelines.peaceful())
def test_everything_again_after_a_crash_changes_nothing(
    data: st.DataObject, document: dict[str, Json], calls: list[Call]
) -> None:
    """P7: all calls since some time before come a second time, all together."""
    crash = data.draw(st.integers(1, len(calls)))
    since = data.draw(st.integers(0, crash - 1))
    more = [Call(one.message, calls[crash - 1].arrival) for one in calls[since:crash]]

    properties.redelivery_changes_nothing(outcome, document, calls, more)


@examples(60, 2_000)
@given(data=st.data(), document=timelines.documents(settle="10d", syncs=False), calls=timelines.peaceful())
def test_order_of_arrival_does_not_matter(data: st.DataObject, document: dict[str, Json], calls: list[Call]) -> None:
    """P2: all calls arrive before anything is settled."""
    orders = [calls, *(data.draw(st.permutations(calls)) for _ in range(2))]

    properties.order_of_arrival_does_not_matter(outcome, document, calls, orders)


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(erasures=False))
def test_nothing_is_sent_twice(document: dict[str, Json], steps: list[Step]) -> None:
    """P3, also for people in each other's way."""
    properties.nothing_is_sent_twice(outcome, document, steps)


@examples(60, 2_000)
@given(
    data=st.data(),
    document=timelines.simple_rules(
        st.just({"multiple": True, "transaction": "cart"}),
        timelines.maybe("settle", ("10m", "1h")),
        timelines.maybe("quietHours", timelines.QUIET[:1]),
    ),
    calls=timelines.carts(),
    share=st.sampled_from((0, 0.25, 0.5, 1)),
)
def test_a_stop_takes_one_message_away(
    data: st.DataObject, document: dict[str, Json], calls: list[Call], share: float
) -> None:
    """P4."""
    stopped = data.draw(st.integers(0, len(calls) - 1))

    properties.a_stop_takes_one_message_away(outcome, document, calls, stopped, share)


@examples(60, 2_000)
@given(
    document=timelines.simple_rules(
        timelines.maybe("settle", ("10m", "1h")), timelines.maybe("onRepeatStart", ("restart", "refresh"))
    ),
    calls=timelines.simple_calls(),
)
def test_instances_do_not_overlap(document: dict[str, Json], calls: list[Call]) -> None:
    """P5."""
    properties.instances_do_not_overlap(outcome, document, calls)


@examples(60, 2_000)
@given(
    document=timelines.documents(dates=False, quiet=False),
    calls=timelines.peaceful(),
    by=st.sampled_from((1_000, timelines.HOUR + 1_000, 100 * timelines.DAY + 13 * timelines.MINUTE)),
)
def test_time_does_not_matter(document: dict[str, Json], calls: list[Call], by: int) -> None:
    """P14."""
    properties.time_does_not_matter(outcome, document, calls, by)


@examples(60, 2_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(),
    others=timelines.bystanders(ORIGIN + DAY),
)
def test_calls_of_others_change_nothing(document: dict[str, Json], steps: list[Step], others: list[Call]) -> None:
    """P15, also between calls of one instant."""
    properties.calls_of_others_change_nothing(outcome, document, steps, others)


@examples(60, 2_000)
@given(
    document=timelines.simple_rules(
        st.just({"multiple": True}),
        timelines.maybe("settle", ("10m", "1h")),
        timelines.maybe("lateFireMax", ("1h", "0s")),
        timelines.maybe("holdForKey", ("1h", "6h")),
        timelines.maybe("quietHours", timelines.QUIET[:1]),
        timelines.maybe("caps", timelines.CAPS),
    ),
    calls=timelines.simple_calls(people=2, known=False),
)
def test_the_gate_is_kept(document: dict[str, Json], calls: list[Call]) -> None:
    """P17."""
    properties.the_gate_is_kept(outcome, document, calls)


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines())
def test_every_instance_ends(document: dict[str, Json], steps: list[Step]) -> None:
    """P18, also for people in each other's way."""
    properties.every_instance_ends(outcome, document, steps)
