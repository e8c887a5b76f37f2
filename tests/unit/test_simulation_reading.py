"""Files of timelines: what is read, and every problem at its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.emarsys.field_types import built_in_field_types
from emarsys_cdp.emarsys.fields import load_system_fields
from emarsys_cdp.simulation.reading import Person, Simulation, read_simulation
from emarsys_cdp.validation import compile_schema
from emarsys_cdp_hooks import InvalidDocument

CALL = {"at": "0:00", "call": {"type": "page", "userId": "u1"}}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Any], Simulation]:
    """Read a value as a file; what is no text is written as JSON."""
    compiler = Compiler(compile_schema("document"), load_system_fields(), built_in_field_types())

    def read_value(value: Any) -> Simulation:
        file = tmp_path / "simulation.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return read_simulation(file, compile_schema("simulation"), compiler)

    return read_value


def vector(**parts: Any) -> dict[str, Any]:
    """Return a file with one vector."""
    return {"vectors": [{"name": "v", "config": {}, "timeline": [], **parts}]}


def steps(*given: dict[str, Any]) -> dict[str, Any]:
    """Return a file with one vector of these steps."""
    return vector(timeline=list(given))


def test_a_file_with_named_and_own_documents_is_read(read: Callable[[Any], Simulation]) -> None:
    """A vector names one of the configs or brings its own."""
    own = {"name": "own", "config": {"identity": {"keyType": "phone"}}, "timeline": [CALL], "until": "1d"}
    named = {"name": "named", "use": "a", "timeline": [], "expect": {"shared": []}}

    simulation = read({"configs": {"a": {"identity": {"keyType": "text"}}}, "vectors": [own, named]})

    assert [one.document.identity.key_type for one in simulation.vectors] == ["phone", "text"]
    assert [one.until for one in simulation.vectors] == [86_400_000, None]
    assert simulation.vectors[1].expect == {"shared": []}
    assert simulation.notices == ()


def test_steps_are_read(read: Callable[[Any], Simulation]) -> None:
    """Calls with their two times, erasing, suppressing and taking back."""
    simulation = read(
        steps(
            {"at": "1:00", "time": "0:30", "call": {"type": "page"}, "result": "dropped"},
            {"at": "2:00", "erase": ["key", "a@x.com"], "mode": "suppress"},
            {"at": "3:00", "unsuppress": ["user", 7.0]},
        )
    )
    call, erase, back = simulation.vectors[0].steps

    assert (call.at, call.time, call.expected) == (3_600_000, 1_800_000, "dropped")
    assert (erase.erase, erase.mode) == (Person("key", "a@x.com"), "suppress")
    assert back.unsuppress == Person("user", "7")


def test_the_shipped_vectors_are_right(read: Callable[[Any], Simulation], root: Path) -> None:
    """The file of the specification is read without a notice."""
    text = (root / "tests/contract/vectors/semantics/vectors.json").read_text()
    simulation = read(text)

    assert len(simulation.vectors) == len(json.loads(text)["vectors"])
    assert simulation.notices == ()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('{"vectors": [}', "file: is no JSON: Expecting value: line 1 column 14 (char 13)"),
        ("[" * 100_000, "file: is no JSON: "),
        ([], "document: must be object"),
        ({}, "document: must contain ['vectors'] properties"),
        ({"vectors": [{"name": "v"}]}, "vectors[0]: must contain ['timeline'] properties"),
        (vector(timeline={}), "vectors[0].timeline: must be array"),
        (steps({"call": {}}), "vectors[0].timeline[0]: must contain ['at'] properties"),
        (steps({"at": "0:7x", "call": {}}), "vectors[0].timeline[0].at: '0:7x' is no offset of time: write for"),
        (steps({"at": 0, "call": {}}), "vectors[0].timeline[0].at: 0 is no offset of time"),
        (steps(CALL, {"at": "0:01", "call": {}, "time": "x"}), "vectors[0].timeline[1].time: 'x' is no offset"),
        (vector(until="soon"), "vectors[0].until: 'soon' is no offset of time"),
        (steps({"at": "0:00"}), "vectors[0].timeline[0]: has none of them: a step is one of call, erase, unsuppress"),
        (steps({**CALL, "erase": ["user", "u1"]}), "vectors[0].timeline[0]: has call and erase: a step is one of"),
        (steps({"at": "0:00", "erase": ["mail", "x"]}), "vectors[0].timeline[0].erase: is not right here: A pair such"),
        (steps({"at": "0:00", "erase": ["user"]}), "vectors[0].timeline[0].erase: is not right here: A pair such"),
        (steps({**CALL, "mode": "delete"}), "vectors[0].timeline[0].mode: belongs to a step with erase"),
        (steps({**CALL, "result": "fine"}), "vectors[0].timeline[0].result: 'fine' must be one of"),
        ({"vectors": [{"name": "v", "timeline": []}]}, "vectors[0]: has neither use nor config: give the name"),
        (vector(use="a"), "vectors[0]: has both use and config"),
        ({"configs": {"a": {}}, "vectors": [{"name": "v", "use": "b", "timeline": []}]}, "'b' is none of the configs"),
        ({"configs": {"a": {"rule": []}}, "vectors": []}, "configs.a: must not contain {'rule'} properties"),
        (vector(config={"identity": {"keyType": "x"}}), "vectors[0].config.identity.keyType: 'x' must be one of"),
    ],
)  # fmt: skip
def test_a_problem_names_its_place(read: Callable[[Any], Simulation], value: Any, problem: str) -> None:
    """What is wrong, where, and what would be right."""
    with pytest.raises(InvalidDocument) as caught:
        read(value)

    assert problem in str(caught.value)


def test_every_problem_is_reported_at_once(read: Callable[[Any], Simulation]) -> None:
    """A file is mended in one go."""
    with pytest.raises(InvalidDocument) as caught:
        read({"vectors": [{"name": "v", "use": "a", "timeline": [{"at": "x", "call": {}}, {"at": "0:00"}]}]})

    assert [problem.place for problem in caught.value.problems] == [
        "vectors[0].timeline[0].at",
        "vectors[0].timeline[1]",
        "vectors[0].use",
    ]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """The error is the operating system's, in our form."""
    compiler = Compiler(compile_schema("document"), load_system_fields(), built_in_field_types())
    with pytest.raises(InvalidDocument, match="file: cannot be read: No such file or directory"):
        read_simulation(tmp_path / "x.json", compile_schema("simulation"), compiler)


def test_a_name_that_means_nothing_is_noticed(read: Callable[[Any], Simulation]) -> None:
    """It may be a slip; it may be a remark as well, so the file runs."""
    simulation = read({"untill": 1, "vectors": [{"name": "v", "config": {}, "timeline": [{**CALL, "tiem": "1:00"}]}]})

    assert [notice.place for notice in simulation.notices] == ["untill", "vectors[0].timeline[0].tiem"]
