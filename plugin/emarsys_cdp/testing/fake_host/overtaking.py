"""Which jobs of one person overtook each other on the way to the destination. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.values import Delivery, Job, JobState, Overtaking


def overtakings(jobs: Iterable[Job], deliveries: Iterable[Delivery]) -> list[Overtaking]:
    """
    Return the pairs of delivered jobs with the same userId or anonymousId of which the later one was quicker.

    Quicker: the request that delivered it was sent before the one that delivered the earlier job, or was answered
    before that, so that the destination may have seen them in either order. Jobs of one request do not count.
    """
    by_identifier: defaultdict[tuple[str, str], list[tuple[Job, Delivery]]] = defaultdict(list)
    last = {(delivery.destination, job): delivery for delivery in deliveries for job in delivery.jobs}
    for job in sorted(jobs, key=lambda job: job.id):
        delivery = last.get((job.destination, job.id))
        if job.state is JobState.DELIVERED and delivery is not None:
            for identifier in identifiers(job.call):
                by_identifier[job.destination, identifier].append((job, delivery))
    found: dict[tuple[int, int], Overtaking] = {}
    for (destination, identifier), delivered in by_identifier.items():
        for earlier, later in _overtaken(delivered):
            found.setdefault((earlier, later), Overtaking(destination, identifier, earlier, later))
    return [found[pair] for pair in sorted(found)]


def identifiers(call: Mapping[str, Json]) -> list[str]:
    """Return what a call says about whose it is."""
    return [f"{name} {call[name]}" for name in ("userId", "anonymousId") if call.get(name)]


def _overtaken(delivered: list[tuple[Job, Delivery]]) -> Iterator[tuple[int, int]]:
    # The soonest of all that follow: most jobs were overtaken by none, and the pairs of one person are many.
    soonest = [(math.inf, math.inf)] * (len(delivered) + 1)
    for number in range(len(delivered) - 1, -1, -1):
        sent, answered = soonest[number + 1]
        delivery = delivered[number][1]
        soonest[number] = (min(sent, delivery.sent), min(answered, delivery.answered))
    for number, (earlier, first) in enumerate(delivered):
        sent, answered = soonest[number + 1]
        if sent < first.sent or answered < first.answered:
            for later, second in delivered[number + 1 :]:
                if second is not first and (second.sent < first.sent or second.answered < first.answered):
                    yield earlier.id, later.id
