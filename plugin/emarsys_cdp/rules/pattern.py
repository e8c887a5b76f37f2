"""A rule as the engine runs it: its rows, the plan made of them, and the settings of the gate. Times in ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from emarsys_cdp.rules.criteria import ALWAYS, Criterion
from emarsys_cdp_hooks import Json

START, STEP, EXCLUDE, ACTION, EXIT = "start", "step", "exclude", "action", "exit"
"""Types of rows; `include` is read as a step."""

WHOLE: Final = -1
"""The sequence `*`: the row guards the instance as a whole."""

DRAFT, SHADOW, ACTIVE, PAUSED, ARCHIVED = "draft", "shadow", "active", "paused", "archived"
"""Statuses of a rule."""

IGNORE, RESTART, REFRESH = "ignore", "restart", "refresh"
"""What a repeated start does to the instance that is there."""

FINISH, MIGRATE, CANCEL = "finish", "migrate", "cancel"
"""What a new version does to the instances of older ones."""


class Action(Struct, frozen=True):
    """
    Something to do in Emarsys.

    *do* is trigger, update, unset, addToList, removeFromList, upsertContact, or one that an extension adds. *options*
    are its other members as in the document, checked. *stops*: when it fails for good, the actions after it in the same
    passage are dropped.
    """

    do: str
    options: Mapping[str, Json] = {}
    stops: bool = False


class At(Struct, frozen=True):
    """A fire time that a captured date gives: the variable, and milliseconds to add."""

    var: str
    offset: int = 0


class Row(Struct, frozen=True):
    """
    A condition row.

    *index* is its position in the rule, *id* its name (default `<type> <seq>` with `.<n>` for the n-th of the same, n
    from 2), *seq* its sequence or `WHOLE`.
    *on*: types of calls, empty for all. *wait* and *within* are None where the document has none. *variables* are
    (data map, name). *count* matches are needed, within *count_within*. *lookback*: how far before the start an exclude
    row looks. *at* is set for act rows with a captured date.
    """

    index: int
    id: str
    seq: int
    type: str
    on: frozenset[str] = frozenset()
    criterion: Criterion = ALWAYS
    wait: int | None = None
    within: int | None = None
    variables: tuple[tuple[str, str], ...] = ()
    count: int = 1
    count_within: int | None = None
    lookback: int = 0
    at: At | None = None
    actions: tuple[Action, ...] = ()
    only_if: Criterion | None = None


class Node(Struct, frozen=True):
    """
    A node of the plan: *acts* tells whether it acts or waits for an event; *rows* are indexes of its rows.

    For events: *join* needs all rows, *goes_on* continues when they time out. For acts: *ends* the instance (exit).
    """

    seq: int
    rows: tuple[int, ...]
    acts: bool = False
    ends: bool = False
    join: bool = False
    goes_on: bool = False


class Pattern(Struct, frozen=True):
    """
    What an instance is pinned to: one version of a rule's pattern part.

    *span*: the longest time from the start of an instance to its last fire time, None when a captured date decides.
    *looks_back*: the longest time before a start that matters (lookback, countWithin). *needs_profile*: some criterion
    reads what was known of the person before.
    """

    rule: str
    version: int
    lifetime: int
    rows: tuple[Row, ...]
    plan: tuple[Node, ...]
    multiple: bool = False
    transaction: str | None = None
    on_repeat: str = IGNORE
    reentry_after: int = 0
    max_entries: int | None = None
    max_active: int = 25
    span: int | None = None
    looks_back: int = 0
    needs_profile: bool = False


class Quiet(Struct, frozen=True):
    """Hours in which nothing is sent: minutes of the day [begin, end), over midnight when begin > end, in a zone."""

    begin: int
    end: int
    zone: str
    zone_map: str | None = None


class Cap(Struct, frozen=True):
    """At most *count* passages of the gate per key in a sliding time *per*; *defer*: one too many waits."""

    count: int
    per: int
    defer: bool = False


class Gate(Struct, frozen=True):
    """The settings of a rule that take effect at once, for running instances too."""

    rule: str
    name: str
    status: str = ACTIVE
    settle: int = 0
    late_max: int = 24 * 3_600_000
    hold: int = 48 * 3_600_000
    quiet: Quiet | None = None
    caps: tuple[Cap, ...] = ()
