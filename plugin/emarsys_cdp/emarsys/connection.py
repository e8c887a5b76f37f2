"""The parts that talk to Emarsys, put together: tokens, signatures, budgets, sending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import httpx
from msgspec import Struct

from emarsys_cdp.emarsys.budgets import Budgets
from emarsys_cdp.emarsys.client import Client
from emarsys_cdp.emarsys.sender import Sender
from emarsys_cdp.emarsys.signing import Signer
from emarsys_cdp.emarsys.tokens import Tokens
from emarsys_cdp.secrets import Seal
from emarsys_cdp.settings import Settings
from emarsys_cdp.store import Store


class Outside(Protocol):
    """What is taken from outside: time in ms since 1970 UTC, random bytes, names of workers, numbers from 0 to 1."""

    @property
    def clock(self) -> Callable[[], int]:
        """The time."""

    @property
    def random_bytes(self) -> Callable[[int], bytes]:
        """So many bytes."""

    @property
    def worker(self) -> Callable[[], str]:
        """A name that nobody else has."""

    @property
    def chance(self) -> Callable[[], float]:
        """A number."""


class Emarsys(Struct, frozen=True):
    """How a worker talks to Emarsys. *worker* is a name that no other worker has."""

    worker: str
    signer: Signer
    sender: Sender
    budgets: Budgets


def connect(settings: Settings, store: Store, seal: Seal, http: httpx.AsyncClient, outside: Outside) -> Emarsys:
    """Return the parts that talk to Emarsys over *http*, sharing tokens and budgets through the store."""
    worker = outside.worker()
    client = Client(http, settings.send_seconds)
    tokens = Tokens(settings.token_url, client, store, seal, outside.clock, worker)
    signer = Signer(tokens, outside.clock, outside.random_bytes)
    budgets = Budgets(store, outside.clock, outside.chance, worker)
    sender = Sender(client, signer, budgets, settings.api_base, outside.clock)
    return Emarsys(worker, signer, sender, budgets)
