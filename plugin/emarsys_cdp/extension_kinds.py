"""
What extensions add to rules - operators, data types, actions - so that a failing one costs only itself.

Names that are taken, or that documents could not write, are left out and logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from msgspec.structs import replace

from emarsys_cdp.effect import Effect
from emarsys_cdp.rules.actions_reading import BUILT_IN_ACTIONS
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.operators import BUILT_INS, NEGATED, NEGATION, TYPES
from emarsys_cdp.values.coerce import coercion
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Action, ActionKind, DataType, DueAction, Json, Operator, Value

Found: TypeAlias = Iterable[tuple[str, Any]]
"""The name of an extension, and something that it adds."""

Kind = TypeVar("Kind", Operator, DataType, ActionKind)

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}\Z")
_EXPECTED = "a name is letters, digits and underscores, begins with a letter, and has at most 100 characters"

_log = structlog.get_logger("emarsys_cdp.extensions")


def kinds_of(operators: Found, types: Found, actions: Found) -> Kinds:
    """Return what extensions add, by name; of two with one name the first counts."""
    known = _named("data_types", types, TYPES, _check_type)
    return Kinds(
        operators={
            name: _guarded_operator(extension, one)
            for name, (extension, one) in _named(
                "operators", operators, (*BUILT_INS, *NEGATED), lambda one: _check_operator(one, (*TYPES, *known))
            ).items()
        },
        types={name: _guarded_type(extension, one) for name, (extension, one) in known.items()},
        actions={
            name: _guarded_action(extension, one)
            for name, (extension, one) in _named("actions", actions, BUILT_IN_ACTIONS, _check_nothing).items()
        },
    )


def _named(hook: str, found: Found, taken: Iterable[str], check: Callable[[Any], None]) -> dict[str, tuple[str, Any]]:
    """Return what can be used by its name, with the extension that it is of."""
    named: dict[str, tuple[str, Any]] = {}
    for extension, one in found:
        try:
            if not isinstance(one.name, str) or _NAME.match(one.name) is None:
                raise ValueError(f"{shorten(one.name)} cannot be used: {_EXPECTED}")
            if one.name in taken or one.name in named:
                raise ValueError(f"the name {one.name!r} is taken: choose another one")
            check(one)
        except Exception as error:  # noqa: BLE001 - whatever an extension gives, the others are taken
            _log.error("extension_failed", extension=extension, hook=hook, error=_text(error))
        else:
            named[one.name] = extension, one
    return named


def _check_nothing(_: ActionKind) -> None:
    """Find nothing wrong."""


def _check_type(one: DataType) -> None:
    if one.like not in TYPES:
        raise ValueError(f"data type {one.name} is like {shorten(one.like)}, which is none of {', '.join(TYPES)}")


def _check_operator(one: Operator, types: Sequence[str]) -> None:
    if one.name.startswith(NEGATION):
        raise ValueError(f"operator {one.name} begins with {NEGATION}, which negates: add the positive one")
    strange = [name for name in one.types if name not in types]
    if strange or not one.types:
        raise ValueError(f"operator {one.name} is for {shorten(strange)}: give some of {', '.join(types)}")


def _guarded_operator(extension: str, one: Operator) -> Operator:
    """Return an operator that holds for nothing it fails on."""

    def holds(value: Value, argument: Json, time: int) -> bool:
        try:
            return bool(one.holds(value, argument, time))
        except Exception as error:  # noqa: BLE001 - whatever an extension raises, the others run on
            _log.exception("extension_failed", extension=extension, operator=one.name, error=_text(error))
            return False

    check = None if one.check is None else _guarded(extension, f"operator {one.name}", one.check)
    return replace(one, holds=holds, check=check)


def _guarded_type(extension: str, one: DataType) -> DataType:
    """Return a data type whose values have the form of the built-in type that it is like."""
    read = _guarded(extension, f"data type {one.name}", one.read)

    def checked(raw: Json, timezone: str) -> Value:
        value = read(raw, timezone)
        if value is None:
            return None
        formed = coercion(one.like, timezone)(value)
        if formed is None:
            raise ValueError(f"data type {one.name} of extension {extension} read {shorten(value)}: no {one.like}")
        return formed

    return replace(one, read=checked)


def _guarded_action(extension: str, one: ActionKind) -> ActionKind:
    """Return an action whose check fails with ValueError only."""
    check = None if one.check is None else _guarded(extension, f"action {one.name}", one.check)
    return replace(one, check=check)


def _guarded(extension: str, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises nothing but ValueError."""

    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError:
            raise
        except Exception as error:
            _log.exception("extension_failed", extension=extension, error=_text(error))
            raise ValueError(f"{what} of extension {extension} failed: {_text(error)}") from error

    return guarded


def builds_of(kinds: Kinds) -> Mapping[str, Callable[[Effect], Sequence[Action]]]:
    """Return how effects of the actions of extensions become what is sent, by the names of the actions."""
    return {name: _build(kind) for name, kind in kinds.actions.items()}


def _build(kind: ActionKind) -> Callable[[Effect], Sequence[Action]]:
    def build(effect: Effect) -> Sequence[Action]:
        return kind.build(
            DueAction(
                id=effect.id,
                key_field=effect.key_field,
                key=effect.key,
                options=effect.options,
                data=effect.data,
                due=effect.due,
            )
        )

    return build


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
