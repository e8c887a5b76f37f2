"""What a fake Emarsys keeps and shows: frozen values, and logs that hold the newest of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

Json: TypeAlias = Any
"""A decoded JSON value."""

Stored: TypeAlias = str | list[str]
"""A value of a contact: text, or the choice ids of a multiple choice."""

ViolationKind: TypeAlias = Literal["rate", "token_rate", "batch_size", "body_size", "duplicate_key", "nonce_replay"]
"""Which rule of the API a client broke; each is answered as Emarsys does, and nonce_replay passes."""

T = TypeVar("T")


class ReceivedRequest(Struct, frozen=True, kw_only=True):
    """
    One request to the API or the token endpoint.

    *number* counts from 1, *time* is ms since 1970 by the clock of the fake. *user* is the client id or the WSSE user
    that the request names, right or wrong. *raw* is the body as it came (empty when it was above every limit), *size*
    its bytes. *status* is None until the answer is decided, and for good when there was none. *fault* is the kind of
    the scripted fault that hit it, *note* says in words what an answer of Emarsys would not tell.
    """

    number: int
    time: int
    method: str
    path: str
    query: str = ""
    user: str | None = None
    raw: bytes = b""
    size: int = 0
    status: int | None = None
    fault: str | None = None
    note: str = ""

    @property
    def body(self) -> Json:
        """The decoded JSON body; None when there is none or it is no JSON."""
        try:
            return msgspec.json.decode(self.raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None


class Contact(Struct, frozen=True):
    """A contact: *fields* has field id to value, without the empty ones; times are ms since 1970."""

    id: int
    uid: str
    fields: dict[str, Stored]
    created: int
    updated: int


class DeletedContact(Struct, frozen=True):
    """A contact as it was when POST /contact/delete removed it, by which key."""

    contact: Contact
    key_field: str
    time: int


class ContactList(Struct, frozen=True):
    """A contact list; *members* are the ids of contacts in the order they were added."""

    id: int
    name: str
    description: str
    created: int
    members: tuple[int, ...]


class EventDefinition(Struct, frozen=True):
    """
    An external event of the account, and what it starts.

    Without any programs or e-mails a trigger is refused with 5005, unless the account has the advanced features of
    Interactions.
    """

    id: int
    name: str
    created: int = 0
    email_ids: tuple[int, ...] = ()
    program_ids: tuple[int, ...] = ()
    interactions_program_ids: tuple[str, ...] = ()


class AcceptedEvent(Struct, frozen=True, kw_only=True):
    """
    One contact's trigger of an external event.

    *repeated* says that the same *trigger_id* was triggered before for this event. *request* is the number of the
    request, *time* when it was processed.
    """

    event_id: int
    name: str
    key_field: str
    external_id: str
    contact_id: int
    data: dict[str, Json] | None
    event_time: str | None
    trigger_id: str | None
    attachment: Json
    repeated: bool
    request: int
    time: int


class IssuedToken(Struct, frozen=True):
    """An access token that was handed out; times are ms since 1970."""

    client: str
    token: str
    issued: int
    expires: int
    revoked: bool = False


class Violation(Struct, frozen=True):
    """A rule of the API that a client broke: *detail* in words, *request* the number of the request."""

    kind: ViolationKind
    time: int
    user: str | None
    detail: str
    request: int


class Counts(Struct, frozen=True, kw_only=True):
    """How many of everything there are; *_dropped* were forgotten because a log was full."""

    requests: int
    requests_dropped: int
    contacts: int
    deleted: int
    deleted_dropped: int
    events: int
    events_dropped: int
    repeats: int
    repeats_dropped: int
    violations: int
    violations_dropped: int
    tokens: int
    tokens_dropped: int
    crashes: int


class Log(Generic[T]):
    """The newest records, numbered from 1; *total* counts all that ever were."""

    def __init__(self, keep: int, keep_bytes: int | None = None, weigh: Callable[[T], int] = lambda _: 0) -> None:
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._weigh = weigh
        self._bytes = 0
        self._kept: dict[int, T] = {}
        self.total = 0

    def add(self, record: T) -> int:
        """Keep one more record, forget the oldest when there are too many, and return its number."""
        self.total += 1
        self._kept[self.total] = record
        self._bytes += self._weigh(record)
        while len(self._kept) > self._keep or self._is_too_heavy():
            oldest = next(iter(self._kept))
            self._bytes -= self._weigh(self._kept.pop(oldest))
        return self.total

    def _is_too_heavy(self) -> bool:
        return self._keep_bytes is not None and self._bytes > self._keep_bytes and len(self._kept) > 1

    def get(self, number: int) -> T | None:
        """Return a record, None when it was forgotten."""
        return self._kept.get(number)

    def replace(self, number: int, record: T) -> None:
        """Put a record of the same weight in the place of an earlier one, unless that was forgotten."""
        if number in self._kept:
            self._kept[number] = record

    def all(self) -> tuple[T, ...]:
        """Return the records that are kept, oldest first."""
        return tuple(self._kept.values())

    @property
    def dropped(self) -> int:
        """How many were forgotten."""
        return self.total - len(self._kept)
