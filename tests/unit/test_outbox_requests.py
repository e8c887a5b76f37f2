"""From effects to actions: the kinds that rules have by themselves, and those of extensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.outbox import effect, effect_id, key_of

from emarsys_cdp.effect import Effect
from emarsys_cdp.outbox.requests import Unsendable, actions_of, text_of, value_to_write
from emarsys_cdp_hooks import Action, AddToList, RemoveFromList, TriggerEvent, UpsertContact, Value

KEY = key_of(1)
TIME = "2026-11-18T11:06:40.001Z"
MADE = UpsertContact("3", KEY, {"3": KEY})


@pytest.mark.parametrize(
    ("parts", "create", "wanted"),
    [
        ({}, True, [TriggerEvent("9001", "3", KEY, effect_id(1), TIME)]),
        ({"fresh": True}, True, [MADE, TriggerEvent("9001", "3", KEY, effect_id(1), TIME)]),
        ({"fresh": True}, False, [TriggerEvent("9001", "3", KEY, effect_id(1), TIME)]),
        (
            {"data": {"a": "1", "b": False, "c": ["x", "y"], "d": None}},
            True,
            [TriggerEvent("9001", "3", KEY, effect_id(1), TIME, {"global": {"a": "1", "b": "false", "c": "x, y"}})],
        ),
        ({"do": "addToList", "options": {"list": "5"}}, True, [AddToList("5", "3", KEY)]),
        ({"do": "addToList", "options": {"list": "5"}, "fresh": True}, True, [MADE, AddToList("5", "3", KEY)]),
        ({"do": "removeFromList", "options": {"list": "5"}, "fresh": True}, True, [RemoveFromList("5", "3", KEY)]),
        (
            {"do": "update", "options": {"field": "1", "value": "Ada"}},
            False,
            [UpsertContact("3", KEY, {"1": "Ada", "3": KEY}, create=False)],
        ),
        ({"do": "upsertContact", "fresh": True}, True, [MADE]),
    ],
)
def test_an_effect_becomes_actions(parts: dict[str, Any], create: bool, wanted: list[Action]) -> None:
    """A contact that may not exist yet is made first, where that is allowed and something needs it."""
    assert list(actions_of(effect(1, **parts), create, {})) == wanted


def test_an_effect_never_writes_another_key() -> None:
    """A rule that updates the key field itself leaves the contact's key as it is."""
    (action,) = actions_of(effect(1, do="update", options={"field": "3", "value": "x@example.com"}), True, {})

    assert isinstance(action, UpsertContact)
    assert action.fields == {"3": KEY}


def test_an_extension_builds_its_kind() -> None:
    """From the effect, as many actions as it takes."""

    def build(one: Effect) -> Sequence[Action]:
        return [AddToList(str(one.options["list"]), one.key_field, one.key), MADE]

    assert actions_of(effect(1, do="vip", options={"list": 7}), True, {"vip": build}) == (
        AddToList("7", "3", KEY),
        MADE,
    )


@pytest.mark.parametrize("answer", [[], ["x"], None, ValueError("no")])
def test_an_extension_that_fails_is_told(answer: Any) -> None:
    """The effect cannot be sent, and its extension is named; nothing else is disturbed."""

    def build(_: Effect) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(Unsendable, match="vip"):
        actions_of(effect(1, do="vip"), True, {"vip": build})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"value": "Ada"}, "Ada"), ({"value": 1.50}, "1.5"), ({"value": 3}, "3"), ({"value": True}, True),
        ({"value": None}, None), ({"value": ["a", 2, True]}, ["a", "2", "true"]), ({"var": "points"}, "12"),
        ({}, None),
    ],
)  # fmt: skip
def test_what_an_update_writes(options: dict[str, Any], wanted: Value) -> None:
    """Values of documents as data maps would have them, and captured variables."""
    assert value_to_write(effect(1, do="update", options=options, data={"points": "12"})) == wanted


@pytest.mark.parametrize("options", [{"value": {"a": 1}}, {"value": [[1]]}, {"var": "nobody"}, {"var": 1}])
def test_what_an_update_cannot_write(options: dict[str, Any]) -> None:
    """Objects, nested lists, and variables that have no value."""
    with pytest.raises(Unsendable):
        value_to_write(effect(1, do="update", options=options))


@pytest.mark.parametrize(("value", "text"), [("x", "x"), (True, "true"), (["a", "b"], "a, b"), ([], ""), (None, "")])
def test_variables_are_texts(value: Value, text: str) -> None:
    """In the data of an event."""
    assert text_of(value) == text
