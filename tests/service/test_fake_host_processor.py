"""A FakeHost whose calls are transformed at the processor stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest
from tests.support.scripted import DROP, LONGEST, PROCESSOR, Asked, Reply, World, states, track

from emarsys_cdp.testing import Consequence, JobState, Pace, expect
from emarsys_cdp.testing.fake_host.transform import HostRule


@pytest.fixture
def world() -> Iterator[World]:
    """Run a transformer and a destination."""
    with ExitStack() as stack:
        yield World(stack)


def test_the_processor_stage(world: World) -> None:
    """200 is delivered, one request for each, in order; 298 is filtered; all else is aborted at once."""
    world.script.transform = {"f": [298], "x": [400], "later": [429], "down": [500]}
    host = world.host(stage="processor", workers=1)
    host.send([track(event) for event in ("e1", "f", "x", "e2", "later", "down", "e3")])
    host.drain(LONGEST)
    found = states(host)

    assert world.destination.events == ["e1", "e2", "e3"]
    assert found["f"] == (JobState.FILTERED, 298, 0)
    assert [found[event] for event in ("x", "later", "down")] == [(JobState.ABORTED, n, 1) for n in (400, 429, 500)]
    assert [breach.consequence for breach in host.breaches] == [Consequence.LOST, Consequence.LOST]
    assert world.transforms() == world.transforms("/batch") == []


def test_jobs_of_the_processor_stage_are_tried_again_in_order(world: World) -> None:
    """Their requests are kept; they are not transformed again."""
    world.destination.statuses["e1"] = [500]
    host = world.host(stage="processor", min_backoff=0.02)
    host.send([track("e1"), track("e2")])
    host.drain(LONGEST)

    assert world.destination.events == ["e1", "e1", "e2"]
    assert len(world.transforms(PROCESSOR)) == 1


def test_chunks_of_the_processor_go_in_parallel(world: World) -> None:
    """100 events in a request, and all requests of a round at once."""
    together, inside = Event(), []

    def answer(asked: Asked) -> Reply:
        if asked.path == PROCESSOR:
            inside.append(len(asked.json["input"]))
            if len(inside) == 3:
                together.set()
            together.wait(LONGEST)
        return world.script.answer(asked)

    world.transformer.answer = answer
    host = world.host(stage="processor")
    host.send([track(f"e{n}", f"u{n}") for n in range(250)])
    host.drain(LONGEST)

    assert sorted(inside) == [50, 100, 100]
    assert sorted(world.destination.events) == sorted(f"e{n}" for n in range(250))


def test_an_event_may_become_several_jobs(world: World) -> None:
    """Each has an id of its own, and their order is that of the answer."""
    outputs = world.script.outputs

    def twice(asked: Asked) -> Any:
        return [output for one in outputs(asked) for output in (one, one)]

    world.script.outputs = twice  # type: ignore[method-assign]
    host = world.host(stage="processor", workers=1)
    host.send([track("e1"), track("e2")])
    host.drain(LONGEST)

    assert world.destination.events == ["e1", "e1", "e2", "e2"]
    assert [(job.id, job.call["event"]) for job in host.jobs] == [(1, "e1"), (2, "e2"), (3, "e1"), (4, "e2")]


def test_what_the_processor_tries_again(world: World) -> None:
    """5xx, 429 and dropped connections are; a 503 that asks for it does not even count."""
    asks = Reply(503, b"", {"X-Rudder-Should-Retry": "true"})
    world.script.replies = [asks] * 40 + [Reply(500), Reply(429), DROP, Reply(200, b"garbage", {"apiVersion": "2"})]
    host = world.host(stage="processor", pace=Pace().scaled(1 / 10_000))
    host.send([track("e")])
    host.drain(LONGEST)

    assert world.destination.events == ["e"]
    assert [breach.consequence for breach in host.breaches] == [*[Consequence.NOTED] * 2, Consequence.PANIC]


def test_the_processor_has_an_end_of_its_patience(world: World) -> None:
    """So many failures end a real server; this one notes it and goes on."""
    world.script.replies = [DROP] * 32
    host = world.host(stage="processor", pace=Pace().scaled(1 / 10_000))
    host.send([track("e")])
    host.drain(LONGEST)

    assert [breach.rule for breach in host.breaches] == [HostRule.PROCESSOR_ANSWERS]
    assert host.failed
    assert world.destination.events == ["e"]


def test_a_refused_request_of_the_processor_aborts_every_event(world: World) -> None:
    """Any 4xx is the end of all of them."""
    world.script.replies = [Reply(400, b"no")]
    host = world.host(stage="processor")
    host.send([track("e1"), track("e2")])
    host.drain(LONGEST)

    assert states(host) == {"e1": (JobState.ABORTED, 400, 1), "e2": (JobState.ABORTED, 400, 1)}
    assert host.jobs[0].error == "no"


def test_batching_is_for_jobs_of_the_processor_stage(world: World) -> None:
    """Where it is switched on, the requests go to /batch before they are sent."""
    host = world.host(stage="processor", batching=True, workers=1)
    host.send([track("e1"), track("e2")])
    host.drain(LONGEST)
    (asked,) = world.transforms("/batch")

    assert [one["metadata"]["transformAt"] for one in asked.json["input"]] == ["processor"] * 2
    assert asked.json["input"][0]["message"]["method"] == "PUT"
    assert world.destination.events == ["e1", "e2"]
    expect(host.breaches)
