"""
The plugin manager: built-in steps, then extensions by entry point, and calling them so that none breaks the rest.

An extension is a package with an entry point in the group `emarsys_cdp`. One that cannot be loaded or that raises
is logged and passed over; only one that may drop calls stops its batch, which the host then sends again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec
import pluggy
import structlog
from msgspec.structs import replace

from emarsys_cdp.emarsys import batch
from emarsys_cdp.steps import contacts, identifiers, mapping, stock, validation
from emarsys_cdp_hooks import (
    PROJECT,
    Action,
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
    RetryLater,
    Space,
    Value,
    specs,
)

BUILT_INS = (validation, identifiers, mapping, contacts, stock, batch)
"""The steps of this package: hook implementations like any extension's."""

_log = structlog.get_logger("emarsys_cdp.extensions")


def build_plugin_manager(found: Iterable[EntryPoint] | None = None) -> pluggy.PluginManager:
    """
    Return a manager with the built-in steps and every extension that loads; *found* replaces the installed ones.

    An extension that cannot be imported, or implements a hook that does not exist, is left out and logged.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specs)
    for module in BUILT_INS:
        manager.register(module, name=f"built-in:{module.__name__.rsplit('.', 1)[1]}")
    manager.check_pending()
    for point in entry_points(group=PROJECT) if found is None else found:
        _register(manager, point)
    return manager


def _register(manager: pluggy.PluginManager, point: EntryPoint) -> None:
    """Add one extension, or log why it is left out."""
    try:
        if manager.has_plugin(point.name):
            raise ValueError("the name is taken: an extension's entry point needs a name of its own")
        _add(manager, point)
    except Exception as error:  # noqa: BLE001 - whatever an extension raises, the others run on
        _log.error("extension_left_out", extension=point.name, value=point.value, error=_text(error))
    else:
        _log.info("extension_loaded", extension=point.name, value=point.value)


def _add(manager: pluggy.PluginManager, point: EntryPoint) -> None:
    """Register one extension; when anything is wrong with it nothing of it stays."""
    plugin = point.load()
    if isinstance(plugin, type):
        raise TypeError(f"{point.value} is a class: name a module or an instance")
    try:
        manager.register(plugin, name=point.name)
        manager.check_pending()
        _refuse_wrappers(manager, point.name)
    except Exception:
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        raise


def _refuse_wrappers(manager: pluggy.PluginManager, name: str) -> None:
    for caller in manager.get_hookcallers(manager.get_plugin(name)) or ():
        for one in caller.get_hookimpls():
            if one.plugin_name == name and (one.wrapper or one.hookwrapper):
                raise TypeError(f"{caller.name} is a wrapper: steps are called one by one, write a plain hook")


def has_extensions(manager: pluggy.PluginManager) -> bool:
    """Tell whether there is more than the built-in steps."""
    return len(manager.list_name_plugin()) > len(BUILT_INS)


class Steps:
    """
    The hooks as functions over a batch: combines answers and keeps extensions apart.

    The extensions of *manager* are those of the first batch; later ones are not seen.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._known: dict[str, list[tuple[str, Any]]] = {}

    def field_types(self) -> list[FieldType]:
        """Return the field types that extensions add."""
        return [
            replace(one, convert=_guarded(name, one))
            for name, function in self._implementations("field_types")
            for one in self._call(name, "field_types", function, {}) or ()
        ]

    def enrich(self, space: Space, calls: Sequence[Call], now: int) -> Sequence[Call]:
        """Return the calls as extensions change them, one extension after the other."""
        for name, function in self._implementations("enrich_calls"):
            answer = self._call(name, "enrich_calls", function, {"space": space, "calls": calls, "now": now})
            if answer is not None:
                calls = answer
        return calls

    def drop(self, space: Space, calls: Sequence[Call], now: int) -> list[str | None]:
        """
        Return for each call why an extension drops it.

        Raises:
            RetryLater: an extension that may drop calls failed; none of the batch is processed.

        """
        reasons: list[str | None] = [None] * len(calls)
        if not self._implementations("drop_calls"):
            return reasons
        arguments = {"space": space, "calls": calls, "now": now}
        for name, function in self._implementations("drop_calls"):
            try:
                answer = _invoke("drop_calls", function, arguments)
            except Exception as error:
                _log.exception("extension_failed", extension=name, hook="drop_calls", error=_text(error))
                raise RetryLater(f"extension {name}, which may drop calls, failed: {_text(error)}") from error
            reasons = [old or new for old, new in zip(reasons, answer or reasons, strict=True)]
        return reasons

    def validate(self, space: Space, calls: Sequence[Call]) -> list[Refused | None]:
        """Return for each call the first refusal."""
        refusals: list[Refused | None] = [None] * len(calls)
        for answer in self._ask("validate_calls", {"space": space, "calls": calls}):
            refusals = [old or new for old, new in zip(refusals, answer, strict=True)]
        return refusals

    def identifiers(self, space: Space, calls: Sequence[Call]) -> Sequence[Identifiers]:
        """Return who each call is of, by the first answer."""
        for answer in self._ask("read_identifiers", {"space": space, "calls": calls}):
            return list(answer)
        return [Identifiers()] * len(calls)

    def values(self, space: Space, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Return the values of data maps of each call; extensions win over the built-in step."""
        answers = list(self._ask("map_values", {"space": space, "calls": calls}))
        if len(answers) == 1:
            return list(answers[0])
        joined: list[dict[str, Any]] = [{} for _ in calls]
        for answer in reversed(answers):
            for values, more in zip(joined, answer, strict=True):
                values.update(more)
        return joined

    def decide(
        self,
        space: Space,
        calls: Sequence[Call],
        identifiers: Sequence[Identifiers],
        profiles: Sequence[Profile | None],
        now: int,
    ) -> list[Decision]:
        """Return what becomes of each call; the actions of several answers are joined."""
        arguments = {
            "space": space,
            "calls": calls,
            "identifiers": identifiers,
            "profiles": profiles,
            "now": now,
        }
        answers = list(self._ask("decide_actions", arguments))
        if len(answers) == 1:
            return list(answers[0])
        return [join(list(decisions)) for decisions in zip(*reversed(answers), strict=True)]

    def requests(
        self, space: Space, actions: Sequence[tuple[int, tuple[Action, ...]]], merge: bool
    ) -> Sequence[Delivery]:
        """
        Return the deliveries of the actions, by the first answer that has every call exactly once.

        Raises:
            RetryLater: no step gave such an answer.

        """
        wanted = sorted(index for index, _ in actions)
        arguments = {"space": space, "actions": actions, "merge": merge}
        for answer in self._ask("build_requests", arguments):
            if sorted(index for delivery in answer for index in delivery.calls) == wanted:
                return list(answer)
            _log.error("deliveries_incomplete", space=space.id, wanted=len(wanted))
        raise RetryLater("no step built the requests of every call")

    def _ask(self, hook: str, arguments: dict[str, Any]) -> Iterable[Any]:
        for name, function in self._implementations(hook):
            answer = self._call(name, hook, function, arguments)
            if answer is not None:
                yield answer

    def _implementations(self, hook: str) -> list[tuple[str, Any]]:
        """Return the implementations of a hook in pluggy's order of calling: tryfirst, then the newest first."""
        known = self._known.get(hook)
        if known is None:
            caller = getattr(self._manager.hook, f"{PROJECT}_{hook}")
            known = [(one.plugin_name, one) for one in reversed(caller.get_hookimpls())]
            self._known[hook] = known
        return known

    def _call(self, name: str, hook: str, implementation: Any, arguments: dict[str, Any]) -> Any:
        """Call one implementation; an extension's error is logged and counts as no answer."""
        if name.startswith("built-in:"):
            return implementation.function(*[arguments[one] for one in implementation.argnames])
        try:
            return _invoke(hook, implementation, arguments)
        except Exception as error:  # noqa: BLE001 - whatever an extension raises, the others run on
            _log.exception("extension_failed", extension=name, hook=hook, error=_text(error))
            return None


def _invoke(hook: str, implementation: Any, arguments: dict[str, Any]) -> Any:
    """Call an extension's implementation and check its answer."""
    function: Callable[..., Any] = implementation.function
    answer = function(*[arguments[name] for name in implementation.argnames])
    if answer is None:
        return None
    answer = list(answer)
    for element in answer:
        if not isinstance(element, _ELEMENTS[hook]):
            raise TypeError(f"the answer has an element of type {type(element).__name__}")
    if "calls" in arguments and len(answer) != len(arguments["calls"]):
        raise ValueError(f"the answer has {len(answer)} elements for {len(arguments['calls'])} calls")
    if hook == "enrich_calls" and any(
        new.index != old.index for new, old in zip(answer, arguments["calls"], strict=True)
    ):
        raise ValueError("the answer has the calls in another order, or with another index")
    if hook == "map_values":
        stored = msgspec.msgpack.encode(answer)  # what cannot be stored, or not read again, must not reach the store
        msgspec.msgpack.decode(stored, type=list[dict[str, Any]])
    if hook == "read_identifiers":
        msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=list[Identifiers])
    if hook == "build_requests" and not _complete(answer, arguments["actions"]):
        raise ValueError("the answer has not every call in exactly one delivery")
    if hook == "build_requests" and any(
        not one.requests or (len(one.calls) > 1 and not arguments["merge"]) for one in answer
    ):
        raise ValueError("the answer has a delivery without requests, or several calls in one that may not be merged")
    return answer


_ELEMENTS: Mapping[str, tuple[type, ...]] = {
    "field_types": (FieldType,),
    "enrich_calls": (Call,),
    "drop_calls": (str, type(None)),
    "validate_calls": (Refused, type(None)),
    "read_identifiers": (Identifiers,),
    "map_values": (dict,),
    "decide_actions": (tuple, Filtered, Refused, Postponed),
    "build_requests": (Delivery,),
}
"""What each element of a hook's answer must be."""


def _complete(deliveries: Sequence[Delivery], actions: Sequence[tuple[int, tuple[Action, ...]]]) -> bool:
    return sorted(index for delivery in deliveries for index in delivery.calls) == sorted(index for index, _ in actions)


def _guarded(name: str, field_type: FieldType) -> Callable[[Value, str], Json]:
    """Return the conversion of an extension's field type that fails with ValueError only."""

    def convert(value: Value, timezone: str) -> Json:
        try:
            return field_type.convert(value, timezone)
        except ValueError:
            raise
        except Exception as error:
            _log.exception("extension_failed", extension=name, field_type=field_type.name, error=_text(error))
            raise ValueError(f"field type {field_type.name} of extension {name} failed: {_text(error)}") from error

    return convert


def join(decisions: list[Decision]) -> Decision:
    """Return one decision of several: a refusal wins, then a postponement, then all actions, then the filter."""
    for kind in (Refused, Postponed):
        for decision in decisions:
            if isinstance(decision, kind):
                return decision
    actions = [action for decision in decisions if isinstance(decision, tuple) for action in decision]
    if actions:
        return tuple(actions)
    return next((decision for decision in decisions if isinstance(decision, Filtered)), Filtered("nothing to send"))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
