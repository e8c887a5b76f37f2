"""What rules may be made of beside the built-in: operators, data types and actions of extensions; and fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from emarsys_cdp_hooks import ActionKind, DataType, Json, Operator


def _accept(*_: object) -> None:
    """Find nothing wrong."""


class Kinds(Struct, frozen=True):
    """
    The kinds that are known, by their names.

    *operators*, *types* and *actions* are those of extensions. *check_field* gets a field's id or name, *check_update*
    also the value to write; both raise ValueError with what would be right.
    """

    operators: Mapping[str, Operator] = {}
    types: Mapping[str, DataType] = {}
    actions: Mapping[str, ActionKind] = {}
    check_field: Callable[[int | str], object] = _accept
    check_update: Callable[[int | str, Json], object] = _accept

    def family(self, data_type: str) -> str:
        """Return the built-in type whose form the values of a data type have."""
        added = self.types.get(data_type)
        return data_type if added is None else added.like


BUILT_IN = Kinds()
"""No extensions, and fields are not checked."""
