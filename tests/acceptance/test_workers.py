"""`serve --workers N` and the embedded server under load: what dies comes back, what is accepted is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.app import ROUTER, by_job
from tests.support.command import LISTENS, LONGEST, NOTICE, Service, Start, is_alive, refusal, starting
from tests.support.load import LOST, REFUSED, SENDERS, Load
from tests.support.requests import call, router_request

from emarsys_cdp.store.record import unpack
from emarsys_cdp.store.redis import RedisStore

SECRET = "hunter2-is-the-secret-of-this-test"  # noqa: S105 - searched for, never used
SOME = 60
"""Requests that are answered before and after what a test does."""

SHARED_SOCKET = """
from emarsys_cdp.cli import main
from emarsys_cdp.service import workers
workers.spreads_connections = lambda: False
main()
"""
"""The command as it is on a system that does not spread connections over sockets."""

ADMIN_TOKEN = "the admin token of these tests"  # noqa: S105 - it protects nothing
SOON = 10.0
"""Seconds in which a document is in force everywhere on a machine that does much else; it is one on a quiet one."""

WITH_CITY = {
    "dataMaps": [
        {"name": "email", "path": "traits.email", "type": "string", "field": "3"},
        {"name": "city", "path": "traits.city", "type": "string", "field": "11"},
    ]
}
LIVES_IN_VIENNA = call("identify", userId="v", traits={"email": "v@example.com", "city": "Vienna"})

NO_WORKER = """
import sys
from emarsys_cdp.cli import main
sys.executable = "/bin/false"
main()
"""
"""The command on a machine on which workers do not start."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on one data directory; several times in a test, if it likes."""
    with starting(tmp_path) as run:
        yield run


@pytest.fixture(params=[False, True], ids=["connection per request", "kept connections"])
def keep(request: pytest.FixtureRequest) -> bool:
    """Return how the host uses its connections."""
    kept: bool = request.param
    return kept


def eventually(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + LONGEST
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counted(service: Service) -> Counter[str]:
    """Return how many calls each worker has counted, as one of them shows it."""
    found = Counter[str]()
    for family in text_string_to_metric_families(service.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "emarsys_cdp_calls_total":
                found[sample.labels["worker"]] += int(sample.value)
    return found


def people(service: Service) -> dict[str | None, str | None]:
    """Return the key of everybody in the users table by their userId, read from the store itself."""

    async def read() -> dict[str | None, str | None]:
        store = RedisStore(f"unix://{service.directory}/data/valkey/valkey.sock")
        try:
            return {(person := unpack(record)[1]).user: person.key async for _, record in store.scan()}
        finally:
            await store.close()

    return asyncio.run(read())


def assert_nobody_is_lost(service: Service, load: Load) -> None:
    """Assert that everybody whose call was answered with success is in the users table, with their key."""
    found = people(service)

    assert load.answered
    assert [person for person in load.answered if found.get(f"u{person}") != f"{person}@example.com"] == []


def test_workers_share_one_users_table_and_the_load(start: Start) -> None:
    """Whichever answers knows what the other learned; they listen on one port, and it is told once."""
    service = start("--workers", "2")
    learn = [call("identify", n, userId=f"u{n}", traits={"email": f"{n}@example.com"}) for n in range(20)]
    ask = [call("identify", 20 + n, userId=f"u{n}", traits={"firstName": "A"}) for n in range(20)]
    for one in learn:
        service.post(ROUTER, router_request([one]))
    outputs = [by_job(ROUTER, service.post(ROUTER, router_request([one])))[101][0] for one in ask]
    eventually(lambda: counted(service).total() == 40)

    rows = [output["batchedRequest"]["body"]["JSON"]["contacts"][0] for output in outputs]
    assert rows == [{"3": f"{n}@example.com", "1": "A"} for n in range(20)]
    assert set(counted(service)) == {"1", "2"}
    assert min(counted(service).values()) > 0
    assert [line[:20] for line in service.lines if not line.startswith("{")] == [NOTICE[:20], LISTENS[:20]]


def test_one_worker_is_one_process(start: Start) -> None:
    """Without the option there is no parent, and metrics have no label for it."""
    service = start()
    service.post(ROUTER, router_request([call("page")]))

    assert service.workers() == []
    assert "worker=" not in service.get("/metrics").text


def test_a_killed_worker_is_replaced(start: Start, keep: bool) -> None:
    """The other one answers meanwhile, each request that died with it succeeds when it is sent again."""
    service = start("--workers", "2")
    with Load(service.url(), keep=keep).running() as load:
        load.wait_for(SOME)
        killed, other = service.workers()
        os.kill(killed, signal.SIGKILL)
        died = service.wait_for("worker_died")
        load.wait_for(SOME)
        restarted = service.wait_for("worker_restarted")
        load.wait_for(SOME)

    assert (died["pid"], died["code"], died["again_in_seconds"]) == (killed, -signal.SIGKILL, 0)
    assert restarted["worker"] == died["worker"]
    assert set(service.workers()) == {other, restarted["pid"]}
    assert load.outcomes[LOST] <= SENDERS  # what was in flight
    assert set(load.outcomes) <= {"200", LOST}
    assert_nobody_is_lost(service, load)


def test_a_worker_that_dies_again_is_not_waited_for(start: Start) -> None:
    """While it may not be started yet, the kernel gives its connections to the other one."""
    service = start("--workers", "2")
    service.url()
    os.kill(service.workers()[0], signal.SIGKILL)
    os.kill(service.wait_for("worker_restarted")["pid"], signal.SIGKILL)
    died = service.wait_for("worker_died", 2)
    for number in range(10):
        service.post(ROUTER, router_request([call("page", number)]))
    meanwhile = service.logged("worker_restarted")
    service.wait_for("worker_restarted", 2)

    assert died["again_in_seconds"] == 1
    assert len(meanwhile) == 1
    assert service.post(ROUTER, router_request([call("page", 11)])).status_code == 200


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGTERM), ("2", signal.SIGTERM), ("2", signal.SIGINT)])
def test_a_stop_under_load_answers_what_is_accepted(start: Start, keep: bool, workers: str, number: int) -> None:
    """Every request is answered or its connection refused; then everything is gone, with exit code 0."""
    service = start("--workers", workers)
    with Load(service.url(), keep=keep, to_the_end=True).running() as load:
        load.wait_for(SOME)
        left = [*service.workers(), service.valkey()]
        code = service.stop(number)

    assert code == 0
    assert not any(is_alive(pid) for pid in left)
    assert set(load.outcomes) <= {"200", REFUSED, LOST}
    # A connection that the kernel accepts between our last look and the close of the socket is reset: microseconds.
    assert load.outcomes[LOST] <= (0 if keep else 1)
    assert not any("Traceback" in line for line in service.lines)


def test_a_rolling_restart_is_not_noticed(start: Start, keep: bool) -> None:
    """At SIGHUP each worker is replaced; no connection is refused and no request fails."""
    service = start("--workers", "2")
    with Load(service.url(), keep=keep).running() as load:
        load.wait_for(SOME)
        before = service.workers()
        service.process.send_signal(signal.SIGHUP)
        service.wait_for("worker_replaced", 2)
        eventually(lambda: not any(is_alive(pid) for pid in before))
        load.wait_for(SOME)

    assert set(load.outcomes) == {"200"}
    assert [entry["worker"] for entry in service.logged("worker_replaced")] == [1, 2]
    assert set(service.workers()) == {entry["pid"] for entry in service.logged("worker_replaced")}
    assert_nobody_is_lost(service, load)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_valkey_comes_back_with_all_that_was_answered(start: Start, workers: str) -> None:
    """It is killed twice under load; the host's repeated calls succeed by themselves, nobody answered is missing."""
    service = start("--workers", workers)
    with Load(service.url()).running() as load:
        for times in (1, 2):
            load.wait_for(SOME)
            os.kill(service.valkey(), signal.SIGKILL)
            service.wait_for("embedded_server_restarted", times)
            load.wait_for(SOME)

    first, second = (entry["seconds"] for entry in service.logged("embedded_server_restarted"))
    assert first < 2
    assert second >= 1
    assert [entry["code"] for entry in service.logged("embedded_server_died")] == [-signal.SIGKILL] * 2
    assert set(load.outcomes) <= {"200", "job 500", "503"}
    assert_nobody_is_lost(service, load)


def test_workers_end_with_their_parent(start: Start, tmp_path: Path) -> None:
    """A parent that was killed leaves no worker and no temporary file behind, and the next one takes over its data."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    first = start("--workers", "2", TMPDIR=str(temporary))
    first.post(ROUTER, router_request([call("identify", 1, userId="u1", traits={"email": "a@example.com"})]))
    workers = first.workers()
    assert list(temporary.iterdir())
    first.process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in workers))
    assert not list(temporary.iterdir())
    second = start("--workers", "2")
    second.url()

    assert people(second) == {"u1": "a@example.com"}


def test_shared_sockets(tmp_path: Path) -> None:
    """Where the kernel does not spread connections the workers accept from one socket, and all else is the same."""
    with starting(tmp_path, sys.executable, "-c", SHARED_SOCKET) as start:
        service = start("--workers", "2")
        with Load(service.url()).running() as load:
            load.wait_for(SOME)
            service.process.send_signal(signal.SIGHUP)
            service.wait_for("worker_replaced", 2)
            load.wait_for(SOME)

    assert set(load.outcomes) == {"200"}


def test_each_worker_says_who_it_is(start: Start) -> None:
    """A line of the log has the number of the worker that wrote it."""
    service = start("--workers", "2")
    seen = set[int]()
    for number in range(1, 61):
        service.post(ROUTER, b"no JSON")
        seen.add(service.wait_for("request_refused", number)["worker"])
        if len(seen) > 1:
            break

    assert seen == {1, 2}


def test_no_secret_is_on_a_command_line(start: Start) -> None:
    """Workers get their settings another way, and use them."""
    service = start("--workers", "2", EMARSYS_CDP_SECRET=SECRET, EMARSYS_CDP_HOST_TOKEN=SECRET)
    answer = service.post(ROUTER, router_request([call("page")]))

    assert answer.status_code == 503  # it asks for the token
    for pid in (service.process.pid, *service.workers()):
        assert SECRET not in Path(f"/proc/{pid}/cmdline").read_text()


def test_a_start_that_fails_is_told_once(tmp_path: Path) -> None:
    """When the first worker does not start there are no others: exit code 1, nothing left behind."""
    with starting(tmp_path, sys.executable, "-c", NO_WORKER) as start:
        service = start("--workers", "3")
        code = service.end()

    assert code == 1
    assert [(entry["worker"], entry["reason"]) for entry in service.logged("worker_not_started")] == [
        (1, "it ended with code 1 before it listened")
    ]
    assert not any(line.startswith(LISTENS) for line in service.lines)
    assert not (service.directory / "data" / "valkey" / "valkey.pid").exists()


def test_a_restart_that_fails_leaves_the_old_workers(start: Start, tmp_path: Path) -> None:
    """A rolling restart ends at the first worker that does not start; the service goes on as it was."""
    rules = tmp_path / "rules"
    rules.mkdir()
    service = start("--workers", "2", EMARSYS_CDP_RULES_DIR=str(rules))
    service.url()
    before = service.workers()
    rules.rmdir()
    service.process.send_signal(signal.SIGHUP)
    failed = service.wait_for("worker_not_replaced")

    assert failed["worker"] == 1
    assert service.workers() == before
    assert service.post(ROUTER, router_request([call("page")])).status_code == 200


def test_a_port_that_is_taken_is_named(start: Start) -> None:
    """The address is in the message, and nothing is left running."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        service = start("--workers", "2", "--port", port)
        line = refusal(service)

    assert f"127.0.0.1:{port}" in line
    assert not (service.directory / "data" / "valkey").exists()


def test_two_services_do_not_share_a_port(start: Start) -> None:
    """The option that lets workers share an address lets nobody else in."""
    first = start("--workers", "2")
    port = first.url().rpartition(":")[2]

    assert f"127.0.0.1:{port}" in refusal(start("--workers", "2", "--port", port))


@pytest.mark.parametrize("workers", ["0", "65", "many"])
def test_wrong_numbers_of_workers(start: Start, workers: str) -> None:
    """A number that makes no sense is the caller's mistake: exit code 2."""
    assert start("--workers", workers).end() == 2


def test_a_published_document_is_in_force_on_all_workers_and_no_call_is_lost(start: Start) -> None:
    """While calls are in flight; each worker says so, and from then on every call is answered by the document."""
    service = start("--workers", "2", EMARSYS_CDP_ADMIN_TOKEN=ADMIN_TOKEN)
    with Load(service.url()).running() as load:
        load.wait_for(SOME)
        for revision in range(1, 4):
            headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "If-Match": f'"{revision - 1}"'}
            url = f"{service.url()}/api/v1/spaces/dest-1/document"
            response = httpx.put(url, json=WITH_CITY, headers=headers, trust_env=False, timeout=LONGEST)
            assert response.status_code == 200, response.text
            answered = time.time()
            for number in (2 * revision - 1, 2 * revision):
                service.wait_for("document_loaded", number)
            loaded = service.logged("document_loaded")[-2:]
            load.wait_for(SOME)
            assert {entry["worker"] for entry in loaded} == {1, 2}
            assert {entry["revision"] for entry in loaded} == {revision}
            assert max(datetime.fromisoformat(entry["timestamp"]).timestamp() for entry in loaded) - answered < SOON
    outputs = [by_job(ROUTER, service.post(ROUTER, router_request([LIVES_IN_VIENNA])))[101][0] for _ in range(20)]

    assert set(load.outcomes) == {"200"}
    assert_nobody_is_lost(service, load)
    rows = [output["batchedRequest"]["body"]["JSON"]["contacts"][0] for output in outputs]
    assert rows == [{"3": "v@example.com", "11": "Vienna"}] * 20
