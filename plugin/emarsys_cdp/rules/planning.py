"""The plan of a rule: its stages in order, and what of the rows does not go together (semantics 2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from emarsys_cdp.rules.findings import Findings
from emarsys_cdp.rules.pattern import ACTION, EXCLUDE, EXIT, START, STEP, WHOLE, Node, Row
from emarsys_cdp.rules.rows_reading import ReadRow


def plan_of(rows: Sequence[ReadRow]) -> tuple[Node, ...]:
    """Return the nodes: the start, and for each sequence what is waited for, then what is done."""
    seqs = sorted({one.row.seq for one in rows if one.row.type in (STEP, ACTION, EXIT)})
    plan = [Node(0, _indexes(rows, 0, (START,)))]
    for seq in seqs:
        steps, acts = _indexes(rows, seq, (STEP,)), _indexes(rows, seq, (ACTION, EXIT))
        if steps:
            of_step = [rows[index] for index in steps]
            join = any(one.join == "all" for one in of_step)
            goes_on = any(one.on_timeout == "continue" for one in of_step)
            plan.append(Node(seq, steps, join=join, goes_on=goes_on))
        if acts:
            plan.append(Node(seq, acts, acts=True, ends=any(rows[index].row.type == EXIT for index in acts)))
    return tuple(plan)


def _indexes(rows: Iterable[ReadRow], seq: int, types: tuple[str, ...]) -> tuple[int, ...]:
    return tuple([one.row.index for one in rows if one.row.seq == seq and one.row.type in types])


def check_plan(rows: Sequence[ReadRow], place: str, findings: Findings) -> None:
    """Note what contradicts itself: each problem at the row that has to be changed."""
    if not any(one.row.type == START for one in rows):
        findings.add(place, "has no start row: add one with seq 0 and type start")
    _check_exit(rows, place, findings)
    _check_guards(rows, place, findings)
    for seq in sorted({one.row.seq for one in rows}):
        steps = [one for one in rows if one.row.seq == seq and one.row.type == STEP]
        acts = [one.row for one in rows if one.row.seq == seq and one.row.type in (ACTION, EXIT)]
        _check_acts(acts, place, findings)
        _check_alike([(one.row, one.join) for one in steps], f"{place}[%d].join", seq, findings)
        _check_alike([(one.row, one.on_timeout) for one in steps], f"{place}[%d].onTimeout", seq, findings)


def _check_exit(rows: Sequence[ReadRow], place: str, findings: Findings) -> None:
    """Check that there is one exit stage at most, and that it is the last."""
    exits = sorted({one.row.seq for one in rows if one.row.type == EXIT})
    if not exits:
        return
    for one in rows:
        row = one.row
        if row.type == EXIT and row.seq != exits[-1]:
            findings.add(
                f"{place}[{row.index}].type", f"there is an exit with seq {exits[-1]}, too: make this an action"
            )
        elif row.type in (STEP, ACTION) and row.seq > exits[-1]:
            findings.add(
                f"{place}[{row.index}].seq",
                f"{row.seq} is after the exit with seq {exits[-1]}, which ends the instance: no call gets there",
            )


def _check_guards(rows: Sequence[ReadRow], place: str, findings: Findings) -> None:
    """Check that exclude rows guard stages in which an instance can stand."""
    steps = {one.row.seq for one in rows if one.row.type == STEP}
    acts = {one.row.seq for one in rows if one.row.type == ACTION}
    exits = {one.row.seq for one in rows if one.row.type == EXIT}
    standing = {WHOLE, 0} | steps | (acts - exits)
    for one in rows:
        row = one.row
        if row.type != EXCLUDE or row.seq in standing:
            continue
        before = max([seq for seq in standing if seq < row.seq])
        why = "an instance waits for the exit in the stage before" if row.seq in exits else "there is no such stage"
        findings.add(f"{place}[{row.index}].seq", f"{row.seq} guards nothing: {why}; write {before}, or '*' for all")


def _check_acts(acts: Sequence[Row], place: str, findings: Findings) -> None:
    for row in acts[1:]:
        if (row.wait, row.at) != (acts[0].wait, acts[0].at):
            findings.add(
                f"{place}[{row.index}].{'at' if row.at != acts[0].at else 'wait'}",
                f"is not that of conditions[{acts[0].index}]: what is done with seq {row.seq} is done at one time",
            )


def _check_alike(set_on: Sequence[tuple[Row, str | None]], place: str, seq: int, findings: Findings) -> None:
    given = [(row, value) for row, value in set_on if value is not None]
    for row, value in given[1:]:
        if value != given[0][1]:
            findings.add(
                place % row.index,
                f"{value!r} contradicts conditions[{given[0][0].index}]: it is one for all of seq {seq}",
            )


def span_of(rows: Sequence[Row], plan: Sequence[Node], lifetime: int) -> int | None:
    """Return the longest time (ms) from a start to the last fire time; None when a captured date decides."""
    total = 0
    for before, node in pairwise(plan):
        own = [rows[index] for index in node.rows]
        if not node.acts:
            total += max(lifetime if row.within is None else row.within for row in own)
        elif own[0].at is not None:
            return None
        elif own[0].wait is not None:
            total += own[0].wait
        else:
            total += guarded(rows, before, lifetime)
    return total


def guarded(rows: Iterable[Row], node: Node, lifetime: int) -> int:
    """Return how long (ms) the exclude rows guard a stage: what an action without a wait waits for (2.3)."""
    guards = [row for row in rows if row.type == EXCLUDE and row.seq in (WHOLE, node.seq)]
    return max([lifetime if row.within is None else row.within for row in guards], default=0)
