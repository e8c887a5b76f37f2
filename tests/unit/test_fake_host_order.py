"""When a FakeHost tries a job again, which jobs have to wait for it, and which overtook another."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from emarsys_cdp.testing.fake_host import Delivery, Job, JobState, Overtaking, Pace
from emarsys_cdp.testing.fake_host.backoff import is_given_up, next_attempt_after, state_after
from emarsys_cdp.testing.fake_host.barrier import Barrier
from emarsys_cdp.testing.fake_host.jobs import Record
from emarsys_cdp.testing.fake_host.overtaking import overtakings
from emarsys_cdp.testing.fake_host.router import fnv1a
from emarsys_cdp.testing.fake_host.values import QUICK_PACE, REAL_PACE

DELIVERED, DONE, FILTERED = JobState.DELIVERED, JobState.DONE, JobState.FILTERED
ABORTED, FAILED = JobState.ABORTED, JobState.FAILED


@pytest.mark.parametrize(
    ("status", "sent", "unsent"),
    [
        (200, DELIVERED, DONE),
        (201, DELIVERED, DONE),
        (296, DELIVERED, DONE),
        (298, FILTERED, FILTERED),
        (299, DELIVERED, DONE),
        (301, ABORTED, ABORTED),
        (400, ABORTED, ABORTED),
        (404, ABORTED, ABORTED),
        (408, FAILED, FAILED),
        (429, FAILED, FAILED),
        (500, FAILED, FAILED),
        (599, FAILED, FAILED),
        (0, FAILED, FAILED),
        (199, FAILED, FAILED),
    ],
)
def test_what_a_status_makes_of_a_job(status: int, sent: JobState, unsent: JobState) -> None:
    """Of a delivery, and of a transform answer by which nothing is sent."""
    assert state_after(status, sent=True) is sent
    assert state_after(status, sent=False) is unsent


def test_the_back_off_doubles_up_to_a_limit() -> None:
    """10, 20, 40 seconds and so on, never more than 300."""
    assert [next_attempt_after(n, REAL_PACE) for n in (0, 1, 2, 3, 5, 6, 1000)] == [10, 10, 20, 40, 160, 300, 300]


@pytest.mark.parametrize(
    ("status", "attempts", "minutes", "want"),
    [
        (500, 3, 181, True),
        (504, 30, 181, True),
        (500, 2, 181, False),
        (500, 300, 179, False),
        (429, 300, 1000, False),
        (408, 300, 1000, False),
        (599, 300, 1000, False),
        (0, 300, 1000, False),
    ],
)
def test_when_a_job_is_given_up(status: int, attempts: int, minutes: int, want: bool) -> None:
    """A 5xx after three attempts and three hours; other statuses never."""
    assert is_given_up(status, attempts, minutes * 60.0, REAL_PACE) is want


def test_a_quick_pace_only_waits_less() -> None:
    """Time-outs and the tries to reach the transformer are those of a real server: the other side is no quicker."""
    assert (QUICK_PACE.min_backoff, QUICK_PACE.max_backoff, QUICK_PACE.batch_timeout) == (0.05, 1.5, 0.025)
    kept = ("connection_sleep", "delivery_timeout", "transform_timeout", "give_up_attempts")
    assert all(getattr(QUICK_PACE, name) == getattr(Pace(), name) for name in kept)


@pytest.mark.parametrize(("text", "want"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_workers_are_chosen_by_fnv1a(text: str, want: int) -> None:
    """The hash of published test vectors, so that a key always has the same worker."""
    assert fnv1a(text) == want


def record(number: int, key: str = "k") -> Record:
    """Return a job."""
    return Record(
        id=number,
        place=(number, 0),
        source="s",
        destination="d",
        call={},
        message=b"{}",
        order_key=key,
        received="",
    )


def entered(barrier: Barrier, records: Iterable[Record], now: float = 0.0) -> list[int]:
    """Return the ids of those that are let in."""
    return [one.id for one in records if barrier.enter(one, now)]


def released(barrier: Barrier, key: str = "k", now: float = 0.0) -> list[int]:
    """Return the ids of those that are let in after all."""
    return [one.id for one in barrier.released(key, now)]


def test_a_failed_job_holds_the_later_ones_of_its_key_back() -> None:
    """It alone may go, others of its key wait in their order, and other keys are free."""
    barrier, (first, second, third, other) = Barrier(0, 1.0), [*map(record, (1, 2, 3)), record(4, "other")]
    assert entered(barrier, [first, third]) == [1, 3]

    barrier.failed(first, 0.0)
    assert barrier.blocker(third, 0.0) is first
    barrier.back(third)
    assert entered(barrier, [second, other, first]) == [4, 1]
    assert released(barrier) == []

    barrier.finished(first, aborted=False)
    assert released(barrier) == [2, 3]


def test_after_an_abort_jobs_go_one_at_a_time_until_one_succeeds() -> None:
    """The first that was held back shows whether the others may follow."""
    barrier, records = Barrier(0, 1.0), [record(number) for number in (1, 2, 3, 4)]
    entered(barrier, records[:1])
    barrier.failed(records[0], 0.0)
    entered(barrier, records[1:])

    barrier.finished(records[0], aborted=True)
    assert released(barrier) == [2]
    barrier.finished(records[1], aborted=False)
    assert released(barrier) == [3, 4]


def test_an_abort_of_a_job_that_had_not_failed_holds_nobody_back() -> None:
    """A 4xx at the first attempt is the end of that job only."""
    barrier, records = Barrier(0, 1.0), [record(number) for number in (1, 2, 3)]
    entered(barrier, records[:1])

    barrier.finished(records[0], aborted=True)
    assert entered(barrier, records[1:]) == [2, 3]


def test_the_first_failed_job_of_a_key_stays_the_one_that_counts() -> None:
    """Others of its key that fail later do not take its place."""
    barrier, (first, second) = Barrier(0, 1.0), [record(1), record(2)]
    entered(barrier, [first, second])
    barrier.failed(first, 0.0)
    barrier.failed(second, 0.0)

    assert barrier.blocker(second, 0.0) is first


def test_only_jobs_under_way_count_as_too_many() -> None:
    """Neither those that have ended nor one that waits for its next try."""
    barrier, records = Barrier(2, 10.0), [record(number) for number in range(1, 7)]
    for one in records[:4]:
        entered(barrier, [one])
        barrier.finished(one, aborted=False)
    entered(barrier, records[4:5])
    assert not barrier.is_unordered(records[0], 0.0)

    alone = Barrier(1, 10.0)
    entered(alone, records[:1])
    alone.failed(records[0], 0.0)
    assert entered(alone, records[1:2]) == []
    assert not alone.is_unordered(records[0], 0.0)


def test_a_key_with_too_many_jobs_loses_its_order_for_a_while() -> None:
    """Then a failed job holds nobody back; later it does again."""
    barrier, records = Barrier(2, 10.0), [record(number) for number in (1, 2, 3, 4)]
    assert entered(barrier, records[:3]) == [1, 2, 3]
    assert barrier.is_unordered(records[0], 9.9)

    barrier.failed(records[0], 0.0)
    assert barrier.blocker(records[1], 0.0) is None
    assert entered(barrier, [records[3]]) == [4]

    assert not barrier.is_unordered(records[0], 10.0)
    entered(barrier, [records[0]], 10.0)
    barrier.failed(records[0], 10.0)
    assert entered(barrier, [records[1]], 10.0) == []


def job(number: int, state: JobState = DELIVERED, **call: str) -> Job:
    """Return a job as a host shows it."""
    return Job(number, "s", "d", {"userId": "u", **call}, "", state, 200, "", 1, False, (), ())


def delivery(jobs: tuple[int, ...], sent: float, answered: float, destination: str = "d") -> Delivery:
    """Return a delivery of jobs."""
    return Delivery(destination, "PUT", "http://x", False, jobs, sent, answered, 200, "", dict.fromkeys(jobs, 200))


def test_who_is_sent_or_answered_sooner_has_overtaken() -> None:
    """Job 3 was sent before job 2, and while job 1 was under way."""
    deliveries = [delivery((3,), 2, 3), delivery((1,), 1, 4), delivery((2,), 5, 6)]

    assert overtakings([job(1), job(2), job(3)], deliveries) == [
        Overtaking("d", "userId u", 1, 3),
        Overtaking("d", "userId u", 2, 3),
    ]


def test_a_shared_anonymous_id_makes_one_person() -> None:
    """The user that the visitor turned out to be overtook the visit."""
    jobs = [job(1, userId="", anonymousId="a"), job(2, anonymousId="a"), job(3, userId="other")]
    deliveries = [delivery((2,), 1, 2), delivery((3,), 1, 2), delivery((1,), 3, 4)]

    assert overtakings(jobs, deliveries) == [Overtaking("d", "anonymousId a", 1, 2)]


@pytest.mark.parametrize(
    ("jobs", "deliveries"),
    [
        ([job(1), job(2)], [delivery((1, 2), 1, 2)]),
        ([job(1), job(2)], [delivery((1,), 1, 2), delivery((2,), 2, 3)]),
        ([job(1, ABORTED), job(2)], [delivery((2,), 1, 2), delivery((1,), 3, 4)]),
        ([job(1), job(2)], [delivery((1,), 1, 2), delivery((2,), 3, 4), delivery((1,), 1, 2, "other")]),
    ],
    ids=["one request", "in order", "not delivered", "another destination"],
)
def test_what_is_no_overtaking(jobs: list[Job], deliveries: list[Delivery]) -> None:
    """Jobs in one request or in order, and what was not delivered there."""
    assert overtakings(jobs, deliveries) == []
