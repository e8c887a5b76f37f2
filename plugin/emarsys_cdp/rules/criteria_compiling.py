"""
From the tree of a criterion to functions: everything that can be is prepared once, for they run for every call.

A part of a criterion becomes three functions. *holds* knows everything. *might* and *sure* know the call alone and take
the rest as anything: might is False only where holds is False whatever is known beside, sure is True only where holds
is True whatever is known beside. The negation of one is the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import TypeAlias

from msgspec import Struct

from emarsys_cdp.rules.criteria import ALWAYS, Criterion, Facts, Leaf, Values
from emarsys_cdp.rules.criteria_reading import Surroundings
from emarsys_cdp.rules.operators import BUILT_INS, CHANGES, STRING, Holds, Way, ready_of
from emarsys_cdp.rules.short_text import show_short
from emarsys_cdp.rules.tree import EVENT, INSTANCE, PROFILE, All, Any, Node, Not, Test, tests_of
from emarsys_cdp_hooks import Value

Decide: TypeAlias = Callable[[Facts], bool]
Guess: TypeAlias = Callable[[Values, int], bool]
Keys: TypeAlias = Mapping[str, frozenset[str]]


class _Form(Struct, frozen=True):
    """
    The functions of a part. *keys*: texts of data maps of which a call must carry one for the part to hold.

    *rest*, by such a data map: what *might* asks beside that the call carries one of them.
    """

    holds: Decide
    might: Guess
    sure: Guess
    keys: Keys = {}
    rest: Mapping[str, Guess] = {}


def compile_criteria(node: Node | None, around: Surroundings) -> Criterion:
    """Return the compiled form of a tree that `read_criteria` returned; None is the criterion that always holds."""
    if node is None:
        return ALWAYS
    form = _form(node, around)
    tests = tests_of(node)
    keys = min(form.keys.items(), key=lambda one: (len(one[1]), one[0]), default=None)
    rest = form.might if keys is None else form.rest.get(keys[0], form.might)
    return Criterion(
        rest=None if rest is _yes else rest,
        holds=form.holds,
        might=form.might,
        leaves=_leaves(node, around),
        text=show(node, around),
        keys=keys,
        maps=frozenset(one.map for one in tests if one.scope == EVENT),
        profile_maps=frozenset(one.map for one in tests if one.scope == PROFILE or one.op in CHANGES),
        variables=frozenset(
            [one.var for one in tests if one.var is not None] + [one.map for one in tests if one.scope == INSTANCE]
        ),
    )


def _form(node: Node, around: Surroundings) -> _Form:
    if isinstance(node, Test):
        return _test(node, around)
    if isinstance(node, Not):
        return _negation(_form(node.part, around))
    forms = [_form(part, around) for part in node.parts]
    return _conjunction(forms) if isinstance(node, All) else _disjunction(forms)


def _negation(form: _Form) -> _Form:
    holds, might, sure = form.holds, form.might, form.sure
    return _Form(lambda facts: not holds(facts), _opposite(sure), _opposite(might))


def _opposite(guess: Guess) -> Guess:
    if guess is _yes:
        return _no
    return _yes if guess is _no else lambda event, time: not guess(event, time)


def _conjunction(forms: list[_Form]) -> _Form:
    keys: dict[str, frozenset[str]] = {}
    for form in forms:
        for name, texts in form.keys.items():
            keys[name] = keys[name] & texts if name in keys else texts
    rest: dict[str, Guess] = {}
    for form in forms:
        for name in form.rest:
            if form.keys[name] == keys[name]:  # else another part asks for fewer texts
                rest[name] = _guess_every([form.rest[name], *[one.might for one in forms if one is not form]])
    return _Form(
        _every([form.holds for form in forms]),
        _guess_every([form.might for form in forms]),
        _guess_every([form.sure for form in forms]),
        keys,
        rest,
    )


def _disjunction(forms: list[_Form]) -> _Form:
    shared = reduce(lambda names, form: names & form.keys.keys(), forms[1:], set(forms[0].keys))
    return _Form(
        _some([form.holds for form in forms]),
        _guess_some([form.might for form in forms]),
        _guess_some([form.sure for form in forms]),
        {name: frozenset().union(*(form.keys[name] for form in forms)) for name in shared},
    )


def _every(parts: list[Decide]) -> Decide:
    if len(parts) == 2:  # noqa: PLR2004 - most of them
        first, second = parts
        return lambda facts: first(facts) and second(facts)

    def holds(facts: Facts) -> bool:
        for part in parts:  # noqa: SIM110 - a generator costs more than the loop
            if not part(facts):
                return False
        return True

    return holds


def _some(parts: list[Decide]) -> Decide:
    def holds(facts: Facts) -> bool:
        for part in parts:  # noqa: SIM110 - a generator costs more than the loop
            if part(facts):
                return True
        return False

    return holds


def _guess_every(guesses: list[Guess]) -> Guess:
    """Return what holds where every guess does; those that say nothing are left out."""
    parts = [guess for guess in guesses if guess is not _yes]
    if _no in parts:
        return _no
    if len(parts) < 2:  # noqa: PLR2004 - none or one
        return parts[0] if parts else _yes

    def guess(event: Values, time: int) -> bool:
        for part in parts:  # noqa: SIM110 - a generator costs more than the loop
            if not part(event, time):
                return False
        return True

    return guess


def _guess_some(guesses: list[Guess]) -> Guess:
    """Return what holds where some guess does; those that never do are left out."""
    parts = [guess for guess in guesses if guess is not _no]
    if _yes in parts:
        return _yes
    if len(parts) < 2:  # noqa: PLR2004 - none or one
        return parts[0] if parts else _no

    def guess(event: Values, time: int) -> bool:
        for part in parts:  # noqa: SIM110 - a generator costs more than the loop
            if part(event, time):
                return True
        return False

    return guess


def _yes(_event: Values, _time: int) -> bool:
    return True


def _no(_event: Values, _time: int) -> bool:
    return False


def _test(test: Test, around: Surroundings) -> _Form:
    way = _way(test, around)
    if test.op in CHANGES:
        return _change(test, way)
    if test.var is not None:
        return _compared(test, way, around)
    if test.scope == EVENT and way.type == STRING and not way.fold and test.op in ("equals", "in"):
        return _exact(test.map, frozenset([test.value] if test.op == "equals" else test.value))
    holds_absent = test.op in BUILT_INS and BUILT_INS[test.op].holds_absent
    return _plain(test, _prepared(test.op, test.value, way, around), holds_absent)


def _way(test: Test, around: Surroundings) -> Way:
    types = around.variables if test.scope == INSTANCE else around.maps
    return Way(around.kinds.family(types[test.map]), test.ignore_case, around.zone)


def _prepared(op: str, argument: object, way: Way, around: Surroundings) -> Holds:
    """Return the test of a value that is there."""
    if op in BUILT_INS:
        return BUILT_INS[op].prepare(argument, way)
    holds = around.kinds.operators[op].holds
    return lambda value, time: holds(value, argument, time)


def _exact(name: str, wanted: frozenset[str]) -> _Form:
    """Return the test that a call carries one of some texts: what most criteria begin with, and the index goes by."""
    if len(wanted) == 1:
        (only,) = wanted

        def is_it(event: Values, _: int) -> bool:
            return event.get(name) == only

        return _Form(lambda facts: facts.event.get(name) == only, is_it, is_it, {name: wanted}, {name: _yes})

    def is_one(event: Values, _: int) -> bool:
        value = event.get(name)
        return type(value) is str and value in wanted

    return _Form(lambda facts: is_one(facts.event, 0), is_one, is_one, {name: wanted}, {name: _yes})


def _plain(test: Test, check: Holds, holds_absent: bool) -> _Form:
    """Return a test against what is known beforehand."""
    name = test.map
    if test.scope == PROFILE:
        return _Form(lambda facts: _checked(facts.profile.get(name), facts.time, check, holds_absent), _yes, _no)
    if test.scope == INSTANCE:
        return _Form(lambda facts: _checked(facts.instance.get(name), facts.time, check, holds_absent), _yes, _no)

    def known(event: Values, time: int) -> bool:
        return _checked(event.get(name), time, check, holds_absent)

    return _Form(lambda facts: _checked(facts.event.get(name), facts.time, check, holds_absent), known, known)


def _checked(value: Value, time: int, check: Holds, holds_absent: bool) -> bool:
    return holds_absent if value is None else check(value, time)


def _compared(test: Test, way: Way, around: Surroundings) -> _Form:
    """Return a test against a captured variable, which every instance has its own of."""
    name, var, op, read = test.map, test.var or "", test.op, _reader(test)

    def holds(facts: Facts) -> bool:
        value, other = read(facts), facts.instance.get(var)
        if value is None or other is None:
            return False
        return _prepared(op, other, way, around)(value, facts.time)

    might: Guess = (lambda event, _: event.get(name) is not None) if test.scope == EVENT else _yes
    return _Form(holds, might, _no)


def _change(test: Test, way: Way) -> _Form:
    """Return the test that a call brings a new value: what was not known is another value (semantics 2.7)."""
    name, ready = test.map, ready_of(way)
    if test.op == "changed":

        def changed(facts: Facts) -> bool:
            value = ready(facts.event.get(name))
            return value is not None and _differs(facts, name, ready(facts.before.get(name)), value)

        return _Form(changed, lambda event, _: ready(event.get(name)) is not None, _no)
    if test.var is not None:
        return _changed_to(test, lambda facts: ready(facts.instance.get(test.var or "")), way)
    wanted = ready(test.value)
    form = _changed_to(test, lambda _: wanted, way)
    keys = {name: frozenset([test.value])} if way.type == STRING and not way.fold else {}
    return _Form(form.holds, lambda event, _: ready(event.get(name)) == wanted, _no, keys)


def _changed_to(test: Test, wanted: Callable[[Facts], object], way: Way) -> _Form:
    name, ready = test.map, ready_of(way)

    def holds(facts: Facts) -> bool:
        value = ready(facts.event.get(name))
        if value is None or value != wanted(facts):
            return False
        return _differs(facts, name, ready(facts.before.get(name)), value)

    return _Form(holds, lambda event, _: ready(event.get(name)) is not None, _no)


def _differs(facts: Facts, name: str, before: object, value: object) -> bool:
    """Tell whether a value is another than before; one that a first sync brings is none."""
    return name not in facts.sync if before is None else bool(before != value)


def _reader(test: Test) -> Callable[[Facts], Value]:
    name = test.map
    if test.scope == PROFILE:
        return lambda facts: facts.profile.get(name)
    if test.scope == INSTANCE:
        return lambda facts: facts.instance.get(name)
    return lambda facts: facts.event.get(name)


def _leaves(node: Node, around: Surroundings) -> Callable[[Facts], tuple[Leaf, ...]]:
    """Return what lists every comparison; it is made when it is asked for, which is seldom."""

    def leaves(facts: Facts) -> tuple[Leaf, ...]:
        return tuple(
            [
                Leaf(
                    show_test(test, negated, around), _reader(test)(facts), _form(test, around).holds(facts) != negated
                )
                for test, negated in _comparisons(node)
            ]
        )

    return leaves


def _comparisons(node: Node) -> Iterable[tuple[Test, bool]]:
    """Yield comparisons with whether they are negated themselves."""
    if isinstance(node, Test):
        yield node, False
    elif isinstance(node, Not) and isinstance(node.part, Test):
        yield node.part, True
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from _comparisons(part)


def show_test(test: Test, negated: bool, around: Surroundings) -> str:
    """Return a comparison, or its negation, in the short form."""
    way = _way(test, around)
    return show_short(test, negated, way.type, way.zone)


def show(node: Node, around: Surroundings) -> str:
    """Return a tree as people read it: short texts with `and`, `or` and `not`."""
    if isinstance(node, Test):
        return show_test(node, False, around)
    if isinstance(node, Not):
        inner = node.part
        return show_test(inner, True, around) if isinstance(inner, Test) else f"not ({show(inner, around)})"
    texts = [
        f"({text})" if isinstance(part, (All, Any)) else text for part in node.parts for text in (show(part, around),)
    ]
    return (" and " if isinstance(node, All) else " or ").join(texts)
