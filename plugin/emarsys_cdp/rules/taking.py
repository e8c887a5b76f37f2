"""
Adding a call to a person's book, and folding it anew. Pure; times in ms since 1970 UTC.

A call that is later than everything the book has is one more step of the rules that it is about. Any other one has
these rules folded anew from the log, with the same result as if it had come in its order (semantics 2.6).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.rules.book import ACTIVE, AT_ONCE, EMPTY, SENT, WAITS, Book, Instance, Logged, RuleState
from emarsys_cdp.rules.fold import Fold, Person, folded
from emarsys_cdp.rules.ruleset import GOES_ON, STARTS, RuleSet
from emarsys_cdp_hooks import StoredValue

MAX_LOG: Final = 1000
"""Calls of one person that rules look at; beyond it the oldest are left out, whatever they were needed for."""

LONG_LOG: Final = 200
"""A late call in a log longer than this waits to be folded until the person is looked at, with all others of then."""

_NO_STATE: Final = RuleState()


class Taken(Struct, frozen=True, gc=False):
    """A call for the rules of its space: the call, and the rules that it may be about, with what it is for them."""

    call: Logged
    rules: Mapping[str, int]


def take(rules: RuleSet, space: str, book: Book | None, taken: Taken, known: Mapping[str, StoredValue]) -> Book:
    """
    Return a person's book with a call added; *known* are the person's values of before it.

    A call that is in the log already, or from before it, changes nothing.
    """
    call = taken.call
    if book is None:
        book = replace(EMPTY, base={name: known[name] for name in rules.tracked if name in known})
    log = book.log
    if call.time < book.floor or _has(log, call.message_id):
        return book
    if call.seen <= book.decided:
        call = replace(call, seen=book.decided + 1)
        taken = replace(taken, call=call)
    book = _added(rules, space, book, taken)
    is_elsewhere = not rules.zone_maps.isdisjoint(call.values)  # quiet hours may be other ones now
    return replace(book, wake=AT_ONCE) if is_elsewhere and _has_waiting(book) else book


def _added(rules: RuleSet, space: str, book: Book, taken: Taken) -> Book:
    call, log = taken.call, book.log
    seen = max(book.seen, call.seen)
    if not log or call.time > log[-1].time:
        book = replace(book, log=(*log, call), seen=seen)
        return _with(rules, book, _step(rules, space, book, taken))
    place = bisect_right(log, (call.time, call.message_id), key=lambda one: (one.time, one.message_id))
    book = replace(book, log=(*log[:place], call, *log[place:]), seen=seen)
    if len(log) > LONG_LOG:  # one at a time, those that somebody brings at once would take minutes
        return replace(book, stale=True, wake=1)
    touched = dict.fromkeys(taken.rules)
    if rules.keeps(call.values):  # what was known at later calls may be another by now
        touched |= dict.fromkeys([name for name in _rules_of(book) if _needs_profile(rules, name)])
    return _with(rules, book, _refold(rules, space, book, touched, call.seen))


def _has_waiting(book: Book) -> bool:
    """Tell whether something waits at the gate."""
    facts = [fact for state in book.rules.values() for facts in state.facts.values() for fact in facts]
    return any(fact.outcome == WAITS and fact.until for fact in facts)


def _has(log: tuple[Logged, ...], message_id: str) -> bool:
    """Tell whether a call is in the log; most that come again are among the last."""
    for call in reversed(log):  # noqa: SIM110 - a generator takes twice as long
        if call.message_id == message_id:
            return True
    return False


def refold(rules: RuleSet, space: str, book: Book, now: int) -> Book:
    """Return a book with every rule folded anew from the log, up to *now*."""
    changes = _refold(rules, space, book, _rules_of(book), now)
    return _with(rules, replace(book, stale=False), changes)


def _rules_of(book: Book) -> dict[str, None]:
    """Return the rules that have a state, or may be started by calls of the log."""
    return dict.fromkeys((*book.rules, *[name for call in book.log for name in call.opens]))


def pass_time(rules: RuleSet, space: str, book: Book, now: int) -> Book:
    """Return a book in which time has passed up to *now*."""
    if book.stale:
        return refold(rules, space, book, now)
    person = Person(space, book.log, book.base)
    states: dict[str, RuleState] = {}
    doubts: list[tuple[str, str]] = []
    for name, state in book.rules.items():
        if any(one.unfinished for one in state.instances):
            fold = Fold(name, rules.program, person, state)
            fold.end(now)
            states[name] = fold.result()
            doubts += [(name, instance) for instance in fold.doubts]
    return _with(rules, book, (states, doubts))


_Changes = tuple[dict[str, RuleState], list[tuple[str, str]]]


def _step(rules: RuleSet, space: str, book: Book, taken: Taken) -> _Changes:
    """Return the states that one more call at the end of the log makes."""
    call = taken.call
    person = Person(space, book.log, book.base)
    states: dict[str, RuleState] = {}
    doubts: list[tuple[str, str]] = []
    for name, what in taken.rules.items():
        state = book.rules.get(name, _NO_STATE)
        if not state.instances:
            if what == GOES_ON:
                continue  # there is nothing for which it could be anything
        elif what == STARTS and call.time < state.wake and _is_taken(rules, name, state, call):
            continue
        found: Iterable[str]
        if call.time <= state.horizon:
            states[name], found = folded(name, rules.program, person, state, call.seen)
        else:
            fold = Fold(name, rules.program, person, state)
            fold.add(call, what)
            after, found = fold.result(), fold.doubts
            if after is not state:
                states[name] = after
        doubts += [(name, instance) for instance in found]
    return states, doubts


def _is_taken(rules: RuleSet, name: str, state: RuleState, call: Logged) -> bool:
    """Tell that a start changes nothing, whether it matches or not: the one instance that there may be is alive."""
    return name in rules.singles and name in call.opens and not state.facts and state.instances[-1].alive


def _refold(rules: RuleSet, space: str, book: Book, names: Iterable[str], now: int | None = None) -> _Changes:
    person = Person(space, book.log, book.base)
    states: dict[str, RuleState] = {}
    doubts: list[tuple[str, str]] = []
    for name in names:
        states[name], found = folded(name, rules.program, person, book.rules.get(name, _NO_STATE), now)
        doubts += [(name, instance) for instance in found]
    return states, doubts


def _with(rules: RuleSet, book: Book, changes: _Changes) -> Book:
    """Return a book with new states of some rules, and when it is to be looked at next."""
    states, doubts = changes
    if not states and not doubts:
        return book
    every = dict(book.rules)
    for name, state in states.items():
        if state.instances or state.facts or state.entries:
            every[name] = replace(state, wake=wake_of(rules, name, state))
        else:
            every.pop(name, None)
    all_doubts = (*book.doubts, *[one for one in doubts if one not in book.doubts]) if doubts else book.doubts
    return replace(book, rules=every, doubts=all_doubts, wake=_wake(every, urgent=bool(all_doubts) or book.stale))


def _wake(states: Mapping[str, RuleState], *, urgent: bool) -> int:
    return AT_ONCE if urgent else min([state.wake for state in states.values() if state.wake], default=0)


def wake_of(rules: RuleSet, name: str, state: RuleState) -> int:
    """Return when a rule has to be looked at next, 0 never."""
    gate = rules.gates.get(name)
    settle = 0 if gate is None else gate.settle
    wakes: list[int] = []
    for instance in state.instances:
        if instance.status == ACTIVE:
            wakes.append(_next_time(rules, name, instance))
        for passage in instance.passages:
            if passage.outcome == WAITS:
                fact = next((one for one in state.facts.get(instance.id, ()) if one.node == passage.node), None)
                wakes.append(passage.fire + settle if fact is None or not fact.until else fact.until)
    return max(AT_ONCE, min(wakes)) if wakes else 0


def _next_time(rules: RuleSet, name: str, instance: Instance) -> int:
    """Return when a timer of an active instance fires."""
    program = rules.program(name, instance.version)
    node = None if program is None else program.next_node(instance)
    if program is None or node is None:
        return AT_ONCE
    if node.acts:
        fire = program.fire_time(instance, node)
        return AT_ONCE if fire is None else fire
    return program.deadline(instance, node) + 1


def _needs_profile(rules: RuleSet, name: str) -> bool:
    program = rules.program(name, rules.current.get(name, 0))
    return program is not None and program.pattern.needs_profile


def trim(rules: RuleSet, book: Book, now: int) -> Book:
    """
    Return a book without what nothing needs any more: calls from before every window, and the instances of then.

    What they leave behind is counted. Calls beyond `MAX_LOG` are left out as well, but none that opened what is alive.
    """
    if not rules.trims:
        return book
    keep_from = now - rules.span - rules.max_lateness
    alive = [one for state in book.rules.values() for one in state.instances if one.unfinished]
    keep_from = min([keep_from, *[one.began - rules.span for one in alive]])
    first = bisect_right(book.log, keep_from - 1, key=lambda one: one.time)
    if first == 0 and len(book.log) <= MAX_LOG:
        return book
    gone, log = book.log[:first], book.log[first:]
    if len(log) > MAX_LOG:
        starts = {one.start for one in alive}
        extra = [call for call in log[: len(log) - MAX_LOG] if call.message_id not in starts]
        gone = (*gone, *extra)
        left_out = {id(call) for call in extra}
        log = tuple([call for call in log if id(call) not in left_out])
    floor = max([book.floor, keep_from]) if first else book.floor
    states = {name: _trimmed(state, {call.message_id for call in log}) for name, state in book.rules.items()}
    return replace(book, log=log, floor=floor, base=_base(rules, book, gone), rules=states)


def _trimmed(state: RuleState, starts: set[str]) -> RuleState:
    """Return a state without the finished instances whose start is no longer in the log; they are counted."""
    gone = [one for one in state.instances if not one.unfinished and one.start not in starts]
    if not gone:
        return state
    ids = {one.id for one in gone}
    return replace(
        state,
        instances=tuple([one for one in state.instances if one.id not in ids]),
        facts={name: facts for name, facts in state.facts.items() if name not in ids},
        entries=state.entries + len(gone),
        last_fire=max([state.last_fire, *[one.fire for one in gone]]),
    )


def _base(rules: RuleSet, book: Book, gone: Iterable[Logged]) -> dict[str, StoredValue]:
    """Return the values of before the log, with those of calls that leave it."""
    base = dict(book.base)
    for call in gone:
        for name in rules.tracked & call.values.keys():
            held = base.get(name)
            if held is None or (held.event_time, held.message_id) <= (call.time, call.message_id):
                base[name] = StoredValue(call.values[name], call.time, call.message_id)
    return base


def join_books(first: Book | None, second: Book | None) -> Book | None:
    """
    Return the book of two people who are one: their logs together, to be folded anew.

    What was sent stays sent.
    """
    if first is None or second is None:
        one = first or second
        return None if one is None else replace(one, stale=True, wake=AT_ONCE)
    calls = {call.message_id: call for call in (*second.log, *first.log)}
    log = tuple(sorted(calls.values(), key=lambda call: (call.time, call.message_id)))
    base = dict(first.base)
    for name, value in second.base.items():
        held = base.get(name)
        if held is None or (held.event_time, held.message_id) < (value.event_time, value.message_id):
            base[name] = value
    names = dict.fromkeys((*first.rules, *second.rules))
    states = {name: _joined(first.rules.get(name, _NO_STATE), second.rules.get(name, _NO_STATE)) for name in names}
    doubts = tuple(dict.fromkeys((*first.doubts, *second.doubts)))
    posted = tuple(dict.fromkeys((*first.posted, *second.posted)))
    return Book(
        log,
        max(first.floor, second.floor),
        base,
        states,
        True,
        doubts,
        AT_ONCE,
        first.held or second.held,
        max(first.seen, second.seen),
        max(first.decided, second.decided),
        posted,
    )


def _joined(first: RuleState, second: RuleState) -> RuleState:
    """Return the state of two: instances are made anew by the next fold; decisions of the gate are kept."""
    facts = dict(first.facts)
    for name, others in second.facts.items():
        mine = {fact.node: fact for fact in facts.get(name, ())}
        for fact in others:
            known = mine.get(fact.node)
            if known is None or (fact.outcome == SENT and known.outcome != SENT):
                mine[fact.node] = fact
        facts[name] = tuple(mine.values())
    instances = (*first.instances, *second.instances)
    return RuleState(
        instances,
        facts,
        0,
        AT_ONCE,
        first.entries + second.entries,
        max(first.last_fire, second.last_fire),
        first.late_stops + second.late_stops,
    )
