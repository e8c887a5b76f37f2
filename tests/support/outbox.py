"""Effects in the outbox of a service that sends to a fake Emarsys, and a clock that a test moves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
from tests.support.app import Clock
from tests.support.world import SECRET, counted_bytes, make_service

from emarsys_cdp.credentials import parse_api_key
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.effect import Effect, pack_effect, unpack_effect
from emarsys_cdp.outbox.sending import OutboxSender
from emarsys_cdp.secrets import Seal, derive
from emarsys_cdp.service.assembly import Service
from emarsys_cdp.store import Commit, Store
from emarsys_cdp.store.keys import SHARDS, Namer, shard
from emarsys_cdp.store.outbox import EffectRef, Posting, StoredEffect
from emarsys_cdp.store.record import header
from emarsys_cdp.testing import FakeEmarsys

SPACE: Final = "dest-1"
WELCOME: Final = "9001"
"""The external event that a fake Emarsys has unless others are given."""

EVERY_SHARD = tuple(range(SHARDS))


def _rule(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "lateFireMax": "3650d",
        "conditions": [
            {"seq": 0, "type": "start", "on": "track"},
            {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "eventId": WELCOME}]},
        ],
    }


def write_document(directory: Path, **parts: Any) -> Path:
    """Write a document with the rules that effects are of: the gate is asked once more before they are sent."""
    (directory / "default.json").write_text(json.dumps({"rules": [_rule("r1"), _rule("r2")], **parts}))
    return directory


def effect_id(number: int) -> str:
    """Return the id of the effect with a number."""
    return sha256(str(number).encode()).hexdigest()[:32]


def pid_of(person: int) -> str:
    """Return the profile's id of a person; people are spread over the shards."""
    return sha256(f"person {person}".encode()).hexdigest()[:12]


def key_of(person: int) -> str:
    """Return the e-mail address of a person."""
    return f"p{person}@example.com"


def effect(which: int, person: int | None = None, do: str = "trigger", /, **parts: Any) -> Effect:
    """
    Return an effect of a person (that of the same number unless another is given).

    By default it triggers an event, and passed the gate alone, later than those of smaller numbers.
    """
    person, do = which if person is None else person, parts.get("do", do)
    options: Mapping[str, Any] = {"eventId": WELCOME} if do == "trigger" else {}
    usual = {
        "id": effect_id(which), "space": SPACE, "pid": pid_of(person), "rule": "r1", "version": 1, "instance": "i1",
        "row": "exit 1", "do": do, "options": options, "data": {}, "key_field": "3", "key": key_of(person),
        "due": 1_795_000_000_000 + which, "emitted": 1_795_000_000_000 + which, "passage": f"passage-{which}",
        "number": 0,
    }  # fmt: skip
    return Effect(**{**usual, **parts})


def ref_of(one: Effect) -> EffectRef:
    """Return where an effect is."""
    return EffectRef(shard(one.pid), one.id)


class Emarsys(FakeEmarsys):
    """A fake Emarsys and its clock, which is also that of the services that send to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(clock=self.clock)


class Outbox:
    """The outbox of a service, in steps."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self.service = service
        self.store = service.store
        self.clock = clock
        self._revisions: dict[str, int] = {}

    async def post(self, *effects: Effect) -> None:
        """Commit effects as the gate does, those of one person together."""
        by_person: dict[str, list[Effect]] = {}
        for one in effects:
            by_person.setdefault(one.pid, []).append(one)
        commits = []
        for pid, theirs in by_person.items():
            before = self._revisions.get(pid, 0)
            self._revisions[pid] = before + 1
            postings = tuple(Posting(one.id, pack_effect(one), self.clock()) for one in theirs)
            commits.append(Commit(pid, before, header(before + 1) + b"record", postings=postings))
        assert all(await self.store.commit(commits))

    async def send(self, sender: OutboxSender | None = None) -> None:
        """Look at the queue until nothing is left that may be sent now."""
        sender = sender or self.service.outbox
        while await sender.look():
            await sender.settled()

    async def read(self, one: Effect) -> StoredEffect:
        """Return an effect as it is stored."""
        (stored,) = await self.store.read_effects([ref_of(one)])
        assert stored is not None
        return stored

    async def states(self, effects: Iterable[Effect]) -> list[str]:
        """Return the states of effects."""
        return [(await self.read(one)).state for one in effects]

    async def stored(self, one: Effect) -> Effect:
        """Return an effect with what the sender has noted in it."""
        return unpack_effect((await self.read(one)).content)

    async def wait_for(self, one: Effect) -> float:
        """Let the time go by at which an effect is looked at again; return how many seconds that took."""
        seconds = ((await self.read(one)).until - self.clock()) / 1000
        self.clock.advance(max(0.0, seconds))
        return seconds


def directory(store: Store) -> Directory:
    """Return the directory of a service over a store."""
    return Directory(store, Seal(derive(SECRET, "seal"), counted_bytes()), Namer(derive(SECRET, "identifiers")))


@asynccontextmanager
async def serving(
    emarsys: Emarsys, store: Store, spaces: Iterable[str] = (SPACE,), **settings: Any
) -> AsyncIterator[Service]:
    """Make a service over *store* that sends to *emarsys*, and knows the API Keys of spaces and a document."""
    addresses = {"api_base": emarsys.api_base, "token_url": emarsys.token_url}
    with TemporaryDirectory() as rules:
        usual = {"rules_dir": write_document(Path(rules)), **addresses}
        async with httpx.AsyncClient(trust_env=False) as http:
            service = make_service(store, world=emarsys.clock.world(), client=http, **{**usual, **settings})
            await service.documents.refresh()
            for space in spaces:
                await directory(store).seen(space, parse_api_key(emarsys.api_key))
            yield service


@asynccontextmanager
async def sending(
    emarsys: Emarsys, store: Store, spaces: Iterable[str] = (SPACE,), **settings: Any
) -> AsyncIterator[Outbox]:
    """Run a service as `serving` makes it, whose sender looks when a test says so."""
    async with serving(emarsys, store, spaces, **settings) as service:
        try:
            yield Outbox(service, emarsys.clock)
        finally:
            await service.close()


__all__ = [
    "EVERY_SHARD",
    "Emarsys",
    "Outbox",
    "effect",
    "effect_id",
    "key_of",
    "pid_of",
    "ref_of",
    "sending",
    "serving",
    "write_document",
]
