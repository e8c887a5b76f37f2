"""What people ask of the users table - show, list, export, erase - for commands and the API alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from emarsys_cdp.document.model import Document
from emarsys_cdp.store import START, Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.known_spaces import KnownSpaces
from emarsys_cdp.store.record import Record, UnreadableRecord, unpack
from emarsys_cdp.store.rows import SHARED, Row, read_row
from emarsys_cdp.users_pages import STEP, Place, place_after, read_place
from emarsys_cdp.users_query import read_identifier, reader_of
from emarsys_cdp.users_table import KINDS, UsersTable
from emarsys_cdp.users_view import fields_of, is_person, show_record, show_row
from emarsys_cdp_hooks import DropCall, Json, StopAndFix

DELETE: Final = "delete"
SUPPRESS: Final = "suppress"
MODES: Final = (DELETE, SUPPRESS)
"""How a person is erased: calls of before are dropped, or all calls."""

MAX_NAMED: Final = 20
"""Most spaces that an error lists."""


class Identifier(Struct, frozen=True):
    """An identifier; *kind* is user, key or anon."""

    kind: str
    value: str


class Removed(Struct, frozen=True):
    """
    The identifiers that were erased, and the *keys* of contacts in Emarsys that were nobody else's.

    The contacts themselves are not deleted here.
    """

    space: str
    mode: str
    identifiers: list[Identifier]
    keys: list[str]


class UnknownSpace(DropCall):
    """The space that is meant cannot be told; the message lists those there are."""


class UsersDesk:
    """
    Answers questions about the users table of all spaces.

    *document* returns the document of a space, None when it has none; *clock* gives ms since 1970 UTC. *looked_at* is
    told of each record on the way through all of them.
    """

    def __init__(
        self,
        table: UsersTable,
        store: Store,
        namer: Namer,
        document: Callable[[str], Document | None],
        clock: Callable[[], int],
        looked_at: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        self._store = store
        self._namer = namer
        self._document = document
        self._clock = clock
        self._looked_at = looked_at
        self._known_spaces = KnownSpaces(store, namer)

    async def spaces(self) -> list[str]:
        """Return the spaces that somebody is in; looks at everybody."""
        return sorted({record.space async for _, record in self._records(None)})

    async def only_space(self) -> str:
        """
        Return the space when there is only one.

        Raises:
            UnknownSpace: there is none, or there are several.

        """
        spaces = await self.probable_spaces()
        if len(spaces) == 1:
            return spaces[0]
        if not spaces:
            raise UnknownSpace("the users table is empty: nobody has called yet")
        more = f" and {len(spaces) - MAX_NAMED} more" if len(spaces) > MAX_NAMED else ""
        raise UnknownSpace(f"there are several spaces, name one of them: {', '.join(spaces[:MAX_NAMED])}{more}")

    async def probable_spaces(self) -> Sequence[str]:
        """Return the spaces that calls have come for; whether it is only one is asked of some of the people as well."""
        known = sorted(await self._known_spaces.read())
        some, _ = await self._store.step(START, STEP)
        others = any(record is not None and record.space not in known for _, record in map(_read, some))
        return known if known and not others else await self.spaces()

    def normal(self, space: str, kind: str, value: str) -> str:
        """
        Return an identifier in the form that the space's calls have it; *kind* is user, key or anon.

        Raises:
            NoIdentifier: no call can have it.

        """
        return read_identifier(reader_of(self._document(space), value), kind, value)

    async def show(self, space: str, kind: str, value: str) -> dict[str, Json] | None:
        """
        Return whom or what an identifier names, None when it is unknown.

        Raises:
            NoIdentifier: no call can have it.
            StopAndFix: the record is of a format that this version does not read.

        """
        value = self.normal(space, kind, value)
        name = self._namer(space, KINDS[kind], value)
        (content,) = await self._store.read_rows([name])
        row = read_row(content)
        shown = None if row is None else show_row(name, kind, value, row, await self._end(name, row))
        if shown is not None:
            return shown
        try:
            found = await self._table.find(space, kind, value)
        except UnreadableRecord as error:
            raise StopAndFix(f"the person's record cannot be read: {error}") from error
        return None if found is None else show_record(found.pid, found.record, fields_of(self._document(space)))

    async def _end(self, name: str, row: Row) -> int | None:
        """Return when a row disappears that says that its identifier is nobody's."""
        (seconds,) = await self._store.seconds_left([name]) if row.kind == SHARED else [None]
        return None if seconds is None else self._clock() + seconds * 1000

    async def newest(self, space: str, limit: int) -> tuple[list[dict[str, Json]], int]:
        """Return those that were seen last, newest first, and how many people there are."""
        kept: list[tuple[int, str, int, Record]] = []
        total = 0
        async for pid, record in self._records(space):
            if not is_person(record):
                continue
            total += 1
            heappush(kept, (record.last_seen, pid, total, record))
            if len(kept) > limit:
                heappop(kept)
        fields = fields_of(self._document(space))
        found = {pid: record for _, pid, _, record in sorted(kept, reverse=True)}
        return [show_record(pid, record, fields) for pid, record in found.items()], total

    async def page(self, space: str, after: str, limit: int) -> tuple[list[dict[str, Json]], str | None]:
        """
        Return the next people after a page that ended at *after*, and where this one ends (None: these were the last).

        Raises:
            NoPlace: *after* is the end of no page.

        """
        place: Place | None = read_place(after)
        fields, shown = fields_of(self._document(space)), list[dict[str, Json]]()
        while place is not None:
            people, following = await self._step(space, place.at)
            pids = list(people)
            done = place.left(pids)
            if len(shown) == limit and done < len(pids):
                return shown, str(place_after(place.at, pids[:done]))
            end = done + limit - len(shown)
            shown += [show_record(pid, people[pid], fields) for pid in pids[done:end]]
            if end < len(pids):
                return shown, str(place_after(place.at, pids[:end]))
            place = None if following is None else Place(following)
        return shown, None

    async def _step(self, space: str, at: str) -> tuple[dict[str, Record], str | None]:
        """Return the people of a space among those of a step, in the order of their ids, and the next step."""
        found, following = await self._store.step(at, STEP)
        people = {pid: record for pid, record in map(_read, found) if record is not None and record.space == space}
        return {pid: people[pid] for pid in sorted(people) if is_person(people[pid])}, following

    async def everything(self, space: str) -> AsyncIterator[dict[str, Json]]:
        """Yield every record of a space: people, and where merged ones have gone."""
        fields = fields_of(self._document(space))
        async for pid, record in self._records(space):
            if is_person(record) or record.redirect:
                yield show_record(pid, record, fields)

    async def erase(self, space: str, kind: str, value: str, mode: str) -> Removed:
        """
        Erase a person by one identifier; from now on calls of before (*mode* delete) or all calls are dropped.

        Raises:
            NoIdentifier: no call can have it.

        """
        value = self.normal(space, kind, value)
        try:
            erased = await self._table.erase(space, kind, value, mode, self._clock())
        except UnreadableRecord as error:
            raise StopAndFix(f"the person's record cannot be read: {error}") from error
        return Removed(space, mode, [Identifier(*one) for one in erased.identifiers], list(erased.keys))

    async def unsuppress(self, space: str, kind: str, value: str) -> bool:
        """
        Take the calls of a suppressed person again; tell whether the person was suppressed.

        Raises:
            NoIdentifier: no call can have it.

        """
        return await self._table.unsuppress(space, kind, self.normal(space, kind, value))

    async def _records(self, space: str | None) -> AsyncIterator[tuple[str, Record]]:
        """Yield the records of a space, of all spaces for None; one that cannot be read is nobody's."""
        async for pid, stored in self._store.scan():
            self._looked_at()
            _, record = _read((pid, stored))
            if record is not None and space in (None, record.space):
                yield pid, record


def _read(found: tuple[str, bytes]) -> tuple[str, Record | None]:
    """Return a profile's id and record, None for one that cannot be read."""
    try:
        return found[0], unpack(found[1])[1]
    except UnreadableRecord:
        return found[0], None
