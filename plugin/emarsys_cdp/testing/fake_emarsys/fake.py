"""`FakeEmarsys`: a stand-in for the Emarsys API that tests start, fill, break and look into."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing.fake_emarsys.app import App
from emarsys_cdp.testing.fake_emarsys.auth import TOKEN_PATH
from emarsys_cdp.testing.fake_emarsys.control import PREFIX
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.options import (
    KEEP,
    KEEP_BYTES,
    RATE_LIMIT,
    TOKEN_FETCHES,
    TOKEN_SECONDS,
    BatchData,
    LimitBody,
    NoErrors,
    Options,
    Overlong,
    RowErrorShape,
    Window,
)
from emarsys_cdp.testing.fake_emarsys.records import (
    AcceptedEvent,
    Contact,
    ContactList,
    Counts,
    DeletedContact,
    EventDefinition,
    IssuedToken,
    ReceivedRequest,
    Stored,
    Violation,
)
from emarsys_cdp.testing.fake_emarsys.server import ThreadedServer
from emarsys_cdp.testing.fake_emarsys.world import World

CLIENTS: Final = {"client-1": "s3cret-of-client-1"}
"""OAuth 2.0 clients and their secrets, unless others are given."""

WSSE_USERS: Final = {"customer001": "s3cret"}
"""WSSE users and their secrets, unless others are given."""

EVENTS: Final = {9001: "welcome"}
"""External events by id, unless others are given."""


def _system_clock() -> int:
    return time.time_ns() // 1_000_000


class FakeEmarsys:
    """
    A real HTTP server that answers as the Emarsys API does, on 127.0.0.1 and a free port, in a thread of its own.

        with FakeEmarsys() as emarsys:
            send_something_to(emarsys.api_base, emarsys.token_url, emarsys.api_key)
            assert emarsys.contact("3", "ada@example.com") == {"1": "Ada", "3": "ada@example.com"}
            assert not emarsys.violations

    *clock* gives ms since 1970 and is the only time it knows; waiting (`delay` and `hold` of a fault) is real.
    *oauth* and *wsse* map clients and users to secrets, *missing_permissions* maps them to names such as
    `contact.delete`, *fields* are the account's own beside the system fields, *external_events* maps ids to names,
    each connected to a program. *seed* is that of faults with a probability. The rest is explained at `Options`.

    Everything it shows is a copy, taken while no request is being processed, and may be read from any thread.

    Raises:
        ValueError: an option, a field or a permission is not possible.

    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = _system_clock,
        oauth: Mapping[str, str] = CLIENTS,
        wsse: Mapping[str, str] = WSSE_USERS,
        missing_permissions: Mapping[str, Iterable[str]] | None = None,
        fields: Iterable[Field] = (),
        external_events: Mapping[int, str] = EVENTS,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        limit: int = RATE_LIMIT,
        window: Window = "sliding",
        limit_body: LimitBody = "json",
        token_seconds: float = TOKEN_SECONDS,
        tell_expiry: bool = True,
        token_fetches: tuple[tuple[int, float], ...] = TOKEN_FETCHES,
        dedupe: bool = True,
        interactions: bool = False,
        row_errors: RowErrorShape | None = None,
        no_errors: NoErrors = "array",
        batch_data: BatchData = "ids",
        overlong: Overlong = "cut",
        key_fields: Iterable[str] | None = None,
        keep: int = KEEP,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        options = Options(
            limit=limit,
            window=window,
            limit_body=limit_body,
            token_seconds=token_seconds,
            tell_expiry=tell_expiry,
            token_fetches=token_fetches,
            dedupe=dedupe,
            interactions=interactions,
            row_errors=row_errors,
            no_errors=no_errors,
            batch_data=batch_data,
            overlong=overlong,
            key_fields=None if key_fields is None else frozenset(key_fields),
            keep=keep,
            keep_bytes=keep_bytes,
        )
        self._world = World(options, clock, oauth, wsse, missing_permissions or {}, fields, external_events, seed)
        self._address = (host, port)
        self._server: ThreadedServer | None = None
        self._url: str | None = None

    # Starting and stopping

    def start(self) -> Self:
        """
        Listen.

        Raises:
            OSError: the port is not free.
            RuntimeError: it listens already.

        """
        if self._server is not None:
            raise RuntimeError(f"FakeEmarsys listens already, on {self._url}")
        server = ThreadedServer(lambda server: App(self._world, server.pause), *self._address)
        self._url = server.start()
        self._server = server
        return self

    def stop(self) -> None:
        """Close every connection and stop; what was recorded can still be read."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Where it is

    @property
    def url(self) -> str:
        """`http://127.0.0.1:41234`; control endpoints are below `/_fake`, `/healthcheck` is here, too."""
        if self._url is None:
            raise RuntimeError("FakeEmarsys does not listen yet: use it in a with statement, or call start()")
        return self._url

    @property
    def api_base(self) -> str:
        """What stands in place of https://api.emarsys.net/api: /v2/… and /v3/… follow."""
        return f"{self.url}/api"

    @property
    def token_url(self) -> str:
        """What stands in place of https://auth.emarsys.net/oauth2/token."""
        return self.url + TOKEN_PATH

    @property
    def control_url(self) -> str:
        """Where other processes look into it."""
        return self.url + PREFIX

    @property
    def api_key(self) -> str:
        """The API Key of the first OAuth 2.0 client, as `client_id:client_secret`."""
        return ":".join(self._world.client())

    @property
    def wsse_api_key(self) -> str:
        """The API Key of the first WSSE user, as `wsse:user:secret`."""
        return ":".join(("wsse", *self._world.user()))

    # What it received

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Every request to the API and the token URL, in the order of their arrival."""
        with self._world.lock:
            return self._world.requests.all()

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Every contact as it is now, in the order of their creation."""
        with self._world.lock:
            return tuple(self._world.account.contacts)

    def contact(self, key_field: str, value: str) -> dict[str, Stored] | None:
        """
        Return the fields of a contact, by a field id (or `id`, `uid`) and the value there; None when there is none.

        Raises:
            LookupError: several contacts have this value.

        """
        with self._world.lock:
            book = self._world.account.contacts
            found = [book.get(number) for number in book.find(key_field, value)]
        if len(found) > 1:
            raise LookupError(f"{len(found)} contacts have {value!r} in field {key_field}; look into contacts")
        return found[0].fields if found else None

    @property
    def deleted(self) -> tuple[DeletedContact, ...]:
        """Every contact that was deleted, as it was."""
        with self._world.lock:
            return self._world.account.contacts.deleted.all()

    @property
    def lists(self) -> tuple[ContactList, ...]:
        """Every contact list with its members."""
        with self._world.lock:
            return tuple(self._world.account.lists)

    def members(self, list_id: int, key_field: str = "3") -> list[Stored | None]:
        """
        Return what the members of a list have in a field, in the order they were added.

        Raises:
            LookupError: there is no such list.

        """
        with self._world.lock:
            found = [one for one in self._world.account.lists if one.id == list_id]
            if not found:
                raise LookupError(f"there is no contact list {list_id}")
            book = self._world.account.contacts
            return [book.get(number).fields.get(key_field) for number in found[0].members]

    @property
    def events(self) -> tuple[AcceptedEvent, ...]:
        """Every external event that was accepted; with `dedupe` each trigger id of an event once."""
        with self._world.lock:
            return self._world.account.events.accepted.all()

    @property
    def repeats(self) -> tuple[AcceptedEvent, ...]:
        """External events that were left out because their trigger id came before."""
        with self._world.lock:
            return self._world.account.events.repeats.all()

    @property
    def tokens(self) -> tuple[IssuedToken, ...]:
        """Every access token that was handed out."""
        with self._world.lock:
            return self._world.tokens.issued.all()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Every rule of the API that a client broke: too many requests, too large batches and so on."""
        with self._world.lock:
            return self._world.violations.all()

    @property
    def counts(self) -> Counts:
        """How many there are of everything, and how many records were dropped because there were too many."""
        with self._world.lock:
            return self._world.counts()

    @property
    def crashes(self) -> tuple[str, ...]:
        """Tracebacks of faults of the fake itself; there should be none."""
        with self._world.lock:
            return tuple(self._world.crashes)

    # What it is told

    def script(self, *faults: Fault) -> None:
        """Let things go wrong, in this order."""
        with self._world.lock:
            self._world.script.add(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that can still occur."""
        with self._world.lock:
            return tuple(fault for fault, _ in self._world.script.left())

    def clear_faults(self) -> None:
        """Forget the faults that did not occur yet."""
        with self._world.lock:
            self._world.script.clear()

    def add_contact(self, fields: Mapping[str, Stored]) -> int:
        """Make a contact, without any check, and return its id; a second one with the same values is a second one."""
        with self._world.lock:
            return self._world.account.contacts.create(fields, self._world.now())

    def add_field(self, field: Field) -> None:
        """
        Give the account one more field, or another one under the same id.

        Raises:
            ValueError: its id is no number.

        """
        with self._world.lock:
            self._world.account.fields.add(field)

    def add_list(self, name: str, list_id: int | None = None) -> int:
        """Make an empty contact list and return its id."""
        with self._world.lock:
            return self._world.account.lists.create(name, "", self._world.now(), list_id)

    def add_event(self, name: str, event_id: int | None = None, *, connected: bool = True) -> EventDefinition:
        """Make an external event, connected to a program or to nothing."""
        with self._world.lock:
            return self._world.account.events.define(name, self._world.now(), event_id, connected=connected)

    def forbid(self, user: str, *names: str) -> None:
        """
        Switch permissions of a client or WSSE user off.

        Raises:
            ValueError: a name is no permission.

        """
        with self._world.lock:
            self._world.permissions.forbid(user, names)

    def permit(self, user: str, *names: str) -> None:
        """Switch permissions on again."""
        with self._world.lock:
            self._world.permissions.permit(user, names)

    def revoke_tokens(self) -> int:
        """Make every access token invalid that was handed out, and return how many were valid."""
        with self._world.lock:
            return self._world.tokens.revoke()

    def advance(self, seconds: float) -> None:
        """
        Let time go by, on top of the clock's own.

        Raises:
            ValueError: it would go back, or by more than ten years.

        """
        self._world.advance(seconds)

    def reset(self) -> None:
        """Bring it back to how it was made."""
        self._world.reset()
