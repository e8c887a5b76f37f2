"""
Reading only what is looked at.

Two thirds of a call are context that no data map names. Reading just the parts in use takes a third of the time of
reading all of them, and reading is the largest cost of a call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Required, TypeAlias, TypedDict

from msgspec import Meta

from emarsys_cdp.values.paths import parse_path

Parts: TypeAlias = frozenset[str]
"""Names of parts at the root of a message, and `context.<name>` for parts of the context."""

ENVELOPE: Parts = frozenset(
    (
        "type",
        "event",
        "messageId",
        "userId",
        "anonymousId",
        "groupId",
        "previousId",
        "timestamp",
        "originalTimestamp",
        "receivedAt",
        "integrations",
    )
)
"""Parts of a message that the steps look at in every space."""

_CONTEXT = "context"


def parts_of(paths: Iterable[str | tuple[str, ...]]) -> Parts:
    """Return the parts that paths of data maps look at: the envelope, and the first steps of each path."""
    parts = set(ENVELOPE)
    for path in [one for given in paths for one in ([given] if isinstance(given, str) else given)]:
        first, *rest = [str(step) for step in parse_path(path)]
        parts.add(f"{_CONTEXT}.{rest[0]}" if first == _CONTEXT and rest else first)
    if "traits" in parts or f"{_CONTEXT}.traits" in parts:
        parts |= {"traits", f"{_CONTEXT}.traits"}
    return frozenset(parts)


def message_type(parts: Parts) -> Any:
    """
    Return a type for `msgspec.json.Decoder` whose values are messages with these parts and no others.

    The context is an object, and messageId a text that is not empty: without one the id is made of everything a
    message says. Other messages raise `msgspec.ValidationError`; no other type is checked.
    """
    fields: dict[str, Any] = {part: Any for part in parts if not part.startswith(f"{_CONTEXT}.")}
    fields["messageId"] = Required[Annotated[str, Meta(min_length=1)]]
    children = {part.partition(".")[2]: Any for part in parts if part.startswith(f"{_CONTEXT}.")}
    if children and _CONTEXT not in fields:
        fields[_CONTEXT] = _object(children)
    return _object(fields)


def _object(fields: dict[str, Any]) -> Any:
    return TypedDict("Message", fields, total=False)  # type: ignore[operator]  # the names are known at run time only
