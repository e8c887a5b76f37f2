"""Effects that the service sends itself: each once, each person's in order, and nothing lost whatever Emarsys does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.support.outbox import (
    EVERY_SHARD,
    Emarsys,
    Outbox,
    effect,
    effect_id,
    key_of,
    ref_of,
    sending,
    write_document,
)

from emarsys_cdp.effect import Effect
from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.outbox.fates import UNCLEAR_WAITS
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.outbox.transport import Objection
from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.outbox import DEAD, LEASED, SENT, WAITING
from emarsys_cdp.testing import Fault

MakeStore = Callable[[], Store]


@pytest.fixture
def emarsys() -> Iterator[Emarsys]:
    """Run a fake Emarsys that has the first three people."""
    with Emarsys() as emarsys:
        for person in (1, 2, 3):
            emarsys.add_contact({"3": key_of(person)})
        yield emarsys
        assert not emarsys.crashes
        assert not emarsys.violations


def run(emarsys: Emarsys, steps: Callable[[Outbox], Any], store: Store | None = None, **options: Any) -> Any:
    """Run *steps* with the outbox of a service that sends to *emarsys*."""

    async def main() -> Any:
        async with sending(emarsys, store or MemoryStore(), **options) as outbox:
            return await steps(outbox)

    return asyncio.run(main())


def triggered(emarsys: Emarsys) -> list[str]:
    """Return the ids of the effects that Emarsys has taken, in their order."""
    return [str(one.trigger_id) for one in emarsys.events]


def calls(emarsys: Emarsys) -> list[tuple[str, str]]:
    """Return method and path of each request to the API."""
    return [(one.method, one.path.removeprefix("/api/v3/")) for one in emarsys.requests if "/api/" in one.path]


def test_an_effect_is_sent(emarsys: Emarsys, make_store: MakeStore) -> None:
    """Its id is the trigger_id, its due time the event_time, its variables are data in the section."""
    one = effect(1, options={"eventId": "9001", "section": "cart"}, data={"id": "c1", "items": ["a", "b"], "vip": True})

    async def steps() -> tuple[str, Effect]:
        async with sending(emarsys, make_store()) as outbox:
            await outbox.post(one)
            await outbox.send()
            return (await outbox.read(one)).state, await outbox.stored(one)

    state, stored = asyncio.run(steps())
    (event,) = emarsys.events

    assert (state, stored.sending.pinned) == (SENT, True)
    assert (event.external_id, event.trigger_id) == (key_of(1), effect_id(1))
    assert event.event_time == "2026-11-18T11:06:40.001Z"
    assert event.data == {"cart": {"id": "c1", "items": "a, b", "vip": "true"}}


def test_a_thousand_contacts_share_a_request(emarsys: Emarsys) -> None:
    """2,500 effects of one event are three requests, and each is sent once."""
    effects = [effect(number) for number in range(1, 2501)]
    for number in range(4, 2501):
        emarsys.add_contact({"3": key_of(number)})

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects)

    assert set(run(emarsys, steps)) == {SENT}
    assert sorted(triggered(emarsys)) == sorted(one.id for one in effects)
    assert sorted(len(one.body["contacts"]) for one in emarsys.requests if "/event/" in one.path) == [500, 1000, 1000]
    assert not emarsys.repeats


def test_the_effects_of_a_person_keep_their_order(emarsys: Emarsys, make_store: MakeStore) -> None:
    """By the time of the gate, then by number; whatever the ids are."""
    passage = {"passage": "p", "emitted": 1_795_000_000_000}
    effects = [effect(number, 1, number=number, **passage) for number in range(1, 6)]
    late = [effect(number, 1) for number in (7, 6)]

    async def main() -> None:
        async with sending(emarsys, make_store()) as outbox:
            await outbox.post(*reversed(effects), *late)
            await outbox.send()

    asyncio.run(main())

    assert triggered(emarsys) == [effect_id(number) for number in range(1, 8)]


def test_an_effect_waits_for_the_one_before_it(emarsys: Emarsys) -> None:
    """As long as nobody knows what became of the first, the second of the same person stays; others do not."""
    first, second, other = effect(1, 1), effect(2, 1), effect(3, 3)
    emarsys.script(Fault("lost", path="event/*/trigger", hold=1.0))

    async def steps(outbox: Outbox) -> list[list[str]]:
        await outbox.post(first)
        await outbox.send()
        await outbox.post(second, other)
        await outbox.send()
        states = [await outbox.states([first, second, other])]
        await outbox.wait_for(first)
        await outbox.send()
        return [*states, await outbox.states([first, second, other])]

    assert run(emarsys, steps, send_seconds=0.3) == [[LEASED, WAITING, SENT], [SENT, SENT, SENT]]
    assert [one.trigger_id for one in emarsys.repeats] == [effect_id(1)]
    assert triggered(emarsys) == [effect_id(1), effect_id(3), effect_id(2)]


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault("status", path="event/*/trigger", status=429), WAITING),
        (Fault("status", path="event/*/trigger", status=403), WAITING),
        (Fault("status", path="event/*/trigger", status=500), LEASED),
        (Fault("status", path="event/*/trigger", status=500, after=True), LEASED),
        (Fault("garbage", path="event/*/trigger", after=True), LEASED),
        (Fault("lost", path="event/*/trigger", hold=1.0), LEASED),
        (Fault("reset", path="event/*/trigger"), LEASED),
        (Fault("status", path="oauth2/token", status=500), WAITING),
    ],
)
def test_an_outage_loses_nothing_and_sends_nothing_twice(emarsys: Emarsys, fault: Fault, state: str) -> None:
    """What is certainly not taken waits and may be withdrawn; what may be taken stays leased, and comes as the same."""
    one = effect(1)
    emarsys.script(fault)

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(one)
        await outbox.send()
        states = [(await outbox.read(one)).state]
        for _ in range(5):
            await outbox.wait_for(one)
            outbox.clock.advance(30)  # the circuit, and the fetches of tokens
            await outbox.send()
        return [*states, (await outbox.read(one)).state]

    assert run(emarsys, steps, send_seconds=0.3) == [state, SENT]
    assert triggered(emarsys) == [effect_id(1)]


def test_an_emarsys_that_is_gone_is_waited_for(emarsys: Emarsys) -> None:
    """Without a connection nothing was taken; the waits grow, up to ten minutes, and it is never given up."""
    one = effect(1)

    async def steps(outbox: Outbox) -> tuple[list[float], str]:
        await outbox.post(one)
        waits = []
        for _ in range(12):
            await outbox.send()
            waits.append(await outbox.wait_for(one))
        return waits, (await outbox.read(one)).state

    waits, state = run(emarsys, steps, api_base="http://127.0.0.1:9/api")

    assert state == WAITING
    assert waits[0] < 10
    assert max(waits) <= 12.5 * 60
    assert waits[-1] >= 7.5 * 60


def test_unclear_tries_have_an_end(emarsys: Emarsys) -> None:
    """Ten tries within a day, all with the same trigger_id; then it is dead, with the reason."""
    one = effect(1)
    emarsys.script(Fault("status", path="event/*/trigger", status=500, times=1000))

    async def steps(outbox: Outbox) -> tuple[float, str, str]:
        began = outbox.clock()
        await outbox.post(one)
        while (await outbox.read(one)).state != DEAD:
            await outbox.send()
            await outbox.wait_for(one)
            outbox.clock.advance(90)  # the circuit is open for a minute at the most
        stored = await outbox.read(one)
        return (outbox.clock() - began) / 3_600_000, stored.state, stored.note

    hours, state, note = run(emarsys, steps)
    bodies = [received.body for received in emarsys.requests if "/event/" in received.path]

    assert state == DEAD
    assert "given up after 10 tries" in note
    assert 12 < hours < 36
    assert len(bodies) == len(UNCLEAR_WAITS) + 1
    assert {body["trigger_id"] for body in bodies} == {effect_id(1)}


def test_one_bad_row_costs_only_itself(emarsys: Emarsys) -> None:
    """A contact that exists twice is dead with Emarsys' words; the others are sent."""
    emarsys.add_contact({"3": key_of(2)})
    effects = [effect(number) for number in (1, 2, 3)]

    async def steps(outbox: Outbox) -> tuple[list[str], str]:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects), (await outbox.read(effects[1])).note

    states, note = run(emarsys, steps)

    assert states == [SENT, DEAD, SENT]
    assert "More contacts found" in note


def test_what_follows_a_failure_stops_with_it(emarsys: Emarsys, make_store: MakeStore) -> None:
    """An action with `onError: stop` takes those behind it along; other passages, and actions without it, go on."""
    bad = {"eventId": "77"}
    stopping = [
        effect(n, 1, number=n, passage="a", stops=True, options=bad if n == 1 else {"eventId": "9001"}) for n in (1, 2)
    ]
    going = [effect(n, 2, number=n, passage="b", options=bad if n == 3 else {"eventId": "9001"}) for n in (3, 4)]
    apart = effect(5, 1)

    async def main() -> list[Any]:
        async with sending(emarsys, make_store()) as outbox:
            await outbox.post(*stopping, *going, apart)
            await outbox.send()
            return [await outbox.states([*stopping, *going, apart]), (await outbox.read(stopping[1])).note]

    states, note = asyncio.run(main())

    assert states == [DEAD, DEAD, DEAD, SENT, SENT]
    assert effect_id(1) in note
    assert sorted(triggered(emarsys)) == sorted([effect_id(4), effect_id(5)])


def test_a_contact_that_is_missing_is_made(emarsys: Emarsys) -> None:
    """Emarsys refuses the row (2008); the contact is made and the row sent once more, the others are not."""
    effects = [effect(number) for number in (1, 40, 41)]

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects)

    assert run(emarsys, steps) == [SENT, SENT, SENT]
    assert calls(emarsys) == [
        ("POST", "event/9001/trigger"),
        ("PUT", "contact/"),
        ("POST", "event/9001/trigger"),
    ]
    assert not emarsys.repeats


def test_a_fresh_contact_is_made_first(emarsys: Emarsys) -> None:
    """One request for the contacts, one for the event; who is not fresh is in a request of its own."""
    effects = [effect(1), effect(50, fresh=True), effect(51, fresh=True)]

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects)

    assert run(emarsys, steps) == [SENT, SENT, SENT]
    assert sorted(calls(emarsys)) == [
        ("POST", "event/9001/trigger"),
        ("POST", "event/9001/trigger"),
        ("PUT", "contact/"),
    ]


@pytest.mark.parametrize("create", ["never", "identify"])
def test_a_document_may_forbid_to_make_contacts(emarsys: Emarsys, tmp_path: Path, create: str) -> None:
    """The effect is dead and says why; an update of such a contact, too."""
    write_document(tmp_path, contacts={"create": create})
    effects = [effect(60, fresh=True), effect(61, do="update", options={"field": "1", "value": "Ada"})]

    async def steps(outbox: Outbox) -> list[tuple[str, str]]:
        await outbox.post(*effects)
        await outbox.send()
        return [(one.state, one.note) for one in [await outbox.read(each) for each in effects]]

    found = run(emarsys, steps, rules_dir=tmp_path)

    assert [state for state, _ in found] == [DEAD, DEAD]
    assert all("contacts.create" in note for _, note in found)
    assert len(emarsys.contacts) == 3


def test_every_kind_of_action_is_sent(emarsys: Emarsys) -> None:
    """Fields by name and with converted values, lists by name, contacts with nothing but their key."""
    vip = emarsys.add_list("VIP")
    emarsys.add_field(Field(id="7001", name="Points", type="numeric"))
    effects = [
        effect(1, 1, "update", options={"field": "first_name", "value": "Ada"}),
        effect(2, 1, "update", options={"field": "Points", "var": "points"}, data={"points": "12.5"}),
        effect(3, 1, "update", options={"field": 31, "value": True}),
        effect(4, 1, "addToList", options={"list": "vip"}),
        effect(5, 2, "update", options={"field": "1", "value": "Bob"}),
        effect(6, 2, "unset", options={"field": "1"}),
        effect(7, 2, "addToList", options={"list": vip}),
        effect(8, 2, "removeFromList", options={"list": "VIP"}),
        effect(9, 9, "upsertContact"),
        effect(10, 10, "removeFromList", options={"list": str(vip)}),
    ]

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(*effects)
        await outbox.send()
        return await outbox.states(effects)

    assert run(emarsys, steps) == [SENT] * 10
    assert emarsys.contact("3", key_of(1)) == {"1": "Ada", "3": key_of(1), "7001": "12.5", "31": "1"}
    assert emarsys.contact("3", key_of(2)) == {"3": key_of(2)}
    assert emarsys.contact("3", key_of(9)) == {"3": key_of(9)}
    assert emarsys.contact("3", key_of(10)) is None
    assert emarsys.members(vip) == [key_of(1)]


def test_an_unknown_name_holds_the_effect(emarsys: Emarsys) -> None:
    """With a reason; when somebody has made the event, ten minutes later, it is sent. Other passages are not held."""
    held, behind, apart = (
        effect(1, 1, passage="a", options={"event": "Win back"}),
        effect(2, 1, passage="a", number=1),
        effect(3, 1),
    )

    async def steps(outbox: Outbox) -> tuple[list[str], str, float, list[str]]:
        await outbox.post(held, behind, apart)
        await outbox.send()
        states, note = await outbox.states([held, behind, apart]), (await outbox.read(held)).note
        emarsys.add_event("win back", 9002)
        seconds = await outbox.wait_for(held)
        await outbox.send()
        return states, note, seconds, await outbox.states([held, behind, apart])

    states, note, seconds, after = run(emarsys, steps)

    assert states == [WAITING, WAITING, SENT]
    assert "no external event called 'Win back'" in note
    assert 7.4 * 60 < seconds < 12.6 * 60
    assert after == [SENT, SENT, SENT]
    assert [one.event_id for one in emarsys.events] == [9001, 9002, 9001]


def test_a_list_of_the_account_is_asked_for_once(emarsys: Emarsys) -> None:
    """However many names; and a permission that is missing is named."""
    emarsys.add_event("one", 9002)
    effects = [effect(1, options={"event": "welcome"}), effect(2, options={"event": "one"})]
    emarsys.script(Fault("status", path="contactlist", status=403))
    listed = effect(3, do="addToList", options={"list": "VIP"})

    async def steps(outbox: Outbox) -> tuple[list[str], str]:
        await outbox.post(*effects, listed)
        await outbox.send()
        return await outbox.states(effects), (await outbox.read(listed)).note

    states, note = run(emarsys, steps)

    assert states == [SENT, SENT]
    assert calls(emarsys).count(("GET", "event")) == 1
    assert "contactlist.list" in note


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (effect(1, do="update", options={"field": "1", "var": "name"}), "the variable 'name' has no value"),
        (effect(1, do="update", options={"field": "5", "value": "perhaps"}), "'perhaps' is no choice"),
        (effect(1, do="update", options={"field": "27", "value": "1"}), "read-only"),
        (effect(1, do="update", options={"value": "1"}), "names no field"),
        (effect(1, options={}), "names no event"),
        (effect(1, do="addToList", options={}), "names no list"),
        (effect(1, do="sms"), "'sms' is no action"),
        (effect(1, options={"eventId": "4711"}), "no such external event"),
    ],
)
def test_what_can_never_be_sent_is_dead(emarsys: Emarsys, one: Effect, reason: str) -> None:
    """And says what would be right."""

    async def steps(outbox: Outbox) -> tuple[str, str]:
        await outbox.post(one)
        await outbox.send()
        stored = await outbox.read(one)
        return stored.state, stored.note

    state, note = run(emarsys, steps)

    assert state == DEAD
    assert reason in note


def test_a_dead_effect_is_sent_when_it_is_retried(emarsys: Emarsys) -> None:
    """Its names are looked up anew: what was wrong may have been mended."""
    one = effect(1, options={"eventId": "4711"})

    async def steps(outbox: Outbox) -> str:
        await outbox.post(one)
        await outbox.send()
        assert (await outbox.read(one)).state == DEAD
        emarsys.add_event("new", 4711)
        assert await outbox.store.requeue_effects([ref_of(one)], outbox.clock()) == [True]
        await outbox.send()
        return (await outbox.read(one)).state

    assert run(emarsys, steps) == SENT


def test_two_senders_share_a_queue(emarsys: Emarsys, make_store: MakeStore) -> None:
    """Every effect is sent once, each person's in order, whoever gets it."""
    people = range(1, 21)
    for person in people[3:]:
        emarsys.add_contact({"3": key_of(person)})
    effects = [effect(number * 100 + person, person) for number in range(4) for person in people]

    async def main() -> list[str]:
        async with sending(emarsys, make_store()) as one, sending(emarsys, make_store()) as two:
            await one.post(*effects)
            await asyncio.gather(one.send(), two.send(), one.send(_another(one, "b")), two.send(_another(two, "c")))
            for _ in range(30):
                emarsys.clock.advance(10)
                await asyncio.gather(one.send(), two.send())
            return await one.states(effects)

    states = asyncio.run(main())

    assert set(states) == {SENT}
    assert not emarsys.repeats
    for person in people:
        theirs = [one.trigger_id for one in emarsys.events if one.external_id == key_of(person)]
        assert theirs == [effect_id(number * 100 + person) for number in range(4)]


def _another(outbox: Outbox, holder: str) -> OutboxSender:
    service = outbox.service
    transport = service.outbox._transport
    return OutboxSender(
        service.store, holder, lambda: EVERY_SHARD, transport, service.metrics, outbox.clock, lambda: 0.5
    )


def test_the_effects_of_a_dead_sender_are_taken_over(emarsys: Emarsys) -> None:
    """When its lease is over, and not before."""
    one = effect(1)

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(one)
        now = outbox.clock()
        await outbox.store.lease_effects([ref_of(one)], "dead", now, now + 60_000)
        states = []
        for _ in range(2):
            await outbox.send()
            states.append((await outbox.read(one)).state)
            outbox.clock.advance(60)
        return states

    assert run(emarsys, steps) == [LEASED, SENT]


def test_the_gate_is_asked_once_more(emarsys: Emarsys) -> None:
    """An objection with an end lets the effect wait, one without makes it dead; nothing is sent."""
    waits, never = effect(1), effect(2)

    async def steps(outbox: Outbox) -> list[Any]:
        def allowed(one: Effect, now: int) -> Objection | None:
            return Objection("quiet hours", now + 3_600_000) if one.id == waits.id else Objection("archived")

        outbox.service.outbox._allowed = allowed
        await outbox.post(waits, never)
        await outbox.send()
        found = [await outbox.read(one) for one in (waits, never)]
        return [(one.state, one.note, one.until - outbox.clock()) for one in found[:1]] + [
            found[1].state,
            found[1].note,
        ]

    assert run(emarsys, steps) == [(WAITING, "quiet hours", 3_600_000), DEAD, "archived"]
    assert not emarsys.events


def test_a_space_without_an_api_key_waits(emarsys: Emarsys) -> None:
    """Its key comes with the first call of its host; other spaces are not held up."""
    one, other = effect(1, space="dest-9"), effect(2)

    async def steps(outbox: Outbox) -> list[Any]:
        await outbox.post(one, other)
        await outbox.send()
        return [await outbox.states([one, other]), (await outbox.read(one)).note]

    states, note = run(emarsys, steps)

    assert states == [WAITING, SENT]
    assert "API Key" in note


def test_what_cannot_be_read_is_dead(emarsys: Emarsys) -> None:
    """It holds up nobody."""
    one, other = effect(1), effect(2)

    async def steps(outbox: Outbox) -> list[str]:
        await outbox.post(one, other)
        ref = ref_of(one)
        outbox.store.effects[ref.shard][ref.id] = type(await outbox.read(one))(ref, WAITING, b"garbage")  # type: ignore[attr-defined]
        await outbox.send()
        return await outbox.states([one, other])

    assert run(emarsys, steps) == [DEAD, SENT]


def test_it_runs_by_itself_and_finishes_what_it_has_begun(emarsys: Emarsys) -> None:
    """A notice wakes it at once; when it is stopped it waits for what is under way."""
    one = effect(1)
    emarsys.script(Fault("slow", path="event/*/trigger", delay=0.5))

    async def steps(outbox: Outbox) -> tuple[float, str]:
        loop, sender = asyncio.get_running_loop(), outbox.service.outbox
        sender._look_seconds = 60.0
        running = asyncio.create_task(sender.run())
        await asyncio.sleep(0.1)
        began = loop.time()
        await outbox.post(one)
        sender.notice()
        async with asyncio.timeout(10):
            while not [received for received in emarsys.requests if "/event/" in received.path]:
                await asyncio.sleep(0.01)
        took = loop.time() - began
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return took, (await outbox.read(one)).state

    took, state = run(emarsys, steps)

    assert took < 10
    assert state == SENT


def test_what_was_done_is_counted_and_logged_without_addresses(emarsys: Emarsys) -> None:
    """By kind and outcome; a reason that names a contact does not show its key."""
    emarsys.add_contact({"3": key_of(2)})
    effects = [effect(1), effect(2), effect(3, options={"event": "nothing"})]

    async def steps(outbox: Outbox) -> tuple[str, list[Any]]:
        await outbox.post(*effects)
        with structlog.testing.capture_logs() as logs:
            await outbox.send()
            await outbox.service.outbox._look_safely()
        return outbox.service.metrics.expose().decode(), list(logs)

    shown, logs = run(emarsys, steps)

    for outcome in ("sent", "dead", "held"):
        assert f'emarsys_cdp_effects_total{{kind="trigger",outcome="{outcome}"}} 1.0' in shown
    assert "emarsys_cdp_outbox_effects 1.0" in shown
    assert sorted((log["event"], log["outcome"], log["effects"]) for log in logs) == [
        ("effects_not_sent", "dead", 1),
        ("effects_not_sent", "held", 1),
    ]
    assert "@example.com" not in str(logs)
