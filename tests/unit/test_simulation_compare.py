"""What a simulation's file expects against what came out."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from emarsys_cdp.document.model import Document
from emarsys_cdp.simulation.compare import differences
from emarsys_cdp.simulation.outcome import Outcome, Person, people
from emarsys_cdp.simulation.reading import Step, Vector
from emarsys_cdp.store.record import Device, Record

JANE, JOE = Person("jane", "j@x.com", ["d1"], []), Person("joe", None, [], [])
OUTCOME = Outcome("v", [], [], [JANE, JOE], [], ["key_shared"], 0, ["ok", "dropped"])
JANE_TOO = {"user": "jane", "key": "j@x.com", "anons": ["d1"], "former": []}
JOE_TOO: dict[str, Any] = {"user": "joe", "key": None, "anons": [], "former": []}


def places(expect: dict[str, Any] | None, *results: str | None) -> list[str]:
    """Return where an expectation differs from `OUTCOME`."""
    steps = tuple([Step(0, expected=result) for result in results])
    return [one.place for one in differences(Vector("v", Document(), steps, None, expect), OUTCOME)]


def test_only_what_the_file_names_is_compared() -> None:
    """A vector without expectations differs in nothing."""
    assert places(None) == []
    assert places({}, None, None) == []
    assert places({"shared": []}) == []


def test_every_difference_is_found() -> None:
    """Results by their step, other parts by their key; a key that no output has differs too."""
    assert places({"warnings": [], "shared": [], "mails": 1}, "dropped", "dropped") == [
        "results[0]",
        "warnings",
        "mails",
    ]


def test_people_are_compared_without_their_order() -> None:
    """The file writes them as it likes."""
    assert places({"profiles": [JOE_TOO, JANE_TOO]}) == []
    assert places({"profiles": [JOE_TOO]}) == ["profiles"]
    assert places({"profiles": [JOE_TOO, JOE_TOO]}) == ["profiles"]


def test_a_difference_shows_both_sides() -> None:
    """What was expected and what was found, as JSON has it."""
    vector = Vector("v", Document(), (), None, {"profiles": [JOE_TOO]})
    (found,) = differences(vector, replace(OUTCOME, profiles=[JANE]))

    assert (found.vector, found.expected, found.found) == ("v", [JOE_TOO], [JANE_TOO])


def test_people_are_sorted_and_so_is_what_they_have() -> None:
    """The output is the same whatever order the store has."""
    first = Record("s", user="b", devices=(Device("z", 0, 0), Device("a", 0, 0)), former_keys=("k2", "k1"))
    found = people([first, Record("s", user="B"), Record("s", key="k")])

    assert [person for person, _ in found] == [
        Person(None, "k", [], []),
        Person("B", None, [], []),
        Person("b", None, ["a", "z"], ["k1", "k2"]),
    ]
