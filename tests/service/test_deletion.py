"""POST /deleteUsers: the contacts of people are deleted in Emarsys, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.support.delivery import Delivering, delivering
from tests.support.requests import call

from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.record import unpack
from emarsys_cdp.testing import FakeEmarsys, Fault

MakeStore = Callable[[], Store]


@pytest.fixture
def emarsys() -> Iterator[FakeEmarsys]:
    """Run a fake Emarsys."""
    with FakeEmarsys() as emarsys:
        yield emarsys
        assert not emarsys.crashes


def identify(user: str | None, email: str, number: int) -> dict[str, Any]:
    """Return an identify call; later numbers are later."""
    return call("identify", number, **({"userId": user} if user else {}), traits={"email": email})


async def delete(host: Delivering, *people: dict[str, Any]) -> httpx.Response:
    """Ask for the deletion of people."""
    job = {"jobId": "1", "destType": "emarsys", "config": dict(host.config), "userAttributes": list(people)}
    return await host.host.client.post("/deleteUsers", json=[job])


def run(emarsys: FakeEmarsys, calls: list[Any], *people: dict[str, Any], store: Store | None = None) -> httpx.Response:
    """Send calls, then ask for the deletion of people."""

    async def main() -> httpx.Response:
        async with delivering(emarsys, store or MemoryStore()) as host:
            if calls:
                await host.send(calls)
            return await delete(host, *people)

    return asyncio.run(main())


def left(emarsys: FakeEmarsys) -> set[Any]:
    """Return the e-mail addresses of the contacts that are there."""
    return {contact.fields.get("3") for contact in emarsys.contacts}


def known_in(store: MemoryStore) -> set[str | None]:
    """Return the users of the users table."""
    return {unpack(stored)[1].user for stored in store.records.values()}


CALLS = [identify("u1", "ada@example.com", 1), identify("u2", "grace@example.com", 2)]


@pytest.mark.parametrize(
    "person",
    [{"userId": "u1"}, {"userId": "u1", "email": "ada@example.com"}, {"email": " Ada@Example.com"}],
)
def test_a_person_s_contact_is_deleted(emarsys: FakeEmarsys, make_store: MakeStore, person: dict[str, Any]) -> None:
    """Found by the userId through the users table, or by the key itself; the others stay."""
    response = run(emarsys, CALLS, person, store=make_store())

    assert response.status_code == 200
    assert response.json() == [{"statusCode": 200, "status": "successful"}]
    assert left(emarsys) == {"grace@example.com"}


def test_a_contact_of_a_former_key_is_deleted_as_well(emarsys: FakeEmarsys) -> None:
    """A change of the e-mail address left it behind."""

    async def main() -> httpx.Response:
        async with delivering(emarsys, MemoryStore()) as host:
            await host.send([identify("u1", "old@example.com", 1)])
            await host.send([identify("u1", "new@example.com", 2)])
            return await delete(host, {"userId": "u1"})

    assert asyncio.run(main()).status_code == 200
    assert len(emarsys.deleted) == 2
    assert left(emarsys) == set()


def test_a_key_that_another_person_claimed_first_stays(emarsys: FakeEmarsys) -> None:
    """Two users of one address: deleting the second leaves the contact, which is the first one's."""
    shared = [identify("u1", "family@example.com", 1), identify("u2", "family@example.com", 2)]
    response = run(emarsys, shared, {"userId": "u2", "email": "family@example.com"})

    assert response.status_code == 200
    assert left(emarsys) == {"family@example.com"}


def test_somebody_whom_nobody_knows_is_deleted_already(emarsys: FakeEmarsys) -> None:
    """A missing contact is no error; a person of the users table without a key has none."""
    response = run(emarsys, CALLS, {"userId": "u9"}, {"email": "nobody@example.com"})

    assert response.status_code == 200
    assert left(emarsys) == {"ada@example.com", "grace@example.com"}


def test_an_outage_keeps_the_deletion(emarsys: FakeEmarsys) -> None:
    """It is sent again until it is done; the users table keeps the person until then, with the key."""
    store = MemoryStore()
    emarsys.script(Fault("status", path="contact/delete", status=503))
    response = run(emarsys, CALLS, {"userId": "u1"}, store=store)

    assert response.status_code == 503
    assert response.json()[0]["statusCode"] == 503
    assert known_in(store) == {"u1", "u2"}
    assert "ada@example.com" in left(emarsys)


def test_a_deleted_person_is_erased_from_the_users_table(emarsys: FakeEmarsys) -> None:
    """Nothing of the person is left there, and the same calls again bring nobody back."""
    store = MemoryStore()

    async def main() -> int:
        async with delivering(emarsys, store) as host:
            await host.send(CALLS)
            await delete(host, {"userId": "u1", "email": "ada@example.com"})
            await host.send(CALLS)
            return (await delete(host, {"userId": "u1"})).status_code

    assert asyncio.run(main()) == 200
    assert known_in(store) == {"u2"}
    assert left(emarsys) == {"grace@example.com"}
    assert b"ada@example.com" not in b"".join(store.records.values())


def test_a_user_without_anything_to_go_by_is_told(emarsys: FakeEmarsys) -> None:
    """The others of the same job are deleted all the same."""
    response = run(emarsys, CALLS, {"phone": "1"}, {"userId": "u1"})

    assert response.status_code == 400
    assert "primary key" in response.json()[0]["error"]
    assert left(emarsys) == {"grace@example.com"}


def test_every_space_of_the_api_key_is_asked(emarsys: FakeEmarsys) -> None:
    """A deletion names no destination: the person may be another one in each of those that share the account."""

    async def main() -> httpx.Response:
        store = MemoryStore()
        async with delivering(emarsys, store, space="shop") as one, delivering(emarsys, store, space="blog") as two:
            await one.send([identify("u1", "at-shop@example.com", 1)])
            await two.send([identify("u1", "at-blog@example.com", 1)])
            return await delete(one, {"userId": "u1"})

    assert asyncio.run(main()).status_code == 200
    assert left(emarsys) == set()


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"destType": "emarsys"}]', b"[" * 10_000])
def test_a_deletion_that_cannot_be_read_is_refused(emarsys: FakeEmarsys, body: bytes) -> None:
    """And never with a 404, by which the host would take it for done with."""

    async def main() -> httpx.Response:
        async with delivering(emarsys, MemoryStore()) as host:
            return await host.host.client.post("/deleteUsers", content=body)

    assert asyncio.run(main()).status_code == 400


def test_a_malformed_api_key_is_told(emarsys: FakeEmarsys) -> None:
    """Without showing it."""

    async def main() -> httpx.Response:
        async with delivering(emarsys, MemoryStore(), config={"apiKey": "hunter2"}) as host:
            return await delete(host, {"userId": "u1"})

    response = asyncio.run(main())

    assert response.status_code == 400
    assert "API Key" in response.text
    assert "hunter2" not in response.text
