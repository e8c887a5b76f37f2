"""Pinning an effect: everything that it names gets Emarsys' id, and values the form that their fields take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.effect import Effect
from emarsys_cdp.emarsys.field_types import check_writable, converter
from emarsys_cdp.outbox.names import Names
from emarsys_cdp.outbox.requests import (
    ADD_TO_LIST,
    REMOVE_FROM_LIST,
    TRIGGER,
    UNSET,
    UPDATE,
    Unsendable,
    value_to_write,
)
from emarsys_cdp_hooks import FieldType, Json


class Pinner:
    """Pins effects by the lists of their accounts and the field types that there are."""

    def __init__(self, names: Names, types: Mapping[str, FieldType]) -> None:
        self._names = names
        self._types = types

    async def pin(self, effect: Effect, credentials: Credentials, timezone: str) -> Effect:
        """
        Return the effect with ids in place of names; one that is pinned already stays as it is.

        Raises:
            Unknown: something that it names is not (yet) in the account.
            Unsendable: it can never be sent as it is.
            RetryLater: Emarsys does not answer for now.

        """
        sending = effect.sending
        if sending.pinned:
            return effect
        options = await self._options(effect, credentials, timezone)
        return replace(effect, options=options, sending=replace(sending, pinned=True, held=False))

    async def _options(self, effect: Effect, credentials: Credentials, timezone: str) -> dict[str, Json]:
        given, space = effect.options, effect.space
        if effect.do == TRIGGER:
            name = _text(given, "eventId") or _text(given, "event")
            event = await self._number(name, "event", lambda one: self._names.event(space, credentials, one))
            return {**{one: given[one] for one in given if one not in ("event", "eventId")}, "eventId": event}
        if effect.do in (ADD_TO_LIST, REMOVE_FROM_LIST):
            name = _text(given, "list")
            return {
                "list": await self._number(name, "list", lambda one: self._names.contact_list(space, credentials, one))
            }
        if effect.do in (UPDATE, UNSET):
            return await self._field(effect, credentials, timezone)
        return given

    async def _number(self, name: str, what: str, find: Callable[[str], Awaitable[str]]) -> str:
        """Return the id that a name has; digits are an id themselves."""
        if not name:
            raise Unsendable(f"the action names no {what}: write its name or its number as {what}")
        if name.isascii() and name.isdigit():
            return str(int(name))
        return await find(name)

    async def _field(self, effect: Effect, credentials: Credentials, timezone: str) -> dict[str, Json]:
        name = _text(effect.options, "field")
        if not name:
            raise Unsendable("the action names no field: write its name or its number as field")
        field = await self._names.field(effect.space, credentials, name)
        problem = check_writable(field)
        if problem is not None:
            raise Unsendable(problem)
        if effect.do == UNSET:
            return {"field": field.id, "value": ""}
        try:
            return {"field": field.id, "value": converter(field, self._types)(value_to_write(effect), timezone)}
        except ValueError as error:
            raise Unsendable(f"field {field.id} ({field.name}): {error}") from error


def _text(options: Mapping[str, Json], name: str) -> str:
    """Return the text of an option; a number is given as its digits, anything else is none."""
    value = options.get(name)
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
