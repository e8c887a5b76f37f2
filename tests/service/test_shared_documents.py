"""Documents of several workers on one store: all have the same, none waits for one, nothing that is wrong counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs
from tests.support.app import ROUTER, Host, answers, host_of
from tests.support.documents import EVENT, document, rule
from tests.support.requests import OAUTH_KEY, call, router_request
from tests.support.stores import on
from tests.support.world import SECRET, make_service

from emarsys_cdp.document.compile import CompiledSpace, Compiler
from emarsys_cdp.document.versions import Versions
from emarsys_cdp.secrets import derive
from emarsys_cdp.service import app
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.shelf import Shelf
from emarsys_cdp.store import Publication, Store, StoreUnavailable
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.memory import MemoryStore

EMAIL: Final = {"name": "email", "path": "traits.email", "type": "string", "field": "3"}
CITY: Final = {"name": "city", "path": "traits.city", "type": "string", "field": "11"}
CALL: Final = call("identify", userId="u", traits={"email": "a@example.com", "city": "Vienna", "firstName": "A"})
BY_DEFAULT: Final = {"3": "a@example.com", "1": "A"}
WITH_CITY: Final = {"3": "a@example.com", "11": "Vienna"}
SHELF: Final = Namer(derive(SECRET, "identifiers"))("", "documents", "")


async def row(host: Host, space: str = "dest-1") -> dict[str, Any]:
    """Return the contact that is sent for the call."""
    response = await host.send(ROUTER, router_request([CALL], OAUTH_KEY, space=space))
    contact: dict[str, Any] = answers(ROUTER, response)[0]["batchedRequest"]["body"]["JSON"]["contacts"][0]
    return contact


async def publish(service: Service, raw: dict[str, Any], space: str = "dest-1") -> int:
    """Publish whatever is there, and look at once."""
    receipt = await service.publisher.publish(space, raw, None)
    await service.documents.refresh()
    return receipt.revision


def versions_of(service: Service, space: str = "dest-1") -> Versions:
    """Return the versions of the rules in force."""
    ruled = service.documents.get(space)
    assert ruled is not None
    return ruled[1]


def write(directory: Path, raw: Any, name: str = "default") -> None:
    """Write a document; each of a test has another length, so that a change shows in the size as well."""
    (directory / f"{name}.json").write_text(raw if isinstance(raw, str) else json.dumps(raw))


def test_every_worker_has_it_when_it_has_looked(make_store: Callable[[], Store]) -> None:
    """What one publishes the other one answers by, with the same versions."""

    async def use(store: Store) -> tuple[list[Any], list[Versions]]:
        first, second = make_service(store), make_service(store)
        async with host_of(first) as one, host_of(second) as other:
            found = [await row(one), await row(other)]
            await publish(first, document(rule(), maps=(EMAIL, CITY, EVENT)))
            found += [await row(one), await row(other)]
            assert await second.documents.refresh() == ()
            return [*found, await row(other)], [versions_of(first), versions_of(second)]

    rows, (versions, others) = on(make_store, use)

    assert rows == [BY_DEFAULT, BY_DEFAULT, WITH_CITY, BY_DEFAULT, WITH_CITY]
    assert versions == others
    assert versions.current == {"coupon": 1}


def test_no_call_is_lost_while_documents_change(
    make_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of two workers in flight are all answered, by one document or the other, in the end by the last."""
    monkeypatch.setattr(app, "RELOAD_SECONDS", 0.01)

    async def use(store: Store) -> tuple[list[dict[str, Any]], list[int]]:
        async with AsyncExitStack() as stack:
            services = [make_service(store), make_service(store)]
            hosts = [await stack.enter_async_context(host_of(service)) for service in services]
            over, found = asyncio.Event(), list[dict[str, Any]]()

            async def keep_calling(host: Host) -> None:
                while not over.is_set() or found[-1] != WITH_CITY:
                    found.append(await row(host))

            async with asyncio.TaskGroup() as group, asyncio.timeout(30):
                for host in [*hosts, *hosts]:
                    group.create_task(keep_calling(host))
                revisions = []
                for number in range(10):
                    maps = (EMAIL, CITY, EVENT) if number % 2 else (EMAIL, EVENT)
                    revisions.append(await publish(services[number % 2], document(rule(), maps=maps)))
                    await asyncio.sleep(0.02)
                over.set()
            return found, revisions

    rows, revisions = on(make_store, use)

    assert revisions == list(range(1, 11))
    assert all(one in (BY_DEFAULT, {"3": "a@example.com"}, WITH_CITY) for one in rows)


def test_only_what_has_changed_is_read_and_compiled_and_no_call_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs the revisions alone; a new document is compiled once, in a thread, before it comes into force."""
    read: list[str] = []
    compiled: list[tuple[str, bool]] = []
    compile_document = Compiler.compile

    def noting(self: Compiler, *arguments: Any) -> CompiledSpace:
        names = [one.name for one in arguments[2].data_maps]
        compiled.append((names[-1], threading.current_thread() is threading.main_thread()))
        return compile_document(self, *arguments)

    class Reading(MemoryStore):
        async def read_published(self, shelf: str, name: str) -> bytes | None:
            read.append(name)
            return await super().read_published(shelf, name)

    async def run() -> None:
        store = Reading()
        async with host_of(make_service(store)) as _:
            service, other = make_service(store), make_service(store)
            async with host_of(service) as host:
                for name in ("dest-1", "dest-2"):
                    await publish(other, document(maps=(EMAIL, {**CITY, "name": name})), name)
                await service.documents.refresh()
                monkeypatch.setattr(Compiler, "compile", noting)
                for name in ("dest-1", "dest-2"):
                    await row(host, name)
                assert compiled == []
                await publish(other, document(maps=(EMAIL, {**CITY, "name": "new"})), "dest-1")
                compiled.clear()
                read.clear()
                await service.documents.refresh()
                assert (read, compiled) == (["dest-1"], [("new", False)])
                await service.documents.refresh()
                for settings in (OAUTH_KEY, {"apiKey": "another:secret"}):
                    await host.send(ROUTER, router_request([CALL], settings))
                assert (read, compiled) == (["dest-1"], [("new", False)])

    asyncio.run(run())


def test_workers_agree_on_the_versions_of_a_file(make_store: Callable[[], Store], tmp_path: Path) -> None:
    """Whichever reads a changed file first gives the versions, once; the document of before is kept with them."""
    write(tmp_path, document(rule()))

    async def use(store: Store) -> list[Any]:
        services = [make_service(store, rules_dir=tmp_path) for _ in range(3)]
        found = []
        for lifetime in ("1h", "100h"):
            await asyncio.gather(*(service.documents.refresh() for service in services))
            await asyncio.gather(*(service.documents.refresh() for service in services))
            found.append([(versions_of(service), await service.publisher.show("dest-1")) for service in services])
            write(tmp_path, document(rule(lifetime=lifetime)))
        return found

    first, second = on(make_store, use)

    for found, revision in ((first, 1), (second, 2)):
        assert len({id(one) for one, _ in found}) == 3
        assert [one for one, _ in found] == [found[0][0]] * 3
        assert found[0][0].current == {"coupon": revision}
        assert [shown.revision for _, shown in found] == [revision] * 3
    assert [one.version for one in second[0][0].kept] == [1]


def test_a_start_changes_no_version(tmp_path: Path) -> None:
    """The record of the store says which file has which."""
    write(tmp_path, document(rule()))
    store = MemoryStore()

    async def start() -> tuple[Versions, int]:
        service = make_service(store, rules_dir=tmp_path)
        await service.documents.refresh()
        return versions_of(service), (await service.publisher.show("dest-1")).revision

    assert asyncio.run(start()) == asyncio.run(start())


def test_a_wrong_file_at_a_start_leaves_that_of_before_in_force(tmp_path: Path) -> None:
    """The store remembers it, so the host's calls need not wait until it is mended."""
    write(tmp_path, document(maps=(EMAIL, CITY)))
    store = MemoryStore()

    async def run() -> tuple[dict[str, Any], str]:
        await make_service(store, rules_dir=tmp_path).documents.refresh()
        write(tmp_path, "no JSON")
        service = make_service(store, rules_dir=tmp_path)
        with capture_logs() as logs:
            async with host_of(service) as host:
                return await row(host), next(one["event"] for one in logs)

    assert asyncio.run(run()) == (WITH_CITY, "document_refused")


@pytest.mark.parametrize("by_file", [True, False], ids=["a file of its own", "the store"])
def test_versions_go_on_where_the_document_for_all_spaces_ends(tmp_path: Path, by_file: bool) -> None:
    """Instances that began with a rule of default.json are told apart from those of a rule with the same id."""
    write(tmp_path, document(rule(lifetime="1h")))

    async def run() -> Versions:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        await service.documents.refresh()
        if by_file:
            write(tmp_path, document(rule()), "dest-1")
            await service.documents.refresh()
        else:
            (tmp_path / "default.json").unlink()
            await service.documents.refresh()
            await publish(service, document(rule()))
        return versions_of(service)

    versions = asyncio.run(run())

    assert versions.current == {"coupon": 2}
    assert [(one.version, one.raw["lifetime"]) for one in versions.kept] == [(1, "1h")]


def test_a_file_takes_the_place_of_what_was_published(tmp_path: Path) -> None:
    """Its versions go on; when it goes away the default document counts, and can be published from."""

    async def run() -> list[Any]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        await service.documents.refresh()
        await publish(service, document(rule()))
        write(tmp_path, document(rule(lifetime="1h")), "dest-1")
        await service.documents.refresh()
        found: list[Any] = [versions_of(service).current]
        (tmp_path / "dest-1.json").unlink()
        await service.documents.refresh()
        shown = await service.publisher.show("dest-1")
        found += [service.documents.get("dest-1"), (shown.revision, shown.source)]
        receipt = await service.publisher.publish("dest-1", document(rule()), 0)
        return [*found, receipt.revision, [(one.what, one.version) for one in receipt.changes]]

    assert asyncio.run(run()) == [{"coupon": 2}, None, (0, "default"), 3, [("new version", 3)]]


def test_a_file_that_drops_a_data_map_in_use_is_refused(tmp_path: Path) -> None:
    """It is told for the file, and that of before stays in force."""
    write(tmp_path, document(rule(transaction="revenue")))

    async def run() -> tuple[str, Versions]:
        service = make_service(MemoryStore(), rules_dir=tmp_path)
        await service.documents.refresh()
        write(tmp_path, document(rule(), maps=(EVENT,)))
        (problem,) = await service.documents.refresh()
        return str(problem), versions_of(service)

    problem, versions = asyncio.run(run())

    assert problem.startswith(f"{tmp_path / 'default.json'}: dataMaps: version 1 of rule 'coupon' reads 'revenue'")
    assert versions.current == {"coupon": 1}


class Moody(MemoryStore):
    """A store that may be down for documents."""

    down = True

    async def read_shelf(self, shelf: str) -> dict[str, int]:
        """Answer when it is up."""
        if self.down:
            raise StoreUnavailable("Redis at redis.example does not answer")
        return await super().read_shelf(shelf)


def test_calls_wait_until_the_documents_were_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service starts without its store; nobody is answered by a default that may be wrong."""
    monkeypatch.setattr(app, "RELOAD_SECONDS", 0.01)
    store = Moody()

    async def run() -> tuple[str, dict[str, Any]]:
        store.down = False
        await publish(make_service(store), document(maps=(EMAIL, CITY)))
        store.down = True
        async with host_of(make_service(store)) as host:
            held = answers(ROUTER, await host.send(ROUTER, router_request([CALL], OAUTH_KEY)))[0]
            store.down = False
            async with asyncio.timeout(10):
                while (
                    answers(ROUTER, await host.send(ROUTER, router_request([CALL], OAUTH_KEY)))[0]["statusCode"] == 500
                ):
                    await asyncio.sleep(0.01)
            return f"{held['statusCode']} {held['error']}", await row(host)

    held, contact = asyncio.run(run())

    reason = "the documents have not been read yet: Redis at redis.example does not answer"
    assert held == f"500 destination dest-1: {reason}"
    assert contact == WITH_CITY


def test_an_outage_is_told_once_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force stays."""
    monkeypatch.setattr(app, "RELOAD_SECONDS", 0.001)
    store = Moody()
    store.down = False

    async def run() -> tuple[dict[str, Any], Sequence[Any]]:
        service = make_service(store)
        async with host_of(service) as host:
            await publish(service, document(maps=(EMAIL, CITY)))
            with capture_logs() as logs:
                store.down = True
                await asyncio.sleep(0.1)
                return await row(host), [one["reason"] for one in logs if one["event"] == "documents_unreadable"]

    contact, told = asyncio.run(run())

    assert contact == WITH_CITY
    assert told == ["Redis at redis.example does not answer"]


def test_a_document_of_another_version_changes_nothing() -> None:
    """Neither what a running worker has, nor the other spaces; a worker that starts with it holds its calls back."""
    store = MemoryStore()

    async def run() -> list[Any]:
        service = make_service(store)
        async with host_of(service) as host:
            await publish(service, document(maps=(EMAIL, CITY)))
            await store.publish(Publication(SHELF, "dest-1", 1, 2, b"of another version"))
            await publish(service, document(maps=(EMAIL, CITY)), "dest-2")
            rows = [await row(host), await row(host, "dest-2")]
            started = make_service(store)
            async with host_of(started) as late:
                rows.append(await row(late, "dest-2"))
                held = answers(ROUTER, await late.send(ROUTER, router_request([CALL], OAUTH_KEY)))[0]
            return [*rows, held["statusCode"], held["error"]]

    *rows, status, error = asyncio.run(run())

    assert rows == [WITH_CITY] * 3
    assert status == 500
    assert "the document of space 'dest-1' in the store cannot be read by this version of emarsys-cdp" in error


def test_an_empty_store_gets_the_record_of_a_file_again(tmp_path: Path) -> None:
    """And a document that was in the store alone is gone, as all that was there."""
    write(tmp_path, document(rule()), "dest-1")
    store = MemoryStore()

    async def run() -> list[Any]:
        service = make_service(store, rules_dir=tmp_path)
        await service.documents.refresh()
        await publish(service, document(rule()), "dest-2")
        store.shelves.clear()
        await service.documents.refresh()
        shelf = Shelf(store, Namer(derive(SECRET, "identifiers")))
        return [await shelf.revisions(), versions_of(service).current, service.documents.get("dest-2")]

    assert asyncio.run(run()) == [{"dest-1": 1}, {"coupon": 1}, None]
