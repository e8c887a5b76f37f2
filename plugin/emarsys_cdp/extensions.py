"""
The plugin manager: built-in steps, then extensions by entry point, and calling them so that none breaks the rest.

An extension is a package with an entry point in the group `emarsys_cdp`. One that cannot be loaded or that raises
is logged and passed over; only one that may drop calls stops its batch, which the host then sends again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from operator import itemgetter
from typing import Any

import msgspec
import pluggy
import structlog
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.emarsys import batch
from emarsys_cdp.extension_kinds import kinds_of
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.steps import contacts, identifiers, mapping, stock, validation
from emarsys_cdp_hooks import (
    PROJECT,
    Action,
    ActionKind,
    Call,
    DataType,
    Decision,
    Delivery,
    FieldType,
    Filtered,
    Identifiers,
    Json,
    Operator,
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

_BUILT_IN = "built-in:"

_log = structlog.get_logger("emarsys_cdp.extensions")


def build_plugin_manager(found: Iterable[EntryPoint] | None = None) -> pluggy.PluginManager:
    """
    Return a manager with the built-in steps and every extension that loads; *found* replaces the installed ones.

    An extension that cannot be imported, or implements a hook that does not exist, is left out and logged.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specs)
    for module in BUILT_INS:
        manager.register(module, name=f"{_BUILT_IN}{module.__name__.rsplit('.', 1)[1]}")
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


class _Step(Struct, frozen=True):
    """One implementation of a hook: whose it is, what to call, and what takes its arguments out of those there are."""

    name: str
    built_in: bool
    function: Callable[..., Any]
    arguments: Callable[[Mapping[str, Any]], tuple[Any, ...]]


def _taker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Return a function that takes the values of *names*; itemgetter returns a tuple for two names and more only."""
    return itemgetter(*names) if len(names) > 1 else lambda given: tuple([given[name] for name in names])


class Steps:
    """
    The hooks as functions over a batch: combines answers and keeps extensions apart.

    The extensions of *manager* are those of the first batch; later ones are not seen.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager
        self._steps = cache(self._find)

    def field_types(self) -> list[FieldType]:
        """Return the field types that extensions add."""
        return [
            replace(one, convert=_guarded(step.name, one))
            for step in self._steps("field_types")
            for one in _call(step, "field_types", {}) or ()
        ]

    def kinds(self) -> Kinds:
        """Return the operators, data types and actions that extensions add to rules."""
        return kinds_of(self._added("operators"), self._added("data_types"), self._added("actions"))

    def _added(self, hook: str) -> list[tuple[str, Any]]:
        """Return what extensions list, each with the name of its extension."""
        return [(step.name, one) for step in self._steps(hook) for one in _call(step, hook, {}) or ()]

    def enrich(self, space: Space, calls: Sequence[Call], now: int) -> Sequence[Call]:
        """Return the calls as extensions change them, one extension after the other."""
        for step in self._steps("enrich_calls"):
            answer = _call(step, "enrich_calls", {"space": space, "calls": calls, "now": now})
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
        for step in self._steps("drop_calls"):
            try:
                answer = _invoke("drop_calls", step, {"space": space, "calls": calls, "now": now})
            except Exception as error:
                _log.exception("extension_failed", extension=step.name, hook="drop_calls", error=_text(error))
                raise RetryLater(f"extension {step.name}, which may drop calls, failed: {_text(error)}") from error
            reasons = [old or new for old, new in zip(reasons, answer or reasons, strict=True)]
        return reasons

    def validate(self, space: Space, calls: Sequence[Call]) -> list[Refused | None]:
        """Return for each call the first refusal."""
        answers = self._ask("validate_calls", {"space": space, "calls": calls})
        if len(answers) == 1:
            return list(answers[0])
        refusals: list[Refused | None] = [None] * len(calls)
        for answer in answers:
            refusals = [old or new for old, new in zip(refusals, answer, strict=True)]
        return refusals

    def identifiers(self, space: Space, calls: Sequence[Call]) -> Sequence[Identifiers]:
        """Return who each call is of, by the first answer."""
        arguments = {"space": space, "calls": calls}
        for step in self._steps("read_identifiers"):
            answer = _call(step, "read_identifiers", arguments)
            if answer is not None:
                return list(answer)
        return [Identifiers()] * len(calls)

    def values(self, space: Space, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Return the values of data maps of each call; extensions win over the built-in step."""
        answers = self._ask("map_values", {"space": space, "calls": calls})
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
        answers = self._ask("decide_actions", arguments)
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
        arguments = {"space": space, "actions": actions, "merge": merge}
        for step in self._steps("build_requests"):
            answer = _call(step, "build_requests", arguments)
            if answer is None:
                continue
            if sum([len(delivery.calls) for delivery in answer]) == len(actions):  # an extension's are checked by index
                return list(answer)
            _log.error("deliveries_incomplete", space=space.id, wanted=len(actions))
        raise RetryLater("no step built the requests of every call")

    def _ask(self, hook: str, arguments: dict[str, Any]) -> list[Any]:
        """Return the answers of all implementations that give one."""
        answers: list[Any] = []
        for step in self._steps(hook):
            answer = step.function(*step.arguments(arguments)) if step.built_in else _call(step, hook, arguments)
            if answer is not None:
                answers.append(answer)
        return answers

    def _find(self, hook: str) -> list[_Step]:
        """Return the implementations of a hook in pluggy's order of calling: tryfirst, then the newest first."""
        caller = getattr(self._manager.hook, f"{PROJECT}_{hook}")
        return [
            _Step(one.plugin_name, one.plugin_name.startswith(_BUILT_IN), one.function, _taker(one.argnames))
            for one in reversed(caller.get_hookimpls())
        ]


def _call(step: _Step, hook: str, arguments: dict[str, Any]) -> Any:
    """Call one implementation; an extension's error is logged and counts as no answer."""
    if step.built_in:
        return step.function(*step.arguments(arguments))
    try:
        return _invoke(hook, step, arguments)
    except Exception as error:  # noqa: BLE001 - whatever an extension raises, the others run on
        _log.exception("extension_failed", extension=step.name, hook=hook, error=_text(error))
        return None


def _invoke(hook: str, step: _Step, arguments: dict[str, Any]) -> Any:
    """Call an extension's implementation and check its answer."""
    answer = step.function(*step.arguments(arguments))
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
    "operators": (Operator,),
    "data_types": (DataType,),
    "actions": (ActionKind,),
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
