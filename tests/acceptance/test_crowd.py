"""Eight processes on fifty people, killed in every step of claim, commit and merge: nothing is lost, nothing double."""

from __future__ import annotations

import pytest
from tests.crowd.run import Outcome, run
from tests.support.servers import Cluster

KILLS = {"valkey": 50, "cluster": 50}
"""Processes to kill, at least. `python -m tests.crowd` kills 1,000."""


@pytest.fixture(scope="module", params=list(KILLS))
def found(request: pytest.FixtureRequest) -> tuple[str, Outcome]:
    """Let crowds of fifty people come on each kind of real store until enough processes have been killed."""
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.flush()
        return request.param, run(cluster.url, KILLS["cluster"], everywhere=False)
    return request.param, run(request.getfixturevalue("valkey_url"), KILLS["valkey"])


def test_processes_were_killed_everywhere(found: tuple[str, Outcome]) -> None:
    """On one server in every step of the protocol, before, in and after it; what they had in hand came again."""
    store, outcome = found

    assert outcome.kills >= KILLS[store]
    assert store == "cluster" or outcome.missed == []
    assert outcome.again > 0


def test_no_call_and_no_identifier_is_lost_or_double(found: tuple[str, Outcome]) -> None:
    """Every call is in its person, with the last values; every identifier names the person that lists it."""
    assert found[1].faults == []
    assert found[1].refused == []
