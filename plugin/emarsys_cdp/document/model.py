"""A document as frozen values: what people wrote, with defaults filled in."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from emarsys_cdp.emarsys.fields import EMAIL_FIELD


class DataMap(Struct, frozen=True, rename="camel"):
    """A value of calls by its JSON path, as a data type, and the Emarsys field that it updates, if any."""

    name: str
    path: str | tuple[str, ...]
    type: str
    field: int | str | None = None
    field_type: str | None = None
    description: str = ""


class Identity(Struct, frozen=True, rename="camel"):
    """
    Where the primary key of the users table is, and the Emarsys field that holds it.

    *stitch* and *on_key_shared* say what happens when identifiers contradict each other (`identity/entries.py`).
    """

    primary_key: str | tuple[str, ...] = ("traits.email", "context.traits.email")
    key_type: Literal["email", "phone", "text"] = "email"
    key_field: int | str = EMAIL_FIELD
    blocked: tuple[str, ...] = ()
    stitch: Literal["default", "strict", "first-owner"] = "default"
    on_key_shared: Literal["share", "refuse", "move", "merge"] = "share"


class Settings(Struct, frozen=True, rename="camel"):
    """
    Settings of a space: its time zone, what counts for all its rules, and limits and lifetimes of the users table.

    *settle*, *late_fire_max*, *max_lateness*, *initial_sync* (`document/rules.py`) and the lifetimes (`*_ttl`) are
    durations, None for the usual one. *caps* count for all rules together.
    """

    timezone: str = "UTC"
    settle: float | str | None = None
    late_fire_max: float | str | None = None
    max_lateness: float | str | None = None
    initial_sync: float | str | None = None
    caps: tuple[dict[str, Any], ...] = ()
    anonymous_ttl: float | str | None = None
    known_ttl: float | str | None = None
    reachable_ttl: float | str | None = None
    shared_ttl: float | str | None = None
    anon_limit: int = 100
    merge_limit: int = 100
    alias_merge_known: bool = False


class Contacts(Struct, frozen=True, rename="camel"):
    """Which calls may make a new contact in Emarsys."""

    create: Literal["always", "identify", "never"] = "always"


class Transport(Struct, frozen=True, rename="camel"):
    """How effects of rules leave: by the host, directly, or as the service is set up."""

    kind: Literal["", "host", "direct"] = ""


class Document(Struct, frozen=True, rename="camel"):
    """Everything that is configured for a space beside the host's settings."""

    revision: int = 0
    identity: Identity = Identity()
    settings: Settings = Settings()
    contacts: Contacts = Contacts()
    transport: Transport = Transport()
    data_maps: tuple[DataMap, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()


DEFAULT = Document(
    data_maps=(
        DataMap("email", ("traits.email",), "string", EMAIL_FIELD),
        DataMap("first_name", ("traits.firstName", "traits.firstname", "traits.first_name"), "string", "1"),
        DataMap("last_name", ("traits.lastName", "traits.lastname", "traits.last_name"), "string", "2"),
    )
)
"""The document of a space that has none: primary key e-mail, e-mail and names mapped, no rules."""
