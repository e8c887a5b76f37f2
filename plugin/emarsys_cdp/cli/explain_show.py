"""What `explain` and `why-not` found, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from emarsys_cdp.cli.tables import plain, table_of
from emarsys_cdp.outbox.desk import SHORT, Seen
from emarsys_cdp.rules.book import CANCELLED, Instance
from emarsys_cdp.rules.criteria import Leaf
from emarsys_cdp.rules.doubting import Checked, Doubt
from emarsys_cdp.rules.explaining import Chain, Decision, Next
from emarsys_cdp.users_view import show_time
from emarsys_cdp_hooks import Value

SHORT_INSTANCE: Final = 6
"""Characters of an instance's id that tell it from others of a person."""

MINUTE: Final = 60_000
"""A call that arrived this much (ms) after it happened is shown with both times."""

_KINDS: Final = {
    "started": "started",
    "advanced": "went on",
    "repeated": "start repeated",
    "cancelled": "cancelled",
    "expired": "expired",
    "due": "time has come",
    "emitted": "sent to the outbox",
    "recorded": "noted, not sent: status shadow",
    "late_stop": "stop came after the sending",
    "no_transaction": "no start: the call has no transaction value",
    "already_active": "no start: one is running",
    "max_active": "no start: too many are running",
    "max_entries": "no start: maxEntries is reached",
    "cool_down": "no start: reentry.after is not over",
    "lookback": "no start: an exclude row looks back",
    "late_start": "no start: it came after a sending that it was before",
    "too_late": "no start: the call came too late",
    "rule_inactive": "no start: the rule was not active",
    "unreachable": "given up: no key was known in time",
    "stale": "given up: too late (lateFireMax)",
    "capped": "given up: a cap is reached",
    "filtered": "given up: onlyIf does not hold",
    "archived": "given up: the rule is archived",
}
_STYLES: Final = {"started": "green", "emitted": "bold green", "cancelled": "red", "expired": "red", "due": "cyan"}
_REASONS: Final = {
    "timeout": "the call that was waited for did not come",
    "no_date": "the captured date is none",
    "replaced": "a new version of the rule was published",
}
_NEXT: Final = {
    "fires": "fires at {at}",
    "waits_for": "waits for {rows} until {at}",
    "settles": "settles until {at}",
    "held": "held for a key, until {at} at the latest",
    "quiet": "quiet hours until {at}",
    "capped": "a cap lets it pass at {at}",
    "due": "is to be looked at, due since {at}",
}


def show_chain(rule: str, chain: Chain, effects: Mapping[str, Seen], now: int, console: Console) -> None:
    """Print a chain of decisions, what comes next, and what became of the effects the outbox still has."""
    _show_unknown(chain, console)
    if not chain.decisions and not chain.standings:
        console.print(plain(f"The rule {rule} has decided nothing: no call that is known was a start of it."))
        return
    console.print(_timeline(chain))
    for standing in chain.standings:
        for each in standing.nexts:
            console.print(plain(f"{_name(standing.instance)} {_next(each)}"), style="cyan")
        if not standing.nexts:
            console.print(plain(f"{_name(standing.instance)} {_ended(standing.instance)}"))
    if chain.effects:
        _show_effects(chain, effects, console)
    console.print(Text(f"As of {show_time(now)}; times are UTC.", "dim"))


def _show_unknown(chain: Chain, console: Console) -> None:
    if chain.floor:
        console.print(Text(f"Calls of before {show_time(chain.floor)} are no longer known.", "yellow"))
    if chain.earlier:
        last = f", the last one fired at {show_time(chain.last_fire)}" if chain.last_fire else ""
        console.print(Text(f"Instances of before: {chain.earlier}{last}.", "yellow"))


def _timeline(chain: Chain) -> object:
    table = table_of("time", "after", "instance", "what", "row", "call", "values", whole=("time", "after"))
    began = {one.instance.id: one.instance.began for one in chain.standings}
    for one in chain.decisions:
        after = _span(one.te - began[one.instance]) if one.instance in began else ""
        what = plain(_what(one))
        what.stylize(_STYLES.get(one.kind, "" if one.instance else "yellow"))
        name = (one.instance or "")[:SHORT_INSTANCE]
        values = ", ".join(f"{key} {_value(value)}" for key, value in one.values.items())
        table.add_row(show_time(one.te), after, name, what, *map(plain, (one.row or "", one.mid or "", values)))
    return table


def _what(one: Decision) -> str:
    text = _KINDS.get(one.kind, one.kind)
    reason = f": {_REASONS.get(one.reason, '')}" if one.reason in _REASONS else ""
    late = f" (arrived {show_time(one.t)})" if one.t - one.te >= MINUTE else ""
    return f"{text}{reason}{late}"


def _span(milliseconds: int) -> str:
    sign, seconds = "-" if milliseconds < 0 else "+", abs(milliseconds) // 1000
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{sign}{days}d {clock}" if days else f"{sign}{clock}"


def _name(one: Instance) -> str:
    transaction = f" ({one.transaction})" if one.transaction else ""
    return f"Instance {one.id[:SHORT_INSTANCE]}{transaction}"


def _next(one: Next) -> str:
    return _NEXT[one.what].format(at=show_time(one.at), rows=" or ".join(one.rows))


def _ended(one: Instance) -> str:
    why = f" by {one.why}" if one.status == CANCELLED else f": {one.why}" if one.why else ""
    return f"is over: {one.status}{why}"


def _show_effects(chain: Chain, effects: Mapping[str, Seen], console: Console) -> None:
    table = table_of("effect", "row", "do", "key", "state", "changed", "reason", whole=("effect",))
    for one in chain.effects:
        seen, planned = effects.get(one.planned.id), one.planned
        target = next((str(planned.action.options[name]) for name in _TARGETS if name in planned.action.options), "")
        cells = [planned.id[:SHORT], planned.row, f"{planned.action.do} {target}".strip()]
        if seen is None:
            cells += ["", "gone", "", "the outbox forgets effects after 30 days"]
        else:
            stored = seen.stored
            changed = show_time(stored.changed) if stored.changed else ""
            cells += ["" if seen.effect is None else seen.effect.key, seen.state, changed, stored.note]
        table.add_row(*map(plain, cells))
    console.print(table)


_TARGETS: Final = ("event", "eventId", "field", "list")
"""Members of an action that say what it is about."""


def show_doubt(message_id: str, doubt: Doubt, console: Console) -> None:
    """Print what each row of a rule made of a call."""
    call = doubt.call
    if call is None:
        known = f" It reaches back to {show_time(doubt.floor)}." if doubt.floor else ""
        console.print(plain(f"The call {message_id} is not in this person's log of calls for rules.{known}"))
        console.print(
            "Either no row of any rule could match it, or no rule needs it any more, or it is another person's, or it "
            "never came in: refused, dropped, or from before the rules were published."
        )
        return
    late = f", arrived {show_time(call.seen)}" if call.seen - call.time >= MINUTE else ""
    console.print(plain(f"{call.type} {call.message_id} at {show_time(call.time)}{late}"), style="bold")
    for one in doubt.decisions:
        console.print(plain(f"It did something: {_what(one)}, row {one.row}."), style="green")
    table = table_of("row", "instance", "verdict", "armed", "criteria and values")
    for row in doubt.rows:
        verdict = f"{row.verdict}: {row.why}" if row.why else row.verdict
        leaves = Text("\n").join([_leaf(one) for one in row.leaves])
        table.add_row(plain(row.row), (row.instance or "")[:SHORT_INSTANCE], plain(verdict), _armed(row), leaves)
    console.print(table)


def _armed(one: Checked) -> str:
    if one.begin is None:
        return ""
    end = "until it was sent" if one.end is None else show_time(one.end)
    return f"{show_time(one.begin)} to {end}" if one.end is not None else f"from {show_time(one.begin)} {end}"


def _leaf(leaf: Leaf) -> Text:
    text = plain(f"{'yes' if leaf.holds else 'no '} {leaf.text} (read: {_value(leaf.value)})")
    text.stylize("green" if leaf.holds else "red")
    return text


def _value(value: Value) -> str:
    return "nothing" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
