"""
The gate once more, for effects that leave the outbox long after it let them pass: an outage, or a host that waits.

The settings in force then count (design.md section 1). Times in ms since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable

from emarsys_cdp.effect import Effect
from emarsys_cdp.outbox.transport import Objection
from emarsys_cdp.rules.gate import quiet_until
from emarsys_cdp.rules.pattern import ARCHIVED
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp_hooks import RetryLater

MINUTE = 60_000


class GateAgain:
    """Asks the gates of *rules_of* a space."""

    def __init__(self, rules_of: Callable[[str], RuleSet | None]) -> None:
        self._rules_of = rules_of

    def __call__(self, effect: Effect, now: int) -> Objection | None:
        """Return why an effect is not sent now, None when it may be."""
        try:
            rules = self._rules_of(effect.space)
        except RetryLater as error:
            return Objection(str(error), now + MINUTE)
        gate = None if rules is None else rules.gates.get(effect.rule)
        if gate is None or gate.status == ARCHIVED:
            return Objection(f"the rule {effect.rule} is archived")
        if now > effect.emitted + gate.late_max:
            return Objection(f"it is later than lateFireMax of the rule {effect.rule} allows")
        until = None if gate.quiet is None else quiet_until(gate.quiet, effect.zone, now)
        return None if until is None else Objection(f"quiet hours of the rule {effect.rule}", until)
