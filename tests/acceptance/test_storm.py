"""Workers killed while timers fire, with real processes: every trigger once, and none that nobody is to get."""

from __future__ import annotations

import pytest
from tests.storm.run import Outcome, Storm
from tests.support.servers import flush

KILLS = 30
"""Workers to kill, while effects leave by both transports. `python -m tests.storm` kills 500 of each."""


@pytest.fixture(scope="module")
def found(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Let a hundred people live through their stories while workers are killed."""
    flush(valkey_url)
    directory = tmp_path_factory.mktemp("storm") / "one"
    return Storm(valkey_url, directory, people=120, kills=KILLS, spread=20.0).run()


def test_workers_were_killed_while_there_was_something_to_do(found: Outcome) -> None:
    """All kills happened, and nearly everybody's calls came in time, so that what he gets is certain."""
    assert found.kills >= KILLS
    assert found.wanted >= 100
    assert found.late <= found.people // 10


def test_everybody_gets_what_he_gets_when_nobody_dies(found: Outcome) -> None:
    """Events with their trigger ids and data, the list and the last field value are those of the simulation."""
    assert "\n".join(found.faults) == ""


def test_emarsys_accepts_every_trigger_once(found: Outcome) -> None:
    """Whatever is sent again has the trigger id of before, and is sent twice at most."""
    assert found.double == 0
    assert found.most <= 2


def test_everything_comes_to_its_end(found: Outcome) -> None:
    """Nothing waits in the outbox or was given up, the host has lost no call, and no worker has logged a fault."""
    assert found.errors == []
