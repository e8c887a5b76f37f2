"""
Decoders that read only what is looked at.

Two thirds of a call are context that no data map names. Reading just the parts in use takes a third of the time of
reading all of them, and reading is the largest cost of a call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

import msgspec

from emarsys_cdp.values.paths import parse_path

ENVELOPE = (
    "type",
    "event",
    "messageId",
    "userId",
    "anonymousId",
    "groupId",
    "timestamp",
    "originalTimestamp",
    "receivedAt",
    "integrations",
)
"""Parts of a message that the steps look at in every space."""


def message_decoder(paths: Iterable[str | tuple[str, ...]]) -> msgspec.json.Decoder[dict[str, Any]]:
    """
    Return a decoder of messages that keeps the envelope and what is on *paths*, and checks no types.

    Of `context`, the largest part, only the named children are kept. A message whose context is no object raises
    `msgspec.ValidationError`; read it whole.
    """
    steps = [parse_path(path) for one in paths for path in ([one] if isinstance(one, str) else one)]
    roots = {str(path[0]) for path in steps} - {"context"}
    children = {str(path[1]) for path in steps if path[0] == "context" and len(path) > 1}
    if "traits" in roots or "traits" in children:
        roots.add("traits")
        children.add("traits")
    parts: dict[str, Any] = dict.fromkeys((*ENVELOPE, *roots), Any)
    if any(path == ("context",) for path in steps):
        parts["context"] = Any
    elif children:
        parts["context"] = _object(dict.fromkeys(children, Any))
    return msgspec.json.Decoder(_object(parts))


def _object(parts: dict[str, Any]) -> Any:
    """Return the type of an object that keeps these parts and skips others."""
    return TypedDict("Parts", parts, total=False)  # type: ignore[operator]  # the keys are known at run time only
