"""
The hooks of emarsys-cdp, in the order in which a request meets them.

Every hook takes the whole batch of a host request, is synchronous, and gets the time as *now* (milliseconds
since 1970 UTC). hooks/README.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Sequence

from pluggy import HookspecMarker

from emarsys_cdp_hooks.types import (
    Action,
    ActionKind,
    Call,
    DataType,
    Decision,
    Delivery,
    FieldType,
    Identifiers,
    Json,
    Operator,
    Profile,
    Refused,
    Space,
    Unfit,
    Value,
)

hookspec = HookspecMarker("emarsys_cdp")


@hookspec
def emarsys_cdp_field_types() -> Sequence[FieldType]:
    """List the Emarsys field types that this extension adds; asked once, at the start."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_data_types() -> Sequence[DataType]:
    """List the types of data maps that this extension adds; asked at the start."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_operators() -> Sequence[Operator]:
    """List the comparisons of rules that this extension adds; asked at the start."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_actions() -> Sequence[ActionKind]:
    """List what rules can do in Emarsys by this extension; asked at the start."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_enrich_calls(space: Space, calls: Sequence[Call], now: int) -> Sequence[Call] | None:
    """Return the calls with changed messages, same length and order; runs once, before anything is read."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_drop_calls(space: Space, calls: Sequence[Call], now: int) -> Sequence[str | None] | None:
    """Return for each call why it must not be processed, or None; an error makes the host retry the batch."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_validate_calls(space: Space, calls: Sequence[Call]) -> Sequence[Refused | None] | None:
    """Return for each call a refusal, or None when it can be processed; the first refusal counts."""
    raise NotImplementedError


@hookspec(firstresult=True)
def emarsys_cdp_read_identifiers(space: Space, calls: Sequence[Call]) -> Sequence[Identifiers] | None:
    """Return for each call who it is of; the first extension that answers decides for the batch."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_map_values(space: Space, calls: Sequence[Call]) -> Sequence[dict[str, Value | Json | Unfit]] | None:
    """Return for each call the values of data maps found in it; later answers win, name by name."""
    raise NotImplementedError


@hookspec
def emarsys_cdp_decide_actions(
    space: Space,
    calls: Sequence[Call],
    identifiers: Sequence[Identifiers],
    profiles: Sequence[Profile | None],
    now: int,
) -> Sequence[Decision] | None:
    """Return for each call what is sent to Emarsys for it; actions of several answers are joined."""
    raise NotImplementedError


@hookspec(firstresult=True)
def emarsys_cdp_build_requests(
    space: Space, actions: Sequence[tuple[int, tuple[Action, ...]]], merge: bool
) -> Sequence[Delivery] | None:
    """Return the Emarsys requests for (call index, actions) pairs; *merge* allows one for several calls."""
    raise NotImplementedError
