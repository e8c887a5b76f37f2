"""Who each call is of, as it says itself."""

from __future__ import annotations

from collections.abc import Sequence

from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp_hooks import Call, Identifiers, Space, hookimpl


@hookimpl(trylast=True)
def emarsys_cdp_read_identifiers(space: Space, calls: Sequence[Call]) -> list[Identifiers] | None:
    """Read userId, anonymousId and the configured primary key, normalised."""
    if not isinstance(space, CompiledSpace):
        return None
    read = space.reader.read
    return [read(call.message) for call in calls]
