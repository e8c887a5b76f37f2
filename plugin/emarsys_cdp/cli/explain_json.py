"""What `explain` and `why-not` found, as JSON has it (semantics 2.10 and 3.3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from emarsys_cdp.outbox.desk import Seen, shown
from emarsys_cdp.rules.book import Instance
from emarsys_cdp.rules.doubting import Checked, Doubt
from emarsys_cdp.rules.explaining import Chain, Decision, Next
from emarsys_cdp.rules.passing import Sight
from emarsys_cdp.users_view import show_time
from emarsys_cdp_hooks import Json


def chain_json(sight: Sight, pid: str, rule: str, chain: Chain, effects: Mapping[str, Seen]) -> dict[str, Any]:
    """Return a chain of decisions; *effects* are those that the outbox still has, by their ids."""
    return {
        "space": sight.space,
        "pid": pid,
        "rule": rule,
        "now": show_time(sight.now),
        "knownSince": _time(chain.floor),
        "earlierInstances": chain.earlier,
        "lastFire": _time(chain.last_fire),
        "lateStops": chain.late_stops,
        "trace": [decision_json(rule, one) for one in chain.decisions],
        "instances": [
            {**_instance(one.instance), "next": [_next(each) for each in one.nexts]} for one in chain.standings
        ],
        "effects": [
            shown(effects[one.planned.id], sight.now)
            if one.planned.id in effects
            else {"id": one.planned.id, "state": "gone", "instance": one.instance, "row": one.planned.row}
            for one in chain.effects
        ],
    }


def decision_json(rule: str, one: Decision) -> dict[str, Any]:
    """Return a line of a trace."""
    return {
        "t": show_time(one.t),
        "te": show_time(one.te),
        "rule": rule,
        "version": one.version,
        "instance": one.instance,
        "mid": one.mid,
        "kind": one.kind,
        "reason": one.reason,
        "row": one.row,
        "values": dict(one.values),
    }


def _instance(one: Instance) -> dict[str, Json]:
    return {
        "instance": one.id,
        "version": one.version,
        "start": one.start,
        "began": show_time(one.began),
        "since": show_time(one.since),
        "transaction": one.transaction,
        "status": one.status,
        "why": one.why,
        "ended": _time(one.ended),
        "vars": msgspec.to_builtins(one.variables),
    }


def _next(one: Next) -> dict[str, Any]:
    return {"what": one.what, "at": show_time(one.at), "rows": list(one.rows)}


def doubt_json(sight: Sight, pid: str, rule: str, message_id: str, doubt: Doubt) -> dict[str, Any]:
    """Return what the rows of a rule made of a call."""
    call = doubt.call
    found = None
    if call is not None:
        found = {
            "mid": call.message_id,
            "type": call.type,
            "te": show_time(call.time),
            "seen": show_time(call.seen),
            "values": msgspec.to_builtins(call.values),
        }
    return {
        "space": sight.space,
        "pid": pid,
        "rule": rule,
        "message": message_id,
        "knownSince": _time(doubt.floor),
        "call": found,
        "trace": [decision_json(rule, one) for one in doubt.decisions],
        "rows": [_row(one) for one in doubt.rows],
    }


def _row(one: Checked) -> dict[str, Any]:
    return {
        "row": one.row,
        "type": one.type,
        "version": one.version,
        "instance": one.instance,
        "verdict": one.verdict,
        "why": one.why,
        "armed": None if one.begin is None else {"from": show_time(one.begin), "to": _time(one.end)},
        "criteria": [{"text": leaf.text, "value": leaf.value, "holds": leaf.holds} for leaf in one.leaves],
    }


def _time(milliseconds: int | None) -> str | None:
    return show_time(milliseconds) if milliseconds else None
