"""A criterion as a value: comparisons, and all, any, not of them. What was read, before it is compiled."""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp_hooks import Json

EVENT, PROFILE, INSTANCE = "event", "profile", "instance"
"""Where a comparison reads its value: the call, the last known values of the person, the captured variables."""

SCOPES: Final = (EVENT, PROFILE, INSTANCE)


class Test(Struct, frozen=True):
    """
    One comparison: the value of *map* (a captured variable with scope instance) by a positive operator.

    *value* is the argument in the form that operators take (`operators.read_argument`), None for operators without
    one. *var* names a captured variable that is compared with instead.
    """

    map: str
    op: str
    value: Json = None
    var: str | None = None
    scope: str = EVENT
    ignore_case: bool = False


class Not(Struct, frozen=True):
    """Holds where *part* does not. `not_equals` is read as this of `equals`."""

    part: Node


class All(Struct, frozen=True):
    """Holds where every part does."""

    parts: tuple[Node, ...]


class Any(Struct, frozen=True):
    """Holds where some part does."""

    parts: tuple[Node, ...]


Node: TypeAlias = Test | Not | All | Any


def tests_of(node: Node) -> tuple[Test, ...]:
    """Return every comparison, in order."""
    if isinstance(node, Test):
        return (node,)
    parts = (node.part,) if isinstance(node, Not) else node.parts
    return tuple([test for part in parts for test in tests_of(part)])
