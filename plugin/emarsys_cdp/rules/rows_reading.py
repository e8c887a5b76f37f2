"""The condition rows of a rule: read from the document and checked one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from emarsys_cdp.rules import tree
from emarsys_cdp.rules.actions_reading import RESERVED, read_actions
from emarsys_cdp.rules.criteria_reading import Surroundings, read_criteria
from emarsys_cdp.rules.findings import Findings, unknown
from emarsys_cdp.rules.operators import DATE
from emarsys_cdp.rules.pattern import ACTION, EXCLUDE, EXIT, START, STEP, WHOLE, At, Row
from emarsys_cdp.rules.spans import read_signed_span, read_span
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import Json

MAX_ROWS: Final = 200
"""Most condition rows of a rule."""

MAX_SEQ: Final = 1000
"""Highest sequence number."""

MAX_COUNT: Final = 100
"""Most matches that a row can wait for: the log of a person has an end."""

MAX_VARIABLES: Final = 50
"""Most variables that one row captures."""

MAX_NAME: Final = 100
"""Longest name of a variable, in characters."""

CALLS: Final = ("page", "screen", "identify", "track", "group")
"""Types of calls that rows can be about."""

INCLUDE: Final = "include"

_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    START: ("on", "match", "variables", "count", "countWithin"),
    STEP: ("on", "match", "wait", "within", "variables", "count", "countWithin", "join", "onTimeout"),
    EXCLUDE: ("on", "match", "wait", "within", "variables", "lookback", "actions"),
    ACTION: ("wait", "at", "actions", "onlyIf"),
    EXIT: ("wait", "at", "actions", "onlyIf"),
}
"""What the rows of a type have beside id, seq and type."""

_EVERY = ("id", "seq", "type")
_ADVICE: Final[Mapping[tuple[str, str], str]] = {
    (START, "wait"): "an instance begins with the call itself; a time belongs to the row that follows",
    (START, "within"): "an instance begins with the call itself; a time belongs to the row that follows",
    (START, "actions"): "add an action row with seq 1 and wait 0s",
    (STEP, "actions"): "add an action row with the same seq and wait 0s",
    (ACTION, "match"): "what the person must be like says onlyIf",
    (EXIT, "match"): "what the person must be like says onlyIf",
    (ACTION, "within"): "the time to pass is wait",
    (EXIT, "within"): "the time to pass is wait",
    (EXCLUDE, "count"): "the first match ends the instance",
}


class ReadRow(Struct, frozen=True):
    """A row without its criteria compiled, and their trees. *join* and *on_timeout* are None where they are not set."""

    row: Row
    match: tree.Node | None = None
    only_if: tree.Node | None = None
    join: str | None = None
    on_timeout: str | None = None


def read_variables(
    raw: Sequence[Mapping[str, Json]], place: str, around: Surroundings, findings: Findings
) -> dict[str, str]:
    """Return the data types of all variables that the rows of a rule capture, by their names."""
    types: dict[str, str] = {}
    for index, row in enumerate(raw):
        below = f"{place}[{index}].variables"
        listed = row.get("variables", [])
        if len(listed) > MAX_VARIABLES:
            findings.add(below, f"has {len(listed)} variables: at most {MAX_VARIABLES}")
        names: set[str] = set()
        for number, one in enumerate(listed):
            _read_variable(one, f"{below}[{number}]", around, names, types, findings)
    return types


def _read_variable(
    raw: Json, place: str, around: Surroundings, names: set[str], types: dict[str, str], findings: Findings
) -> None:
    """Note what is wrong with one captured variable, and its type."""
    data_map, name = _variable(raw)
    inside = isinstance(raw, dict)
    data_type = around.maps.get(data_map)
    if data_type is None:
        findings.add(f"{place}.map" if inside else place, unknown(data_map, "data map", around.maps))
        return
    if name == RESERVED:
        findings.add(place, f"{RESERVED} is reserved by Emarsys in event data: choose another name with `as`")
    if name in names:
        findings.add(place, f"{shorten(name)} is captured twice here: give one of them another name with `as`")
    names.add(name)
    if types.setdefault(name, data_type) != data_type:
        findings.add(place, f"{shorten(name)} is {types[name]} in another row and {data_type} here: use another name")


def _variable(raw: Json) -> tuple[str, str]:
    """Return the data map and the name of a captured variable."""
    return (raw, raw) if isinstance(raw, str) else (raw["map"], raw.get("as", raw["map"]))


def read_rows(
    raw: Sequence[Mapping[str, Json]], place: str, around: Surroundings, findings: Findings
) -> tuple[ReadRow, ...]:
    """Return the rows of a rule; those with problems may be missing, so these mean that nothing else is to be done."""
    numbers: Counter[tuple[str, int]] = Counter()
    taken: dict[str, int] = {}
    rows = []
    for index, one in enumerate(raw):
        reading = _RowReading(one, index, f"{place}[{index}]", around, findings)
        numbers[reading.type, reading.seq] += 1
        name = one.get("id") or _default_id(reading.type, reading.seq, numbers[reading.type, reading.seq])
        first = taken.setdefault(name, index)
        if first != index:
            findings.add(
                f"{place}[{index}].id", f"{shorten(name)} is the id of conditions[{first}] too: ids must differ"
            )
        rows.append(reading.row(name))
    return tuple(rows)


def _default_id(kind: str, seq: int, number: int) -> str:
    name = f"{kind} {'*' if seq == WHOLE else seq}"
    return name if number == 1 else f"{name}.{number}"


class _RowReading:
    """Reads one row."""

    def __init__(
        self, raw: Mapping[str, Json], index: int, place: str, around: Surroundings, findings: Findings
    ) -> None:
        self._raw = raw
        self._index = index
        self._place = place
        self._around = around
        self._findings = findings
        self.type: str = STEP if raw["type"] == INCLUDE else raw["type"]
        self.seq: int = WHOLE if raw["seq"] == "*" else int(raw["seq"])

    def _add(self, member: str, message: str) -> None:
        self._findings.add(f"{self._place}.{member}", message)

    def row(self, name: str) -> ReadRow:
        """Return the row."""
        self._check_members()
        self._check_seq()
        raw, around = self._raw, self._around
        wait, within = self._span("wait"), self._span("within")
        if wait is not None and within is not None and wait >= within:
            self._add("within", f"{raw['within']} is over when wait {raw['wait']} has passed: give a longer time")
        count = self._count()
        at = self._at()
        row = Row(
            index=self._index,
            id=name,
            seq=self.seq,
            type=self.type,
            on=self._on(),
            wait=wait,
            within=within,
            variables=tuple([_variable(one) for one in raw.get("variables", [])]),
            count=count,
            count_within=self._span("countWithin"),
            lookback=self._span("lookback") or 0,
            at=at,
            actions=read_actions(
                raw.get("actions", []), f"{self._place}.actions", around.variables, around.kinds, self._findings
            ),
        )
        return ReadRow(row, self._criteria("match"), self._criteria("onlyIf"), raw.get("join"), raw.get("onTimeout"))

    def _check_members(self) -> None:
        known = _MEMBERS[self.type]
        for name in self._raw:
            if name not in known and name not in _EVERY:
                advice = _ADVICE.get((self.type, name), f"they have {', '.join(known)}")
                self._add(name, f"means nothing in {self.type} rows: {advice}")
        if self.type == EXCLUDE and self.seq == WHOLE:
            for name in ("wait", "within"):
                if name in self._raw:
                    self._add(name, "means nothing with seq *: the row guards the whole instance; give it a number")

    def _check_seq(self) -> None:
        if self.seq == WHOLE and self.type != EXCLUDE:
            self._add("seq", f"'*' is for exclude rows, which guard the whole instance: give {self.type} rows a number")
        elif self.type == START and self.seq != 0:
            self._add("seq", f"{self.seq} is no sequence of a start row: write 0")
        elif self.type not in (START, EXCLUDE) and self.seq == 0:
            self._add("seq", f"0 is the sequence of the start: {self.type} rows have 1 or more")
        elif self.seq > MAX_SEQ:
            self._add("seq", f"{self.seq} is too high: at most {MAX_SEQ}")

    def _span(self, member: str) -> int | None:
        raw = self._raw.get(member)
        return None if raw is None else self._findings.attempt(f"{self._place}.{member}", lambda: read_span(raw))

    def _on(self) -> frozenset[str]:
        raw = self._raw.get("on", [])
        names = [raw] if isinstance(raw, str) else raw
        for name in names:
            if name not in CALLS:
                self._add("on", unknown(name, "type of calls", CALLS))
        return frozenset(names)

    def _count(self) -> int:
        count = int(self._raw.get("count", 1))
        if count > MAX_COUNT:
            self._add("count", f"{count} is too high: at most {MAX_COUNT}")
        if "countWithin" in self._raw and count == 1:
            self._add("countWithin", "means nothing without a count of 2 or more")
        if self.type == EXCLUDE and "lookback" in self._raw and self.seq not in (0, WHOLE):
            self._add("lookback", "looks at the time before the start: it belongs to an exclude row of seq 0 or *")
        return count

    def _at(self) -> At | None:
        raw = self._raw.get("at")
        if raw is None:
            return None
        if "wait" in self._raw:
            self._add("at", "there is a wait, too: the time is given by one of the two")
        data_type = self._around.variables.get(raw["var"])
        if data_type is None:
            known = unknown(raw["var"], "captured variable", self._around.variables)
            self._add("at.var", f"{known}; capture it in an earlier row with `variables`")
        elif self._around.kinds.family(data_type) != DATE:
            self._add("at.var", f"{raw['var']!r} is {data_type}: a fire time needs a data map of type date")
        offset = self._findings.attempt(f"{self._place}.at.offset", lambda: read_signed_span(raw.get("offset", 0)))
        return At(raw["var"], offset or 0)

    def _criteria(self, member: str) -> tree.Node | None:
        if member not in self._raw or member not in _MEMBERS[self.type]:
            return None
        around = surroundings_of(self._around, self.type)
        return read_criteria(self._raw[member], f"{self._place}.{member}", around, self._findings)


def surroundings_of(around: Surroundings, kind: str) -> Surroundings:
    """Return what the criteria of rows of a type may name: a start has nothing captured, an action has no call."""
    if kind == START:
        scopes, scope = (tree.EVENT, tree.PROFILE), tree.EVENT
    elif kind in (ACTION, EXIT):
        scopes, scope = (tree.PROFILE, tree.INSTANCE), tree.PROFILE
    else:
        return around
    return Surroundings(around.maps, around.variables, around.zone, around.kinds, scope, scopes)
