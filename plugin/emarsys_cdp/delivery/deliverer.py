"""
Delivers the rows of one request: one request in flight per contact, nothing overtaken, one outcome per row.

A request that Emarsys refuses as a whole, though one row may be to blame, is sent again in halves until that row is
found. Repeating is left to whoever gave us the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.delivery.leases import Hold, Leases
from emarsys_cdp.delivery.overtaken import overtaken
from emarsys_cdp.delivery.parcel import RowOrigin, Sent
from emarsys_cdp.document.compile import CompiledMap
from emarsys_cdp.emarsys.client import NoAnswer, NotSent
from emarsys_cdp.emarsys.outcomes import Retry
from emarsys_cdp.emarsys.rows import fields_of, key_field, part_of
from emarsys_cdp.emarsys.sender import Sender
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import Record, UnreadableRecord, unpack
from emarsys_cdp_hooks import Request, RetryLater

MAX_REQUESTS: Final = 40
"""Requests that looking for bad rows may take: enough for two of 1,000; the rest is sent again row by row."""

_CONTACT: Final = "contact/?"
"""Beginning of the path of a contact upsert, the only request whose fields can be overtaken."""

ANSWERS: Final = 3
"""A contact is kept for the time of so many answers: Emarsys may process a request long after we gave it up."""

NO_ANSWER: Final = 504
"""Status of a row whose request got no answer, as a RudderStack server gives it to its own requests."""

BUSY: Final = "another request for the same contact is under way"


class Parcel(Struct, frozen=True):
    """
    A request to deliver for a space: for each row the name of its contact, and where it comes from.

    *signed* are headers made earlier, for credentials that are not known any more. *maps* are the space's data maps.
    """

    space: str
    credentials: Credentials
    request: Request
    contacts: tuple[str, ...]
    origins: tuple[RowOrigin, ...]
    maps: tuple[CompiledMap, ...] = ()
    signed: Mapping[str, str] | None = None


class Deliverer:
    """Delivers parcels; several at the same time."""

    def __init__(self, sender: Sender, store: Store, leases: Leases) -> None:
        self._sender = sender
        self._store = store
        self._leases = leases

    async def deliver(self, parcel: Parcel, patience: float) -> list[Sent]:
        """
        Send a parcel and return what became of each row; wait at most *patience* seconds for contacts and budget each.

        Raises:
            StoreUnavailable: the store is out of order; nothing was sent.

        """
        names = parcel.contacts
        hold = self._leases.hold(milliseconds=int((patience + ANSWERS * self._sender.seconds) * 1000))
        run = _Run(parcel, self._sender, hold, patience)
        try:
            await hold.take(names, patience)
            free = [row for row, name in enumerate(names) if name in hold.names]
            await run.send(free, await self._overtaken(parcel, free))
        finally:
            if run.unanswered:  # our request may still be processed: it must not overwrite what is sent next
                await hold.keep(int(ANSWERS * self._sender.seconds * 1000))
            else:
                await hold.release()
        return [run.sent.get(row) or Sent(Retry(BUSY, lasting=True)) for row in range(len(names))]

    async def _overtaken(self, parcel: Parcel, rows: Sequence[int]) -> dict[int, frozenset[str]]:
        """Return the fields that newer calls have set meanwhile, row by row."""
        if not parcel.request.path.startswith(_CONTACT):
            return {}
        known = {row: pid for row in rows if (pid := parcel.origins[row].pid) is not None}
        records = await self._records(known.values())
        found = {}
        for row, pid in known.items():
            record = records.get(pid)
            if record is not None:
                origin, fields = _with_released(parcel.origins[row], record), _fields(parcel.request, row)
                found[row] = overtaken(fields, origin, parcel.maps, record.values)
        return {row: fields for row, fields in found.items() if fields}

    async def _records(self, pids: Iterable[str]) -> dict[str, Record]:
        """Return the records of profiles, or of those that they were merged into since."""
        records: dict[str, Record] = {}
        now = {pid: pid for pid in pids}
        while now:
            asked = list(dict.fromkeys(now.values()))
            stored = dict(zip(asked, await self._store.read_records(asked), strict=True))
            read = {pid: record for pid, of in now.items() if (record := _record(stored[of]))}
            records |= {pid: record for pid, record in read.items() if not record.folded}
            now = {pid: record.redirect for pid, record in read.items() if record.folded and record.redirect}
        return records


def _with_released(origin: RowOrigin, record: Record) -> RowOrigin:
    """Return a row's origin with the versions of values that had waited for a key, and that its calls send."""
    mine = {message_id for _, message_id in origin.versions}
    waited = [version for one in record.released if one.message_id in mine for version in one.versions.values()]
    return replace(origin, versions=(*origin.versions, *waited)) if waited else origin


def _fields(request: Request, row: int) -> list[str]:
    """Return the fields that a row sets; its key says whose they are and is never left out."""
    return [name for name in fields_of(request, row) if name != key_field(request)]


class _Run:
    """The requests that one parcel takes. *unanswered*: nobody knows whether the last one was processed."""

    def __init__(self, parcel: Parcel, sender: Sender, hold: Hold, patience: float) -> None:
        self._parcel = parcel
        self._sender = sender
        self._hold = hold
        self._patience = patience
        self._requests = 0
        self.sent: dict[int, Sent] = {}
        self.unanswered = False

    async def send(self, rows: list[int], left_out: Mapping[int, frozenset[str]]) -> None:
        """Send rows, and their halves as long as Emarsys refuses several as a whole."""
        todo = [rows] if rows else []
        while todo:
            part = todo.pop()
            if self._requests == MAX_REQUESTS:
                self._settle(part, Sent(Retry("Emarsys refused it together with others; it is sent alone"), alone=True))
                continue
            todo += await self._send(part, left_out)

    async def _send(self, rows: list[int], left_out: Mapping[int, frozenset[str]]) -> list[list[int]]:
        """Send some rows in one request; return its halves when they have to be sent again."""
        request = part_of(self._parcel.request, rows, left_out)
        parcel = self._parcel
        try:
            if self._requests:
                await self._hold.renew()
            self._requests += 1
            answered = await self._sender.send(parcel.space, parcel.credentials, request, self._patience, parcel.signed)
        except RetryLater as error:
            self._settle(rows, Sent(Retry(str(error), error.at, lasting=True)))
        except NotSent as error:
            self._settle(rows, Sent(Retry(f"Emarsys could not be reached: {error}")))
        except NoAnswer as error:
            self.unanswered = True
            self._settle(rows, Sent(Retry(f"nobody knows whether Emarsys took it: {error}"), NO_ANSWER))
        else:
            if answered.verdict.divisible and len(rows) > 1:
                middle = len(rows) // 2
                return [rows[middle:], rows[:middle]]
            verdict, status = answered.verdict, answered.reply.status
            missing = frozenset(verdict.missing)
            for position, (row, outcome) in enumerate(zip(rows, verdict.outcomes, strict=True)):
                self.sent[row] = Sent(outcome, status, missing=position in missing)
        return []

    def _settle(self, rows: list[int], sent: Sent) -> None:
        self.sent |= dict.fromkeys(rows, sent)


def _record(packed: bytes | None) -> Record | None:
    try:
        return None if packed is None else unpack(packed)[1]
    except UnreadableRecord:
        return None
