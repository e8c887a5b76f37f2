"""What was known of a person at a moment, in event-time order (semantics 2.7, scope profile). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from emarsys_cdp.rules.book import Logged
from emarsys_cdp.rules.criteria import Values
from emarsys_cdp_hooks import StoredValue, Value

Moment: TypeAlias = tuple[int, str]
"""Event time (ms) and messageId: the order of the calls of a person."""

AT_THE_END = "\uffff"
"""A messageId after all others: (time, AT_THE_END) is after every call of that time."""


def known(base: Mapping[str, StoredValue], log: Sequence[Logged], until: Moment) -> dict[str, Value]:
    """Return the last value of each data map at a moment, that of the call of this moment included."""
    versions: dict[str, Moment] = {}
    values: dict[str, Value] = {}
    for name, stored in base.items():
        moment = stored.event_time, stored.message_id
        if moment <= until:
            versions[name], values[name] = moment, stored.value
    for call in log:
        moment = call.time, call.message_id
        if moment > until:
            break
        for name, value in call.values.items():
            if name not in versions or versions[name] <= moment:
                versions[name], values[name] = moment, value
    return values


def before(base: Mapping[str, StoredValue], log: Sequence[Logged], call: Logged) -> Values:
    """Return the last values before a call of the log."""
    moment = call.time, call.message_id
    earlier = {name: one for name, one in base.items() if (one.event_time, one.message_id) < moment}
    return known(earlier, log[: log.index(call)], moment)
