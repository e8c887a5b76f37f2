"""All rules of a space, and the index that finds those that a call is about. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Final, TypeAlias

from msgspec import Struct

from emarsys_cdp.rules.criteria import ALWAYS, Values
from emarsys_cdp.rules.pattern import ACTIVE, EXCLUDE, SHADOW, START, STEP, Cap, Gate, Pattern, Row
from emarsys_cdp.rules.program import Program, program

MAX_LATENESS: Final = 72 * 3_600_000
"""A call that happened longer than this (ms) before it arrived starts nothing (semantics 1.10)."""

INITIAL_SYNC: Final = 0
"""How long (ms) after a data map was first seen an unknown value is no change (semantics 2.7): by default never."""

_OPEN = (ACTIVE, SHADOW)

STARTS, GOES_ON = 1, 2
"""What a call may be for a rule: a start, or something for the instances that there are; both: their sum."""


class _Listed(Struct, frozen=True):
    """
    A row in the index.

    *what* a call that it matches is for its rule, and whether that *opens* an instance. *asks* is what is left to ask
    when the index has found it; None: nothing.
    """

    rule: str
    on: frozenset[str]
    what: int
    opens: bool
    asks: Callable[[Values, int], bool] | None


Keys: TypeAlias = "tuple[str, frozenset[str]] | None"
"""A data map and texts of which a call carries one when a row matches; None: there are none."""


def _listed(rule: str, row: Row, what: int, opens: bool) -> tuple[Keys, _Listed]:
    criterion = row.criterion
    asks = None if criterion is ALWAYS else criterion.rest if criterion.keys is not None else criterion.might
    return criterion.keys, _Listed(rule, row.on, what, opens, asks)


class Found(Struct, frozen=True):
    """The rules that a call may be about, with what it may be for them, and those of them that it may start."""

    rules: dict[str, int]
    opens: tuple[str, ...]


_NOTHING: Final = Found({}, ())


class Index:
    """
    Finds the rows that may match a call.

    Most rows ask for one of some texts in a data map (the name of the event): these are found by that text, so rules
    that do not match cost nothing. The others are tried one by one.
    """

    def __init__(self, listed: Iterable[tuple[Keys, _Listed]]) -> None:
        self._tables: dict[str, dict[str, list[_Listed]]] = {}
        self._others: list[_Listed] = []
        for keys, one in listed:
            if keys is None:
                self._others.append(one)
                continue
            table = self._tables.setdefault(keys[0], {})
            for text in keys[1]:
                table.setdefault(text, []).append(one)

    def find(self, kind: str, values: Values, time: int) -> Found:
        """Return the rules whose rows may match a call of a type, with these values, at this time."""
        candidates = self._others
        for name, table in self._tables.items():
            value = values.get(name)
            found = table.get(value) if type(value) is str else None
            if found:
                candidates = found if not candidates else [*candidates, *found]
        if not candidates:
            return _NOTHING
        rules: dict[str, int] = {}
        opens: dict[str, None] = {}
        for one in candidates:
            on, asks = one.on, one.asks
            if (not on or kind in on) and (asks is None or asks(values, time)):
                rules[one.rule] = rules.get(one.rule, 0) | one.what
                if one.opens:
                    opens[one.rule] = None
        return Found(rules, tuple(opens)) if rules else _NOTHING


class RuleSet:
    """
    The rules of a space.

    *gates* and *current* (versions) are those of the rules in force, by their ids; *programs* are all versions that
    instances may be pinned to. *maps* are the data maps that rules read, *profile_maps* those whose history counts.
    *key_field* is the Emarsys field of the contacts' key. Times in ms; *max_lateness* and *initial_sync* are settings
    of the space, *caps* those for all rules together, *late_max* the longest of the rules' lateFireMax. *trims*: what
    is over is forgotten after its time.
    """

    def __init__(
        self,
        gates: Mapping[str, Gate],
        patterns: Mapping[tuple[str, int], Pattern],
        current: Mapping[str, int],
        max_lateness: int = MAX_LATENESS,
        initial_sync: int = INITIAL_SYNC,
        caps: tuple[Cap, ...] = (),
        replaced: Mapping[tuple[str, int], int] | None = None,
        key_field: str = "3",
        *,
        trims: bool = True,
    ) -> None:
        self.gates = dict(gates)
        self.current = dict(current)
        self.trims = trims
        self.key_field = key_field
        self.max_lateness = max_lateness
        self.initial_sync = initial_sync
        self.caps = caps
        self.late_max = max([gate.late_max for gate in gates.values()], default=0)
        ends = replaced or {}
        self._programs = {name: program(pattern, ends.get(name, 0)) for name, pattern in patterns.items()}
        every = list(patterns.values())
        self.span = max([(one.span or 0) + one.looks_back for one in every], default=0)
        criteria = [(row, one) for one in every for row in one.rows]
        self.profile_maps = frozenset().union(*[_criteria_maps(row, profile=True) for row, _ in criteria])
        self.maps = frozenset().union(
            self.profile_maps,
            *[_criteria_maps(row, profile=False) for row, _ in criteria],
            *[[name for name, _ in row.variables] for row, _ in criteria],
            *[[one.transaction] for one in every if one.transaction is not None],
            *[[gate.quiet.zone_map] for gate in gates.values() if gate.quiet and gate.quiet.zone_map],
        )
        self.zone_maps = frozenset(
            [gate.quiet.zone_map for gate in gates.values() if gate.quiet and gate.quiet.zone_map]
        )
        self.tracked = self.profile_maps | self.zone_maps
        in_force = [self._programs[name] for name in current.items() if name in self._programs]
        self.singles = frozenset([one.pattern.rule for one in in_force if one.single])
        self._index = Index(self._listed(every))

    def _listed(self, patterns: Iterable[Pattern]) -> Iterable[tuple[Keys, _Listed]]:
        for pattern in patterns:
            gate = self.gates.get(pattern.rule)
            is_open = gate is not None and gate.status in _OPEN and self.current.get(pattern.rule) == pattern.version
            for row in pattern.rows:
                if row.type == START:
                    yield _listed(pattern.rule, row, STARTS, is_open)
                elif row.type in (STEP, EXCLUDE):
                    yield _listed(pattern.rule, row, GOES_ON, False)

    def untrimmed(self) -> RuleSet:
        """Return the same rules, of which nothing is forgotten: for simulations, which show everything."""
        rules = copy(self)
        rules.trims = False
        return rules

    def program(self, rule: str, version: int) -> Program | None:
        """Return the program of a version; of one that nobody knows any more the one in force."""
        known = self._programs.get((rule, version))
        return known if known is not None else self._programs.get((rule, self.current.get(rule, 0)))

    def find(self, kind: str, values: Values, time: int) -> Found:
        """Return the rules that a call may be about."""
        return self._index.find(kind, values, time)

    def keeps(self, values: Values) -> bool:
        """Tell whether a call has to be remembered for what it says of the person, whatever rows it matches."""
        return bool(self.tracked) and not self.tracked.isdisjoint(values)


def _criteria_maps(row: Row, *, profile: bool) -> frozenset[str]:
    criteria = [row.criterion, *([row.only_if] if row.only_if is not None else [])]
    return frozenset().union(*[one.profile_maps if profile else one.maps for one in criteria])
