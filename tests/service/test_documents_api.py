"""Documents by the JSON API: shown with their revision, published by whoever has seen the one of now."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import fastjsonschema
import httpx
import pytest
from tests.support.app import ROUTER, Host, answers, host_of
from tests.support.documents import EVENT, REVENUE, START, document, rule
from tests.support.requests import OAUTH_KEY, call, router_request
from tests.support.stores import on
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret
from emarsys_cdp.document_files import MAX_DOCUMENT
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.store import Publication, Store, StoreUnavailable
from emarsys_cdp.store.memory import MemoryStore

T = TypeVar("T")

TOKEN: Final = "the token of these tests"  # noqa: S105 - it protects nothing
PATH: Final = "/api/v1/spaces/dest-1/document"
EMAIL: Final = {"name": "email", "path": "traits.email", "type": "string", "field": "3"}
CITY: Final = {"name": "city", "path": "traits.city", "type": "string", "field": "11"}
CALL: Final = call("identify", userId="u", traits={"email": "a@example.com", "city": "Vienna", "firstName": "A"})


def opened(store: Store, **settings: Any) -> Service:
    """Return a service whose API is open to the token."""
    return make_service(store, admin_token=Secret(TOKEN), **settings)


def ask(use: Callable[[Host], Awaitable[T]], store: Store | None = None, **settings: Any) -> T:
    """Use a running service, in memory unless a store is given."""
    found = store or MemoryStore()

    async def main(store: Store) -> T:
        async with host_of(opened(store, **settings)) as host:
            host.client.headers["Authorization"] = f"Bearer {TOKEN}"
            return await use(host)

    return on(lambda: found, main)


async def put(host: Host, raw: Any, if_match: str | None = '"0"', path: str = PATH) -> httpx.Response:
    """Publish a document."""
    headers = {} if if_match is None else {"If-Match": if_match}
    content = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return await host.client.put(path, content=content, headers=headers)


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    """Return places and messages of a refusal."""
    return [(one["place"], one["message"]) for one in response.json()["errors"]]


async def row(host: Host, space: str = "dest-1") -> dict[str, Any]:
    """Return the contact that is sent for the call."""
    response = await host.send(ROUTER, router_request([CALL], OAUTH_KEY, space=space))
    contact: dict[str, Any] = answers(ROUTER, response)[0]["batchedRequest"]["body"]["JSON"]["contacts"][0]
    return contact


def test_a_space_without_a_document_shows_the_default_one() -> None:
    """Its revision is 0, and it can be published as it is."""

    async def use(host: Host) -> list[httpx.Response]:
        shown = await host.client.get(PATH)
        return [shown, await put(host, shown.content, shown.headers["etag"]), await host.client.get(PATH)]

    default, published, after = ask(use)

    assert default.headers["etag"] == '"0"'
    assert default.json()["revision"] == 0
    assert [one["name"] for one in default.json()["dataMaps"]] == ["email", "first_name", "last_name"]
    assert published.status_code == 200, published.text
    assert after.json() == {**default.json(), "revision": 1}


def test_a_published_document_is_in_force_when_it_is_answered(make_store: Callable[[], Store]) -> None:
    """The next call is answered by it; what is shown then has the new revision and the versions of its rules."""

    async def use(store: Store) -> tuple[list[Any], httpx.Response, httpx.Response]:
        async with host_of(opened(store)) as host:
            host.client.headers["Authorization"] = f"Bearer {TOKEN}"
            rows = [await row(host)]
            published = await put(host, document(rule(), maps=(EMAIL, CITY, EVENT)))
            rows += [await row(host), await row(host, "dest-2")]
            return rows, published, await host.client.get(PATH)

    rows, published, shown = on(make_store, use)

    by_default = {"3": "a@example.com", "1": "A"}
    assert rows == [by_default, {"3": "a@example.com", "11": "Vienna"}, by_default]
    assert (published.status_code, published.headers["etag"]) == (200, '"1"')
    assert published.json() == {
        "revision": 1,
        "changes": [{"rule": "coupon", "version": 1, "what": "added", "mode": None}],
    }
    assert shown.headers["etag"] == '"1"'
    assert shown.json() == {"revision": 1, **document({**rule(), "version": 1}, maps=(EMAIL, CITY, EVENT))}


def test_versions_and_revisions_of_the_body_count_for_nothing() -> None:
    """The service assigns them."""

    async def use(host: Host) -> Any:
        await put(host, {"revision": 70, **document({**rule(), "version": 80})})
        return (await host.client.get(PATH)).json()

    shown = ask(use)

    assert (shown["revision"], shown["rules"][0]["version"]) == (1, 1)


@pytest.mark.parametrize(
    ("if_match", "status", "says"),
    [
        (None, 428, 'now it is "2"'),
        ('"2"', 200, ""),
        ('"1", "2"', 200, ""),
        ('"1"', 412, 'its ETag is "2"'),
        ('"3"', 412, 'its ETag is "2"'),
        ('W/"2"', 412, 'its ETag is "2"'),
        ('"02"', 412, 'its ETag is "2"'),
        ('"two"', 412, 'its ETag is "2"'),
        ('"99999999999999999999999"', 412, 'its ETag is "2"'),
        ("*", 400, "names no revision"),
        ("2", 400, 'write the revision in quotes, such as "7"; now the ETag is "2"'),
        ('"2', 400, "is no ETag"),
        ('""2""', 400, "is no ETag"),
        ('"2";"3"', 400, "is no ETag"),
        ("", 412, 'its ETag is "2"'),
    ],
)
def test_only_the_revision_of_now_can_be_followed(if_match: str | None, status: int, says: str) -> None:
    """Every form of If-Match that is not exactly the ETag of now is refused, and the refusal tells that."""

    async def use(host: Host) -> list[httpx.Response]:
        await put(host, document(rule()))
        await put(host, document(rule(), rule("second")), '"1"')
        return [await put(host, document(), if_match), await host.client.get(PATH)]

    response, shown = ask(use)

    assert response.status_code == status, response.text
    assert shown.headers["etag"] == ('"3"' if status == 200 else '"2"')
    if status != 200:
        ((place, message),) = errors(response)
        assert place == "header.If-Match"
        assert says in message
    if status == 412:
        assert response.headers["etag"] == '"2"'


def test_of_editors_at_once_one_publishes(make_store: Callable[[], Store]) -> None:
    """The others learn the revision of now; nothing of theirs is in force."""

    async def use(store: Store) -> tuple[list[httpx.Response], Any]:
        async with host_of(opened(store)) as host:
            host.client.headers["Authorization"] = f"Bearer {TOKEN}"
            tries = [put(host, document(rule(f"of-{number}"))) for number in range(8)]
            return await asyncio.gather(*tries), (await host.client.get(PATH)).json()

    tries, shown = on(make_store, use)

    statuses = [one.status_code for one in tries]
    assert sorted(statuses) == [200, *[412] * 7]
    assert {one.headers["etag"] for one in tries} == {'"1"'}
    assert [one["id"] for one in shown["rules"]] == [f"of-{statuses.index(200)}"]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        (b"", 400, "body"),
        (b'{"dataMaps": [', 400, "body"),
        (b"\xff", 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (b'{"settings": {"anonymousTtl": NaN}}', 400, "body"),
        (b'{"dataMaps": "\\ud800"}', 400, "body"),
        (b"[]", 422, "document"),
        (b"null", 422, "document"),
        (b'{"dataMap": []}', 422, "document"),
        (b'{"dataMaps": [{"name": "x"}]}', 422, "dataMaps[0]"),
    ],
)
def test_a_wrong_body_changes_nothing(body: bytes, status: int, place: str) -> None:
    """What is wrong is told with its place, and the document of before stays in force."""

    async def use(host: Host) -> list[Any]:
        await put(host, document(maps=(EMAIL, CITY)))
        return [await put(host, body, '"1"'), await row(host), await host.client.get(PATH)]

    response, contact, shown = ask(use)

    assert response.status_code == status, response.text
    assert errors(response)[0][0].startswith(place)
    assert contact == {"3": "a@example.com", "11": "Vienna"}
    assert shown.headers["etag"] == '"1"'


def test_every_problem_is_told_at_once() -> None:
    """An editor mends all of them in one go."""
    wrong = document(maps=({**EMAIL, "path": "a..b"}, {**CITY, "field": "Citty"}, CITY))

    response = ask(lambda host: put(host, wrong))

    assert response.status_code == 422
    assert [place for place, _ in errors(response)] == ["dataMaps[0].path", "dataMaps[1].field", "dataMaps[2].name"]


@pytest.mark.parametrize("announced", [True, False], ids=["with its length", "in pieces"])
def test_a_document_above_ten_megabytes_is_refused(announced: bool) -> None:
    """It is not read to its end."""
    large = b"[" + b" " * MAX_DOCUMENT + b"]"
    read = 0

    async def pieces() -> Any:
        nonlocal read
        for start in range(0, 4 * len(large), 1_000_000):
            read += 1_000_000
            yield large[start : start + 1_000_000] or b" " * 1_000_000

    async def use(host: Host) -> httpx.Response:
        content = large if announced else pieces()
        return await host.client.put(PATH, content=content, headers={"If-Match": '"0"'})

    response = ask(use)

    assert response.status_code == 413
    assert errors(response) == [("body", "has more than 10 MB")]
    assert read < 2 * len(large)


def test_a_thousand_rules_are_published() -> None:
    """All of them have their versions, and the next change touches only the rule that it is of."""
    rules = [rule(f"rule-{number}") for number in range(1000)]

    async def use(host: Host) -> list[httpx.Response]:
        first = await put(host, document(*rules))
        return [first, await put(host, document(*rules[:500], rule("rule-500", lifetime="7d"), *rules[501:]), '"1"')]

    first, second = ask(use)

    assert {(one["version"], one["what"]) for one in first.json()["changes"]} == {(1, "added")}
    changed = [one for one in second.json()["changes"] if one["what"] != "unchanged"]
    assert changed == [{"rule": "rule-500", "version": 2, "what": "new version", "mode": "finish"}]


def test_more_rules_than_are_taken_are_told() -> None:
    """1,001 rules are one too many."""
    response = ask(lambda host: put(host, document(*(rule(f"rule-{number}") for number in range(1001)))))

    assert response.status_code == 422
    assert errors(response)[0][0] == "rules"


def test_a_document_in_a_file_is_changed_there(tmp_path: Path) -> None:
    """It is shown with its revision; to publish is refused with the name of the file, also by default.json."""
    (tmp_path / "dest-1.json").write_text(json.dumps(document(rule())))

    async def use(host: Host) -> list[httpx.Response]:
        first = [await host.client.get(PATH), await put(host, document(), '"1"')]
        other = await put(host, document(), path="/api/v1/spaces/dest-2/document")
        (tmp_path / "default.json").write_text(json.dumps(document()))
        await put(host, document(), path="/api/v1/spaces/dest-3/document")  # files are looked at when it is answered
        last = await put(host, document(), '"1"', "/api/v1/spaces/dest-2/document")
        return [*first, other, last]

    shown, refused, other, last = ask(use, rules_dir=tmp_path)

    assert shown.headers["etag"] == '"1"'
    assert shown.json()["rules"][0]["version"] == 1
    assert (refused.status_code, last.status_code, other.status_code) == (409, 409, 200)
    ((place, message),) = errors(refused)
    assert place == "space"
    assert "dest-1.json of EMARSYS_CDP_RULES_DIR" in message
    assert str(tmp_path) not in message
    assert "default.json" in errors(last)[0][1]


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": "Bearer wrong"}, 401)])
def test_nobody_gets_in_without_the_token(method: str, headers: dict[str, str], status: int) -> None:
    """Neither to read nor to publish."""

    async def use(host: Host) -> list[httpx.Response]:
        del host.client.headers["Authorization"]
        refused = await host.client.request(method, PATH, content=b"{}", headers={"If-Match": '"0"', **headers})
        host.client.headers["Authorization"] = f"Bearer {TOKEN}"
        return [refused, await host.client.get(PATH)]

    refused, shown = ask(use)

    assert refused.status_code == status
    assert shown.headers["etag"] == '"0"'


def test_a_query_means_nothing_here() -> None:
    """A misspelt request is told instead of answered otherwise."""
    response = ask(lambda host: host.client.get(f"{PATH}?revision=1"))

    assert response.status_code == 400
    assert errors(response) == [("query.revision", "means nothing here")]


def test_a_store_that_is_down_is_503() -> None:
    """What was in force stays, and the caller tries again."""

    class Down(MemoryStore):
        async def publish(self, publication: Publication) -> bool:  # noqa: ARG002
            raise StoreUnavailable("Redis at redis.example does not answer")

    async def use(host: Host) -> list[Any]:
        return [await put(host, document(maps=(EMAIL, CITY))), await row(host)]

    response, contact = ask(use, Down())

    assert response.status_code == 503
    assert errors(response) == [("store", "Redis at redis.example does not answer")]
    assert contact == {"3": "a@example.com", "1": "A"}


def test_a_data_map_that_running_instances_read_stays() -> None:
    """The rule was changed so that it does without, but instances of the old version may still run."""
    with_revenue = rule(conditions=[{**START, "variables": ["revenue"]}, *rule()["conditions"][1:]])

    async def use(host: Host) -> list[httpx.Response]:
        await put(host, document(with_revenue))
        without = await put(host, document(rule(), maps=(EVENT,)), '"1"')
        retyped = await put(host, document(rule(), maps=(EVENT, {**REVENUE, "type": "string"})), '"1"')
        archived = await put(host, document(rule(status="archived"), maps=(EVENT,)), '"1"')
        return [without, retyped, archived]

    without, retyped, archived = ask(use)

    assert [without.status_code, retyped.status_code, archived.status_code] == [422, 422, 200]
    ((place, message),) = errors(without)
    assert place == "dataMaps"
    assert message.startswith(
        "version 1 of rule 'coupon' reads 'revenue' as numeric, and instances of it may run until"
    )
    assert [place for place, _ in errors(retyped)] == ["dataMaps[1].type"]


def test_answers_are_as_described() -> None:
    """What comes out fits the schemas of the description."""

    async def use(host: Host) -> list[Any]:
        description = await host.client.get("/api/v1/openapi.json")
        published = await put(host, document(rule()))
        return [one.json() for one in (description, published, await host.client.get(PATH), await put(host, []))]

    description, published, shown, refused = ask(use)
    parts = json.loads(re.sub("#/components/schemas/", "#/$defs/", json.dumps(description["components"]["schemas"])))

    for schema, content in (("Receipt", published), ("Document", shown), ("Errors", refused)):
        fastjsonschema.compile({"$ref": f"#/$defs/{schema}", "$defs": parts})(content)
