"""What the gateway and the processor make of a call before it is transformed (reference 1.3, 1.6). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

from msgspec import Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp_hooks import DropCall

DELIMITER: Final = "<<>>"
WITHOUT_IDS: Final = ("extract", "record")
"""Types of calls that need not say whose they are."""


class Refused(DropCall):
    """The gateway does not take the request; *status* is what it answers, the message its body."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


class Arrival(Struct, frozen=True):
    """
    What the gateway knows of a request beside its calls.

    *now* is its time of arrival, *address* where it came from, *header* the value of the header AnonymousId, with
    which every order key begins.
    """

    now: datetime
    address: str = "127.0.0.1"
    header: str = ""


class Taken(Struct, frozen=True):
    """A call that was taken: the message as the transformer gets it, read and as JSON, and its key."""

    call: dict[str, Json]
    message: bytes
    order_key: str


def invalid_json() -> Refused:
    """Return the refusal of what cannot be read."""
    return Refused(HTTPStatus.BAD_REQUEST, "Invalid JSON")


def take(call: Json, arrival: Arrival, new_id: Callable[[], str]) -> Taken:
    """
    Return a call with everything that the host adds to it.

    Raises:
        Refused: it is no object, or says not whose it is.

    """
    if not isinstance(call, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "Event is not a valid rudder event")
    anonymous, user = _text(call.get("anonymousId")), _text(call.get("userId"))
    if not anonymous and not user and call.get("type") not in WITHOUT_IDS:
        raise Refused(HTTPStatus.BAD_REQUEST, "Request neither has anonymousId nor userId")
    message_id = call.get("messageId")
    taken = {
        "request_ip": arrival.address,
        **call,
        "messageId": (message_id.strip() if isinstance(message_id, str) else "") or new_id(),
        "rudderId": str(UUID(bytes=hashlib.md5(f"{user}:{anonymous}".encode(), usedforsecurity=False).digest())),
        **_times(call, arrival.now),
    }
    try:
        # The database that keeps the calls cannot hold U+0000, so the host removes it.
        message = go_json.dumps(taken).replace(b"\\u0000", b"")
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid_json() from error
    return Taken(taken, message, DELIMITER.join((arrival.header, anonymous or user, user)))


def _text(value: Json) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else go_json.dumps(value).decode()


def _times(call: Mapping[str, Json], now: datetime) -> dict[str, str]:
    """
    Return the four times of a message.

    A call without a timestamp happened as long before its arrival as it lay on the device before it was sent.
    """
    original = _time(call.get("originalTimestamp")) or now
    sent = _time(call.get("sentAt")) or now
    timestamp = _time(call.get("timestamp"))
    if timestamp is None:
        try:
            timestamp = now - (sent - original)
        except OverflowError:
            timestamp = now
    times = {"originalTimestamp": original, "sentAt": sent, "timestamp": timestamp, "receivedAt": now}
    return {name: written(time) for name, time in times.items()}


def _time(value: Json) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def written(time: datetime) -> str:
    """Return a time as the host writes it, with milliseconds."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_wanted(call: Mapping[str, Json], display_name: str) -> bool:
    """Tell whether the `integrations` of a call let it go to a destination; by default they do."""
    integrations = call.get("integrations", {})
    if not isinstance(integrations, dict):
        return False
    everything, this = integrations.get("All", True), integrations.get(display_name)
    if not isinstance(everything, bool):
        return False
    return this if isinstance(this, bool) else isinstance(this, dict) or everything
