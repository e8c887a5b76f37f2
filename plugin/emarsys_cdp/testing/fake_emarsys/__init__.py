"""
A stand-in for the Emarsys API: a real HTTP server for tests, ours and those of users. help/testing.md shows how.

What it does is written from Emarsys' documentation (error tables, endpoint pages, guides at
https://dev.emarsys.com) and not from this project's client, so that the two can find each other's faults. Where
Emarsys' behaviour is not documented there is an option, or the stricter reading is taken and said so.
"""

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing.fake_emarsys.fake import FakeEmarsys
from emarsys_cdp.testing.fake_emarsys.faults import Fault
from emarsys_cdp.testing.fake_emarsys.records import (
    AcceptedEvent,
    Contact,
    ContactList,
    Counts,
    DeletedContact,
    EventDefinition,
    IssuedToken,
    ReceivedRequest,
    Violation,
)
from emarsys_cdp.testing.fake_emarsys.routes import PERMISSIONS

__all__ = [
    "PERMISSIONS",
    "AcceptedEvent",
    "Contact",
    "ContactList",
    "Counts",
    "DeletedContact",
    "EventDefinition",
    "FakeEmarsys",
    "Fault",
    "Field",
    "IssuedToken",
    "ReceivedRequest",
    "Violation",
]
