"""Everything a fake Emarsys knows: its account, who may ask, its limits, the script of faults, and the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import RLock
from typing import Final

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing.fake_emarsys.account import Account
from emarsys_cdp.testing.fake_emarsys.auth import Permissions, Tokens, Wsse
from emarsys_cdp.testing.fake_emarsys.contact_book import ContactBook
from emarsys_cdp.testing.fake_emarsys.event_book import EventBook
from emarsys_cdp.testing.fake_emarsys.faults import Script
from emarsys_cdp.testing.fake_emarsys.fields import Fields
from emarsys_cdp.testing.fake_emarsys.limits import RateLimit
from emarsys_cdp.testing.fake_emarsys.list_book import ListBook
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.records import (
    Counts,
    EventDefinition,
    Log,
    ReceivedRequest,
    Violation,
)
from emarsys_cdp.testing.fake_emarsys.routes import PERMISSIONS

_MAX_ADVANCE: Final = 10 * 366 * 24 * 3600


class World:
    """
    The state of a fake.

    It is changed by the server's thread and read by others; whoever touches it holds *lock*. `reset` brings it back
    to how it was made: *fields*, *events*, *clients* and *users* stay, what requests did is gone.
    """

    def __init__(
        self,
        options: Options,
        clock: Callable[[], int],
        clients: Mapping[str, str],
        users: Mapping[str, str],
        missing: Mapping[str, Iterable[str]],
        fields: Iterable[Field],
        events: Mapping[int, str],
        seed: int,
    ) -> None:
        self.lock = RLock()
        self.options = options
        self._clock = clock
        self._clients, self._users = dict(clients), dict(users)
        self._missing = {user: tuple(names) for user, names in missing.items()}
        self._fields, self._events = tuple(fields), dict(events)
        self.script = Script(seed)
        self.reset()

    def reset(self) -> None:
        """Forget everything that happened, and all faults to come."""
        with self.lock:
            options = self.options
            self._ahead = 0
            self.script.clear()
            self.requests: Log[ReceivedRequest] = Log(options.keep, options.keep_bytes, lambda one: len(one.raw))
            self.violations: Log[Violation] = Log(options.keep)
            self.crashes: list[str] = []
            self.rate = RateLimit(options.limit, options.window)
            self.tokens, self.wsse = Tokens(self._clients, options), Wsse(self._users)
            self.permissions = Permissions(PERMISSIONS)
            for user, names in self._missing.items():
                self.permissions.forbid(user, names)
            events = EventBook(options.keep, dedupe=options.dedupe)
            for number, name in self._events.items():
                events.put(EventDefinition(number, name, self.now(), program_ids=(number,)))
            book = ContactBook(options.keep)
            self.account = Account(options, Fields(self._fields, options), book, ListBook(), events)

    def now(self) -> int:
        """Return the time, in ms since 1970."""
        return self._clock() + self._ahead

    def advance(self, seconds: float) -> None:
        """
        Let time go by, on top of the clock's own.

        Raises:
            ValueError: it would go back, or by more than ten years.

        """
        if not 0 <= seconds <= _MAX_ADVANCE:
            raise ValueError(f"time cannot go by {seconds} seconds; give 0 to {_MAX_ADVANCE}")
        with self.lock:
            self._ahead += int(seconds * 1000)

    def counts(self) -> Counts:
        """Return how many there are of everything."""
        events, logs = self.account.events, self.account.contacts.deleted
        return Counts(
            requests=self.requests.total,
            requests_dropped=self.requests.dropped,
            contacts=len(self.account.contacts),
            deleted=logs.total,
            deleted_dropped=logs.dropped,
            events=events.accepted.total,
            events_dropped=events.accepted.dropped,
            repeats=events.repeats.total,
            repeats_dropped=events.repeats.dropped,
            violations=self.violations.total,
            violations_dropped=self.violations.dropped,
            tokens=self.tokens.issued.total,
            tokens_dropped=self.tokens.issued.dropped,
            crashes=len(self.crashes),
        )

    def client(self) -> tuple[str, str]:
        """
        Return id and secret of the first OAuth 2.0 client.

        Raises:
            LookupError: there is none.

        """
        return _first(self._clients, "oauth")

    def user(self) -> tuple[str, str]:
        """
        Return name and secret of the first WSSE user.

        Raises:
            LookupError: there is none.

        """
        return _first(self._users, "wsse")


def _first(secrets: Mapping[str, str], name: str) -> tuple[str, str]:
    for found in secrets.items():
        return found
    raise LookupError(f"FakeEmarsys was made with {name}={{}}: there are no credentials")
