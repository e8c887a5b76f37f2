"""The actions of a row: read from the document and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from emarsys_cdp.rules.findings import Findings, unknown
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.pattern import Action
from emarsys_cdp.values.text import decimal_text, shorten
from emarsys_cdp_hooks import ActionKind, Json

MAX_ACTIONS: Final = 50
"""Most actions of one row."""

MAX_NAME: Final = 200
"""Longest name of an event, a list or a section, in characters."""

RESERVED: Final = "ems_event_time"
"""A key of event data that Emarsys keeps for itself (semantics 2.8)."""

BUILT_IN_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "trigger": ("event", "eventId", "section"),
    "update": ("field", "value", "var"),
    "unset": ("field",),
    "addToList": ("list",),
    "removeFromList": ("list",),
    "upsertContact": (),
}
"""What can be done in Emarsys, each with its members."""

_COMMON = ("do", "onError")
_ON_ERROR = ("continue", "stop")


def read_actions(
    raw: list[Mapping[str, Json]], place: str, variables: Mapping[str, str], kinds: Kinds, findings: Findings
) -> tuple[Action, ...]:
    """Return the actions of a row; *variables* are those that the rule captures."""
    if len(raw) > MAX_ACTIONS:
        findings.add(place, f"has {len(raw)} actions: at most {MAX_ACTIONS}")
    read = [_action(one, f"{place}[{index}]", variables, kinds, findings) for index, one in enumerate(raw)]
    return tuple([action for action in read if action is not None])


def _action(
    raw: Mapping[str, Json], place: str, variables: Mapping[str, str], kinds: Kinds, findings: Findings
) -> Action | None:
    name = raw["do"]
    on_error = raw.get("onError", _ON_ERROR[0])
    if on_error not in _ON_ERROR:
        findings.add(f"{place}.onError", unknown(on_error, "way to go on", _ON_ERROR))
    options = {key: value for key, value in raw.items() if key not in _COMMON}
    if name in BUILT_IN_ACTIONS:
        for key in options:
            if key not in BUILT_IN_ACTIONS[name]:
                known = (*BUILT_IN_ACTIONS[name], "onError")
                findings.add(f"{place}.{key}", unknown(key, f"part of {name}", known))
        _CHECKS[name](options, place, variables, kinds, findings)
    elif name in kinds.actions:
        _check_added(kinds.actions[name], options, place, findings)
    else:
        findings.add(f"{place}.do", unknown(name, "action", (*BUILT_IN_ACTIONS, *kinds.actions)))
        return None
    return Action(name, options, on_error == "stop")


def _check_added(kind: ActionKind, options: Mapping[str, Json], place: str, findings: Findings) -> None:
    check = kind.check
    if check is not None:
        findings.attempt(place, lambda: check(options))


def _trigger(
    options: Mapping[str, Json], place: str, _variables: Mapping[str, str], _kinds: Kinds, findings: Findings
) -> None:
    if "event" not in options and "eventId" not in options:
        findings.add(place, "has no event: give the name or id of an external event")
    for key in ("event", "section"):
        if key in options:
            _check_name(options[key], f"{place}.{key}", findings)
    if "eventId" in options and not _is_id(options["eventId"]):
        findings.add(f"{place}.eventId", f"{shorten(options['eventId'])} is no id: give a number; a name goes to event")


def _update(
    options: Mapping[str, Json], place: str, variables: Mapping[str, str], kinds: Kinds, findings: Findings
) -> None:
    _field(options, place, variables, kinds, findings)
    if ("value" in options) == ("var" in options):
        found = "both value and var" if "value" in options else "neither value nor var"
        findings.add(place, f"has {found}: give what to write, or the captured variable that has it")
    elif "var" in options:
        if options["var"] not in list(variables):
            findings.add(f"{place}.var", f"{unknown(options['var'], 'captured variable', variables)}; capture it first")
    elif not _is_writable(options["value"]):
        findings.add(f"{place}.value", f"{shorten(options['value'])} cannot be written: give a text; unset empties")
    elif "field" in options:
        findings.attempt(f"{place}.value", lambda: _check_update(options, kinds))


def _check_update(options: Mapping[str, Json], kinds: Kinds) -> None:
    """Check the value; a field that is wrong is told by itself."""
    try:
        kinds.check_field(options["field"])
    except ValueError:
        return
    kinds.check_update(options["field"], options["value"])


def _field(
    options: Mapping[str, Json], place: str, _variables: Mapping[str, str], kinds: Kinds, findings: Findings
) -> None:
    if "field" not in options:
        findings.add(place, "has no field: give the id or name of an Emarsys field")
    elif _check_name(options["field"], f"{place}.field", findings):
        findings.attempt(f"{place}.field", lambda: kinds.check_field(options["field"]))


def _list(
    options: Mapping[str, Json], place: str, _variables: Mapping[str, str], _kinds: Kinds, findings: Findings
) -> None:
    if "list" not in options:
        findings.add(place, "has no list: give the id or name of a contact list")
    else:
        _check_name(options["list"], f"{place}.list", findings)


def _nothing(
    _options: Mapping[str, Json], _place: str, _variables: Mapping[str, str], _kinds: Kinds, _findings: Findings
) -> None:
    """Find nothing wrong: there are no members."""


_Check = Callable[[Mapping[str, Json], str, Mapping[str, str], Kinds, Findings], None]

_CHECKS: Final[Mapping[str, _Check]] = {
    "trigger": _trigger,
    "update": _update,
    "unset": _field,
    "addToList": _list,
    "removeFromList": _list,
    "upsertContact": _nothing,
}


def _is_id(value: Json) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= MAX_NAME
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_name(value: Json, place: str, findings: Findings) -> bool:
    """Note what is neither an id nor a name."""
    if _is_id(value) or (isinstance(value, str) and value.strip() and len(value) <= MAX_NAME):
        return True
    findings.add(place, f"{shorten(value)} is neither an id nor a name of at most {MAX_NAME} characters")
    return False


def _is_writable(value: Json) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, (str, bool)) or (isinstance(value, (int, float)) and decimal_text(value) is not None)
