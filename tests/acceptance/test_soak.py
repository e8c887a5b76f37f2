"""The whole way while everything breaks, with real processes: nothing lost, nothing twice, never over the limit."""

from __future__ import annotations

import pytest
from tests.soak.run import Outcome, soak

CALLS = {"proxy": 14_000, "host": 6_000}
"""Calls of each run: 20,000 together. `python -m tests.soak` sends 200,000."""


@pytest.fixture(scope="module", params=list(CALLS))
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outcome]:
    """Run a soak with the proxy on and one with it off."""
    directory = tmp_path_factory.mktemp("soak") / "one"
    proxy = request.param == "proxy"
    return request.param, soak(CALLS[request.param], directory, proxy=proxy, kill_every=5.0 if proxy else 1.0)


def test_the_day_was_as_bad_as_intended(found: tuple[str, Outcome]) -> None:
    """Emarsys failed in every scripted way, workers and Valkey were killed."""
    sender, outcome = found
    wanted = {"status", "reset"} | ({"lost", "slow", "garbage", "rows"} if sender == "proxy" else set())

    assert outcome.jobs >= CALLS[sender]
    assert wanted <= set(outcome.faults)
    assert min(outcome.kills.values()) > 0


def test_every_contact_has_its_last_values(found: tuple[str, Outcome]) -> None:
    """By event time and messageId, as a straight computation has them; what the host's own queues overtake is told."""
    sender, outcome = found
    unexplained = set(outcome.wrong) - (set() if sender == "proxy" else outcome.explained)

    assert {address: outcome.wrong[address] for address in unexplained} == {}


def test_every_call_came_to_its_end(found: tuple[str, Outcome]) -> None:
    """Nothing was given up, and nothing waits."""
    _, outcome = found

    assert outcome.aborted == []
    assert outcome.states["delivered"] + outcome.states["filtered"] == outcome.jobs


def test_every_event_was_accepted_once(found: tuple[str, Outcome]) -> None:
    """Repetitions carry the same trigger id, by which Emarsys knows them."""
    _, outcome = found

    assert (outcome.lost, outcome.twice) == ([], [])


def test_nothing_was_over_a_limit(found: tuple[str, Outcome]) -> None:
    """Neither requests a minute nor access tokens, contacts of a request or bytes."""
    assert found[1].violations == []


def test_no_secret_was_written_down(found: tuple[str, Outcome]) -> None:
    """Neither in the log nor in what Valkey has on disk."""
    _, outcome = found
    written = [path for path in outcome.log.parent.rglob("*") if path.is_file() and path.name != "secret"]

    assert any(path.stat().st_size > 100_000 for path in written)
    for path in written:
        content = path.read_bytes()
        assert not [secret for secret in outcome.secrets if secret.encode() in content], path.name


def test_the_log_tells_what_happened(found: tuple[str, Outcome]) -> None:
    """Deaths and restarts are in it, and no fault of ours."""
    log = found[1].log.read_text()

    assert '"worker_restarted"' in log
    assert '"embedded_server_restarted"' in log
    assert "request_failed" not in log
    assert "batch_failed" not in log
