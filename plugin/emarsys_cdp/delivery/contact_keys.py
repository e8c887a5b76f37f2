"""Which contacts of Emarsys are a person's own, and may be deleted with the person."""

from __future__ import annotations

from collections.abc import Sequence

from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer, owner
from emarsys_cdp.store.record import Record, UnreadableRecord, unpack
from emarsys_cdp_hooks import Identifiers, RetryLater


async def own_keys(store: Store, namer: Namer, space: str, ids: Identifiers) -> list[str]:
    """
    Return the keys of now and of before that belong to the person with these identifiers, and to nobody else.

    A key that another person claimed is that person's contact and is left out. A key that the users table does not
    know is the person's.

    Raises:
        RetryLater: the store is out of order, or the person's record cannot be read.

    """
    known = await _records(store, [name for name in namer.names(space, ids.user, ids.key, None) if name is not None])
    person = next((pid for pid, record in known.items() if ids.user is None or record.user == ids.user), None)
    record = None if person is None else known[person]
    keys = [key for key in (ids.key, *_keys(record)) if key is not None]
    rows = await store.read_rows([namer(space, "k", key) for key in keys])
    owners = [owner(row) for row in rows]
    mine = [key for key, pid in zip(keys, owners, strict=True) if pid is None or pid == person]
    return list(dict.fromkeys(mine))


def _keys(record: Record | None) -> Sequence[str | None]:
    return () if record is None else (record.key if record.owns_key else None, *record.former_keys)


async def _records(store: Store, names: Sequence[str]) -> dict[str, Record]:
    """Return the records that own identifiers, in the order of the identifiers."""
    pids = [pid for row in await store.read_rows(names) if (pid := owner(row)) is not None] if names else []
    stored = zip(pids, await store.read_records(pids), strict=True) if pids else ()
    try:
        return {pid: unpack(packed)[1] for pid, packed in stored if packed is not None}
    except UnreadableRecord as error:
        raise RetryLater(f"the person's record cannot be read: {error}") from error
