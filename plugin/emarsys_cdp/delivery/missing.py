"""
Contacts that are missing when something is sent for them: they are made, and their rows are sent once more.

The call that makes a contact may still wait in another queue of the host when a trigger for it is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from emarsys_cdp.delivery.deliverer import Deliverer, Parcel
from emarsys_cdp.delivery.parcel import RowOrigin, Sent
from emarsys_cdp.emarsys.outcomes import Delivered
from emarsys_cdp.emarsys.reply_rows import rows_of
from emarsys_cdp.emarsys.rows import key_field, part_of
from emarsys_cdp_hooks import Request


async def make_missing(deliverer: Deliverer, parcel: Parcel, sent: Sequence[Sent], patience: float) -> list[Sent]:
    """
    Return what became of the rows of a parcel after the contacts that Emarsys does not have were made.

    A contact that cannot be made for now has its row sent again later.

    Raises:
        StoreUnavailable: the store is out of order.

    """
    found, every = list(sent), rows_of(parcel.request)
    rows = [row for row, one in enumerate(sent) if one.missing]
    if not rows:
        return found
    field = key_field(parcel.request)
    body = {"key_id": field, "contacts": [{field: every[row]} for row in rows]}
    made = await deliverer.deliver(_of(parcel, Request("PUT", "contact/?create_if_not_exists=1", body), rows), patience)
    found = _with(found, rows, made)
    again = [row for row, one in zip(rows, made, strict=True) if isinstance(one.outcome, Delivered)]
    if again:
        second = await deliverer.deliver(_of(parcel, part_of(parcel.request, again), again), patience)
        found = _with(found, again, second)
    return found


def _of(parcel: Parcel, request: Request, rows: Sequence[int]) -> Parcel:
    """Return a parcel with another request, for the contacts of some rows."""
    contacts = tuple([parcel.contacts[row] for row in rows])
    return replace(parcel, request=request, contacts=contacts, origins=(RowOrigin(),) * len(rows))


def _with(sent: Sequence[Sent], rows: Sequence[int], new: Sequence[Sent]) -> list[Sent]:
    changed = dict(zip(rows, new, strict=True))
    return [changed.get(row, one) for row, one in enumerate(sent)]
