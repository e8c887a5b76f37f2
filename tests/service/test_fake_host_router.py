"""The router of a FakeHost: statuses, retries, order and batches, in front of a scripted transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest
from tests.support.scripted import DROP, LONGEST, ROUTER, Reply, World, ok, states, track, until

from emarsys_cdp.testing import Consequence, FakeHost, JobState, NotDrained, Pace, Rule, expect
from emarsys_cdp.testing.fake_host.transform import HostRule


@pytest.fixture
def world() -> Iterator[World]:
    """Run a transformer and a destination."""
    with ExitStack() as stack:
        yield World(stack)


def test_an_answer_is_used_once_it_is_right(world: World) -> None:
    """Garbage, a wrong version, 5xx, a dropped connection: no call is lost, and the breaches are kept."""
    world.script.replies = [
        Reply(200, b"garbage", {"apiVersion": "2"}),
        ok({"output": []}),
        Reply(200, b'{"output": []}'),
        Reply(503, b"down"),
        DROP,
    ]
    host = world.host(batch=10)
    host.send([track(f"e{n}", f"u{n}") for n in range(6)])
    counts = host.drain(LONGEST)

    assert sorted(world.destination.events) == [f"e{n}" for n in range(6)]
    assert counts["delivered"] == 6
    assert {breach.consequence for breach in host.breaches} == {Consequence.THROWN_AWAY, Consequence.PANIC}
    assert {breach.path for breach in host.breaches} == {ROUTER}
    assert host.failed


def test_a_404_of_the_transformer_aborts(world: World) -> None:
    """The data is lost, which is a breach."""
    world.script.replies = [Reply(404, b"no such path")]
    host = world.host()
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": (JobState.ABORTED, 404, 1)}
    assert [breach.consequence for breach in host.breaches] == [Consequence.LOST]
    with pytest.raises(AssertionError, match=r"1\.3-5 the status is never 404"):
        expect(host.breaches)


def _waits_for(host: FakeHost) -> str:
    """Return what the host says its jobs wait for."""
    with pytest.raises(NotDrained) as caught:
        host.drain(0.05)
    return str(caught.value)


def test_a_transformer_that_is_away_costs_nothing_but_time(world: World) -> None:
    """Killed under load and started again on the same port: every call is delivered once; a long time is a panic."""
    host = world.host(pace=Pace(connection_sleep=0.002, min_backoff=0.01, max_backoff=0.05))
    events = [f"e{n}" for n in range(300)]
    host.send([track(event, event) for event in events[:150]])
    until(lambda: world.destination.events)
    world.transformer.stop()
    host.send([track(event, event) for event in events[150:]])
    until(lambda: host.failed)
    assert {breach.rule for breach in host.breaches} == {HostRule.REACHABLE}
    assert {int(breach.message.split()[0]) % 30 for breach in host.breaches} == {1}
    until(lambda: "POST /routerTransform: no connection" in _waits_for(host))

    world.serve(world.script.answer, world.transformer.port)
    host.drain(LONGEST)
    assert Counter(world.destination.events) == Counter(events)


@pytest.mark.parametrize(
    ("statuses", "want"),
    [
        ([], (JobState.DELIVERED, 200, 1)),
        ([298], (JobState.FILTERED, 298, 1)),
        ([299], (JobState.DONE, 299, 1)),
        ([0], (JobState.DELIVERED, 200, 1)),
        ([400], (JobState.ABORTED, 400, 1)),
        ([301], (JobState.ABORTED, 301, 1)),
        ([500, 429, 408], (JobState.DELIVERED, 200, 4)),
    ],
)
def test_statuses_of_the_transform(world: World, statuses: list[int], want: tuple[JobState, int, int]) -> None:
    """200 and 0 are sent, other 2xx are done without, 408, 429 and 5xx come again, all else is aborted."""
    world.script.transform["e"] = statuses
    host = world.host(min_backoff=0.01)
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": want}
    assert world.destination.events == (["e"] if want[0] is JobState.DELIVERED else [])


@pytest.mark.parametrize(
    ("statuses", "want"),
    [
        ([201], (JobState.DELIVERED, 201, 1)),
        ([302], (JobState.ABORTED, 302, 1)),
        ([401], (JobState.ABORTED, 401, 1)),
        ([503, 429, 408], (JobState.DELIVERED, 200, 4)),
    ],
)
def test_statuses_of_the_destination(world: World, statuses: list[int], want: tuple[JobState, int, int]) -> None:
    """The host that sends by itself looks at nothing else."""
    world.destination.statuses["e"] = statuses
    host = world.host(min_backoff=0.01)
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": want}
    attempts = [one.json["input"][0]["metadata"]["attemptNum"] for one in world.transforms()]
    first = [one.json["input"][0]["metadata"]["firstAttemptedAt"] for one in world.transforms()]
    assert attempts == list(range(want[2]))
    assert first[0] == ""
    assert len(set(first[1:])) <= 1


def test_nobody_at_the_destination_is_a_504(world: World) -> None:
    """It is tried again like any 5xx."""
    world.sink.stop()
    host = world.host(min_backoff=0.01)
    host.send([track("e")])
    until(lambda: host.jobs[0].attempts > 1)

    assert host.jobs[0].status == 504
    assert "504 Unable to make 'PUT' request" in host.jobs[0].error
    assert {delivery.status for delivery in host.deliveries} == {504}


def test_a_5xx_is_given_up_and_a_429_never(world: World) -> None:
    """After three attempts and the time for it; others of the person go on then."""
    world.destination.statuses = {"down": [500] * 99, "busy": [429] * 20}
    host = world.host(min_backoff=0.01, max_backoff=0.02, give_up_after=0.05)
    host.send([track("down", "u1"), track("next", "u1"), track("busy", "u2")])
    host.drain(LONGEST)
    down = host.jobs[0]

    assert (down.state, down.status) == (JobState.ABORTED, 500)
    assert down.error == "retry limit reached: body 500"
    assert 3 <= down.attempts < 20
    assert states(host)["next"][0] is JobState.DELIVERED
    assert states(host)["busy"] == (JobState.DELIVERED, 200, 21)


def test_who_is_given_up_does_not_wait_for_it(world: World) -> None:
    """There is no back-off before the end."""
    world.destination.statuses["e"] = [500]
    host = world.host(pace=Pace(give_up_after=0, give_up_attempts=1, min_backoff=100, batch_timeout=0.01))
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": (JobState.ABORTED, 500, 1)}


def test_what_is_no_rest_request_counts_as_sent(world: World) -> None:
    """The server takes it for delivered, and sends nothing; what cannot be read comes again for ever."""
    request = world.script.request
    changes: list[dict[str, Any]] = [{"headers": {"a": 1}}, {"type": "SOAP"}]
    world.script.request = lambda events: {**request(events), **changes.pop(0)}  # type: ignore[method-assign]
    host = world.host(min_backoff=0.01)
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": (JobState.DELIVERED, 200, 2)}
    assert host.deliveries == []
    assert [breach.rule for breach in host.breaches] == [Rule.TYPES, Rule.SENDABLE]


def test_a_failed_job_holds_the_later_ones_of_its_person_back(world: World) -> None:
    """They are not sent before it has an end; other persons are not concerned, and a 4xx holds nobody back."""
    world.destination.statuses = {"a1": [500], "b1": [400]}
    host = world.host(batch=1, workers=1, min_backoff=0.4)
    host.send([track("a1", "a"), track("b1", "b"), track("a2", "a"), track("b2", "b"), track("a3", "a")])
    host.drain(LONGEST)

    assert [event for event in world.destination.events if event[0] == "a"] == ["a1", "a1", "a2", "a3"]
    assert world.destination.events[:3] == ["a1", "b1", "b2"]
    assert states(host)["a2"] == (JobState.DELIVERED, 200, 1)


def test_within_an_answer_nothing_of_a_failed_person_is_sent_any_more(world: World) -> None:
    """Outputs go in the order of their first job; one that holds any job of a failed person gets a 500 as a whole."""
    world.destination.statuses = {"a1": [500]}
    world.script.merged = {"a2", "b2"}
    host = world.host(batch=5, workers=1, min_backoff=0.6)
    host.send([track("a1", "a"), track("b1", "b"), track("a2", "a"), track("b2", "b"), track("c1", "c")])
    until(lambda: len(host.deliveries) >= 3 and host.counts()["executing"] == 0)
    found = states(host)

    assert world.destination.events == ["a1", "b1", "c1"]
    assert found["a1"] == (JobState.FAILED, 500, 1)
    assert found["a2"] == (JobState.WAITING, 0, 0)
    assert found["b2"] == (JobState.FAILED, 500, 1)
    assert host.jobs[2].error == "sent in a batch that failed, behind job 1"
    assert host.jobs[3].error.startswith("skipping sending to destination")
    host.drain(LONGEST)
    assert sorted(world.destination.events) == ["a1", "a1", "a2", "b1", "b2", "c1"]


def test_of_the_failed_jobs_of_a_person_the_first_is_tried_first(world: World) -> None:
    """Also when a later one of them failed earlier, in an output with another person's job."""
    world.script.merged = {"a1", "b2"}
    world.destination.statuses = {"a1": [500]}
    host = world.host(batch=3, workers=1, min_backoff=0.6)
    host.send([track("a1", "a"), track("b1", "b"), track("b2", "b")])
    until(lambda: all(job.error and job.state is not JobState.EXECUTING for job in host.jobs))

    assert states(host) == {
        "a1": (JobState.FAILED, 500, 1),
        "b1": (JobState.FAILED, 500, 1),
        "b2": (JobState.WAITING, 0, 0),
    }
    assert host.jobs[2].error == "sent in a batch that failed, behind job 2"


def test_order_is_kept_and_nothing_is_sent_twice(world: World) -> None:
    """Many persons whose jobs fail in all ways, on all workers: each destination sees each person's jobs in order."""
    users, each = 20, 15
    outcomes: list[list[int]] = [[], [500], [400], [500, 429], [429, 400], [408]]
    want: dict[str, list[str]] = {f"u{user}": [] for user in range(users)}
    calls = []
    for number in range(each):
        for user in want:
            event = f"{user}-{number}"
            chosen = outcomes[(number * 7 + int(user[1:])) % len(outcomes)]
            world.destination.statuses[event] = list(chosen)
            want[user] += [event] * (len(chosen) + (not chosen or chosen[-1] != 400))
            calls.append(track(event, user))
    host = world.host(batch=7, workers=3, min_backoff=0.001, max_backoff=0.002)
    host.send(calls)
    host.drain(60)

    got = {user: [event for event in world.destination.events if event.startswith(f"{user}-")] for user in want}
    assert got == want
    assert host.overtakings == []
    expect(host.breaches)


def test_order_keys_of_one_person_overtake_each_other(world: World) -> None:
    """The visitor's key is not the user's: what was sent first may arrive last, and the host tells."""
    world.destination.hold["visit"] = Event()
    host = world.host(workers=8, batch=1)
    host.send([{**track("visit"), "userId": None, "anonymousId": "a"}, track("login", "u", anonymousId="a")])
    until(lambda: world.destination.events == ["login"])
    world.destination.hold["visit"].set()
    host.drain(LONGEST)

    assert [(one.earlier, one.later, one.identifier) for one in host.overtakings] == [(1, 2, "anonymousId a")]


def test_a_person_with_too_many_jobs_loses_the_order(world: World) -> None:
    """A failed job does not hold the others back then."""
    world.destination.statuses["e0"] = [500]
    host = world.host(order_threshold=3, batch=1, min_backoff=0.6)
    host.send([track(f"e{n}") for n in range(6)])
    host.drain(LONGEST)

    assert sorted(world.destination.events[:-1]) == [f"e{n}" for n in range(6)]
    assert world.destination.events[-1] == "e0"


def test_a_worker_collects_a_batch_or_what_comes_in_time(world: World) -> None:
    """Full batches at once, the rest when nothing has come for a while."""
    host = world.host(batch=4, workers=1)
    host.send([track(f"e{n}", f"u{n}") for n in range(10)])
    host.drain(LONGEST)

    assert [len(asked.json["input"]) for asked in world.transforms()] == [4, 4, 2]


def test_several_requests_of_a_job_go_one_after_another(world: World) -> None:
    """The first that fails ends it and its status is the job's; the next try begins anew."""
    world.script.several["e"] = ["e1", "e2", "e3"]
    world.destination.statuses["e2"] = [503]
    host = world.host(min_backoff=0.01)
    host.send([track("e")])
    host.drain(LONGEST)

    assert world.destination.events == ["e1", "e2", "e1", "e2", "e3"]
    assert host.jobs[0].error == "body 200 body 200 body 200"


def test_a_batch_has_one_status(world: World) -> None:
    """A request of several jobs that fails, fails for all of them."""
    world.script.merged = {"e1", "e2"}
    world.destination.statuses["e1"] = [400]
    host = world.host(workers=1)
    host.send([track("e1", "u1"), track("e2", "u2")])
    host.drain(LONGEST)
    (delivery,) = host.deliveries

    assert (delivery.jobs, delivery.statuses, delivery.proxy) == ((1, 2), {1: 400, 2: 400}, False)
    assert states(host) == {"e1": (JobState.ABORTED, 400, 1), "e2": (JobState.ABORTED, 400, 1)}
