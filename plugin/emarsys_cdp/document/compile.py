"""From a document to a space that calls are processed with; every problem is reported with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.document.lifetimes import read_lifetime, written
from emarsys_cdp.document.model import DataMap, Document
from emarsys_cdp.document.parts import Parts, parts_of
from emarsys_cdp.document.rules import build_rules, rules_lint, rules_problems
from emarsys_cdp.document.stock import StockMapping
from emarsys_cdp.document.versions import Versions
from emarsys_cdp.emarsys.field_types import check_writable, converter
from emarsys_cdp.emarsys.fields import EMAIL_FIELD, Field, FieldCatalogue
from emarsys_cdp.identity.entries import DEFAULT_POLICY, Policy
from emarsys_cdp.identity.identifiers import Reader
from emarsys_cdp.rules.findings import unknown
from emarsys_cdp.rules.kinds import BUILT_IN, Kinds
from emarsys_cdp.rules.operators import TYPES
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.validation import Check
from emarsys_cdp.values.coerce import Coercion, coercion, to_string
from emarsys_cdp.values.paths import Getter, compile_path, compile_trait
from emarsys_cdp.values.times import zone
from emarsys_cdp_hooks import FieldType, InvalidDocument, Json, Problem, Space, Value

MAX_EXACT = 2**53
"""Largest whole number that RudderStack's server passes on exactly: its JSON numbers are doubles."""


class CompiledMap(Struct, frozen=True):
    """A data map ready to run. *field* is the Emarsys field id, None when the map is for rules only."""

    name: str
    type: str
    read: Getter
    coerce: Coercion
    field: str | None = None
    convert: Callable[[Value, str], Json] | None = None


class CompiledSpace(Space, frozen=True, kw_only=True):
    """
    A space with everything that its document and settings say, compiled.

    *parts* are those of a message that the built-in steps look at.

    *create* tells which calls may make contacts: always, identify, never. *stock* is set when the space keeps the
    meaning of RudderStack's stock Emarsys settings. *sent* has name, field and conversion of the data maps whose
    values are sent in rows of contacts. *policy* says how the users table treats conflicts. *rules* are those of the
    document, None without any.
    """

    credentials: Credentials
    reader: Reader
    maps: tuple[CompiledMap, ...]
    create: str
    parts: Parts
    stock: StockMapping | None = None
    sent: tuple[tuple[str, str, Callable[[Value, str], Json]], ...] = ()
    policy: Policy = DEFAULT_POLICY
    rules: RuleSet | None = None


class Compiler:
    """
    Checks and compiles documents with one catalogue of fields and one set of field types.

    *kinds* are the operators, data types and actions that extensions add.
    """

    def __init__(
        self, check: Check, catalogue: FieldCatalogue, types: Sequence[FieldType], kinds: Kinds = BUILT_IN
    ) -> None:
        self._check = check
        self._catalogue = catalogue
        self._types = {field_type.name: field_type for field_type in types}
        self._kinds = replace(kinds, check_field=self.field, check_update=self._check_update)

    def read(self, source: str, raw: Any) -> Document:
        """
        Return the document that a decoded JSON value is.

        Raises:
            InvalidDocument: with every problem of its shape, paths, fields and names at once.

        """
        problems = self._check(raw)
        if problems:
            raise InvalidDocument(source, problems)
        try:
            document = msgspec.convert(raw, Document)
        except msgspec.ValidationError as error:  # 1.0 is an integer to the schema
            raise InvalidDocument(source, (Problem("document", str(error)),)) from error
        problems = tuple(self._problems(document))
        if problems:
            raise InvalidDocument(source, problems)
        return document

    def _problems(self, document: Document) -> list[Problem]:
        misplaced = _attempt("settings.timezone", lambda: zone(document.settings.timezone))
        found = [
            *misplaced,
            *_attempt("identity.primaryKey", lambda: compile_path(document.identity.primary_key)),
            *_attempt("identity.keyField", lambda: self.field_id(document.identity.key_field)),
        ]
        for name, raw in written(document.settings).items():
            found += _attempt(f"settings.{name}", partial(read_lifetime, raw))
        names: dict[str, int] = {}
        for index, data_map in enumerate(document.data_maps):
            found += self._map_problems(f"dataMaps[{index}]", data_map)
            first = names.setdefault(data_map.name, index)
            if first != index:
                found.append(
                    Problem(
                        f"dataMaps[{index}].name",
                        f"{data_map.name!r} is the name of dataMaps[{first}] too: names must differ",
                    )
                )
        return found if misplaced else [*found, *rules_problems(document, self._kinds)]

    def lint(self, document: Document) -> tuple[Problem, ...]:
        """Return what is valid in a document that `read` accepted, and surely not meant."""
        return rules_lint(document, self._kinds)

    def _map_problems(self, place: str, data_map: DataMap) -> list[Problem]:
        found = [*_attempt(f"{place}.path", lambda: compile_path(data_map.path))]
        types = (*TYPES, *self._kinds.types)
        if data_map.type not in types:
            found.append(Problem(f"{place}.type", unknown(data_map.type, "data type", types)))
        if data_map.field is not None:
            found += _attempt(f"{place}.field", lambda: self.field(data_map.field or ""))
        if data_map.field_type is not None and data_map.field_type not in self._types:
            known = ", ".join(sorted(self._types))
            found.append(Problem(f"{place}.fieldType", f"{data_map.field_type!r} is no field type; known are {known}"))
        return found

    def field(self, name: int | str) -> Field:
        """
        Return the field of an id or name that can be written.

        Raises:
            ValueError: there is none, or Emarsys does not let it be written.

        """
        field = self._catalogue.find(str(name))
        if field is None:
            near = ", ".join(self._catalogue.suggest(str(name)))
            hint = f"did you mean {near}? Otherwise" if near else "for a field of your own"
            raise ValueError(f"{name!r} is no system field of Emarsys: {hint} write its numeric id")
        problem = check_writable(field)
        if problem is not None:
            raise ValueError(problem)
        return field

    def field_id(self, name: int | str) -> str:
        """Return the id of the key field, which may also be Emarsys' own `id` or `uid`."""
        return str(name) if name in ("id", "uid") else self.field(name).id

    def _check_update(self, name: int | str, value: Json) -> None:
        """Check that a rule's fixed value can be written to a field."""
        given = value if isinstance(value, (bool, list)) else to_string(value)
        converter(self.field(name), self._types)(given, "UTC")

    def compile(
        self, space: str, host: str, document: Document, credentials: Credentials, versions: Versions | None = None
    ) -> CompiledSpace:
        """
        Return the space of a document that `read` accepted (or the default one).

        *versions* are those of its rules; without them each rule has the one that it is written with.
        """
        timezone = document.settings.timezone
        identity = document.identity
        key_field = self.field_id(identity.key_field)
        maps = tuple(self._compile_map(data_map, timezone) for data_map in document.data_maps)
        return CompiledSpace(
            id=space,
            host=host,
            key_field=key_field,
            timezone=timezone,
            credentials=credentials,
            reader=Reader(
                compile_path(identity.primary_key),
                identity.key_type,
                frozenset(value.lower() for value in identity.blocked),
            ),
            maps=maps,
            policy=_policy(document),
            create=document.contacts.create,
            parts=parts_of([identity.primary_key, *(data_map.path for data_map in document.data_maps)]),
            sent=tuple(
                (one.name, one.field, one.convert)
                for one in maps
                if one.field is not None and one.convert is not None and one.field != key_field
            ),
            rules=build_rules(document, self._kinds, key_field, versions),
        )

    def _compile_map(self, data_map: DataMap, timezone: str) -> CompiledMap:
        field = None if data_map.field is None else self.field(data_map.field)
        return CompiledMap(
            data_map.name,
            data_map.type,
            compile_path(data_map.path),
            self._coercion(data_map.type, timezone),
            None if field is None else field.id,
            None if field is None else converter(field, self._types, data_map.field_type),
        )

    def _coercion(self, data_type: str, timezone: str) -> Coercion:
        added = self._kinds.types.get(data_type)
        return coercion(data_type, timezone) if added is None else lambda raw: added.read(raw, timezone)

    def compile_stock(self, space: str, host: str, stock: StockMapping, credentials: Credentials) -> CompiledSpace:
        """Return the space of a destination with RudderStack's stock settings and no document."""
        return CompiledSpace(
            id=space,
            host=host,
            key_field=stock.key_field,
            credentials=credentials,
            reader=Reader(
                compile_trait(stock.key_property) if stock.key_property else _nothing, _key_type(stock.key_field)
            ),
            maps=tuple(
                CompiledMap(f"stock:{field}", "any", compile_trait(name), as_received, field)
                for name, field in stock.fields
            ),
            create="always",
            parts=parts_of(["traits", "properties"]),
            stock=stock,
        )


def _policy(document: Document) -> Policy:
    """Return how the users table of a document's space treats conflicts; the usual one is the same for all."""
    identity, settings = document.identity, document.settings
    policy = Policy(
        identity.stitch,
        identity.on_key_shared,
        settings.anon_limit,
        settings.merge_limit,
        settings.alias_merge_known,
    )
    return DEFAULT_POLICY if policy == DEFAULT_POLICY else policy


def _nothing(message: Mapping[str, Any]) -> None:
    """Read the key of a space that maps no trait to its key field."""


MAX_LEVELS = 100
"""Deepest nesting of a value that is sent as received."""


def as_received(raw: Any, levels: int = MAX_LEVELS) -> Any:
    """
    Return the value as it is: the stock destination sends values unchanged.

    Only whole numbers that a double cannot hold become text: the host would round them. What is no JSON is absent.

    Raises:
        ValueError: it is nested too deep.

    """
    if levels == 0:
        raise ValueError(f"nested too deep: at most {MAX_LEVELS} levels are sent")
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw if abs(raw) <= MAX_EXACT else str(raw)
    if isinstance(raw, list):
        return [as_received(element, levels - 1) for element in raw]
    if isinstance(raw, Mapping):
        return {str(name): as_received(value, levels - 1) for name, value in raw.items()}
    return raw if isinstance(raw, (str, bool, float)) else None


def _key_type(field: str) -> str:
    return "email" if field == EMAIL_FIELD else "text"


def _attempt(place: str, action: Callable[[], object]) -> list[Problem]:
    try:
        action()
    except ValueError as error:
        return [Problem(place, str(error))]
    return []
