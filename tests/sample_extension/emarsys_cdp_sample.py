"""
A sample extension, installed for real by the tests.

It remembers the store in which a person bought last as a trait, drops calls without consent to marketing, and
knows how loyalty tiers are written to Emarsys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from emarsys_cdp_hooks import Call, FieldType, Json, Value, hookimpl

TIERS: Mapping[str, str] = {"bronze": "1", "silver": "2", "gold": "3"}
"""Loyalty tiers with the ids of their choices in the account."""


@hookimpl
def emarsys_cdp_field_types() -> list[FieldType]:
    """Add the field type `loyalty_tier`."""
    return [FieldType("loyalty_tier", choice_of_tier, "bronze, silver or gold, as the id of a choice")]


def choice_of_tier(value: Value, timezone: str) -> Json:
    """Return the choice id of a tier in any case."""
    choice = TIERS.get(value.strip().lower()) if isinstance(value, str) else None
    if choice is None:
        raise ValueError(f"{value!r} is no loyalty tier; give {', '.join(TIERS)}")
    return choice


@hookimpl
def emarsys_cdp_enrich_calls(calls: Sequence[Call]) -> list[Call]:
    """Make the trait `last_store` of the property `store`."""
    return [_with_store(call) for call in calls]


def _with_store(call: Call) -> Call:
    store = _child(call.message, "properties").get("store")
    if not isinstance(store, str):
        return call
    traits = {**_child(call.message, "traits"), "last_store": store}
    return replace(call, message={**call.message, "traits": traits})


@hookimpl
def emarsys_cdp_drop_calls(calls: Sequence[Call]) -> list[str | None]:
    """Drop calls that say that there is no consent to marketing."""
    return [None if _may_be_used(call.message) else "no consent to marketing" for call in calls]


def _may_be_used(message: Mapping[str, Json]) -> bool:
    return _child(_child(message, "context"), "consent").get("marketing") is not False


def _child(parent: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}
