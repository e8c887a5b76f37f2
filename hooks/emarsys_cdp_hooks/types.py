"""Frozen values that cross the steps. Extensions read them and return new ones; they never change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

Json: TypeAlias = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict of these."""

Value: TypeAlias = str | bool | list[str] | None
"""
A value read by a data map: text for string, numeric (shortest decimal) and date (ISO 8601 in UTC), a boolean,
or a list of texts.
"""


class Unfit(Struct, frozen=True):
    """A value was there but is not of the data map's type; *reason* names the map, the value and what is right."""

    reason: str


class Space(Struct, frozen=True, kw_only=True):
    """
    One configured destination of the host: one Emarsys account, one users table, one document.

    *id* is the host's destination ID, *host* the host's name (`rudderstack`), *key_field* the Emarsys field
    whose value is a contact's key (`3`: e-mail), *timezone* an IANA name.
    """

    id: str
    host: str
    key_field: str
    timezone: str = "UTC"


class Call(Struct, frozen=True, kw_only=True, gc=False):
    """
    One page, screen, identify, track, group or alias call.

    *index* is its position in the host's request. *type* is lower case. *message* is the call as received and
    read-only. *event_time* and *arrival* are milliseconds since 1970 UTC; (*event_time*, *message_id*) orders
    the calls of a person.
    """

    index: int
    type: str
    message_id: str
    event_time: int
    arrival: int
    message: Mapping[str, Json]


class Identifiers(Struct, frozen=True, gc=False):
    """
    What a call says about who it is of, normalised; None where it says nothing usable.

    *warnings* holds a code for each refused identifier: id_blocked, id_wrong_type, id_too_long, key_not_email.
    """

    user: str | None = None
    key: str | None = None
    anon: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def who(self) -> str | None:
        """The person as the call names it: userId, else anonymousId, else key."""
        return self.user or self.anon or self.key


class StoredValue(Struct, frozen=True, array_like=True, gc=False):
    """The last value of a data map, with the event time (ms) and messageId of the call that brought it."""

    value: Value | Json
    event_time: int
    message_id: str


class Profile(Struct, frozen=True, gc=False):
    """
    A person of the users table, after the calls of this request were added.

    *key* is the primary key of now. *values* maps the name of a data map to its last value. Times are milliseconds
    since 1970 UTC. *released* are values that had waited for a key: the versions (event time, messageId) by data map,
    by the messageId of the call that made the key known and sends them.
    """

    id: str
    user: str | None
    key: str | None
    anonymous_ids: tuple[str, ...]
    first_seen: int
    last_seen: int
    values: Mapping[str, StoredValue]
    released: Mapping[str, Mapping[str, tuple[int, str]]] = {}


class Refused(Struct, frozen=True):
    """The call is dropped for good; *reason* is shown to the people who run the host."""

    reason: str


class Postponed(Struct, frozen=True):
    """The call cannot be processed for now; the host keeps it and sends it again."""

    reason: str


class Filtered(Struct, frozen=True):
    """The call is done and nothing has to be sent; *reason* is for logs and metrics."""

    reason: str


class UpsertContact(Struct, frozen=True, gc=False):
    """
    Write *fields* (Emarsys field id to value) of the contact whose *key_field* is *key*.

    *create*: make the contact if there is none. *list_id*: add it to this contact list as well. *left_out* says
    which values of the call did not fit their fields.
    """

    key_field: str
    key: str
    fields: Mapping[str, Json]
    create: bool = True
    list_id: str | None = None
    left_out: tuple[str, ...] = ()


class AddToList(Struct, frozen=True):
    """Add the contact whose *key_field* is *key* to a contact list."""

    list_id: str
    key_field: str
    key: str


class RemoveFromList(Struct, frozen=True):
    """Remove the contact whose *key_field* is *key* from a contact list; the contact itself stays."""

    list_id: str
    key_field: str
    key: str


class TriggerEvent(Struct, frozen=True):
    """
    Trigger an external event for the contact whose *key_field* is *key*.

    *trigger_id* lets Emarsys drop repetitions, *event_time* is UTC text ending in `Z`, *data* an object. *left_out*
    says what not every part of Emarsys will get.
    """

    event_id: str
    key_field: str
    key: str
    trigger_id: str
    event_time: str
    data: Mapping[str, Json] | None = None
    attachment: tuple[Json, ...] = ()
    left_out: tuple[str, ...] = ()


Action: TypeAlias = UpsertContact | AddToList | RemoveFromList | TriggerEvent

Decision: TypeAlias = tuple[Action, ...] | Filtered | Refused | Postponed
"""What becomes of one call: actions in the order of sending, nothing, a refusal, or another try later."""


class Request(Struct, frozen=True):
    """
    One Emarsys request: *path* is relative to the API's base with version (`contact/?create_if_not_exists=1`).

    *body* is the JSON object to send.
    """

    method: str
    path: str
    body: Mapping[str, Json]


class Delivery(Struct, frozen=True):
    """
    Requests that are sent one after another for the same calls.

    *calls* are the indexes of the calls that are done when the last request is. Every call is in one delivery.
    """

    requests: tuple[Request, ...]
    calls: tuple[int, ...]


class FieldType(Struct, frozen=True):
    """
    How values become what an Emarsys field takes.

    *name* is what a data map writes in `fieldType`. *convert* gets the data map's value and the space's time
    zone and returns the value to send; it raises ValueError with what would be right.
    """

    name: str
    convert: Callable[[Value, str], Json]
    description: str = ""


class DataType(Struct, frozen=True):
    """
    A type of data maps.

    *name* is what a data map writes in `type`. *like* is the built-in type (string, numeric, boolean, date, list) whose
    form its values have and whose operators rules use with it. *read* gets what the path found and the space's time
    zone and returns the value, None for what does not fit; it may also raise ValueError with what would be right.
    """

    name: str
    like: str
    read: Callable[[Json, str], Value]
    description: str = ""


class Operator(Struct, frozen=True):
    """
    A comparison that criteria of rules may use as `op`, and with `not_` before its name.

    *types* are the data types it is for. *holds* gets the value, what the criterion gives as `value`, and the time of
    the call (ms since 1970 UTC); it is not asked about an absent value, for which the operator is false. *check* gets
    what the criterion gives (None: nothing) when a document is read and raises ValueError with what would be right.
    """

    name: str
    types: tuple[str, ...]
    holds: Callable[[Value, Json, int], bool]
    check: Callable[[Json], None] | None = None
    description: str = ""


class DueAction(Struct, frozen=True, kw_only=True):
    """
    An action of a rule that is due for one person.

    *id* derives from the call that started the rule, so it is the same on every retry: use it as `trigger_id`.
    *options* are the action's other members in the document, *data* the captured variables, *due* is when the rule let
    it happen (ms since 1970 UTC). The contact is the one whose *key_field* is *key*.
    """

    id: str
    key_field: str
    key: str
    options: Mapping[str, Json]
    data: Mapping[str, Value]
    due: int


class ActionKind(Struct, frozen=True):
    """
    Something that a rule can do in Emarsys.

    *name* is what an action of a rule writes in `do`. *build* returns what is sent, in the order of sending; the same
    for the same argument. *check* gets the action's other members when a document is read and raises ValueError with
    what would be right.
    """

    name: str
    build: Callable[[DueAction], Sequence[Action]]
    check: Callable[[Mapping[str, Json]], None] | None = None
    description: str = ""
