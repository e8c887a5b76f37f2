"""From a received message to a `Call`: type, messageId and times, the same for every host."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from emarsys_cdp.values.times import parse_time, parse_usual_time
from emarsys_cdp_hooks import Call

TYPES = ("identify", "track", "page", "screen", "group", "alias")
"""Types of calls of the Segment specification."""

FUTURE_MILLISECONDS = 5 * 60 * 1000
"""An event time further ahead of the arrival than this is taken as the arrival (a wrong clock)."""

MAX_MESSAGE_ID = 100
"""A longer messageId is replaced by its hash."""

_TRANSPORT = frozenset(("sentAt", "receivedAt", "ip", "request_ip", "requestIP", "rudderId"))
"""Parts of a message and of its context that differ between two deliveries of the same call (semantics 1.10)."""

_canonical = msgspec.json.Encoder(order="deterministic")


def make_call(index: int, message: Mapping[str, Any], arrival: int) -> Call:
    """Return the call of a message. *arrival* is in milliseconds since 1970 and never that of a retry."""
    kind, given, text = message.get("type"), message.get("messageId"), message.get("timestamp")
    time = parse_usual_time(text) if type(text) is str else None
    return Call(
        index=index,
        type=kind if kind in TYPES else kind.strip().lower() if isinstance(kind, str) else "",
        message_id=given if type(given) is str and 0 < len(given) <= MAX_MESSAGE_ID else message_id(message),
        event_time=event_time(message, arrival) if time is None or time > arrival else time,
        arrival=arrival,
        message=message,
    )


def message_id(message: Mapping[str, Any]) -> str:
    """Return the messageId; without one a hash of what the call says, so that a retry has the same."""
    given = message.get("messageId")
    if isinstance(given, str) and given:
        return given if len(given) <= MAX_MESSAGE_ID else _digest(given.encode("utf-8", "replace"))
    content = _content(message)
    if isinstance(content.get("context"), Mapping):
        content["context"] = _content(content["context"])
    return _digest(_canonical.encode(content))


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part of a message without what another delivery has otherwise."""
    return {key: value for key, value in part.items() if key not in _TRANSPORT}


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]


def event_time(message: Mapping[str, Any], arrival: int) -> int:
    """Return when the call happened: `timestamp`, else `originalTimestamp`, else its arrival."""
    for name in ("timestamp", "originalTimestamp"):
        text = message.get(name)
        time = parse_time(text) if isinstance(text, str) else None
        if time is not None:
            return time if time <= arrival + FUTURE_MILLISECONDS else arrival
    return arrival
