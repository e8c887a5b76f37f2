"""What the host hands back for sending: one status for each job, whatever Emarsys does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.app import Clock
from tests.support.delivery import PROXY_V0, PROXY_V1, Delivering, delivering, statuses
from tests.support.requests import call, metadata

from emarsys_cdp.service.assembly import World
from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.testing import FakeEmarsys, Fault

MakeStore = Callable[[], Store]


@pytest.fixture
def emarsys() -> Iterator[FakeEmarsys]:
    """Run a fake Emarsys."""
    with FakeEmarsys() as emarsys:
        yield emarsys
        assert not emarsys.crashes


def identify(number: int, name: str = "Ada", **parts: Any) -> dict[str, Any]:
    """Return an identify call of the person with this number."""
    traits = {"email": f"p{number}@example.com", "firstName": name}
    return call("identify", number, userId=f"u{number}", traits=traits, **parts)


def newer(number: int, **parts: Any) -> dict[str, Any]:
    """Return a later call of the person, with another name."""
    return identify(number, "new", messageId="m-newer", timestamp="2026-11-23T09:59:59.900Z", **parts)


def run(emarsys: FakeEmarsys, steps: Callable[[Delivering], Any], store: Store | None = None, **options: Any) -> Any:
    """Run *steps* with a service that sends to *emarsys*."""

    async def main() -> Any:
        async with delivering(emarsys, store or MemoryStore(), **options) as host:
            return await steps(host)

    return asyncio.run(main())


def test_every_job_has_the_status_of_its_row(emarsys: FakeEmarsys, make_store: MakeStore) -> None:
    """Emarsys answers 200 although a row failed; the host learns of that row and of no other."""
    emarsys.script(Fault("rows", keys=("p2@example.com",), code=2010, text="More contacts found", times=1))

    async def main() -> Any:
        async with delivering(emarsys, make_store()) as host:
            return await host.send([identify(1), identify(2), identify(3)])

    found = asyncio.run(main())

    assert statuses(found) == {101: 200, 102: 400, 103: 200}
    assert "More contacts found" in found[102][1]
    assert emarsys.contact("3", "p1@example.com") == {"1": "Ada", "3": "p1@example.com"}


def test_both_calls_of_a_person_have_the_status_of_their_row(emarsys: FakeEmarsys) -> None:
    """Two calls of one person are one row."""
    emarsys.script(Fault("rows", keys=("p1@example.com",), code=2010, text="More contacts found", times=1))
    later = identify(1, "Grace", messageId="m-later", timestamp="2026-11-23T09:59:59.900Z")

    found = run(emarsys, lambda host: host.send([identify(1), identify(2), later]))

    assert statuses(found) == {101: 400, 102: 200, 103: 400}


def test_a_request_that_is_refused_as_a_whole_is_split(emarsys: FakeEmarsys) -> None:
    """The one bad row of many is found, and costs only itself."""
    config = {
        "emersysUsername": "customer001", "emersysUserSecret": "s3cret",
        "fieldMapping": [{"rudderProperty": "email", "emersysProperty": "3"}],
        "eventsMapping": [{"from": "Order Completed", "to": "9001"}],
    }  # fmt: skip
    people = range(1, 21)
    for number in people:
        emarsys.add_contact({"3": f"p{number}@example.com"})
    calls = [
        call("track", number, event="Order Completed", context={"traits": {"email": f"p{number}@example.com"}})
        for number in people
    ]

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform(calls)
        request["body"]["JSON"]["contacts"][6]["event_time"] = "yesterday"  # Emarsys triggers nothing for anybody then
        return await host.deliver(request)

    found = run(emarsys, steps, config=config)

    assert {job for job, (status, _, _) in found.items() if status != 200} == {107}
    assert found[107][0] == 400
    assert len(emarsys.events) == 19
    assert not emarsys.repeats


def test_a_split_has_an_end(emarsys: FakeEmarsys) -> None:
    """When Emarsys refuses everything as a whole, the jobs that are left come alone next time; the limit is spared."""
    emarsys.script(Fault("status", path="contact", status=400, code=10001, text="Invalid parameter", times=1000))

    found = run(emarsys, lambda host: host.send([identify(number) for number in range(1, 201)]))

    assert len([one for one in emarsys.requests if one.path.startswith("/api/")]) == 40
    assert {status for status, _, _ in found.values()} == {400, 500}
    assert all(alone == (status == 500) for status, _, alone in found.values())


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (Fault("status", path="contact", status=429), 429),
        (Fault("status", path="contact", status=500), 500),
        (Fault("status", path="contact", status=502), 502),
        (Fault("status", path="contact", status=503), 503),
        (Fault("garbage", path="contact"), 502),
        (Fault("reset", path="contact"), 504),
        (Fault("lost", path="contact", hold=2.0), 504),
        (Fault("status", path="contact", status=403), 429),
    ],
)
def test_an_outage_keeps_every_job(emarsys: FakeEmarsys, fault: Fault, wanted: int) -> None:
    """It is sent once and the host sends it again; a status by which jobs are lost is none of these."""
    emarsys.script(fault)

    found = run(emarsys, lambda host: host.send([identify(1), identify(2)]), send_seconds=0.5)

    assert set(statuses(found).values()) == {wanted}
    assert len([one for one in emarsys.requests if one.path.startswith("/api/")]) == 1


def test_a_time_out_keeps_its_contacts_from_others(emarsys: FakeEmarsys) -> None:
    """Emarsys may still process it: what is sent for the contact meanwhile could be overwritten by the older one."""
    emarsys.script(Fault("slow", path="contact", delay=1.0, times=1))

    async def steps(host: Delivering) -> Any:
        found = [statuses(await host.send([identify(1, "old")])), statuses(await host.send([identify(2)], 301))]
        (second,) = await host.transform([newer(1)], 201)
        while (sent := statuses(await host.deliver(second))) == {201: 429}:
            pass
        await asyncio.sleep(1.2)  # by now Emarsys has processed the first one, whenever that was
        return [*found, sent]

    assert run(emarsys, steps, send_seconds=0.4) == [{101: 504}, {301: 200}, {201: 200}]
    assert emarsys.contact("3", "p1@example.com") == {"1": "new", "3": "p1@example.com"}


def test_what_was_overtaken_is_left_out(emarsys: FakeEmarsys, make_store: MakeStore) -> None:
    """A request that waited at the host does not bring back old values when a newer call was sent before it."""
    document_less = {"email": "p1@example.com", "firstName": "old", "lastName": "Lovelace"}
    old = call("identify", 1, userId="u1", traits=document_less)
    new = newer(1)

    async def main() -> Any:
        async with delivering(emarsys, make_store()) as host:
            (first,) = await host.transform([old])
            (second,) = await host.transform([new], 201)
            return [statuses(await host.deliver(one)) for one in (second, first)]

    assert asyncio.run(main()) == [{201: 200}, {101: 200}]
    assert emarsys.contact("3", "p1@example.com") == {"1": "new", "2": "Lovelace", "3": "p1@example.com"}
    assert emarsys.requests[-1].body["contacts"] == [{"3": "p1@example.com", "2": "Lovelace"}]


def test_one_request_is_in_flight_for_a_contact(emarsys: FakeEmarsys, make_store: MakeStore) -> None:
    """A newer value that is sent while an older one is on its way waits for it; another contact does not."""
    emarsys.script(Fault("slow", path="contact", delay=0.5, times=1))

    async def main() -> Any:
        stores = [make_store(), make_store()]
        async with delivering(emarsys, stores[0]) as one, delivering(emarsys, stores[1]) as two:
            (first,) = await one.transform([identify(1, "old")])
            slow = asyncio.create_task(one.deliver(first))
            while not [received for received in emarsys.requests if received.path.startswith("/api/")]:
                await asyncio.sleep(0.01)
            (second,) = await two.transform([newer(1)])
            (other,) = await two.transform([identify(2)], 201)
            return await asyncio.gather(slow, two.deliver(second), two.deliver(other))

    found = asyncio.run(main())
    order = [received.body["contacts"][0]["3"] for received in emarsys.requests if received.method == "PUT"]

    assert [statuses(one) for one in found] == [{101: 200}, {101: 200}, {201: 200}]
    assert order == ["p1@example.com", "p2@example.com", "p1@example.com"]
    assert emarsys.contact("3", "p1@example.com") == {"1": "new", "3": "p1@example.com"}


def test_rows_that_nobody_knows_any_more_come_alone(emarsys: FakeEmarsys) -> None:
    """Which row is of which job is not guessed: the jobs come back one by one, and then need no pairing."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1), identify(2)])
        lost = {**request, "metadata": [{**one, "jobId": one["jobId"] + 1000} for one in request["metadata"]]}
        alone = {**request, "metadata": [metadata(2001)], "body": {"JSON": _only(request["body"]["JSON"], 0)}}
        return await host.deliver(lost), await host.deliver(alone)

    lost, alone = run(emarsys, steps)

    assert {job: (status, dont_batch) for job, (status, _, dont_batch) in lost.items()} == {
        1101: (500, True),
        1102: (500, True),
    }
    assert statuses(alone) == {2001: 200}
    assert [one.method for one in emarsys.requests] == ["POST", "PUT"]


def _only(body: dict[str, Any], row: int) -> dict[str, Any]:
    return {**body, "contacts": [body["contacts"][row]]}


def test_version_0_answers_all_jobs_with_its_http_status(emarsys: FakeEmarsys) -> None:
    """Its metadata is one object, and the status is that of the HTTP answer."""
    emarsys.script(Fault("status", path="contact", status=503, times=1))

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        request["metadata"] = request["metadata"][0]
        return [await host.host.client.post(PROXY_V0, json=request) for _ in range(2)]

    failed, done = run(emarsys, steps)

    assert [one.status_code for one in (failed, done)] == [503, 200]
    assert done.json()["output"]["status"] == 200
    assert failed.json()["output"]["statTags"]["errorType"] == "retryable"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/api/v2/contact/?create_if_not_exists=1",
        "https://evil.example/api/v3/contact/?create_if_not_exists=1",
        "https://api.emarsys.net.evil.example/api/v3/contact/",
        "https://api.emarsys.net@evil.example/api/v3/contact/",
        "https://api.emarsys.net/api/v3/../../admin",
        "https://api.emarsys.net/api/v9/contact/",
        "https://api.emarsys.net/api/v3/contact/#x",
        "https://api.emarsys.net/api/v3//evil.example/x\r\nHost: y",
        "",
    ],
)
def test_nobody_reaches_other_hosts_through_us(emarsys: FakeEmarsys, endpoint: str) -> None:
    """A delivery request for anything but the Emarsys API is refused, and nothing is sent."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        return await host.deliver({**request, "endpoint": endpoint})

    found = run(emarsys, steps)

    assert statuses(found) == {101: 400}
    assert "Emarsys API" in found[101][1]
    assert not [one for one in emarsys.requests if one.path.startswith("/api/")]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"endpoint": 1}', b'{"endpoint": "x", "metadata": []}',
        b'{"endpoint": "x", "metadata": [{"jobId": "1"}]}', b'{"endpoint": "x", "metadata": [1]}', b"[" * 100_000,
        b'{"endpoint": "\\ud800", "metadata": [{"jobId": 1}]}', b"\xff\xfe", b'{"endpoint": "x", "metadata": NaN}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [PROXY_V1, PROXY_V0])
def test_a_delivery_request_that_cannot_be_read_is_refused(emarsys: FakeEmarsys, path: str, body: bytes) -> None:
    """With a 400 that says what is expected."""
    response = run(emarsys, lambda host: host.host.client.post(path, content=body))

    assert response.status_code == 400
    assert "delivery request" in response.json()["error"]
    assert not emarsys.requests


@pytest.mark.parametrize(
    "change",
    [
        {"body": {"JSON": {"key_id": "3", "external_id": "x", "contacts": [{"external_id": "y"}]}}},
        {"type": "CUSTOM"}, {"method": "TRACE"}, {"body": {"XML": {"payload": "x"}}}, {"body": {"JSON": {}}},
        {"body": {"JSON": {"key_id": "3", "external_ids": ["x"] * 10_001}},
         "endpoint": "https://api.emarsys.net/api/v3/contactlist/1/add"},
    ],
)  # fmt: skip
def test_a_delivery_request_that_can_never_be_sent_is_refused(emarsys: FakeEmarsys, change: dict[str, Any]) -> None:
    """Its jobs learn why."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        return await host.deliver({**request, **change})

    assert statuses(run(emarsys, steps)) == {101: 400}


@pytest.mark.parametrize(("create", "status"), [("always", 200), ("identify", 400)])
def test_a_contact_that_a_trigger_finds_missing_is_made(
    emarsys: FakeEmarsys, tmp_path: Path, create: str, status: int
) -> None:
    """The call that makes it may still wait elsewhere; unless the document lets only identify calls make contacts."""
    (tmp_path / "default.json").write_text(json.dumps({"contacts": {"create": create}}))
    event = {
        "endpoint": "https://api.emarsys.net/api/v3/event/9001/trigger",
        "method": "POST",
        "body": {"JSON": {"key_id": "3", "external_id": "late@example.com", "trigger_id": "t1"}},
    }

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        return await host.deliver({**request, **event})

    assert statuses(run(emarsys, steps, rules_dir=tmp_path)) == {101: status}
    assert [one.external_id for one in emarsys.events] == (["late@example.com"] if status == 200 else [])


def test_a_malformed_api_key_is_told_without_showing_it(emarsys: FakeEmarsys) -> None:
    """As at the transform."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        return await host.deliver({**request, "destinationConfig": {"apiKey": "hunter2"}})

    found = run(emarsys, steps)

    assert statuses(found) == {101: 400}
    assert "API Key" in found[101][1]
    assert "hunter2" not in json.dumps(found)


def test_1001_contacts_are_split_at_the_transform_and_refused_by_nobody(emarsys: FakeEmarsys) -> None:
    """Each of the two requests is within Emarsys' limit, and each job has its status."""
    found = run(emarsys, lambda host: host.send([identify(number) for number in range(1, 1002)]))

    assert len(found) == 1001
    assert set(statuses(found).values()) == {200}
    assert [len(one.body["contacts"]) for one in emarsys.requests if one.method == "PUT"] == [1000, 1]
    assert not emarsys.violations


def test_an_access_token_that_is_refused_is_renewed_once(emarsys: FakeEmarsys) -> None:
    """A revoked token costs nobody a call, and only one fetch however many requests were signed with it."""

    async def steps(host: Delivering) -> Any:
        await host.send([identify(1)])
        emarsys.revoke_tokens()
        requests = [(await host.transform([identify(number)], 100 * number))[0] for number in range(2, 8)]
        return await asyncio.gather(*(host.deliver(one) for one in requests))

    found = run(emarsys, steps)

    assert {status for one in found for status in statuses(one).values()} == {200}
    assert len(emarsys.tokens) == 2


def test_a_wrong_secret_keeps_the_jobs(emarsys: FakeEmarsys) -> None:
    """Nothing is wrong with them: they wait, however long it takes, until somebody has mended the API Key."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        return await host.deliver({**request, "destinationConfig": {"apiKey": "wsse:customer001:wrong"}})

    found = run(emarsys, steps, config={"apiKey": emarsys.wsse_api_key})

    assert statuses(found) == {101: 429}
    assert "API Key" in found[101][1] or "credentials" in found[101][1].lower()
    assert "wrong" not in found[101][1]


def test_the_signature_is_made_when_it_is_sent(emarsys: FakeEmarsys) -> None:
    """A WSSE header of the transform would be stale after five minutes at the host."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        request["headers"]["X-WSSE"] = (
            'UsernameToken Username="customer001", PasswordDigest="x", Nonce="1", Created="y"'
        )
        return await host.deliver(request)

    assert statuses(run(emarsys, steps, config={"apiKey": emarsys.wsse_api_key})) == {101: 200}


def test_an_api_key_that_comes_from_the_call_is_not_known_any_more(emarsys: FakeEmarsys) -> None:
    """Then the request is sent with the signature that it was given."""

    async def steps(host: Delivering) -> Any:
        (request,) = await host.transform([identify(1)])
        template = {"apiKey": "{{ event.context.key || none }}"}
        return await host.deliver({**request, "destinationConfig": template})

    assert statuses(run(emarsys, steps, config={"apiKey": emarsys.wsse_api_key})) == {101: 200}


def test_the_limit_is_shared_by_all_workers(make_store: MakeStore) -> None:
    """Two services on one store never send more than Emarsys takes, and tell the host to come again."""
    with FakeEmarsys(limit=10) as emarsys:

        async def main() -> Any:
            async with delivering(emarsys, make_store()) as one, delivering(emarsys, make_store()) as two:
                requests = []
                for number in range(1, 31):
                    worker = (one, two)[number % 2]
                    requests.append((worker, (await worker.transform([identify(number)], 100 * number))[0]))
                await one.deliver(requests[0][1])  # learns the limit
                return await asyncio.gather(*(worker.deliver(request) for worker, request in requests[1:]))

        found = [status for one in asyncio.run(main()) for status in statuses(one).values()]

        assert not emarsys.violations
    assert found.count(200) == 9
    assert set(found) == {200, 429}


def test_an_emarsys_that_fails_is_left_alone_and_tried_again() -> None:
    """After five failures nothing is sent for a while, /ready and /metrics say so, then one request tries."""
    clock = Clock("2026-11-24T10:00:00.000Z")

    async def steps(host: Delivering) -> Any:
        requests = [(await host.transform([identify(number)], 100 * number))[0] for number in range(1, 13)]
        failed = [await host.deliver(one) for one in requests[:5]]
        clock.advance(1)  # the first wait is over
        failed += [await host.deliver(requests[5])]
        clock.advance(2)
        failed += [await host.deliver(requests[6])]
        clock.advance(4)
        failed += [await host.deliver(requests[7])]
        left_alone = await host.deliver(requests[8])  # eight seconds are longer than the host waits
        ready = (await host.host.client.get("/ready")).json()
        metrics = (await host.host.client.get("/metrics")).text
        clock.advance(8)
        return failed, left_alone, ready, metrics, await host.deliver(requests[9]), await host.deliver(requests[8])

    with FakeEmarsys(clock=clock) as emarsys:
        emarsys.script(Fault("status", path="contact", status=503, times=8))
        failed, left_alone, ready, metrics, tried, again = run(
            emarsys, steps, world=World(clock=clock, chance=lambda: 1.0)
        )

    assert {status for one in failed for status in statuses(one).values()} == {503}
    assert statuses(left_alone) == {900: 429}
    assert "failed 8 times in a row" in ready["emarsys"][0]["reason"]
    assert re.search(r'emarsys_cdp_circuit_open\{api_user="\w{8}"\} 1\.0', metrics)
    assert statuses(tried) == {1000: 200}
    assert statuses(again) == {900: 200}
