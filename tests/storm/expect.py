"""What has to come of a storm: the people's calls through the simulator, where nobody dies and time is exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct
from tests.storm.plan import EVENTS, LATEST, LIST, Person, document

from emarsys_cdp.effect import Effect, unpack_effect
from emarsys_cdp.extensions import Steps, build_plugin_manager
from emarsys_cdp.outbox.requests import event_data
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.simulation.reading import Step, Vector
from emarsys_cdp.simulation.run import Engine, run_vector
from emarsys_cdp.store import Store
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp.store.outbox import SENT, Settlement
from emarsys_cdp_hooks import Json

_NUMBERS = {name: number for number, name in EVENTS.items()}


class Trigger(Struct, frozen=True, order=True):
    """An event that starts a program: its trigger id, its id, the address it goes to, its data as text."""

    id: str
    event: int
    address: str
    data: str


class Wanted(Struct, frozen=True):
    """What somebody has to get: *triggers*, *field* is the last value that rules write, *listed*: on the list."""

    triggers: tuple[Trigger, ...]
    field: str | None
    listed: bool


def space_of(transport: str) -> str:
    """Return the space whose effects leave by a transport, as the simulator names it: ids contain it."""
    return f"{transport}-0"


def show_data(data: Mapping[str, Json] | None) -> str:
    """Return the data of an event as text that can be compared."""
    return repr(sorted((data or {}).get("global", {}).items()))


class _Sent:
    """A store that remembers which effects were sent, in their order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.effects: list[Effect] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def settle_effects(self, settlements: Sequence[Settlement], now: int) -> list[bool]:
        """Note the end of effects."""
        refs = [one.ref for one in settlements if one.state == SENT]
        stored = await self._store.read_effects(refs)
        self.effects += [unpack_effect(one.content) for one in stored if one is not None]
        return await self._store.settle_effects(settlements, now)


def simulate(people: Sequence[Person], transport: str) -> dict[int, Wanted]:
    """Return what each of the people has to get, by his number."""
    return asyncio.run(simulated(people, transport))


async def simulated(people: Sequence[Person], transport: str) -> dict[int, Wanted]:
    """Do the same within a loop."""
    manager = build_plugin_manager([])
    compiler = build_compiler(manager)
    read = compiler.read("storm", document(transport))

    wanted = {}
    for person in people:
        store = _Sent(MemoryStore())
        engine = Engine(cast("Store", store), Steps(manager), compiler, transport, lambda _: None)
        steps = tuple([Step(one.at, time=_time(person, one.call), call=one.call) for one in person.steps])
        await run_vector(engine, Vector(person.story, read, steps, LATEST), 0)
        wanted[person.number] = _wanted(store.effects)
    return wanted


def _time(person: Person, call: Mapping[str, Any]) -> int:
    """Return when a call happened: one that comes again happened at its first time."""
    return next(one.at for one in person.steps if one.call["messageId"] == call["messageId"])


def _wanted(effects: Sequence[Effect]) -> Wanted:
    writes = [one for one in effects if one.do in ("update", "unset")]
    value = str(writes[-1].options.get("value") or "") if writes else ""
    return Wanted(
        tuple(sorted(trigger_of(one) for one in effects if one.do == "trigger")),
        value or None,
        any(one.do == "addToList" and one.options["list"] == str(LIST) for one in effects),
    )


def trigger_of(effect: Effect) -> Trigger:
    """Return the event of an effect as Emarsys gets it."""
    number = _NUMBERS[str(effect.options["event"])]
    return Trigger(effect.id, number, effect.key, show_data(event_data(effect)))


def count_kinds(wanted: Mapping[int, Wanted]) -> Counter[str]:
    """Return how often each event is wanted."""
    return Counter(EVENTS[one.event] for each in wanted.values() for one in each.triggers)
