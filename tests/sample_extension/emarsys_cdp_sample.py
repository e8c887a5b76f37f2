"""
A sample extension, installed for real by the tests.

It remembers the store in which a person bought last as a trait, drops calls without consent to marketing, and
knows how loyalty tiers are written to Emarsys. Rules can read amounts in cents, tell members by their card's number,
and stamp a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from emarsys_cdp_hooks import (
    ActionKind,
    Call,
    DataType,
    DueAction,
    FieldType,
    Json,
    Operator,
    UpsertContact,
    Value,
    hookimpl,
)

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
def emarsys_cdp_data_types() -> list[DataType]:
    """Add the data type `cents`."""
    return [DataType("cents", "numeric", amount, "an amount of money in cents, read in whole units")]


def amount(raw: Json, timezone: str) -> Value:
    """Return an amount in whole units."""
    return str(raw / 100) if isinstance(raw, int) and not isinstance(raw, bool) else None


@hookimpl
def emarsys_cdp_operators() -> list[Operator]:
    """Add the operator `has_prefix_of`."""
    return [Operator("has_prefix_of", ("string",), has_prefix, check_tier, "a card's number begins as the tier's do")]


PREFIXES: Mapping[str, str] = {"bronze": "B-", "silver": "S-", "gold": "G-"}
"""How the numbers of cards begin, by the tiers."""


def has_prefix(value: Value, tier: Json, time: int) -> bool:
    """Tell whether a card's number begins as those of a tier do."""
    return isinstance(value, str) and value.startswith(PREFIXES[tier])


def check_tier(tier: Json) -> None:
    """Check what a criterion compares with."""
    if tier not in PREFIXES:
        raise ValueError(f"{tier!r} is no loyalty tier; give {', '.join(PREFIXES)}")


STAMPS: Mapping[str, str] = {"coffee": "10511", "tea": "10512"}
"""Fields of the stamps, by the cards."""


@hookimpl
def emarsys_cdp_actions() -> list[ActionKind]:
    """Add the action `stamp`."""
    return [ActionKind("stamp", stamp, check_card, "stamps a card of the contact")]


def stamp(action: DueAction) -> list[UpsertContact]:
    """Return what stamps a card: the field of the stamp, with what was captured as `amount`."""
    fields = {action.key_field: action.key, STAMPS[action.options["card"]]: action.data.get("amount") or "1"}
    return [UpsertContact(action.key_field, action.key, fields)]


def check_card(options: Mapping[str, Json]) -> None:
    """Check the members of the action."""
    if options.get("card") not in STAMPS:
        raise ValueError(f"card is {options.get('card')!r}; give {' or '.join(STAMPS)}")


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
