"""Rows of the users table for people to read."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from emarsys_cdp.cli.users_show import show_people, show_removed, show_user
from emarsys_cdp.store.record import Device, Record
from emarsys_cdp.users_desk import Identifier, Removed
from emarsys_cdp.users_view import show_record
from emarsys_cdp_hooks import StoredValue


def printed(show: Any, *arguments: Any) -> str:
    """Return what is printed on a console of 100 columns."""
    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        show(*arguments, console)
    return capture.get()


def user(kind: str = "user", value: str = "u1", **parts: Any) -> str:
    """Return how a person is shown."""
    return printed(show_user, show_record("p1", Record("s", **parts), {"first": "1"}), kind, value)


def test_what_steers_a_terminal_is_shown_as_an_escape() -> None:
    """Values and messageIds are what anybody sent."""
    value = StoredValue("\x1b]0;owned\x07\u202ename", 0, "m\x1b[2J")
    text = user(values={"first": value}, last_type="page", last_message="\x9bm")

    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert r"\x1b]0;owned\x07\u202ename" in text
    assert r"page \x9bm" in text


def test_rich_markup_is_text() -> None:
    """A value in brackets is not a style."""
    assert "[red]x[/red]" in user(user="[red]x[/red]")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"key": "k", "owns_key": False}, "k (another person had it first)"),
        ({"aliases": ("old", "older")}, "also known as  old, older"),
        ({"isolate": True}, "of calls that have nothing but a shared anonymousId; nothing is ever sent to it"),
        ({"merged_from": ("p2",)}, "merged from    p2"),
        ({"values": {"first": StoredValue("Ada", 0, "m")}}, "Waiting for a primary key: field 1 = Ada"),
    ],
)
def test_what_is_special_is_said(parts: dict[str, Any], words: str) -> None:
    """Nobody has to know what a flag means."""
    text = " ".join(user(**parts).split())

    assert " ".join(words.split()) in text


def test_a_former_key_is_said_to_be_one() -> None:
    """It still finds its person."""
    record = {"key": "new@x.com", "owns_key": True, "former_keys": ("old@x.com",)}

    assert "This is a former primary key of the person." in user("key", " Old@x.com", **record)
    assert "former primary key of the person" not in user("key", "new@x.com", **record)


def test_devices_are_counted_in_a_list() -> None:
    """The list shows the one of now."""
    devices = (Device("d1", 0, 9), Device("d2", 0, 5), Device("d3", 0, 1))
    text = printed(show_people, [show_record("p1", Record("s", devices=devices), {})], 1)

    assert "d1 and 2 more" in text
    assert "--limit" not in text


def test_what_was_erased_is_said() -> None:
    """Which identifiers, and what is left to do; nothing when it is nobody's."""
    removed = Removed("s", "suppress", [Identifier("user", "u1"), Identifier("anon", "d1")], ["a@x.com"])

    assert "Suppressed: userId u1, anonymousId d1." in printed(show_removed, removed)
    assert "delete the contact with the key a@x.com" in printed(show_removed, removed)
    assert "it is nobody's" in printed(show_removed, Removed("s", "delete", [], []))
