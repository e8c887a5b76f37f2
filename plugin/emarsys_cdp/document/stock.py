"""RudderStack's stock Emarsys settings: a destination that has them, and no document, keeps their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from emarsys_cdp.emarsys.fields import EMAIL_FIELD

SETTINGS = (
    "emersysUsername",
    "emersysUserSecret",
    "emersysCustomIdentifier",
    "defaultContactList",
    "fieldMapping",
    "eventsMapping",
)
"""Settings whose presence makes a destination a stock one."""


class StockMapping(Struct, frozen=True):
    """
    The stock settings.

    *fields* pairs a trait with the Emarsys field id it updates, *events* maps an event name to an external event id.
    *key_field* is the field of the contact's key.
    """

    key_field: str
    fields: tuple[tuple[str, str], ...]
    events: Mapping[str, str]
    default_list: str | None
    discard_empty: bool

    @property
    def key_property(self) -> str | None:
        """The trait that holds the key, None when no trait is mapped to the key field."""
        return self.property_of(self.key_field)

    def property_of(self, field: str) -> str | None:
        """Return the trait that is mapped to a field; without a mapping `email` for the e-mail field, else None."""
        mapped = next((name for name, of in self.fields if of == field), None)
        return mapped or ("email" if field == EMAIL_FIELD else None)


def read_stock(settings: Mapping[str, Any]) -> StockMapping | None:
    """Return the stock settings of a destination, None when it has none of them."""
    if not any(settings.get(name) for name in SETTINGS):
        return None
    return StockMapping(
        key_field=_text(settings.get("emersysCustomIdentifier")) or EMAIL_FIELD,
        fields=tuple(_pairs(settings.get("fieldMapping"), "rudderProperty", "emersysProperty")),
        events=dict(_pairs(settings.get("eventsMapping"), "from", "to")),
        default_list=_text(settings.get("defaultContactList")),
        discard_empty=settings.get("discardEmptyProperties") is True,
    )


def _pairs(rows: Any, first: str, second: str) -> list[tuple[str, str]]:
    if not isinstance(rows, list):
        return []
    pairs = [(_text(row.get(first)), _text(row.get(second))) for row in rows if isinstance(row, dict)]
    return [(left, right) for left, right in pairs if left and right]


def _text(value: Any) -> str | None:
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    return text or None
