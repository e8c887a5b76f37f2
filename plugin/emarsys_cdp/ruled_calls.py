"""From a call to what the rules of its space look at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emarsys_cdp.identity.ruling import Ruled
from emarsys_cdp.rules.book import Logged
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.rules.taking import Taken
from emarsys_cdp_hooks import Call, Identifiers, Unfit


def rule_call(
    rules: RuleSet, call: Call, ids: Identifiers, read: Mapping[str, Any], now: int, firsts: Mapping[str, int]
) -> Ruled | None:
    """
    Return a call as rules take it, None when none of them looks at it.

    *read* are the values of its data maps that fit, *now* is when it is taken (ms), *firsts* tells when data maps were
    first seen in the space. A call that is too late starts nothing (semantics 1.10).
    """
    found = rules.find(call.type, read, call.event_time)
    if not found.rules and not rules.keeps(read):
        return None
    late = call.event_time < call.arrival - rules.max_lateness
    opens = {} if late else {name: rules.current[name] for name in found.opens}
    values = {name: value for name, value in read.items() if name in rules.maps}
    sync = tuple([name for name in firsts if name in values and call.event_time <= firsts[name] + rules.initial_sync])
    who = (ids.who or "") if opens else ""
    logged = Logged(call.event_time, call.message_id, call.type, now, values, opens, who, sync)
    return Ruled(rules, Taken(logged, found.rules))


def asked_history(
    rules: RuleSet | None,
    calls: Sequence[Call],
    identifiers: Sequence[Identifiers],
    values: Sequence[Mapping[str, Any]],
) -> dict[str, int]:
    """Return the data maps that calls carry whose first sync counts, with the times of their first ones here."""
    if rules is None or not rules.initial_sync or not rules.profile_maps:
        return {}
    seen: dict[str, int] = {}
    for call, ids, read in zip(calls, identifiers, values, strict=True):
        for name in rules.profile_maps & read.keys():
            if type(read[name]) is not Unfit and ids.who is not None:
                seen.setdefault(name, call.event_time)
    return seen
