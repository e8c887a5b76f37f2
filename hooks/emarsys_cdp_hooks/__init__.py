"""
What an extension of emarsys-cdp imports: the marker, the values and the errors.

    from emarsys_cdp_hooks import Call, hookimpl

    @hookimpl
    def emarsys_cdp_enrich_calls(space, calls, now):
        ...
"""

from pluggy import HookimplMarker

from emarsys_cdp_hooks.errors import (
    DropCall,
    EmarsysCdpError,
    InvalidDocument,
    Problem,
    RetryLater,
    StopAndFix,
)
from emarsys_cdp_hooks.types import (
    Action,
    AddToList,
    Call,
    Decision,
    Delivery,
    FieldType,
    Filtered,
    Identifiers,
    Json,
    Postponed,
    Profile,
    Refused,
    RemoveFromList,
    Request,
    Space,
    StoredValue,
    TriggerEvent,
    Unfit,
    UpsertContact,
    Value,
)

PROJECT = "emarsys_cdp"
"""pluggy project and entry-point group; prefix of every hook."""

hookimpl = HookimplMarker(PROJECT)

__all__ = [
    "PROJECT",
    "Action",
    "AddToList",
    "Call",
    "Decision",
    "Delivery",
    "DropCall",
    "EmarsysCdpError",
    "FieldType",
    "Filtered",
    "Identifiers",
    "InvalidDocument",
    "Json",
    "Postponed",
    "Problem",
    "Profile",
    "Refused",
    "RemoveFromList",
    "Request",
    "RetryLater",
    "Space",
    "StopAndFix",
    "StoredValue",
    "TriggerEvent",
    "Unfit",
    "UpsertContact",
    "Value",
    "hookimpl",
]
