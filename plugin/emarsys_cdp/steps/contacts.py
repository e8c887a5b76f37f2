"""What a call sends in a space with a document: the contact with its mapped fields, the same for every type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp_hooks import (
    Call,
    Decision,
    Filtered,
    Identifiers,
    Json,
    Profile,
    Refused,
    Space,
    StoredValue,
    UpsertContact,
    hookimpl,
)

UNIDENTIFIABLE = Filtered("the call names nobody: no usable userId, anonymousId or primary key")
NO_KEY = Filtered("the person has no primary key yet; the values wait in the users table")
NOTHING_MAPPED = Filtered("the call carries no value of a data map with a field, or newer ones are known")


@hookimpl(trylast=True)
def emarsys_cdp_decide_actions(
    space: Space,
    calls: Sequence[Call],
    identifiers: Sequence[Identifiers],
    profiles: Sequence[Profile | None],
) -> list[Decision] | None:
    """Upsert the contact of each call with those of its values that are still the newest."""
    if not isinstance(space, CompiledSpace) or space.stock is not None:
        return None
    return [_decide(space, call, ids, profile) for call, ids, profile in zip(calls, identifiers, profiles, strict=True)]


def _decide(space: CompiledSpace, call: Call, ids: Identifiers, profile: Profile | None) -> Decision:
    if profile is None:
        return UNIDENTIFIABLE
    if profile.key is None:
        return NO_KEY
    row: dict[str, Json] = {space.key_field: profile.key}
    left_out = add_mapped_fields(row, space, call, profile)
    if len(row) == 1 and ids.key is None:
        return Refused("; ".join(left_out)) if left_out else NOTHING_MAPPED
    create = space.create == "always" or (space.create == "identify" and call.type == "identify")
    return (UpsertContact(space.key_field, profile.key, row, create, None, tuple(left_out)),)


def add_mapped_fields(row: dict[str, Json], space: CompiledSpace, call: Call, profile: Profile) -> list[str]:
    """
    Add the Emarsys fields that this call sets to *row*, and return what of it did not fit its field.

    Only values whose stored version is this call's count: a retry of an old job never overwrites a newer value. The
    call that made the person's key known sends as well what had waited for it and is still the newest.
    """
    left_out: list[str] = []
    time, message_id = call.event_time, call.message_id
    values, released = profile.values, profile.released.get(message_id) if profile.released else None
    for name, field, convert in space.sent:
        stored = values.get(name)
        if stored is None:
            continue
        if (stored.event_time != time or stored.message_id != message_id) and not _waited(name, stored, released):
            continue
        try:
            row[field] = convert(stored.value, space.timezone)
        except ValueError as error:
            left_out.append(f"data map {name}, field {field}: {error}")
    return left_out


def _waited(name: str, stored: StoredValue, released: Mapping[str, tuple[int, str]] | None) -> bool:
    """Tell whether a value is one that had waited for the key that this call made known."""
    return released is not None and released.get(name) == (stored.event_time, stored.message_id)
