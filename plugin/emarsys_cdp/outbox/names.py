"""
What an account has under which name: external events, contact lists, fields.

Rules may name them as people do. The lists come from Emarsys, are cached for some minutes per API user, and are asked
for only when a name needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.emarsys.account import read_contact_lists, read_events, read_fields
from emarsys_cdp.emarsys.client import NoAnswer, NotSent
from emarsys_cdp.emarsys.fields import Field, FieldCatalogue
from emarsys_cdp.emarsys.outcomes import Delivered, Retry
from emarsys_cdp.emarsys.reply_errors import UnreadableError
from emarsys_cdp.emarsys.sender import Answered, Sender
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Request, RetryLater

CACHED: Final = 600_000
"""Milliseconds for which lists of an account are believed."""

DOUBTED: Final = 60_000
"""Milliseconds after which a list is read again when a name is not in it: somebody may just have made it."""

PATIENCE: Final = 5.0
"""Seconds that a question waits for the API user's budget."""

EVENTS, LISTS, FIELDS = "event", "contactlist", "field/translate/en"
"""Paths of the lists (event, contact list and field API)."""

_WORDS: Final = {
    EVENTS: ("external event", "externalevent.list"),
    LISTS: ("contact list", "contactlist.list"),
    FIELDS: ("field", "field.list"),
}
"""What a list has, and the permission that reading it needs (Endpoint permission settings)."""


class Unknown(Exception):
    """A name is not (yet) one of the account's; the message says what would be right."""


class Named(Protocol):
    """A thing of an account."""

    @property
    def id(self) -> str:
        """Its number as text."""

    @property
    def name(self) -> str:
        """Its name."""


class _List(Struct, frozen=True):
    """A list of an account as it was at a time (ms); *forbidden*: the API Key may not read it."""

    at: int
    found: tuple[Named, ...] = ()
    forbidden: bool = False


class Names:
    """Finds ids by names. *clock* gives ms since 1970 UTC; *system* are the fields that every account has."""

    def __init__(self, sender: Sender, system: FieldCatalogue, clock: Callable[[], int]) -> None:
        self._sender = sender
        self._system = system
        self._clock = clock
        self._lists: dict[tuple[Credentials, str], _List] = {}
        self._asking: dict[tuple[Credentials, str], asyncio.Lock] = {}

    async def event(self, space: str, credentials: Credentials, name: str) -> str:
        """
        Return the number of an external event.

        Raises:
            Unknown: the account has none of this name.
            RetryLater: Emarsys does not answer for now.

        """
        return (await self._find(space, credentials, EVENTS, name)).id

    async def contact_list(self, space: str, credentials: Credentials, name: str) -> str:
        """Return the number of a contact list; raises as `event`."""
        return (await self._find(space, credentials, LISTS, name)).id

    async def field(self, space: str, credentials: Credentials, name: str) -> Field:
        """Return a field by id, string id or name; only for the account's own Emarsys is asked. Raises as `event`."""
        known = self._system.find(name)
        if known is not None:
            return known
        listed = _List(0)
        for age in (CACHED, DOUBTED):
            listed = await self._list(space, credentials, FIELDS, age)
            own = FieldCatalogue(one for one in listed.found if isinstance(one, Field)).find(name)
            if own is not None:
                return own
        raise Unknown(_why(FIELDS, name, listed))

    async def _find(self, space: str, credentials: Credentials, path: str, name: str) -> Named:
        wanted, listed, alike = name.strip(), _List(0), list[Named]()
        for age in (CACHED, DOUBTED):
            listed = await self._list(space, credentials, path, age)
            exact = [one for one in listed.found if one.name == wanted]
            alike = exact or [one for one in listed.found if one.name.casefold() == wanted.casefold()]
            if len({one.id for one in alike}) == 1:
                return alike[0]
        raise Unknown(_why(path, name, listed, len(alike)))

    async def _list(self, space: str, credentials: Credentials, path: str, age: int) -> _List:
        """Return a list of the account, no older than *age* ms; who asks meanwhile waits for the same answer."""
        key = (credentials, path)
        async with self._asking.setdefault(key, asyncio.Lock()):
            known = self._lists.get(key)
            if known is None or known.at + age <= self._clock():
                known = self._lists[key] = await self._ask(space, credentials, path)
            return known

    async def _ask(self, space: str, credentials: Credentials, path: str) -> _List:
        now = self._clock()
        try:
            answered = await self._sender.send(space, credentials, Request("GET", path, {}), PATIENCE)
        except (NotSent, NoAnswer) as error:
            raise RetryLater(f"the account's {_WORDS[path][0]}s could not be read: {error}") from error
        if answered.reply.status == HTTPStatus.FORBIDDEN:
            return _List(now, forbidden=True)
        return _List(now, tuple(_read(path, answered)))


def _read(path: str, answered: Answered) -> Iterable[Named]:
    outcome = answered.verdict.outcomes[0]
    if not isinstance(outcome, Delivered):
        raise RetryLater(outcome.reason, outcome.at if isinstance(outcome, Retry) else None)
    body = answered.reply.body
    try:
        if path == FIELDS:
            return read_fields(body).found
        return read_events(body).found if path == EVENTS else read_contact_lists(body).found
    except (UnreadableError, msgspec.MsgspecError) as error:
        raise RetryLater(f"the account's {_WORDS[path][0]}s cannot be read: {error}") from error


def _why(path: str, name: str, listed: _List, number: int = 0) -> str:
    what, permission = _WORDS[path]
    if listed.forbidden:
        return (
            f"the {what} {shorten(name)} cannot be found: the API Key lacks the permission {permission}; switch it on "
            f"in Emarsys, or write the {what}'s number"
        )
    if number > 1:
        return f"{number} {what}s of the account are called {shorten(name)}: write the {what}'s number"
    return f"the account has no {what} called {shorten(name)}: make it in Emarsys, or mend the rule"
