"""
The built-in operators: which data types they are for, what they compare with, and how (semantics 2.7).

Every one of them is positive. A comparison is made in two steps: what it compares with is prepared once, then values
are tested. A value that is not of its type's form counts as absent, and no test holds for an absent value.
"""

from __future__ import annotations

import operator as compare
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

import re2
from msgspec import Struct

from emarsys_cdp.values.times import parse_usual_time, zone
from emarsys_cdp_hooks import Value

STRING, NUMERIC, BOOLEAN, DATE, LIST = "string", "numeric", "boolean", "date", "list"
TYPES: Final = (STRING, NUMERIC, BOOLEAN, DATE, LIST)
"""The built-in data types."""

Holds: TypeAlias = Callable[[Value, int], bool]
"""(value that is there, time of the call in ms) to whether a comparison holds."""

Ready: TypeAlias = Callable[[Value], Any]
"""A value to what is compared, None when it is not of the type's form."""

NOTHING, ONE, MANY, PAIR, SPAN, PATTERN = "nothing", "one", "many", "pair", "span", "pattern"
"""What an operator compares with: nothing, a value, a list, two ends, a duration, a regular expression."""

MEMORY: Final = 1 << 20
"""Bytes that a regular expression may use; a larger one is refused when a document is read."""


class Way(Struct, frozen=True):
    """How values are read: as a built-in type, *fold*: without regard to case, in a time zone."""

    type: str
    fold: bool = False
    zone: str = "UTC"


class BuiltIn(Struct, frozen=True):
    """
    An operator. *argument* is what it compares with.

    *prepare* gets the argument (as `arguments.read_argument` returns it) and returns the test. *folds*: case can be
    ignored. *holds_absent*: it holds for an absent value.
    """

    name: str
    types: tuple[str, ...]
    argument: str
    prepare: Callable[[Any, Way], Holds]
    folds: bool = False
    holds_absent: bool = False


def never(_value: Value, _time: int) -> bool:
    """Hold for nothing."""
    return False


def _text(value: Value) -> str | None:
    return value if type(value) is str else None


def _folded(value: Value) -> str | None:
    return value.casefold() if type(value) is str else None


def _number(value: Value) -> Decimal | None:
    return _decimal(value) if type(value) is str else None


@lru_cache(maxsize=4096)
def _decimal(text: str) -> Decimal | None:
    """Return a finite number; one value is asked for by many rules."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _truth(value: Value) -> bool | None:
    return value if type(value) is bool else None


def _moment(value: Value) -> int | None:
    return parse_usual_time(value) if type(value) is str else None


def _texts(value: Value) -> tuple[str, ...] | None:
    return tuple(value) if type(value) is list else None


def _folded_texts(value: Value) -> tuple[str, ...] | None:
    return tuple([text.casefold() for text in value]) if type(value) is list else None


_READY: Final[dict[tuple[str, bool], Ready]] = {
    (STRING, False): _text,
    (STRING, True): _folded,
    (NUMERIC, False): _number,
    (BOOLEAN, False): _truth,
    (DATE, False): _moment,
    (LIST, False): _texts,
    (LIST, True): _folded_texts,
}


def ready_of(way: Way) -> Ready:
    """Return the function that makes a value comparable."""
    return _READY[way.type, way.fold and way.type in (STRING, LIST)]


def _against(test: Callable[[Any, Any], bool]) -> Callable[[Any, Way], Holds]:
    """Return what prepares a test of the value against one other of its type."""

    def prepare(argument: Any, way: Way) -> Holds:
        ready = ready_of(way)
        wanted = ready(argument)
        if wanted is None:
            return never

        def holds(value: Value, _: int) -> bool:
            found = ready(value)
            return found is not None and test(found, wanted)

        return holds

    return prepare


def _in(argument: Any, way: Way) -> Holds:
    ready = ready_of(way)
    wanted = frozenset(map(ready, argument)) - {None}
    return lambda value, _: ready(value) in wanted


def _between(argument: Any, way: Way) -> Holds:
    ready = ready_of(way)
    low, high = map(ready, argument)

    def holds(value: Value, _: int) -> bool:
        found = ready(value)
        return found is not None and low <= found <= high

    return holds


def _exists(_: Any, way: Way) -> Holds:
    ready = ready_of(way)
    return lambda value, _: ready(value) is not None


def _empty(_: Any, way: Way) -> Holds:
    ready = ready_of(way)
    return lambda value, _: ready(value) in (None, "", ())


def _is(wanted: bool) -> Callable[[Any, Way], Holds]:
    return lambda _argument, _way: lambda value, _: value is wanted


def _element(argument: Any, way: Way) -> Holds:
    """Test that a list has one element, or a text a part."""
    if way.type == LIST:
        return _some([argument], way)
    return _against(compare.contains)(argument, way)


def _some(argument: Any, way: Way) -> Holds:
    ready = ready_of(way)
    wanted = frozenset(ready(argument) or ())
    return lambda value, _: not wanted.isdisjoint(ready(value) or ())


def _all(argument: Any, way: Way) -> Holds:
    ready = ready_of(way)
    wanted = frozenset(ready(argument) or ())

    def holds(value: Value, _: int) -> bool:
        found = ready(value)
        return found is not None and wanted.issubset(found)

    return holds


def compile_pattern(text: str, fold: bool = False) -> Any:
    """
    Return a regular expression of RE2, whose time grows with the text only.

    Raises:
        ValueError: it is none, or too large.

    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    options.case_sensitive = not fold
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else ""
        raise ValueError(f"{text!r} is no regular expression of RE2: {reason}") from error


def _matches(argument: Any, way: Way) -> Holds:
    if type(argument) is not str:
        return never
    search = compile_pattern(argument, way.fold).search

    def holds(value: Value, _: int) -> bool:
        if type(value) is not str:
            return False
        try:
            return search(value) is not None
        except UnicodeEncodeError:  # half of a character, which UTF-8 has no form for
            return search(value.encode(errors="replace").decode()) is not None

    return holds


def day_of(moment: int, name: str) -> tuple[int, int]:
    """Return the first millisecond of the day that a moment is in, in a zone, and that of the next day."""
    where: ZoneInfo = zone(name)
    start = datetime.fromtimestamp(moment / 1000, where).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (start.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=where)
    return round(start.timestamp() * 1000), round(following.timestamp() * 1000)


def _on(argument: Any, way: Way) -> Holds:
    moment = _moment(argument)
    if moment is None:
        return never
    try:
        begin, end = day_of(moment, way.zone)
    except (OverflowError, ValueError, OSError):  # the first and the last day of the calendar
        return never

    def holds(value: Value, _: int) -> bool:
        found = _moment(value)
        return found is not None and begin <= found < end

    return holds


def _relative(test: Callable[[int, int, int], bool]) -> Callable[[Any, Way], Holds]:
    """Return what prepares a test of a date against the time of the call and a span."""

    def prepare(span: Any, _: Way) -> Holds:
        def holds(value: Value, time: int) -> bool:
            found = _moment(value)
            return found is not None and test(found, time, span)

        return holds

    return prepare


def _built_in(*operators: BuiltIn) -> dict[str, BuiltIn]:
    return {one.name: one for one in operators}


BUILT_INS: Final = _built_in(
    BuiltIn("equals", TYPES, ONE, _against(compare.eq), folds=True),
    BuiltIn("in", TYPES, MANY, _in, folds=True),
    BuiltIn("exists", TYPES, NOTHING, _exists),
    BuiltIn("empty", TYPES, NOTHING, _empty, holds_absent=True),
    BuiltIn("changed", TYPES, NOTHING, _exists, folds=True),
    BuiltIn("changed_to", TYPES, ONE, _against(compare.eq), folds=True),
    BuiltIn("contains", (STRING, LIST), ONE, _element, folds=True),
    BuiltIn("starts_with", (STRING,), ONE, _against(str.startswith), folds=True),
    BuiltIn("ends_with", (STRING,), ONE, _against(str.endswith), folds=True),
    BuiltIn("matches", (STRING,), PATTERN, _matches, folds=True),
    BuiltIn("gt", (NUMERIC,), ONE, _against(compare.gt)),
    BuiltIn("gte", (NUMERIC,), ONE, _against(compare.ge)),
    BuiltIn("lt", (NUMERIC,), ONE, _against(compare.lt)),
    BuiltIn("lte", (NUMERIC,), ONE, _against(compare.le)),
    BuiltIn("between", (NUMERIC, DATE), PAIR, _between),
    BuiltIn("before", (DATE,), ONE, _against(compare.lt)),
    BuiltIn("after", (DATE,), ONE, _against(compare.gt)),
    BuiltIn("on", (DATE,), ONE, _on),
    BuiltIn("in_last", (DATE,), SPAN, _relative(lambda found, time, span: time - span <= found <= time)),
    BuiltIn("in_next", (DATE,), SPAN, _relative(lambda found, time, span: time <= found <= time + span)),
    BuiltIn("older_than", (DATE,), SPAN, _relative(lambda found, time, span: found < time - span)),
    BuiltIn("is_true", (BOOLEAN,), NOTHING, _is(True)),
    BuiltIn("is_false", (BOOLEAN,), NOTHING, _is(False)),
    BuiltIn("contains_any", (LIST,), MANY, _some, folds=True),
    BuiltIn("contains_all", (LIST,), MANY, _all, folds=True),
)
"""The operators by their names."""

CHANGES: Final = ("changed", "changed_to")
"""Operators that look at what was known before the call."""

NEGATION: Final = "not_"

NEGATED: Final = {"not_true": "is_true", "not_false": "is_false"}
"""Negated operators that are not `not_` before the name of a positive one (semantics, amendment 4)."""
