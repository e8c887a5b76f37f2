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
    ActionKind,
    AddToList,
    Call,
    DataType,
    Decision,
    Delivery,
    DueAction,
    FieldType,
    Filtered,
    Identifiers,
    Json,
    Operator,
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
    "ActionKind",
    "AddToList",
    "Call",
    "DataType",
    "Decision",
    "Delivery",
    "DropCall",
    "DueAction",
    "EmarsysCdpError",
    "FieldType",
    "Filtered",
    "Identifiers",
    "InvalidDocument",
    "Json",
    "Operator",
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
