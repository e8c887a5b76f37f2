"""
What has to be true of any users table: semantics.md 5.1, as functions that raise AssertionError.

Each takes `make`, which makes an empty table of a document; what else it takes says which timelines it is about. The
strategies of `timelines.py` draw them: see `unit/test_identity_model.py` for which of them goes with which property.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tests.model.identifiers import Reader
from tests.model.reading import first
from tests.model.rules import rules_of
from tests.model.straight import people, person, version_of
from tests.model.table import Call, Erase, Json, Make, Step, UsersTable, do, play

Document = Mapping[str, Json]


def state(table: UsersTable) -> dict[str, Any]:
    """Return all that a table shows of people."""
    return {"people": table.values(), "shared": table.shared()}


def same_as(reference: Make, make: Make, document: Document, steps: Sequence[Step]) -> None:
    """After every step the table shows, answers and warns what the reference does."""
    tables = reference(document), make(document)
    for number, step in enumerate(steps):
        want, got = (
            {"result": do(table, step), **state(table), "profiles": table.profiles(), "warnings": table.warnings()}
            for table in tables
        )
        wrong = {part: (got[part], want[part]) for part in want if got[part] != want[part]}
        assert wrong == {}, f"step {number}, {step}: got and expected {wrong}"


def every_identifier_has_one_owner(make: Make, document: Document, steps: Sequence[Step]) -> None:
    """P6: no user and no device is in two profiles, no shared device is in any, no key is a former key as well."""
    table = make(document)
    for step in steps:
        do(table, step)
        rows = table.profiles()
        owned = [("user", row["user"]) for row in rows if row["user"]]
        owned += [("anon", anon) for row in rows for anon in row["anons"]]
        owned += [("anon", anon) for anon in table.shared()]
        assert [each for each, times in Counter(owned).items() if times > 1] == []
        assert [
            row for row in rows if row["key"] in row["former"] or len(set(row["former"])) < len(row["former"])
        ] == []


def order_of_arrival_does_not_matter(
    make: Make, document: Document, calls: Sequence[Call], orders: Sequence[Sequence[Call]]
) -> None:
    """
    P10: without conflicts the profiles are the same for every order, and those that a straight computation has.

    So merging is commutative and associative; with calls that come twice in the orders it is idempotent. Their values
    are those of the last writers.
    """
    rules = rules_of(document)
    want = [person(group, rules) for group in people(calls)]
    for order in orders:
        table = make(document)
        play(table, order)
        assert sorted(table.values(), key=_text) == sorted(want, key=_text)
        assert table.shared() == []


def users_stay_apart(make: Make, document: Document, steps: Sequence[Step]) -> None:
    """P11: every user whose call counted has a profile of his own. For timelines without aliases and erasures."""
    table, users = make(document), set[str]()
    reader = _reader(document)
    for step in steps:
        result = do(table, step)
        user = reader.read(step.message).user if isinstance(step, Call) else None
        users |= {user} if user is not None and result != "dropped" else set()
        shown = [row["user"] for row in table.profiles() if row["user"]]
        assert sorted(shown) == sorted(users)


def aliases_link_what_they_name(make: Make, document: Document, steps: Sequence[Step]) -> None:
    """
    P11 with aliases: users share a profile only if aliases connect them, unless known users may be merged.

    For timelines without erasures.
    """
    table, linked = make(document), list[set[str]]()
    reader = _reader(document)
    for step in steps:
        if do(table, step) == "dropped" or not isinstance(step, Call):
            continue
        ids = reader.read(step.message)
        named = {name for name in (ids.user, ids.previous if ids.user else None) if name is not None}
        if ids.user is not None:
            touched = [group for group in linked if group & named]
            linked = [group for group in linked if not group & named] + [named.union(*touched)]
        shown = {row["user"] for row in table.profiles() if row["user"]}
        assert [group for group in linked if not group & shown] == []


def a_shared_device_is_nobody(make: Make, document: Document, steps: Sequence[Step], later: Sequence[Call]) -> None:
    """P12: a call that has nothing but a shared device changes nobody."""
    table = make(document)
    play(table, steps)
    reader = _reader(document)
    for call in later:
        ids = reader.read(call.message)
        before, nobody = state(table), ids.anon in table.shared() and ids.user is None and ids.key is None
        do(table, call)
        assert not nobody or state(table) == before


def the_key_is_the_last_claim(make: Make, document: Document, calls: Sequence[Call]) -> None:
    """P13: a user's key is the one of the greatest (event time, messageId), whoever else has it. For `claims`."""
    table = make(document)
    play(table, calls)
    users = {call.message["userId"] for call in calls}
    keys = {
        user: max((version_of(call), _key(call)) for call in calls if call.message["userId"] == user)[1]
        for user in users
    }
    assert {row["user"]: row["key"] for row in table.profiles()} == keys


def calls_of_nobody_change_nothing(
    make: Make, document: Document, steps: Sequence[Step], others: Sequence[tuple[int, Call]]
) -> None:
    """P15: calls of others and of nobody leave everybody as they are; `others` have the number of the next step."""
    without, mixed = make(document), make(document)
    play(without, steps)
    for number, step in enumerate([*steps, None]):
        play(mixed, [call for place, call in others if min(place, len(steps)) == number])
        play(mixed, [step] if step is not None else [])
    alone = make(document)
    play(alone, [call for _, call in sorted(others, key=lambda each: each[0])])
    assert _added(state(mixed)) == _added(state(without), state(alone))


def strangers_do_not_meet(
    make: Make, document: Document, ones: Sequence[Step], others: Sequence[Step], turns: Sequence[bool]
) -> None:
    """P16: two timelines with different identifiers end together as each alone, also with the same messageIds."""
    alone, apart, together = make(document), make(document), make(document)
    play(alone, ones)
    play(apart, others)
    left, right = list(ones), list(others)
    for turn in turns:
        play(together, [(left if turn else right).pop(0)] if (left if turn else right) else [])
    play(together, [*left, *right])
    assert _added(state(together)) == _added(state(alone), state(apart))
    assert Counter(together.warnings()) == Counter(alone.warnings()) + Counter(apart.warnings())


def nothing_survives_erasure(
    make: Make, document: Document, steps: Sequence[Step], identifier: tuple[str, str], mode: str, now: int
) -> None:
    """
    P19: of an erased person nothing is left, and no call of before brings anything back; others stay as they are.

    `now` is not before the last arrival in `steps`, which are delivered again after the erasure.
    """
    table = make(document)
    play(table, steps)
    before = table.values()
    do(table, Erase(*identifier, mode, now))
    erased, others = _erased(before, table.values())
    of_whom = [row for row in before if identifier in _identifiers(row, ())]
    # A key may be used by several; a user or a device is of the one who shows it, or else an alias.
    assert identifier[0] == "key" or of_whom in ([], erased)
    gone = {identifier}.union(*(_identifiers(row, others) for row in erased))
    for step in steps:
        if isinstance(step, Call):
            shown, covered = state(table), mode == "suppress" or version_of(step)[0] <= now
            result = do(table, step)
            assert not (covered and _named(step, document) & gone) or (result, state(table)) == ("dropped", shown)
    later = [step for step in steps if isinstance(step, Call) and mode == "delete" and version_of(step)[0] > now]
    back = set[tuple[str, str]]().union(*(_named(call, document) for call in later))
    shown_now = {("anon", anon) for anon in table.shared()}.union(*(_identifiers(row, ()) for row in table.values()))
    used = {("key", key) for row in others for key in (row["key"], *row["former"])}
    assert (gone & shown_now) - back - used == set()


def a_redelivery_at_once_changes_nothing(make: Make, document: Document, steps: Sequence[Step]) -> None:
    """
    P1 for profiles: a call that comes twice in a row has the effect of one, conflicts or not.

    For timelines without aliases, or without devices that leave for the limit: the alias brings such a device back.
    """
    once, twice = make(document), make(document)
    for step in steps:
        first_result = do(once, step)
        results = play(twice, [step, step] if isinstance(step, Call) else [step])
        assert state(twice) == state(once)
        assert results[0] == first_result
        assert [result == "dropped" for result in results] == [first_result == "dropped"] * len(results)


def _added(*states: Mapping[str, Any]) -> dict[str, list[Json]]:
    """Return the states of spaces as if they were one."""
    everybody = [row for one in states for row in one["people"]]
    return {"people": sorted(everybody, key=_text), "shared": sorted(anon for one in states for anon in one["shared"])}


def _text(row: Json) -> str:
    return json.dumps(row, sort_keys=True)


def _key(call: Call) -> str:
    return str(first(call.message, ["traits.email"]))


def _erased(
    before: Sequence[Mapping[str, Json]], after: Sequence[Mapping[str, Json]]
) -> tuple[list[Mapping[str, Json]], list[Mapping[str, Json]]]:
    """Return who was erased, nobody or one, and the others, who were left alone."""
    erased = [row for row in before if row not in after]
    others = [row for row in before if row in after]
    assert others == after
    assert len(erased) <= 1
    return erased, others


def _identifiers(row: Mapping[str, Json], others: Sequence[Mapping[str, Json]]) -> set[tuple[str, str]]:
    """Return the identifiers of a profile that are nobody else's."""
    keys = {row["key"], *row["former"]} - {key for other in others for key in (other["key"], *other["former"])}
    named = {("user", row["user"]), *(("key", key) for key in keys), *(("anon", anon) for anon in row["anons"])}
    return {(kind, value) for kind, value in named if value is not None}


def _named(call: Call, document: Document) -> set[tuple[str, str]]:
    """Return the identifiers of a call; what an alias names may be a user or a device."""
    ids = _reader(document).read(call.message)
    pairs = (
        ("user", ids.user), ("key", ids.key), ("anon", ids.anon), ("user", ids.previous), ("anon", ids.previous),
    )  # fmt: skip
    return {(kind, value) for kind, value in pairs if value is not None}


def _reader(document: Document) -> Reader:
    return rules_of(document).reader
