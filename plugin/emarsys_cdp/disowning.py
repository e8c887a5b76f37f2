"""
Taking identifiers out of records that are somebody else's, or nobody's, by their rows.

Rows say who has an identifier. A process that dies between a claim and the record leaves a userId that it was about to
claim, or a device that it has just made nobody's and that another worker was writing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from emarsys_cdp.identity.changes import without, without_user
from emarsys_cdp.identity.entries import ANON, USER
from emarsys_cdp.identity.resolution import SHARE
from emarsys_cdp.merging import Known, Merger
from emarsys_cdp.store import Store
from emarsys_cdp.store.record import Record, UnreadableRecord, unpack
from emarsys_cdp.store.rows import OWNED, SHARED, Row, read_row

_KINDS = {USER: "u", ANON: "a"}


async def disown(store: Store, merger: Merger, records: Sequence[tuple[str, bytes]]) -> int:
    """
    Write those of the records without what is not theirs; return how many.

    Raises:
        StoreUnavailable: the store is out of order; what was done stays done.

    """
    known = [one for pid, stored in records if (one := _read(pid, stored)) is not None]
    named = [(one, rank, value) for one in known for rank, value in _identifiers(one.record)]
    names = [merger.namer(one.record.space, _KINDS[rank], value) for one, rank, value in named]
    wrong: dict[str, tuple[Known, Record]] = {}
    for (one, rank, value), content in zip(named, await store.read_rows(names) if names else [], strict=True):
        if await _is_others(one.pid, read_row(content), merger):
            record = wrong.get(one.pid, (one, one.record))[1]
            taken = without_user(record, value) if rank == USER else without(record, ANON, value, SHARE)
            wrong[one.pid] = (one, taken)
    return len([True for one, record in wrong.values() if await merger.write(one, record)])


def _read(pid: str, stored: bytes) -> Known | None:
    """Return a person; nobody who is half made, half merged or half erased."""
    try:
        revision, record = unpack(stored)
    except UnreadableRecord:  # of another version of this program, which will sweep it
        return None
    return None if record.unfinished or record.stub or record.isolate else Known(pid, revision, record)


def _identifiers(record: Record) -> list[tuple[int, str]]:
    """Return rank and value of the identifiers that only one person can have; a key may be used by others."""
    users = [(USER, user) for user in (record.user, *record.aliases) if user is not None]
    return [*users, *[(ANON, device.value) for device in record.devices]]


async def _is_others(pid: str, row: Row | None, merger: Merger) -> bool:
    """Tell whether a row says that an identifier is shared, or of a person who is another one by now."""
    if row is None or row.kind == SHARED:
        return row is not None
    if row.kind != OWNED or row.pid in (None, pid):
        return False
    with suppress(UnreadableRecord):
        owner = await merger.follow(row.pid or "")
        return owner is not None and owner.pid != pid
    return False
