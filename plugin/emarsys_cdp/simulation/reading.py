"""From a file of timelines to frozen values; every problem is reported with its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.document.compile import Compiler
from emarsys_cdp.document.model import Document
from emarsys_cdp.simulation.offsets import read_offset
from emarsys_cdp.validation import Check
from emarsys_cdp.values.text import decimal_text, shorten
from emarsys_cdp_hooks import InvalidDocument, Problem

DEEDS = ("call", "erase", "unsuppress")
"""What a step does: exactly one of these."""

KNOWN = {
    "file": ("about", "configs", "vectors"),
    "vector": ("name", "note", "use", "config", "timeline", "until", "expect"),
    "step": ("at", "time", "result", "mode", *DEEDS),
}
"""Names that mean something; others are passed over with a notice."""


class Person(Struct, frozen=True):
    """A person by an identifier; *kind* is user, key or anon."""

    kind: str
    value: str


class Step(Struct, frozen=True):
    """
    Something that happens: *at* is its arrival, *time* when a call happened (None: then), as offsets in ms.

    One of *call* (a message as an SDK sends it), *erase* (in *mode* delete or suppress) and *unsuppress* is set.
    *expected* is the result that the file expects, if it says so.
    """

    at: int
    time: int | None = None
    call: Mapping[str, Any] | None = None
    erase: Person | None = None
    mode: str = "delete"
    unsuppress: Person | None = None
    expected: str | None = None


class Vector(Struct, frozen=True):
    """A timeline with the document that it runs with; *until* is an offset in ms, *expect* what the file expects."""

    name: str
    document: Document
    steps: tuple[Step, ...]
    until: int | None = None
    expect: Mapping[str, Any] | None = None


class Simulation(Struct, frozen=True):
    """All vectors of a file; *notices* tell of what is passed over."""

    vectors: tuple[Vector, ...]
    notices: tuple[Problem, ...] = ()


def read_simulation(path: Path, check: Check, compiler: Compiler) -> Simulation:
    """
    Return the simulation in a file; *check* is that of the schema `simulation`.

    Raises:
        InvalidDocument: it cannot be read, is no JSON, or has problems; all of them are listed.

    """
    source = str(path)
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidDocument(source, (Problem("file", f"cannot be read: {error.strerror}"),)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(source, (Problem("file", f"is no JSON: {error}"),)) from error
    problems = check(raw)
    if problems:
        raise InvalidDocument(source, problems)
    return _Reading(source, raw, compiler).simulation()


def read_vector(raw: Mapping[str, Any], document: Document, place: str, compiler: Compiler) -> Vector:
    """
    Return a vector that runs with a document; the schema has accepted its shape.

    Raises:
        InvalidDocument: it has problems; all of them are listed, with places below *place*.

    """
    reading = _Reading(place, {}, compiler)
    vector = reading.timeline(place, raw, document)
    if reading.problems:
        raise InvalidDocument(place, tuple(reading.problems))
    return vector


class _Reading:
    """Reads a file of the right shape and collects what is wrong in it."""

    def __init__(self, source: str, raw: Mapping[str, Any], compiler: Compiler) -> None:
        self._source = source
        self._raw = raw
        self._compiler = compiler
        self.problems: list[Problem] = []
        self._configs: dict[str, Document | None] = {}

    def simulation(self) -> Simulation:
        for name, raw in self._raw.get("configs", {}).items():
            self._configs[name] = self._document(f"configs.{name}", raw)
        vectors = [self._vector(f"vectors[{index}]", raw) for index, raw in enumerate(self._raw["vectors"])]
        if self.problems:
            raise InvalidDocument(self._source, tuple(self.problems))
        return Simulation(tuple(vectors), tuple(_unknown(self._raw)))

    def _document(self, place: str, raw: Any) -> Document | None:
        try:
            return self._compiler.read(self._source, raw)
        except InvalidDocument as error:
            self.problems += [Problem(_below(place, one.place), one.message) for one in error.problems]
            return None

    def _vector(self, place: str, raw: Mapping[str, Any]) -> Vector:
        vector = self.timeline(place, raw, Document())
        return replace(vector, document=self._document_of(place, raw) or Document())

    def timeline(self, place: str, raw: Mapping[str, Any], document: Document) -> Vector:
        """Return a vector with its document."""
        steps = tuple([self._step(f"{place}.timeline[{index}]", one) for index, one in enumerate(raw["timeline"])])
        until = self._offset(place, raw, "until")
        return Vector(raw["name"], document, steps, until, raw.get("expect"))

    def _document_of(self, place: str, raw: Mapping[str, Any]) -> Document | None:
        """Return the document of a vector: its own, or the one of the file that it names."""
        if ("use" in raw) == ("config" in raw):
            found = "both use and config" if "use" in raw else "neither use nor config"
            self.problems.append(Problem(place, f"has {found}: give the name of one of configs, or a document"))
            return None
        if "config" in raw:
            return self._document(f"{place}.config", raw["config"])
        name = raw["use"]
        if name not in self._configs:
            known = ", ".join(self._configs) or "none"
            self.problems.append(Problem(f"{place}.use", f"{shorten(name)} is none of the configs: {known}"))
        return self._configs.get(name)

    def _step(self, place: str, raw: Mapping[str, Any]) -> Step:
        deeds = [name for name in DEEDS if name in raw]
        if len(deeds) != 1:
            found = " and ".join(deeds) or "none of them"
            self.problems.append(Problem(place, f"has {found}: a step is one of {', '.join(DEEDS)}"))
        for name, deed in (("time", "call"), ("mode", "erase")):
            if name in raw and deed not in raw:
                self.problems.append(Problem(f"{place}.{name}", f"belongs to a step with {deed}"))
        return Step(
            at=self._offset(place, raw, "at") or 0,
            time=self._offset(place, raw, "time"),
            call=raw.get("call"),
            erase=self._person(place, raw, "erase"),
            mode=raw.get("mode", "delete"),
            unsuppress=self._person(place, raw, "unsuppress"),
            expected=raw.get("result"),
        )

    def _offset(self, place: str, raw: Mapping[str, Any], name: str) -> int | None:
        if name not in raw:
            return None
        try:
            return read_offset(raw[name])
        except ValueError as error:
            self.problems.append(Problem(f"{place}.{name}", f"{shorten(raw[name])} {error}"))
            return None

    def _person(self, place: str, raw: Mapping[str, Any], name: str) -> Person | None:
        if name not in raw:
            return None
        kind, value = raw[name]
        text = value if isinstance(value, str) else decimal_text(value)
        if text is None:
            self.problems.append(Problem(f"{place}.{name}", f"{shorten(value)} is no identifier"))
        return Person(kind, text or "")


def _below(place: str, inner: str) -> str:
    """Return the place of a problem in a document that is part of the file."""
    return place if inner == "document" else f"{place}.{inner}"


def _unknown(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a notice for each name that means nothing, which may be a slip."""
    yield from _unknown_names("", "file", raw)
    for index, vector in enumerate(raw["vectors"]):
        place = f"vectors[{index}]"
        yield from _unknown_names(f"{place}.", "vector", vector)
        for number, step in enumerate(vector["timeline"]):
            yield from _unknown_names(f"{place}.timeline[{number}].", "step", step)


def _unknown_names(place: str, kind: str, raw: Mapping[str, Any]) -> Iterator[Problem]:
    for name in raw:
        if name not in KNOWN[kind]:
            yield Problem(
                f"{place}{name}", f"means nothing here and is passed over: known are {', '.join(KNOWN[kind])}"
            )
