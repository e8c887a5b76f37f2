"""Which calls can be processed at all."""

from __future__ import annotations

from collections.abc import Sequence

from emarsys_cdp.calls import TYPES
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Call, Refused, Space, hookimpl

_COMPLETE = frozenset(TYPES) - {"track"}
"""Types that need nothing but their type."""


@hookimpl(trylast=True)
def emarsys_cdp_validate_calls(space: Space, calls: Sequence[Call]) -> list[Refused | None]:  # noqa: ARG001
    """Refuse calls without a known type and track calls without an event name."""
    return [None if call.type in _COMPLETE else _refusal(call) for call in calls]


def _refusal(call: Call) -> Refused | None:
    if call.type not in TYPES:
        given = call.message.get("type")
        found = "the call has no type" if given is None else f"type {shorten(given)} is unknown"
        return Refused(f"{found}: it must be one of {', '.join(TYPES)}")
    if call.type == "track":
        event = call.message.get("event")
        if not isinstance(event, str) or not event.strip():
            found = "no event" if event is None else f"event {shorten(event)}"
            return Refused(f"the track call has {found}: it must be the event's name as text")
    return None
