"""A FakeHost that delivers by way of the transformer's proxy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest
from tests.support.scripted import (
    CONFIG,
    DROP,
    FEATURES,
    LONGEST,
    PROXY,
    Reply,
    World,
    ok,
    proxy_output,
    states,
    track,
    until,
)

from emarsys_cdp.testing import JobState, Pace, expect
from emarsys_cdp.testing.fake_host.transform import HostRule


@pytest.fixture
def world() -> Iterator[World]:
    """Run a transformer and a destination."""
    with ExitStack() as stack:
        yield World(stack)


def test_the_proxy_gets_requests_and_answers_for_each_job(world: World) -> None:
    """With its time-out and the settings; each job has the status that the proxy gives it."""
    world.script.merged = {"e1", "e2", "e3"}
    replies = [ok({"output": proxy_output({"metadata": [{"jobId": n} for n in (1, 2, 3)]}, 200, 400, 298)})]
    world.script.proxied = lambda _: replies.pop(0)
    host = world.host(proxy=True, workers=1)
    host.send([track(f"e{n}", f"u{n}") for n in (1, 2, 3)])
    host.drain(LONGEST)
    (asked,) = world.transforms(PROXY)

    assert asked.headers["rdproxy-timeout"] == "10000"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json["destinationConfig"] == CONFIG
    assert [(one["jobId"], one["userId"]) for one in asked.json["metadata"]] == [(1, ""), (2, ""), (3, "")]
    assert states(host) == {
        "e1": (JobState.DELIVERED, 200, 1),
        "e2": (JobState.ABORTED, 400, 1),
        "e3": (JobState.FILTERED, 298, 1),
    }
    assert host.deliveries[0].proxy
    assert world.destination.events == []
    expect(host.breaches)


def test_what_the_proxy_leaves_out_is_tried_again(world: World) -> None:
    """A job without a status, no output, a 404, garbage, no answer: all are a 500."""
    replies = [
        ok({"output": {"response": []}}),
        ok({}),
        ok({"output": None}),
        Reply(404, b""),
        Reply(200, b"garbage"),
        Reply(500, b'{"error": "down"}'),
        DROP,
    ]
    world.script.proxied = lambda body: replies.pop(0) if replies else ok({"output": proxy_output(body, 200)})
    host = world.host(proxy=True, min_backoff=0.001, max_backoff=0.001)
    host.send([track("e")])
    host.drain(LONGEST)

    assert states(host) == {"e": (JobState.DELIVERED, 200, 8)}
    assert [one.statuses for one in host.deliveries] == [{1: 500}] * 7 + [{1: 200}]
    rules = [breach.rule for breach in host.breaches]
    assert rules == [
        HostRule.PROXY_JOBS,
        HostRule.PROXY_FORM,
        HostRule.PROXY_JOBS,
        HostRule.PROXY_FOUND,
        HostRule.PROXY_FORM,
        HostRule.PROXY_FORM,
    ]


def test_the_proxys_status_is_the_jobs(world: World) -> None:
    """A 429 stays one, which is never given up."""
    world.script.proxied = lambda body: ok({"output": proxy_output(body, 429)})
    host = world.host(proxy=True, min_backoff=30)
    host.send([track("e")])
    until(lambda: host.jobs[0].attempts)

    assert states(host) == {"e": (JobState.FAILED, 429, 1)}


def test_a_proxy_that_is_too_slow_is_a_500(world: World) -> None:
    """The host waits for as long as both time-outs together."""
    wait = Event()
    world.script.proxied = lambda body: ok({"output": proxy_output(body, 200)}) if wait.wait(LONGEST) else DROP
    host = world.host(proxy=True, pace=Pace(delivery_timeout=0.02, transform_timeout=0.08, min_backoff=0.01))
    host.send([track("e")])
    until(lambda: host.jobs[0].attempts)
    wait.set()
    host.drain(LONGEST)

    assert (host.deliveries[0].status, host.deliveries[0].statuses) == (504, {1: 500})
    assert world.transforms(PROXY)[0].headers["rdproxy-timeout"] == "20"


def test_dont_batch_comes_back_with_the_next_transform(world: World) -> None:
    """The proxy's directive is kept with a failed job, not with one that only waits for it."""
    world.script.merged = {"e1", "e2", "e3"}
    replies = [ok({"output": proxy_output({"metadata": [{"jobId": n} for n in (1, 2, 3)]}, 500, dontBatch=True)})]
    world.script.proxied = lambda body: replies.pop(0) if replies else ok({"output": proxy_output(body, 200)})
    host = world.host(proxy=True, workers=1, min_backoff=0.01)
    host.send([track("e1", "u1"), track("e2", "u2"), track("e3", "u1")])
    host.drain(LONGEST)

    seen = defaultdict(list)
    for asked in world.transforms():
        for one in asked.json["input"]:
            seen[one["message"]["event"]].append(one["metadata"]["dontBatch"])
    assert seen == {"e1": [False, True], "e2": [False, True], "e3": [False, False]}


@pytest.mark.parametrize(
    ("first", "requests", "want"),
    [
        (lambda body: ok({"output": proxy_output(body, 500)}), 1, (JobState.FAILED, 500, 1)),
        (lambda body: ok({"output": proxy_output(body, 400)}), 2, (JobState.DELIVERED, 200, 1)),
        (lambda _: DROP, 2, (JobState.DELIVERED, 200, 1)),
    ],
    ids=["retryable", "terminal", "no answer"],
)
def test_several_requests_over_the_proxy(
    world: World, first: Callable[[Any], Reply], requests: int, want: tuple[JobState, int, int]
) -> None:
    """A retryable status before the last request ends them; a terminal one, or no answer at all, does not count."""
    world.script.several["e"] = ["e1", "e2"]
    replies = [first]
    world.script.proxied = lambda body: replies.pop()(body) if replies else ok({"output": proxy_output(body, 200)})
    host = world.host(proxy=True, min_backoff=30)
    host.send([track("e")])
    until(lambda: host.jobs[0].attempts)

    assert states(host) == {"e": want}
    assert len(world.transforms(PROXY)) == requests


def test_the_old_proxy_is_used_where_there_is_no_other(world: World) -> None:
    """Its HTTP status is that of every job; the transformer for deliveries may be another one."""
    world.script.features = ok({**FEATURES, "supportTransformerProxyV1": False})
    other = world.serve(lambda _: Reply(400, b'{"output": {"message": "m"}}'))
    world.script.merged = {"e1", "e2"}
    host = world.host(proxy=True, delivery_transformer=other.url, workers=1)
    host.send([track("e1", "u1"), track("e2", "u2")])
    host.drain(LONGEST)
    (asked,) = other.asked

    assert asked.path == "/v0/destinations/emarsys/proxy"
    assert asked.json["metadata"]["jobId"] == 1
    assert states(host) == {"e1": (JobState.ABORTED, 400, 1), "e2": (JobState.ABORTED, 400, 1)}
