"""The endpoints under /_fake: what a fake Emarsys knows, and how it is told what to do, from any language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.incoming import Incoming
from emarsys_cdp.testing.fake_emarsys.records import Json, ReceivedRequest
from emarsys_cdp.testing.fake_emarsys.replies import Reply
from emarsys_cdp.testing.fake_emarsys.world import World

PREFIX: Final = "/_fake"

Show: TypeAlias = Callable[[World, Mapping[str, str]], Json]
Do: TypeAlias = Callable[[World, bytes], Json]


class _NewContact(Struct, forbid_unknown_fields=True):
    fields: dict[str, str | list[str]]


class _NewEvent(Struct, forbid_unknown_fields=True):
    name: str
    id: int | None = None
    connected: bool = True


class _NewList(Struct, forbid_unknown_fields=True):
    name: str
    id: int | None = None


class _Advance(Struct, forbid_unknown_fields=True):
    advance: float


class _Permissions(Struct, forbid_unknown_fields=True):
    user: str
    forbid: list[str] = []
    permit: list[str] = []


def _show_requests(world: World, query: Mapping[str, str]) -> Json:
    after = int(query.get("after", "0"))
    return [_shown(one) for one in world.requests.all() if one.number > after]


def _shown(record: ReceivedRequest) -> Json:
    shown: dict[str, Json] = msgspec.to_builtins(record)
    del shown["raw"]
    return {**shown, "body": record.body}


def _show_contacts(world: World, query: Mapping[str, str]) -> Json:
    book = world.account.contacts
    if "value" not in query:
        return list(book)
    key_field = world.account.fields.key(query.get("key_id", "3"))
    return [] if key_field is None else [book.get(number) for number in book.find(key_field, query["value"])]


def _script(world: World, raw: bytes) -> Json:
    """Take one fault or an array of them."""
    given = msgspec.json.decode(raw)
    world.script.add(msgspec.convert(given if isinstance(given, list) else [given], list[Fault]))
    return _faults(world)


def _faults(world: World) -> Json:
    return [{"fault": fault, "left": left} for fault, left in world.script.left()]


def _clear(world: World, raw: bytes) -> Json:  # noqa: ARG001 - the signature of deeds
    world.script.clear()
    return _faults(world)


def _reset(world: World, raw: bytes) -> Json:  # noqa: ARG001 - the signature of deeds
    world.reset()
    return world.counts()


def _add_contact(world: World, raw: bytes) -> Json:
    new = msgspec.json.decode(raw, type=_NewContact)
    return {"id": world.account.contacts.create(new.fields, world.now())}


def _add_event(world: World, raw: bytes) -> Json:
    new = msgspec.json.decode(raw, type=_NewEvent)
    return world.account.events.define(new.name, world.now(), new.id, connected=new.connected)


def _add_list(world: World, raw: bytes) -> Json:
    new = msgspec.json.decode(raw, type=_NewList)
    return {"id": world.account.lists.create(new.name, "", world.now(), new.id)}


def _add_field(world: World, raw: bytes) -> Json:
    field = msgspec.json.decode(raw, type=Field)
    world.account.fields.add(field)
    return field


def _advance(world: World, raw: bytes) -> Json:
    world.advance(msgspec.json.decode(raw, type=_Advance).advance)
    return {"now": world.now()}


def _permissions(world: World, raw: bytes) -> Json:
    told = msgspec.json.decode(raw, type=_Permissions)
    world.permissions.forbid(told.user, told.forbid)
    world.permissions.permit(told.user, told.permit)
    return told


SHOW: Final[Mapping[str, Show]] = {
    "requests": _show_requests,
    "contacts": _show_contacts,
    "deleted": lambda world, _: world.account.contacts.deleted.all(),
    "lists": lambda world, _: list(world.account.lists),
    "events": lambda world, _: world.account.events.accepted.all(),
    "repeats": lambda world, _: world.account.events.repeats.all(),
    "definitions": lambda world, _: list(world.account.events),
    "fields": lambda world, _: world.account.fields.all(),
    "violations": lambda world, _: world.violations.all(),
    "tokens": lambda world, _: world.tokens.issued.all(),
    "faults": lambda world, _: _faults(world),
    "counts": lambda world, _: world.counts(),
    "crashes": lambda world, _: world.crashes,
    "clock": lambda world, _: {"now": world.now()},
}
"""GET: what is shown. requests takes ?after=NUMBER, contacts ?key_id=3&value=ada@example.com."""

DO: Final[Mapping[str, Do]] = {
    "faults": _script,
    "faults/clear": _clear,
    "contacts": _add_contact,
    "lists": _add_list,
    "definitions": _add_event,
    "fields": _add_field,
    "permissions": _permissions,
    "tokens/revoke": lambda world, _: {"revoked": world.tokens.revoke()},
    "clock": _advance,
    "reset": _reset,
}
"""POST: what is done, told by a JSON body."""


def answer_control(world: World, incoming: Incoming) -> Reply:
    """Answer a request under /_fake; one that cannot be understood gets 400 and the reason."""
    name = incoming.path.removeprefix(PREFIX).strip("/")
    show, do = SHOW.get(name), DO.get(name)
    try:
        if incoming.method == "GET" and show is not None:
            return _json(HTTPStatus.OK, show(world, incoming.parameters()))
        if incoming.method == "POST" and do is not None:
            return _json(HTTPStatus.OK, do(world, incoming.raw))
    except (ValueError, RecursionError) as error:
        return _json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
    known: dict[str, Any] = {"GET": sorted(SHOW), "POST": sorted(DO)}
    return _json(HTTPStatus.OK if not name else HTTPStatus.NOT_FOUND, {"endpoints": known})


def _json(status: int, value: Json) -> Reply:
    return Reply(status, msgspec.json.encode(value))
