"""From an effect to what is sent for it: actions whose names are Emarsys' ids. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from emarsys_cdp.effect import Effect
from emarsys_cdp.values.text import decimal_text, shorten
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Action, AddToList, Json, RemoveFromList, TriggerEvent, UpsertContact, Value

TRIGGER, UPDATE, UNSET = "trigger", "update", "unset"
ADD_TO_LIST, REMOVE_FROM_LIST, UPSERT = "addToList", "removeFromList", "upsertContact"
"""Kinds of actions that rules have by themselves; extensions add others."""

BUILT_IN = frozenset((TRIGGER, UPDATE, UNSET, ADD_TO_LIST, REMOVE_FROM_LIST, UPSERT))

SECTION = "global"
"""Where the captured variables stand in the data of an event, unless the action names another section (event API)."""

Build: TypeAlias = Callable[[Effect], Sequence[Action]]
"""How an effect of an extension's kind becomes actions; the same for the same effect."""

Builds: TypeAlias = Mapping[str, Build]
"""The kinds of extensions by their names."""


class Unsendable(Exception):
    """An effect can never be sent as it is; the message says what would be right."""


def actions_of(effect: Effect, create: bool, builds: Builds) -> tuple[Action, ...]:
    """
    Return what is sent for an effect that is pinned, in the order of sending.

    *create*: contacts that Emarsys does not have are made.

    Raises:
        Unsendable: nobody knows (any more) how an effect of its kind is sent.

    """
    if effect.do not in BUILT_IN:
        return _built(effect, builds)
    action = _action(effect, create)
    if create and effect.fresh and not isinstance(action, (UpsertContact, RemoveFromList)):
        return contact_of(effect), action
    return (action,)


def contact_of(effect: Effect) -> UpsertContact:
    """Return what makes the contact of an effect, with nothing but its key."""
    return UpsertContact(effect.key_field, effect.key, {effect.key_field: effect.key})


def _built(effect: Effect, builds: Builds) -> tuple[Action, ...]:
    build = builds.get(effect.do)
    if build is None:
        known = ", ".join(sorted({*BUILT_IN, *builds}))
        raise Unsendable(f"{shorten(effect.do)} is no action: known are {known}; is its extension installed?")
    try:
        actions = tuple(build(effect))
    except Exception as error:
        raise Unsendable(f"the extension of {effect.do} failed: {type(error).__name__}: {error}") from error
    if not actions or not all(isinstance(action, Action) for action in actions):
        raise Unsendable(f"the extension of {effect.do} returned no actions: at least one is needed")
    return actions


def _action(effect: Effect, create: bool) -> Action:
    key_field, key, options = effect.key_field, effect.key, effect.options
    if effect.do == TRIGGER:
        return TriggerEvent(options["eventId"], key_field, key, effect.id, iso_time(effect.due), event_data(effect))
    if effect.do == ADD_TO_LIST:
        return AddToList(options["list"], key_field, key)
    if effect.do == REMOVE_FROM_LIST:
        return RemoveFromList(options["list"], key_field, key)
    fields = {} if effect.do == UPSERT else {options["field"]: options["value"]}
    return UpsertContact(key_field, key, {**fields, key_field: key}, create)


def event_data(effect: Effect) -> dict[str, Json] | None:
    """Return the data of an event: the captured variables as texts in the action's section, None without any."""
    texts = {name: text_of(value) for name, value in effect.data.items() if value is not None}
    return {str(effect.options.get("section") or SECTION): texts} if texts else None


def text_of(value: Value) -> str:
    """Return a captured variable as text: booleans in words, lists joined by commas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else value or ""


def value_to_write(effect: Effect) -> Value:
    """
    Return what an `update` writes, as data maps have it: its `value`, or the captured variable that `var` names.

    Raises:
        Unsendable: the variable has no value, or the value is none that a field takes.

    """
    if "var" in effect.options:
        name = effect.options["var"]
        found = effect.data.get(name) if isinstance(name, str) else None
        if found is None:
            raise Unsendable(f"the variable {shorten(name)} has no value: nothing to write")
        return found
    given = effect.options.get("value")
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return decimal_text(given) or ""
    if given is None or isinstance(given, (str, bool)):
        return given
    if isinstance(given, list) and all(isinstance(one, (str, int, float)) for one in given):
        return [one if isinstance(one, str) else text_of(_scalar(one)) for one in given]
    raise Unsendable(f"{shorten(given)} cannot be written: give a text, a number, a boolean or a list of texts")


def _scalar(number: float | bool) -> Value:
    return number if isinstance(number, bool) else decimal_text(number)
