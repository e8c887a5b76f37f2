"""The host's rules, what a breach of one looks like, and the JSON types that its typed reader insists on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from itertools import starmap
from typing import Any, TypeAlias

from msgspec import UNSET, Struct

Json: TypeAlias = Any
"""A decoded JSON value, or UNSET where there is none."""


class Rule(StrEnum):
    """The rules of a RudderStack server; the numbers are the sections of its contract that we work by."""

    API_VERSION = "1.1 header apiVersion 2 on a 200"
    STRICT_JSON = "1.1 strict JSON"
    TYPES = "1.1 strict types"
    REQUEST = "1.2 a readable request"
    METADATA = "1.3-1 metadata echoed whole"
    VERBATIM = "1.3-1 metadata echoed byte for byte"
    DESTINATION = "1.3-2 destination echoed whole"
    ONE_DESTINATION = "1.3-2 jobs of one destination in an output"
    SHAPE = "1.3-3 an array of outputs"
    EVERY_JOB = "1.3-3 every jobId once"
    FOREIGN_JOB = "1.3-3 no jobId that was not asked"
    EMPTY_METADATA = "1.3-3 no empty metadata"
    NOT_FOUND = "1.3-5 the status is never 404"
    HAS_REQUEST = "1.3-6 a 200 has its request"
    SENDABLE = "1.3-7 a request that the host can send"
    BODY = "1.3-7 one body of objects"
    ERROR = "1.6 a failure has an error"
    ANSWERED = "1.4 every input job answered"
    ORDER = "1.4 outputs in the order of the inputs"
    NOT_LOST = "1.4 no status that loses the call"
    WHOLE_STATUS = "1.4 no status that loses the whole request"
    SHOULD_RETRY = "1.4 a 503 asks for a retry"


class Breach(Struct, frozen=True):
    """
    One way in which the host would not take the answer.

    *rule* is a `Rule`, *message* names the place in the answer and the value found there.
    """

    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.message}"


class Kind(Struct, frozen=True):
    """
    A JSON type: *wanted* says it, *holds* tells whether a value is of it, *needed* whether it may be absent.

    *entries* is the type of every entry, where the value is an object whose names are free.
    """

    wanted: str
    holds: Callable[[Json], bool]
    needed: bool = False
    entries: Kind | None = None


_INT64 = range(-(2**63), 2**63)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def is_integer(value: Json) -> bool:
    """Tell whether *value* is written as an integer (`1`, not `1.0` or `true`) of 64 bits."""
    return type(value) is int and value in _INT64


def is_time(value: Json) -> bool:
    """Tell whether *value* is a time of RFC 3339."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


INTEGER = Kind("an integer", is_integer)
NEEDED_INTEGER = Kind("an integer", is_integer, needed=True)
TEXT = Kind("a string", lambda value: isinstance(value, str))
TEXT_OR_NULL = Kind("a string or null", lambda value: value is None or isinstance(value, str))
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
TIME = Kind("a time of RFC 3339", is_time)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
NEEDED_OBJECT = Kind("an object", OBJECT.holds, needed=True)
TEXTS = Kind("an object of strings", OBJECT.holds, entries=TEXT)

METADATA_KINDS = {"jobId": NEEDED_INTEGER, "attemptNum": INTEGER, "workerAssignedTime": TIME}
DESTINATION_KINDS = {"Config": NEEDED_OBJECT, "Enabled": BOOLEAN, "hasDynamicConfig": BOOLEAN}
OUTPUT_KINDS = {"statusCode": NEEDED_INTEGER, "error": TEXT_OR_NULL, "statTags": TEXTS, "batched": BOOLEAN}
REQUEST_KINDS = {"headers": TEXTS, "params": OBJECT, "userId": TEXT, "body": NEEDED_OBJECT}


def type_breaches(value: Mapping[str, Json], kinds: Mapping[str, Kind], place: str) -> Iterator[Breach]:
    """Yield a breach for every entry of *value* that is not of its kind."""
    for name, kind in kinds.items():
        entry, where = value.get(name, UNSET), f"{place}.{name}"
        if entry is UNSET and not kind.needed:
            continue
        if not kind.holds(entry):
            yield Breach(Rule.TYPES, f"{where} must be {kind.wanted}, is {shown(entry, where)}")
        elif kind.entries is not None:
            yield from type_breaches(entry, dict.fromkeys(entry, kind.entries), where)


def difference(found: Json, given: Json, place: str) -> str | None:
    """Say where *found*, in the answer, is not the JSON value *given* in the request; None where it is."""
    if isinstance(found, dict) and isinstance(given, dict):
        names = given | found
        pairs = [(found.get(name, UNSET), given.get(name, UNSET), f"{place}.{name}") for name in names]
    elif isinstance(found, list) and isinstance(given, list) and len(found) == len(given):
        pairs = [(*pair, f"{place}[{index}]") for index, pair in enumerate(zip(found, given, strict=True))]
    elif isinstance(found, bool) == isinstance(given, bool) and found == given:
        return None
    else:
        return f"{place} is {shown(found, place)}, in the request {shown(given, place)}"
    return next(filter(None, starmap(difference, pairs)), None)


_SECRET = re.compile(r"\.(config|headers|secret)\b", re.IGNORECASE)
_LONGEST = 80


def shown(value: Json, place: str) -> str:
    """Describe a value in a message; what may be a secret, by its place, is not shown."""
    if value is UNSET:
        return "absent"
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'an array'} of {len(value)}"
    if isinstance(value, str) and _SECRET.search(place):
        return "another string" if value else "an empty string"
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
