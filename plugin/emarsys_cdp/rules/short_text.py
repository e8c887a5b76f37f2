"""The short form of comparisons: `ecom_event = Coupon Entered`; read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from emarsys_cdp.rules.arguments import show_argument
from emarsys_cdp.rules.findings import unknown
from emarsys_cdp.rules.kinds import Kinds
from emarsys_cdp.rules.operators import BUILT_INS, LIST, MANY, NEGATED, NEGATION, PAIR
from emarsys_cdp.rules.tree import INSTANCE, PROFILE, Test
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Json

PHRASES: Final[Mapping[str, str]] = {
    "=": "equals",
    "!=": "not_equals",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "contains": "contains",
    "not contains": "not_contains",
    "contains any": "contains_any",
    "not contains any": "not_contains_any",
    "contains all": "contains_all",
    "not contains all": "not_contains_all",
    "starts": "starts_with",
    "not starts": "not_starts_with",
    "ends": "ends_with",
    "not ends": "not_ends_with",
    "matches": "matches",
    "not matches": "not_matches",
    "in": "in",
    "not in": "not_in",
    "between": "between",
    "not between": "not_between",
    "before": "before",
    "after": "after",
    "on": "on",
    "in last": "in_last",
    "in next": "in_next",
    "older than": "older_than",
    "is empty": "empty",
    "is not empty": "not_empty",
    "exists": "exists",
    "not exists": "not_exists",
    "is true": "is_true",
    "is not true": "not_true",
    "is false": "is_false",
    "is not false": "not_false",
    "changed": "changed",
    "not changed": "not_changed",
    "changed to": "changed_to",
}
"""How the short form writes operators; their names, also with spaces, are read as well."""

_WRITTEN: Final = {name: phrase for phrase, name in PHRASES.items()}
_SYMBOLS = "=!<>"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\Z', re.DOTALL)
_ELEMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,]*?))\s*(?:,|\Z)', re.DOTALL)


def parse_short(text: str, maps: Mapping[str, str], kinds: Kinds) -> dict[str, Json]:
    """
    Return the comparison that a short text means, as documents write it out: map, op, value.

    *maps* are the data types of the maps that there are, by their names.

    Raises:
        ValueError: it is none; what it compares with is not looked at.

    """
    name = _map_of(text.strip(), maps)
    family = kinds.family(maps[name])
    rest = text.strip()[len(name) :].strip()
    op, value = _operator_of(rest, maps[name], family, kinds)
    if not value:
        return {"map": name, "op": op}
    positive = BUILT_INS.get(NEGATED.get(op, op.removeprefix(NEGATION)))
    listed = positive is not None and (positive.argument in (MANY, PAIR) or _is_list_equality(op, family))
    return {"map": name, "op": op, "value": _elements(value) if listed else _unquoted(value)}


def _is_list_equality(op: str, family: str) -> bool:
    return family == LIST and op.removeprefix(NEGATION) in ("equals", "changed_to")


def _map_of(text: str, maps: Mapping[str, str]) -> str:
    """Return the longest name of a data map that the text begins with."""
    word = re.split(rf"[\s{_SYMBOLS}]", text, maxsplit=1)[0]
    found = [name for name in maps if text.startswith(name) and _ends_there(text, len(name))]
    if not found:
        raise ValueError(f"{shorten(text)} does not begin with a data map: {unknown(word, 'data map', maps)}")
    return max(found, key=len)


def _ends_there(text: str, length: int) -> bool:
    return length == len(text) or text[length].isspace() or text[length] in _SYMBOLS


def _operator_of(rest: str, data_type: str, family: str, kinds: Kinds) -> tuple[str, str]:
    """Return the operator that a text begins with, and what follows: the longest one that is for the data type."""
    added = kinds.operators
    found: list[tuple[bool, int, str]] = []
    for pattern, name in _patterns(tuple(added)):
        match = pattern.match(rest)
        if match is not None:
            positive = NEGATED.get(name, name.removeprefix(NEGATION))
            types = BUILT_INS[positive].types if positive in BUILT_INS else added[positive].types
            found.append((family in types or data_type in types, match.end(), name))
    if not found:
        word = rest.split(maxsplit=1)[0] if rest else ""
        raise ValueError(f"after the data map: {unknown(word, 'operator', PHRASES)}")
    _, end, name = max(found)
    return name, rest[end:].strip()


@lru_cache(maxsize=16)
def _patterns(added: tuple[str, ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return what finds each way of writing an operator."""
    names = [*BUILT_INS, *NEGATED, *added]
    phrases = dict(PHRASES)
    for name in (*names, *(NEGATION + name for name in names if name not in NEGATED)):
        phrases.setdefault(name, name)
        phrases.setdefault(name.replace("_", " "), name)
    return tuple([(_pattern(phrase), name) for phrase, name in phrases.items()])


def _pattern(phrase: str) -> re.Pattern[str]:
    if phrase[0] in _SYMBOLS:
        return re.compile(re.escape(phrase) + rf"(?![{_SYMBOLS}])")
    return re.compile(r"\s+".join(map(re.escape, phrase.split())) + r"(?=\s|\Z)", re.IGNORECASE)


def _unquoted(text: str) -> str:
    match = _QUOTED.match(text)
    return text if match is None else _plain(match[1])


def _elements(text: str) -> list[str]:
    """Return the values of a list with commas between; one in quotes may have commas itself."""
    found: list[str] = []
    place = 0
    while place < len(text) or text[place - 1 :] == ",":
        match = _ELEMENT.match(text, place)
        if match is None:  # a quote in the middle of a value
            return [*found, *(one.strip() for one in text[place:].split(","))]
        found.append(match[2] if match[1] is None else _plain(match[1]))
        if match.end() == place:
            break
        place = match.end()
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def show_short(test: Test, negated: bool, family: str, zone: str) -> str:
    """Return a comparison as the short form writes it; what it has no form for is said in words."""
    op = _negated(test.op) if negated else test.op
    phrase = _WRITTEN.get(op, op)
    where = {PROFILE: "profile ", INSTANCE: "captured "}.get(test.scope, "")
    shown = f"{where}{test.map} {phrase}{_shown_argument(test, family, zone)}"
    return f"{shown} (any case)" if test.ignore_case else shown


def _shown_argument(test: Test, family: str, zone: str) -> str:
    if test.var is not None:
        return f" captured {test.var}"
    if test.value is None:
        return ""
    operator = BUILT_INS.get(test.op)
    return f" {test.value}" if operator is None else f" {show_argument(operator, test.value, family, zone)}"


def _negated(op: str) -> str:
    return next((name for name, positive in NEGATED.items() if positive == op), NEGATION + op)


def operator_names(kinds: Kinds) -> Iterable[str]:
    """Return the names of operators that criteria may use."""
    positive = [*BUILT_INS, *kinds.operators]
    return [*positive, *NEGATED, *(NEGATION + name for name in positive if name not in NEGATED.values())]
