"""Documents in files, changed while the service runs: a right one counts at once, a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from tests.support.app import PROCESSOR, ROUTER, Host, answers, host_of
from tests.support.requests import OAUTH_KEY, call, processor_request, router_request
from tests.support.world import make_service

from emarsys_cdp.documents import LOGGED
from emarsys_cdp.service import app
from emarsys_cdp.store import Commit
from emarsys_cdp.store.memory import MemoryStore

EMAIL = {"name": "email", "path": "traits.email", "type": "string", "field": 3}
CITY = {"name": "city", "path": "traits.city", "type": "string", "field": 11}
CALL = call("identify", userId="u", traits={"email": "a@example.com", "city": "Vienna", "firstName": "A"})
BY_DEFAULT = {"3": "a@example.com", "1": "A"}
WITH_CITY = {"3": "a@example.com", "11": "Vienna"}


def write(directory: Path, text: str, name: str = "default") -> None:
    """Write a document; every text here is of another length, so that a change shows in the size as well."""
    (directory / f"{name}.json").write_text(text)


def document(*maps: dict[str, Any]) -> str:
    """Return the text of a document of data maps."""
    return json.dumps({"dataMaps": maps})


async def row(host: Host, space: str = "dest-1") -> dict[str, Any]:
    """Return the contact that is sent for the call."""
    response = await host.send(ROUTER, router_request([CALL], OAUTH_KEY, space=space))
    contact: dict[str, Any] = answers(ROUTER, response)[0]["batchedRequest"]["body"]["JSON"]["contacts"][0]
    return contact


def settings(**lifetimes: str) -> str:
    """Return the text of a document with lifetimes."""
    return json.dumps({"settings": lifetimes})


def test_a_new_document_counts_from_the_next_call_on(tmp_path: Path) -> None:
    """And when it goes away, the default one is back."""

    async def run() -> list[dict[str, Any]]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        async with host_of(service) as host:
            found = [await row(host)]
            write(tmp_path, document(EMAIL, CITY))
            assert await service.documents.refresh() == ()
            found.append(await row(host))
            (tmp_path / "default.json").unlink()
            assert await service.documents.refresh() == ()
            return [*found, await row(host)]

    assert asyncio.run(run()) == [BY_DEFAULT, WITH_CITY, BY_DEFAULT]


def test_lifetimes_count_from_the_next_call_on(tmp_path: Path) -> None:
    """A person stays as long as the document in force says."""
    spans: list[int] = []

    class Noting(MemoryStore):
        async def commit(self, commits: Sequence[Commit]) -> list[bool]:
            spans.extend(one.seconds for one in commits)
            return await super().commit(commits)

    async def run() -> None:
        service = make_service(Noting(), rules_dir=tmp_path)
        async with host_of(service) as host:
            for number, text in enumerate((None, settings(reachableTtl="100d"), settings(reachableTtl="9w"))):
                if text is not None:
                    write(tmp_path, text)
                    assert await service.documents.refresh() == ()
                again = {**CALL, "messageId": f"m-{number}", "timestamp": f"2026-11-23T09:0{number}:00Z"}
                await host.send(ROUTER, router_request([again], OAUTH_KEY, space="dest-1"))

    asyncio.run(run())

    assert list(dict.fromkeys(spans)) == [0, 100 * 86_400, 63 * 86_400]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no JSON", "is no JSON"),
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "must be object"),
        ('{"dataMaps": 5}', "dataMaps"),
        ('{"dataMap": []}', "dataMap"),
        (document(EMAIL, {**CITY, "field": "Citty"}), "'Citty' is no system field of Emarsys: did you mean City"),
        (document(EMAIL, {**CITY, "path": "traits..city"}), "dataMaps[1].path"),
        (document(EMAIL, {**CITY, "type": "texts"}), "dataMaps[1].type"),
        (settings(anonymousTtl="30 days"), "settings.anonymousTtl: '30 days' is not right here: A number of hours"),
        (settings(knownTtl="30s"), "settings.knownTtl: '30s' is no lifetime: at least 1m and at most 3650d"),
        (document(EMAIL, EMAIL), "'email' is the name of dataMaps[0] too"),
    ],
)
def test_a_wrong_document_leaves_the_old_one_in_force(tmp_path: Path, text: str, says: str) -> None:
    """Its problems are told with their places, and nothing else changes."""
    write(tmp_path, document(EMAIL, CITY))

    async def run() -> dict[str, Any]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        async with host_of(service) as host:
            write(tmp_path, text)
            (problem,) = await service.documents.refresh()
            assert says in str(problem)
            assert str(tmp_path / "default.json") in str(problem)
            return await row(host)

    assert asyncio.run(run()) == WITH_CITY


def test_a_wrong_document_does_not_hold_back_the_others(tmp_path: Path) -> None:
    """Each file is taken by itself."""

    async def run() -> list[dict[str, Any]]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        async with host_of(service) as host:
            write(tmp_path, "no JSON", "dest-1")
            write(tmp_path, document(EMAIL, CITY), "dest-2")
            assert len(await service.documents.refresh()) == 1
            return [await row(host, space) for space in ("dest-1", "dest-2")]

    assert asyncio.run(run()) == [BY_DEFAULT, WITH_CITY]


def test_a_file_of_a_space_wins_over_the_default_one(tmp_path: Path) -> None:
    """The file `default.json` is for every space that has none of its own."""
    write(tmp_path, document(EMAIL, CITY))
    write(tmp_path, document(EMAIL), "dest-2")

    async def run() -> list[dict[str, Any]]:
        async with host_of(make_service(MemoryStore(), rules_dir=tmp_path)) as host:
            return [await row(host, space) for space in ("dest-1", "dest-2")]

    assert asyncio.run(run()) == [WITH_CITY, {"3": "a@example.com"}]


def test_the_running_service_looks_for_changes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to start it again; a call in between is answered by the old document."""
    monkeypatch.setattr(app, "RELOAD_SECONDS", 0)

    async def run() -> list[dict[str, Any]]:
        async with host_of(make_service(MemoryStore(), rules_dir=tmp_path)) as host:
            found = [await row(host)]
            write(tmp_path, document(EMAIL, CITY))
            async with asyncio.timeout(10):
                while found[-1] == BY_DEFAULT:
                    found.append(await row(host))
            return found

    assert asyncio.run(run())[-1] == WITH_CITY


def test_a_directory_that_goes_away_does_not_stop_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stays in force, and it is read again when the directory is back."""
    monkeypatch.setattr(app, "RELOAD_SECONDS", 0)
    directory, elsewhere = tmp_path / "rules", tmp_path / "elsewhere"
    directory.mkdir()
    write(directory, document(EMAIL, CITY))

    async def run() -> list[dict[str, Any]]:
        async with host_of(make_service(MemoryStore(), rules_dir=directory)) as host:
            directory.rename(elsewhere)
            found = [await row(host) for _ in range(20)]
            write(elsewhere, document(EMAIL))
            elsewhere.rename(directory)
            async with asyncio.timeout(10):
                while found[-1] != {"3": "a@example.com"}:
                    found.append(await row(host))
            return found

    found = asyncio.run(run())

    assert all(contact == WITH_CITY for contact in found[:20])


@pytest.mark.parametrize("path", [ROUTER, PROCESSOR])
def test_a_document_that_is_wrong_from_the_start_holds_its_own_calls_back(tmp_path: Path, path: str) -> None:
    """Nobody knows what was in force before, so the host keeps them; other spaces go on, and in the end these too."""
    write(tmp_path, "no JSON", "dest-1")

    async def run() -> list[httpx.Response]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        build = processor_request if path == PROCESSOR else router_request
        async with host_of(service) as host:
            held = await host.send(path, build([CALL], OAUTH_KEY))
            assert await row(host, "dest-2") == BY_DEFAULT
            write(tmp_path, document(EMAIL, CITY), "dest-1")
            assert await service.documents.refresh() == ()
            return [held, await host.send(path, build([CALL], OAUTH_KEY))]

    held, mended = asyncio.run(run())

    assert "dest-1.json is invalid" in held.text
    assert held.status_code == 503 if path == PROCESSOR else answers(path, held)[0]["statusCode"] == 500
    assert answers(path, mended)[0]["statusCode"] == 200


def test_a_file_full_of_problems_is_one_short_line_of_the_log(tmp_path: Path) -> None:
    """The first problems are shown with how many there are: `check` prints all of them."""
    rows = [{"seq": 0, "type": "start", "match": "nothing = 1"}] * 100
    problems = {"rules": [{"id": "r", "conditions": [*rows, {"seq": 1, "type": "exit"}]}]}
    write(tmp_path, json.dumps(problems), "dest-1")

    with capture_logs() as logs:
        asyncio.run(make_service(MemoryStore(), rules_dir=tmp_path).documents.refresh())

    (line,) = [one for one in logs if one["event"] == "document_refused"]
    assert (len(line["problems"]), line["of"]) == (LOGGED, 100)
