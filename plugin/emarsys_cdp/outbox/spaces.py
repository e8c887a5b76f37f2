"""What the sender has to know of a space beside its effects: from its document, since there is no call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp.document.model import Document

DIRECT, HOST = "direct", "host"
"""Transports that a document may ask for."""


class Policy(Struct, frozen=True):
    """
    How a space's effects are sent.

    *create*: contacts that Emarsys does not have are made. *transport* is the one that the document asks for, "" when
    it leaves that to the settings.
    """

    create: bool = True
    timezone: str = "UTC"
    transport: str = ""


PolicyOf: TypeAlias = Callable[[str], Policy]

USUAL: Final = Policy()


def policy_of(document: Callable[[str], Document | None]) -> PolicyOf:
    """
    Return how the effects of spaces are sent, by their documents.

    What is returned raises RetryLater for a space whose document has been invalid since the start.
    """

    def find(space: str) -> Policy:
        found = document(space)
        if found is None:
            return USUAL
        return Policy(found.contacts.create == "always", found.settings.timezone, found.transport.kind)

    return find
