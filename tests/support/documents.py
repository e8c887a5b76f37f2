"""Documents with rules as tests publish them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

EVENT: Final = {"name": "ecom_event", "path": "event", "type": "string"}
REVENUE: Final = {"name": "revenue", "path": "properties.revenue", "type": "numeric"}

START: Final = {"seq": 0, "type": "start", "on": "track", "match": "ecom_event = Coupon Entered"}
EXCLUDE: Final = {"seq": 0, "type": "exclude", "on": "track", "match": "ecom_event = Order Completed"}
EXIT: Final = {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "event": "coupon"}]}


def rule(identifier: str = "coupon", **parts: Any) -> dict[str, Any]:
    """Return the rule of the original's picture, changed by *parts*."""
    return {"id": identifier, "lifetime": "48h", "conditions": [START, EXCLUDE, EXIT], **parts}


def document(*rules: Mapping[str, Any], maps: tuple[Mapping[str, Any], ...] = (EVENT, REVENUE)) -> dict[str, Any]:
    """Return a document of rules."""
    return {"dataMaps": [dict(one) for one in maps], "rules": [dict(one) for one in rules]}
