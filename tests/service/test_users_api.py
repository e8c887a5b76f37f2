"""The JSON API of the users table: who may use it, what it answers, and that its description is so."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import fastjsonschema
import httpx
import pytest
from tests.support.app import ROUTER, Host, host_of
from tests.support.requests import call, router_request
from tests.support.stores import on
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret
from emarsys_cdp.service.api import api_routes
from emarsys_cdp.settings import read_settings
from emarsys_cdp.store import Store, StoreUnavailable
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp_hooks import StopAndFix

T = TypeVar("T")

TOKEN: Final = "the token of these tests"  # noqa: S105 - it protects nothing
USERS: Final = "/api/v1/spaces/dest-1/users"

ADA: Final = call("identify", 1, userId="u1", anonymousId="laptop", traits={"email": "Ada@x.com", "firstName": "Ada"})
GRACE: Final = call("page", 2, userId="u2", anonymousId="tablet")
JOAN: Final = call("identify", 3, userId="u3", anonymousId="tablet", traits={"firstName": "Joan"})
CALLS: Final = (ADA, GRACE, JOAN)
"""Two people use the tablet; only Ada has a key."""


@asynccontextmanager
async def running(store: Store, calls: Sequence[Mapping[str, Any]] = CALLS, **settings: Any) -> AsyncIterator[Host]:
    """Run a service with a token over *store*, after it has taken calls."""
    service = make_service(store, **{"admin_token": Secret(TOKEN), **settings})
    async with host_of(service) as host:
        if calls:
            await host.send(ROUTER, router_request(calls))
        host.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield host


def ask(use: Callable[[Host], Awaitable[T]], store: Store | None = None, **settings: Any) -> T:
    """Use a running service, in memory unless a store is given."""
    found = store or MemoryStore()

    async def main(store: Store) -> T:
        async with running(store, **settings) as host:
            return await use(host)

    return on(lambda: found, main)


def get(path: str, **settings: Any) -> httpx.Response:
    """Return the answer to a GET."""
    return ask(lambda host: host.client.get(path), **settings)


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    """Return places and messages of an answer that has nothing else."""
    (content,) = response.json().items()
    assert content[0] == "errors"
    assert response.headers["content-type"] == "application/json"
    return [(one["place"], one["message"]) for one in content[1]]


def test_a_person_is_found_by_every_identifier(make_store: Callable[[], Store]) -> None:
    """The record has the form of semantics 3.2; identifiers are read as those of a call are."""

    async def use(store: Store) -> list[Any]:
        async with running(store) as host:
            asked = ("user=u1", "key=%20ADA%40x.com", "anon=laptop")
            return [(await host.client.get(f"{USERS}?{query}")).json() for query in asked]

    by_user, by_key, by_anon = on(make_store, use)

    assert by_user == by_key == by_anon
    assert by_user.pop("pid")
    seen = "2026-11-23T09:59:01.100Z"
    assert by_user == {
        "anonymousId": "laptop",
        "userId": "u1",
        "primaryKey": "ada@x.com",
        "anonymousIds": [{"value": "laptop", "firstSeen": seen, "lastSeen": seen}],
        "userIdAliases": [],
        "keyVersion": {"te": seen, "mid": "m-1"},
        "formerKeys": [],
        "ownsKey": True,
        "firstSeen": seen,
        "lastSeen": seen,
        "lastCall": {"type": "identify", "mid": "m-1"},
        "timezone": None,
        "values": {
            "email": {"v": "Ada@x.com", "te": seen, "mid": "m-1"},
            "first_name": {"v": "Ada", "te": seen, "mid": "m-1"},
        },
        "pendingFields": {},
        "merges": 0,
        "mergedFrom": [],
        "running": {},
        "flags": [],
    }


def test_what_waits_for_a_key_is_shown_by_its_field() -> None:
    """Joan has no key yet: her first name waits for field 1."""
    found = get(f"{USERS}?user=u3").json()

    assert found["pendingFields"] == {"1": {"v": "Joan", "te": "2026-11-23T09:59:03.100Z"}}


def test_a_shared_device_is_shown_as_such() -> None:
    """Two people used the tablet: it is nobody's."""
    found = get(f"{USERS}?anon=tablet").json()

    assert (found["anon"], found["state"]) == ("tablet", "shared")


def test_nobody_is_404() -> None:
    """An identifier that is unknown, and a space that is."""
    response = get(f"{USERS}?user=u9")

    assert response.status_code == 404
    assert errors(response) == [("query.user", "nobody in space 'dest-1' has this userId")]
    assert get("/api/v1/spaces/dest-9/users?user=u1").status_code == 404


def test_all_people_come_in_pages(make_store: Callable[[], Store]) -> None:
    """Each once, whatever the size of a page."""
    calls = [call("page", number, userId=f"u{number}") for number in range(7)]

    async def use(store: Store) -> list[list[Any]]:
        async with running(store, calls) as host:
            pages = []
            query = {"limit": "3"}
            while True:
                page = (await host.client.get(USERS, params=query)).json()
                pages.append(page["users"])
                if page["next"] is None:
                    return pages
                query["after"] = page["next"]

    pages = on(make_store, use)

    assert [len(page) for page in pages] == [3, 3, 1]
    pids = [one["pid"] for page in pages for one in page]
    assert len(set(pids)) == len(pids)
    assert {one["userId"] for page in pages for one in page} == {f"u{number}" for number in range(7)}


def test_a_place_that_is_none_is_refused() -> None:
    """What ends a page is given back as it came."""
    for after in ("x", "0.1.2", "0.1-", "-1.0", "0.0-1-zz", "1" * 10_000):
        assert errors(get(f"{USERS}?after={after}")) == [
            ("query.after", "is the end of no page: give what the page before says as next")
        ]
    assert get(f"{USERS}?after=9999.0").json() == {"users": [], "next": None}


def test_a_last_page_that_is_full_is_the_last() -> None:
    """Nobody asks for an empty page."""
    page = get(f"{USERS}?limit=3").json()

    assert (len(page["users"]), page["next"]) == (3, None)


def test_people_are_of_their_space() -> None:
    """Another destination has a users table of its own, and is in the list of spaces when somebody has called."""

    async def use(host: Host) -> list[Any]:
        await host.send(ROUTER, router_request([call("page", 1, userId="u1")], space="dest-2"))
        other, spaces = "/api/v1/spaces/dest-2/users", "/api/v1/spaces"
        return [(await host.client.get(path)).json() for path in (USERS, other, spaces)]

    ours, theirs, spaces = ask(use)

    assert (len(ours["users"]), len(theirs["users"])) == (3, 1)
    assert spaces == {"spaces": ["dest-1", "dest-2"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "mode"),
    [
        ("POST", f"{USERS}/erase", {"key": "ada@x.com"}, "delete"),
        ("POST", f"{USERS}/suppress", {"anon": "laptop"}, "suppress"),
        ("DELETE", f"{USERS}?user=u1", None, "delete"),
        ("DELETE", f"{USERS}?user=u1&mode=suppress", None, "suppress"),
    ],
)
def test_a_person_is_erased(make_store: Callable[[], Store], method: str, path: str, body: Any, mode: str) -> None:
    """By any identifier the whole person; what is left says so and holds no identifier."""

    async def use(store: Store) -> tuple[Any, list[Any]]:
        async with running(store) as host:
            removed = (await host.client.request(method, path, json=body)).json()
            left = [(await host.client.get(f"{USERS}?{query}")).json() for query in ("user=u1", "key=ada@x.com")]
            return removed, left

    removed, left = on(make_store, use)

    assert sorted((one["kind"], one["value"]) for one in removed.pop("identifiers")) == [
        ("anon", "laptop"),
        ("key", "ada@x.com"),
        ("user", "u1"),
    ]
    assert removed == {"space": "dest-1", "mode": mode, "keys": ["ada@x.com"]}
    for one in left:
        assert re.fullmatch(r"hmac:[\w-]{24}", one["tombstone"])
        assert (one["mode"], one["at"]) == (mode, "2026-11-23T10:00:05Z")


@pytest.mark.parametrize(("mode", "left"), [("erase", "u1 anew"), ("suppress", "tombstone")])
def test_who_was_erased_stays_away(make_store: Callable[[], Store], mode: str, left: str) -> None:
    """A replay of old calls brings nobody back, though the service remembers the person; a later call may."""
    later = call("page", 4, userId="u1", timestamp="2026-11-23T10:01:00.000Z")

    async def use(store: Store) -> list[Any]:
        found = []
        async with running(store) as host:
            await host.client.post(f"{USERS}/{mode}", json={"user": "u1"})
            for again in (ADA, later):
                await host.send(ROUTER, router_request([again]))
                found.append((await host.client.get(f"{USERS}?user=u1")).json())
        return found

    replayed, called = on(make_store, use)

    assert "tombstone" in replayed
    if left == "tombstone":
        assert called == replayed
    else:
        assert (called["userId"], called["anonymousId"], called["values"]) == ("u1", None, {})


def test_a_suppressed_person_comes_back() -> None:
    """Unsuppressing tells whether there was anybody to take back."""

    async def use(host: Host) -> list[Any]:
        await host.client.post(f"{USERS}/suppress", json={"user": "u1"})
        answers = [await host.client.post(f"{USERS}/unsuppress", json={"key": "ada@x.com"}) for _ in range(2)]
        return [one.json() for one in answers]

    assert ask(use) == [{"unsuppressed": True}, {"unsuppressed": False}]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \u00fc"])
def test_without_the_token_there_is_no_answer(header: str | None) -> None:
    """401 for everything but the description, and nothing of the token is shown."""

    async def use(host: Host) -> httpx.Response:
        del host.client.headers["Authorization"]
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        return await host.client.get(USERS, headers=headers)  # type: ignore[arg-type]

    response = ask(use)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert errors(response) == [("header.Authorization", "is not the bearer token of EMARSYS_CDP_ADMIN_TOKEN")]


def test_without_a_setting_nobody_gets_in() -> None:
    """No token is set: the API answers nobody, and says how to set one."""
    response = get(USERS, admin_token=None)

    assert response.status_code == 403
    ((place, message),) = errors(response)
    assert place == "EMARSYS_CDP_ADMIN_TOKEN"
    assert "set it to a random text" in message


def test_the_host_token_opens_nothing_here() -> None:
    """Who may send calls may not read people."""
    assert get(USERS, admin_token=None, host_token=Secret(TOKEN), calls=()).status_code == 403


def test_a_token_that_can_be_guessed_is_refused() -> None:
    """The setting is checked at the start, and its value is not shown."""
    with pytest.raises(StopAndFix) as caught:
        read_settings({"EMARSYS_CDP_ADMIN_TOKEN": "hunter2"})

    assert str(caught.value) == "EMARSYS_CDP_ADMIN_TOKEN is too short: at least 16 characters"


@pytest.mark.parametrize(
    ("path", "place", "message"),
    [
        (f"{USERS}?user=u1&key=a", "query", "must name the person by one of user, key, anon"),
        (f"{USERS}?usr=u1", "query.usr", "means nothing here: known are user, key, anon, limit, after"),
        (f"{USERS}?user=u1&user=u2", "query.user", "is given twice: once is right"),
        (f"{USERS}?user=null", "query.user", "userId 'null' is a value that programs send when they know nobody"),
        (f"{USERS}?user=", "query.user", "userId '' is a value that programs send"),
        (f"{USERS}?key=a@@", "query.key", "primary key 'a@@' is no e-mail address"),
        (f"{USERS}?anon={'x' * 256}", "query.anon", "has more than 255 characters"),
        (f"{USERS}?limit=0", "query.limit", "'0' must be a number from 1 to 1000"),
        (f"{USERS}?limit=1001", "query.limit", "'1001' must be"),
        (f"{USERS}?limit=%C2%B2", "query.limit", "'\u00b2' must be"),
    ],
)
def test_a_wrong_query_is_told_where(path: str, place: str, message: str) -> None:
    """The place is the part of the request, the message says what would be right."""
    response = get(path)

    assert response.status_code == 400
    ((found, text),) = errors(response)
    assert found == place
    assert message in text


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        (b"", 400, "body"),
        (b"{", 400, "body"),
        (b"\xff", 400, "body"),
        (b"[" * 5000, 400, "body"),
        (b"[]", 400, "body"),
        (b"{}", 400, "body"),
        (b'{"user": "u1", "key": "a@x.com"}', 400, "body"),
        (b'{"user": 1}', 400, "body.user"),
        (b'{"user": "u1", "mode": "delete"}', 400, "body.mode"),
        (b'{"user": "' + b"x" * 70_000 + b'"}', 413, "body"),
    ],
)
def test_a_wrong_body_is_told_where(body: bytes, status: int, place: str) -> None:
    """Nobody is erased by a request that is not understood."""

    async def use(host: Host) -> tuple[httpx.Response, Any]:
        response = await host.client.post(f"{USERS}/erase", content=body)
        return response, (await host.client.get(f"{USERS}?user=u1")).json()

    response, left = ask(use)

    assert response.status_code == status
    assert [found for found, _ in errors(response)] == [place]
    assert left["userId"] == "u1"


def test_a_wrong_mode_is_told() -> None:
    """The modes are two."""
    response = ask(lambda host: host.client.delete(f"{USERS}?user=u1&mode=forget"))

    assert response.status_code == 400
    assert errors(response) == [("query.mode", "'forget' is none: give delete or suppress")]


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/people"), ("PUT", USERS), ("GET", f"{USERS}/erase")])
def test_what_is_no_route_is_answered_in_the_same_form(method: str, path: str) -> None:
    """The error leads to the description."""
    response = ask(lambda host: host.client.request(method, path))

    assert response.status_code == 404
    assert errors(response) == [("path", f"{method} '{path}' is none of ours: see /api/v1/openapi.json")]


def test_a_store_that_is_down_is_503() -> None:
    """The caller tries again."""

    class Down(MemoryStore):
        async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:  # noqa: ARG002
            raise StoreUnavailable("Redis at redis.example does not answer")

    response = ask(lambda host: host.client.get(f"{USERS}?user=u1"), Down(), calls=())

    assert response.status_code == 503
    assert errors(response) == [("store", "Redis at redis.example does not answer")]


def test_a_fault_of_ours_is_answered_in_the_same_form() -> None:
    """Its class is shown, its text is in the log only."""

    class Broken(MemoryStore):
        async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:  # noqa: ARG002
            raise ZeroDivisionError("something that is nobody's business")

    response = ask(lambda host: host.client.get(f"{USERS}?user=u1"), Broken(), calls=())

    assert response.status_code == 500
    assert errors(response) == [("service", "a fault of emarsys-cdp (ZeroDivisionError); its log says more")]


def description() -> dict[str, Any]:
    """Return the description that the service gives without a token."""

    async def use(host: Host) -> dict[str, Any]:
        del host.client.headers["Authorization"]
        found: dict[str, Any] = (await host.client.get("/api/v1/openapi.json")).json()
        return found

    return ask(use, calls=())


def test_the_description_has_the_routes() -> None:
    """Every path with its methods and path parameters, and nothing else."""
    described = {
        (path, method.upper())
        for path, item in description()["paths"].items()
        for method in item
        if method != "parameters"
    }
    routes = {
        (route.path, method)
        for route in api_routes(lambda: None)
        for method in route.methods or ()
        if method != "HEAD" and not route.path.endswith("{path:path}")
    }

    assert described == routes


def test_the_references_of_the_description_lead_somewhere() -> None:
    """Every $ref names a part of the same document, and every part is named."""
    found = description()
    named = set(re.findall(r'"\$ref": ?"#/components/(\w+)/(\w+)"', json.dumps(found)))
    parts = {(kind, name) for kind, group in found["components"].items() for name in group}

    assert found["openapi"] == "3.1.0"
    assert named == parts - {("securitySchemes", "adminToken")}


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        (f"{USERS}?user=u1", "User"),
        (f"{USERS}?user=u3", "User"),
        (f"{USERS}?anon=tablet", "Row"),
        (USERS, "Page"),
        (f"{USERS}?user=u9", "Errors"),
    ],
)
def test_answers_are_as_described(path: str, schema: str) -> None:
    """What comes out fits the schema of the description, which allows no other names."""
    parts = json.loads(json.dumps(description()["components"]["schemas"]).replace("#/components/schemas/", "#/$defs/"))
    check = fastjsonschema.compile({"$ref": f"#/$defs/{schema}", "$defs": parts})

    check(get(path).json())


def test_the_queries_of_the_description_are_those_that_are_taken() -> None:
    """A parameter that is described is known, and what an error lists is described."""
    found = description()
    item = found["paths"]["/api/v1/spaces/{space}/users"]

    def names(method: str) -> set[str]:
        given = [one.get("$ref", one.get("name")).rsplit("/", 1)[-1] for one in item[method]["parameters"]]
        return set(given)

    known = {}
    for method in ("get", "delete"):
        response = ask(lambda host, method=method: host.client.request(method, f"{USERS}?x=1"))  # type: ignore[misc]
        ((_, message),) = errors(response)
        known[method] = set(message.removeprefix("means nothing here: known are ").split(", "))

    assert known == {"get": names("get"), "delete": names("delete")}
