"""Effects that go by way of the host: given to its ingestion, handed back through the transformer, sent by it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Receive, Scope, Send
from tests.support.app import PROCESSOR, ROUTER, Host, answers, by_job, make_app, started
from tests.support.outbox import (
    Emarsys,
    Outbox,
    effect,
    effect_id,
    key_of,
    pid_of,
    ref_of,
    sending,
    serving,
    write_document,
)
from tests.support.requests import processor_request, router_request

from emarsys_cdp.credentials import Secret
from emarsys_cdp.effect import Effect, Sending
from emarsys_cdp.outbox.handing import Ask, Handing
from emarsys_cdp.outbox.ingestion import call_of
from emarsys_cdp.outbox.transport import Objection
from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.outbox import DEAD, HANDED, SENT, WAITING, WITHDRAWN
from emarsys_cdp.testing import AsyncFakeHost, Fault, JobState, expect
from emarsys_cdp.testing.fake_host.listening import listening
from emarsys_cdp_hooks import Action, Refused

MakeStore = Callable[[], Store]
KEY = "write-key"
SECONDS = 30.0


@pytest.fixture
def emarsys() -> Iterator[Emarsys]:
    """Run a fake Emarsys that has the first three people."""
    with Emarsys() as emarsys:
        for person in (1, 2, 3):
            emarsys.add_contact({"3": key_of(person)})
        yield emarsys
        assert not emarsys.crashes
        assert not emarsys.violations


class Gateway:
    """An ingestion that takes what comes, or answers with the *statuses* that it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.statuses: list[int] = []
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = b""
        while (message := await receive()).get("more_body", False):
            body += message["body"]
        body += message["body"]
        status = self.statuses.pop(0) if self.statuses else 200
        headers = dict(scope["headers"])
        self.keys.append(base64.b64decode(headers[b"authorization"].split()[1]).decode())
        if status == 200:
            assert scope["path"] == "/v1/batch"
            self.calls += httpx.Response(200, content=body).json()["batch"]
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"OK"})


@asynccontextmanager
async def by_gateway(
    emarsys: Emarsys, store: Store | None = None, keys: str = KEY, **settings: Any
) -> AsyncIterator[tuple[Outbox, Gateway, Host]]:
    """Run a service whose effects go to a gateway, and a host that asks it for transforms."""
    gateway = Gateway()
    async with listening(gateway, "127.0.0.1", 0) as url:
        ingestion: dict[str, Any] = {"ingest_url": url, "ingest_write_key": Secret(keys)}
        async with sending(emarsys, store or MemoryStore(), **ingestion, **settings) as outbox:
            app = make_app(outbox.service)
            app._service = outbox.service  # without its lifespan: the sender looks when a test says so
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://emarsys-cdp") as client:
                yield outbox, gateway, Host(client)


def run(emarsys: Emarsys, steps: Callable[[Outbox, Gateway, Host], Any], **options: Any) -> Any:
    """Run *steps* with a service whose effects go to a gateway."""

    async def main() -> Any:
        async with by_gateway(emarsys, **options) as (outbox, gateway, host):
            return await steps(outbox, gateway, host)

    return asyncio.run(main())


def config(emarsys: Emarsys) -> dict[str, str]:
    """Return the settings of a destination."""
    return {"apiKey": emarsys.api_key}


async def ask(host: Host, emarsys: Emarsys, *effects: Effect, first_job: int = 101, space: str = "dest-1") -> list[Any]:
    """Hand effects back as the host does, and return the output of each job."""
    body = router_request([call_of(one) for one in effects], config(emarsys), space=space, first_job=first_job)
    found = by_job(ROUTER, await host.send(ROUTER, body))
    return [found[job][0] for job in sorted(found)]


class World:
    """A host, a service and a fake Emarsys that work for real; *host* is an `AsyncFakeHost`."""

    def __init__(self, host: AsyncFakeHost, outbox: Outbox) -> None:
        self.host = host
        self.outbox = outbox

    async def post(self, *effects: Effect) -> None:
        """Post effects and have the sender look."""
        await self.outbox.post(*effects)
        self.outbox.service.outbox.notice()

    async def until(self, effects: Sequence[Effect], state: str) -> None:
        """Wait until all effects are in a state."""
        async with asyncio.timeout(SECONDS):
            while {*await self.outbox.states(effects)} != {state}:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def by_host(
    emarsys: Emarsys,
    store: Store,
    spaces: tuple[str, ...] = ("dest-1",),
    *,
    settings: Mapping[str, Any] = {},
    **options: Any,
) -> AsyncIterator[World]:
    """Run a FakeHost and a service, each of which knows where the other one is."""
    app: list[Any] = []

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        while not app:
            await asyncio.sleep(0.01)
        await app[0](scope, receive, send)

    destinations = {space: config(emarsys) for space in spaces}
    async with (
        listening(late, "127.0.0.1", 0) as url,
        AsyncFakeHost(url, destinations, **options) as host,
        serving(emarsys, store, spaces, ingest_url=host.url, ingest_write_key=Secret(KEY), **settings) as service,
        started(make_app(service)) as ours,
    ):
        app.append(ours)
        yield World(host, Outbox(service, emarsys.clock))
        expect(host.breaches)


@pytest.mark.parametrize("options", [{"proxy": True}, {"proxy": False}, {"stage": "processor"}, {"compacted": False}])
def test_an_effect_goes_round(emarsys: Emarsys, options: dict[str, Any]) -> None:
    """To the host's ingestion, back through the transformer, and by the host to Emarsys: once, and no one is stored."""
    effects = [effect(1), effect(2, do="update", options={"field": "1", "value": "Bob"}), effect(30, fresh=True)]
    store = MemoryStore()

    async def main() -> list[Any]:
        async with by_host(emarsys, store, **options) as world:
            await world.post(*effects)
            await world.until(effects, HANDED)
            await world.host.drain()
            return [(job.state, job.order_key) for job in world.host.jobs]

    jobs = asyncio.run(main())

    assert {str(one.trigger_id) for one in emarsys.events} == {effect_id(1), effect_id(30)}
    assert not emarsys.repeats
    assert emarsys.contact("3", key_of(2)) == {"1": "Bob", "3": key_of(2)}
    assert {state for state, _ in jobs} == {JobState.DELIVERED}
    assert all(key.split("<<>>")[1].startswith("ecdp-") for _, key in jobs)
    assert set(store.records) == {one.pid for one in effects}
    assert not store.rows


def test_the_host_keeps_the_order_of_a_person(emarsys: Emarsys, make_store: MakeStore) -> None:
    """All effects of a person are given to it at once, in their order; Emarsys gets them so."""
    effects = [effect(number, 1 + number % 3) for number in range(1, 31)]

    async def main() -> None:
        async with by_host(emarsys, make_store()) as world:
            await world.post(*effects)
            await world.until(effects, HANDED)
            await world.host.drain()

    asyncio.run(main())

    assert len(emarsys.events) == 30
    for person in (1, 2, 3):
        found = [one.trigger_id for one in emarsys.events if one.external_id == key_of(person)]
        assert found == [one.id for one in effects if one.key == key_of(person)]
    assert not emarsys.repeats


def test_effects_of_several_jobs_share_a_request(emarsys: Emarsys) -> None:
    """At the router's transform; each job has the outcome of its row."""
    emarsys.add_contact({"3": key_of(2)})
    effects = [effect(number) for number in (1, 2, 3)]

    async def main() -> dict[str, JobState]:
        async with by_host(emarsys, MemoryStore(), workers=1) as world:
            await world.post(*effects)
            await world.until(effects, HANDED)
            await world.host.drain()
            return {job.call["messageId"]: job.state for job in world.host.jobs}

    states = [JobState.DELIVERED, JobState.ABORTED, JobState.DELIVERED]
    assert asyncio.run(main()) == dict(zip([one.id for one in effects], states, strict=True))
    assert len([one for one in emarsys.requests if "/event/" in one.path]) == 1


def test_another_destination_of_the_source_gets_nothing(emarsys: Emarsys) -> None:
    """Its job is filtered; that of the effect's destination is delivered."""
    one = effect(1, space="dest-2")

    async def main() -> dict[str, JobState]:
        async with by_host(emarsys, MemoryStore(), ("dest-1", "dest-2")) as world:
            await world.post(one)
            await world.until([one], HANDED)
            await world.host.drain()
            return {job.destination: job.state for job in world.host.jobs}

    assert asyncio.run(main()) == {"dest-1": JobState.FILTERED, "dest-2": JobState.DELIVERED}
    assert [one.trigger_id for one in emarsys.events] == [effect_id(1)]


def test_what_the_host_is_given(emarsys: Emarsys) -> None:
    """A track call for Emarsys alone that says which effect it is, and nothing of the person."""
    one = effect(1)

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> tuple[Gateway, Any, Effect]:
        await outbox.post(one)
        await outbox.send()
        return gateway, await outbox.read(one), await outbox.stored(one)

    gateway, stored, noted = run(emarsys, steps)

    assert gateway.calls == [
        {
            "type": "track",
            "event": "Emarsys CDP Effect",
            "anonymousId": f"ecdp-{pid_of(1)}",
            "messageId": effect_id(1),
            "originalTimestamp": "2026-11-18T11:06:40.001Z",
            "properties": {"space": "dest-1", "effect": effect_id(1)},
            "integrations": {"All": False, "Emarsys": True},
        }
    ]
    assert gateway.keys == ["write-key:"]
    assert stored.state == WAITING
    assert noted.sending.posted == emarsys.clock()
    assert not emarsys.requests


def test_the_first_job_has_the_effect(emarsys: Emarsys, make_store: MakeStore) -> None:
    """Whenever it comes again it gets the same; another job gets nothing, and neither does an unknown effect."""
    one, unknown = effect(1, data={"cart": "c1"}), effect(2)

    async def main() -> list[Any]:
        async with by_gateway(emarsys, make_store()) as (outbox, _, host):
            await outbox.post(one)
            await outbox.send()
            first, nobody = await ask(host, emarsys, one, unknown)
            (again,) = await ask(host, emarsys, one)
            (other,) = await ask(host, emarsys, one, first_job=201)
            return [first, again, other, nobody, (await outbox.read(one)).state]

    first, again, other, nobody, state = asyncio.run(main())

    assert first == again
    contact, event = first["batchedRequest"]
    assert contact["body"]["JSON"] == {"key_id": "3", "contacts": [{"3": key_of(1)}]}
    assert event["body"]["JSON"] == {
        "key_id": "3",
        "external_id": key_of(1),
        "data": {"global": {"cart": "c1"}},
        "trigger_id": effect_id(1),
        "event_time": "2026-11-18T11:06:40.001Z",
    }
    assert (other["statusCode"], nobody["statusCode"]) == (298, 400)
    assert "another job" in other["error"]
    assert "no effect" in nobody["error"]
    assert state == HANDED


def test_calls_beside_an_effect_are_what_they_are(emarsys: Emarsys) -> None:
    """A track call of that name by a person, and a call of a person whose id begins alike, are calls like others."""
    one = effect(1)
    alike = {**call_of(one), "anonymousId": "laptop", "messageId": "m-1"}
    other = {**call_of(one), "event": "Order Completed", "messageId": "m-2"}

    async def steps(outbox: Outbox, _: Gateway, host: Host) -> tuple[list[int], int]:
        await outbox.post(one)
        await outbox.send()
        body = router_request([call_of(one), alike, other], config(emarsys))
        found = answers(ROUTER, await host.send(ROUTER, body))
        store = outbox.store
        assert isinstance(store, MemoryStore)
        return sorted(output["statusCode"] for output in found), len(store.rows)

    assert run(emarsys, steps) == ([200, 298, 298], 2)


def test_the_processor_stage_hands_out_too(emarsys: Emarsys) -> None:
    """A fresh contact is two requests in their order; the host's number of the job decides there as well."""
    one = effect(40, fresh=True)

    async def steps(outbox: Outbox, _: Gateway, host: Host) -> list[Any]:
        await outbox.post(one)
        await outbox.send()
        body = processor_request([call_of(one), call_of(one)], config(emarsys))
        return [answers(PROCESSOR, await host.send(PROCESSOR, body)) for _ in range(2)]

    first, again = run(emarsys, steps)

    assert first == again
    assert [one["statusCode"] for one in first] == [200, 200, 298]
    assert [one["output"]["endpoint"].rpartition("/v3/")[2] for one in first[:2]] == [
        "contact/?create_if_not_exists=1",
        "event/9001/trigger",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"properties": {}},
        {"properties": None},
        {"properties": {"space": "dest-1", "effect": 1}},
        {"properties": {"space": "dest-1", "effect": "../x"}},
        {"properties": {"effect": "a" * 32}},
        {"anonymousId": "ecdp-"},
        {"anonymousId": "ecdp-{not-a-pid}"},
    ],
)
def test_a_forged_call_is_refused(emarsys: Emarsys, change: dict[str, Any]) -> None:
    """Nothing is stored, and its error says who sends such calls."""

    async def steps(outbox: Outbox, _: Gateway, host: Host) -> Any:
        body = router_request([{**call_of(effect(1)), **change}], config(emarsys))
        (output,) = answers(ROUTER, await host.send(ROUTER, body))
        assert isinstance(outbox.store, MemoryStore)
        assert not outbox.store.records
        return output

    output = run(emarsys, steps)

    assert output["statusCode"] == 400
    assert "only emarsys-cdp itself sends such calls" in output["error"]


def test_what_was_withdrawn_is_not_handed_out(emarsys: Emarsys) -> None:
    """A stop that comes while the effect waits at the host is in time; after the hand-out it is not."""
    stopped, handed = effect(1), effect(2)

    async def steps(outbox: Outbox, _: Gateway, host: Host) -> Any:
        await outbox.post(stopped, handed)
        await outbox.send()
        await ask(host, emarsys, handed)
        withdrawn = await outbox.store.withdraw_effects([ref_of(stopped), ref_of(handed)], outbox.clock())
        (output,) = await ask(host, emarsys, stopped, first_job=201)
        return withdrawn, output["statusCode"], await outbox.states([stopped, handed])

    assert run(emarsys, steps) == ([True, False], 298, [WITHDRAWN, HANDED])


def test_an_extension_that_names_the_contact_is_logged_without_the_key(emarsys: Emarsys) -> None:
    """One that fails when its effect is handed back: the host is told its reason whole, the log without the key."""
    one = effect(1, do="sms", sending=Sending(pinned=True, posted=1))

    def build(of: Effect) -> Sequence[Action]:
        raise ValueError(f"no number of {of.key}")

    async def steps(outbox: Outbox, _: Gateway, __: Host) -> tuple[Any, str]:
        await outbox.post(one)
        handing = Handing(outbox.store, outbox.service.metrics, outbox.clock, {"sms": build})
        with structlog.testing.capture_logs() as logs:
            (decision,) = await handing.hand("dest-1", True, [Ask("101", "dest-1", pid_of(1), one.id)])
        return decision, str(logs)

    decision, logs = run(emarsys, steps)

    assert isinstance(decision, Refused)
    assert key_of(1) in decision.reason
    assert "no number of ***" in logs
    assert key_of(1) not in logs


def test_the_gate_is_asked_at_the_hand_out(emarsys: Emarsys) -> None:
    """What may not be sent now is given to the host again; what may never be sent is dead, and so is what follows."""
    passage = {"passage": "p", "stops": True}
    waits, never, behind = effect(1), effect(2, 2, **passage), effect(3, 2, number=1, **passage)

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        def allowed(one: Effect, now: int) -> Objection | None:
            return Objection("quiet hours", now + 1) if one.id == waits.id else Objection("archived")

        await outbox.post(waits, never, behind)
        await outbox.send()
        outbox.service.rudderstack._handing._allowed = allowed
        outputs = await ask(host, emarsys, waits, never)
        states = await outbox.states([waits, never, behind])
        outbox.service.rudderstack._handing._allowed = lambda *_: None
        outbox.clock.advance(15 * 60)
        await outbox.send()
        (later,) = await ask(host, emarsys, waits, first_job=201)
        return [(one["statusCode"], one["error"]) for one in outputs], states, later["statusCode"], len(gateway.calls)

    outputs, states, later, posted = run(emarsys, steps)

    assert outputs == [(298, "quiet hours"), (298, "archived")]
    assert states == [WAITING, DEAD, DEAD]
    assert (later, posted) == (200, 4)


def test_what_does_not_come_back_is_given_again(emarsys: Emarsys) -> None:
    """After 15 minutes, with the same messageId; of the two jobs one has it."""
    one = effect(1)

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        await outbox.post(one)
        await outbox.send()
        seconds = await outbox.wait_for(one)
        await outbox.send()
        outputs = await ask(host, emarsys, one, one)
        return seconds, [call["messageId"] for call in gateway.calls], sorted(o["statusCode"] for o in outputs)

    assert run(emarsys, steps) == (15 * 60, [effect_id(1)] * 2, [200, 298])


def test_names_are_pinned_before_the_host_has_it(emarsys: Emarsys) -> None:
    """What is sent is what was meant then, whatever is renamed meanwhile; an unknown name is held and not given."""
    one, unknown = effect(1, options={"event": "welcome"}), effect(2, options={"event": "nothing"})

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        await outbox.post(one, unknown)
        await outbox.send()
        note, given = (await outbox.read(unknown)).note, [call["messageId"] for call in gateway.calls]
        outbox.clock.advance(3600)
        outputs = await ask(host, emarsys, one, unknown)
        return note, given, outputs[0]["batchedRequest"][1]["endpoint"], outputs[1]["statusCode"]

    note, given, endpoint, status = run(emarsys, steps)

    assert "no external event called 'nothing'" in note
    assert given == [effect_id(1)]
    assert endpoint.endswith("/event/9001/trigger")
    assert status == 298


def test_a_contact_that_the_host_has_not_sent_yet_is_made(emarsys: Emarsys) -> None:
    """The call that makes it may wait in another queue of the host; where a document forbids that, it is aborted."""

    async def main(**settings: Any) -> list[JobState]:
        one = effect(70, id=effect_id(70 + len(settings)))
        async with by_host(emarsys, MemoryStore(), settings=settings) as world:
            await world.post(one)
            await world.until([one], HANDED)
            await world.host.drain()
            return [job.state for job in world.host.jobs]

    with TemporaryDirectory() as rules:
        write_document(Path(rules), contacts={"create": "never"})
        assert asyncio.run(main(rules_dir=Path(rules))) == [JobState.ABORTED]
    assert asyncio.run(main()) == [JobState.DELIVERED]
    assert [one.external_id for one in emarsys.events] == [key_of(70)]


@pytest.mark.parametrize(("status", "reason"), [(401, "INGEST_WRITE_KEY"), (413, "HTTP 413"), (503, "HTTP 503")])
def test_an_ingestion_that_refuses_is_tried_again(emarsys: Emarsys, status: int, reason: str) -> None:
    """The effect waits, says why, and is given later; what comes behind it does not overtake it."""
    effects = [effect(number, 1) for number in (1, 2)]

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        gateway.statuses = [status]
        await outbox.post(*effects)
        await outbox.send()
        states, note = await outbox.states(effects), (await outbox.read(effects[0])).note
        await outbox.wait_for(effects[0])
        outbox.clock.advance(2)
        await outbox.send()
        return states, note, [call["messageId"] for call in gateway.calls]

    states, note, given = run(emarsys, steps)

    assert states == [WAITING, WAITING]
    assert reason in note
    assert given == [effect_id(1), effect_id(2)]


def test_an_ingestion_that_is_gone_is_waited_for(emarsys: Emarsys) -> None:
    """Nothing is sent directly instead: the host keeps the order of calls and effects."""
    one = effect(1)

    async def steps(outbox: Outbox) -> tuple[str, str]:
        await outbox.post(one)
        await outbox.send()
        stored = await outbox.read(one)
        return stored.state, stored.note

    async def main() -> tuple[str, str]:
        ingestion: dict[str, Any] = {"ingest_url": "http://127.0.0.1:9", "ingest_write_key": Secret(KEY)}
        async with sending(emarsys, MemoryStore(), **ingestion) as outbox:
            return await steps(outbox)

    state, note = asyncio.run(main())

    assert state == WAITING
    assert "could not be reached" in note
    assert not emarsys.events


def test_each_space_has_its_write_key(emarsys: Emarsys) -> None:
    """Without one, and where a document says so, effects are sent directly; a document that asks for the host waits."""
    effects = [effect(1, space="dest-1"), effect(2, space="dest-2"), effect(3, space="dest-3")]

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects), gateway.keys

    options = {"spaces": ("dest-1", "dest-2", "dest-3"), "keys": "dest-1=key-1, dest-2=key-2"}
    states, keys = run(emarsys, steps, **options)

    assert states == [WAITING, WAITING, SENT]
    assert sorted(keys) == ["key-1:", "key-2:"]


@pytest.mark.parametrize(("kind", "state"), [("direct", SENT), ("host", WAITING)])
def test_a_document_chooses_the_transport(emarsys: Emarsys, tmp_path: Path, kind: str, state: str) -> None:
    """Whatever the settings are; what it asks for and is not set up holds the effect with the reason."""
    write_document(tmp_path, transport={"kind": kind})
    one = effect(1)

    async def steps(outbox: Outbox, gateway: Gateway, host: Host) -> Any:
        await outbox.post(one)
        await outbox.send()
        stored = await outbox.read(one)
        return stored.state, stored.note, len(gateway.calls)

    found = run(emarsys, steps, rules_dir=tmp_path, keys="dest-9=key-9")

    assert found[0] == state
    assert ("INGEST_URL" in found[1]) == (kind == "host")
    assert found[2] == 0


def test_an_outage_of_the_store_keeps_the_jobs(emarsys: Emarsys) -> None:
    """The host is told to come again, whatever else is in the request."""
    one = effect(1)

    class Failing(MemoryStore):
        down = False

        async def read_effects(self, refs: Any) -> Any:
            if self.down:
                raise OSError("a fault")
            return await super().read_effects(refs)

    store = Failing()

    async def steps(outbox: Outbox, _: Gateway, host: Host) -> Any:
        await outbox.post(one)
        await outbox.send()
        store.down = True
        (output,) = await ask(host, emarsys, one)
        store.down = False
        (after,) = await ask(host, emarsys, one)
        return output["statusCode"], after["statusCode"]

    assert run(emarsys, steps, store=store) == (500, 200)


def test_a_host_that_delivers_twice_mails_once(emarsys: Emarsys) -> None:
    """Its answer was lost, so it sends the request again: the trigger_id is the same."""
    one = effect(1)
    emarsys.script(Fault("status", path="event/*/trigger", status=500, after=True))

    async def main() -> None:
        async with by_host(emarsys, MemoryStore(), proxy=False) as world:
            await world.post(one)
            await world.until([one], HANDED)
            await world.host.drain()

    asyncio.run(main())

    assert len(emarsys.events) == 1
    assert len(emarsys.repeats) == 1
