"""
How many requests an API user may send, and whether Emarsys is well enough to be sent any. Pure.

The limit is Emarsys' own: so many requests a minute and API user, 1,000 unless its answers say otherwise. A request
counts from its grant until a minute after its answer, so however long it was on its way, no minute of Emarsys' clock
sees more than the limit. Spaces that share an API user share its requests fairly; what one does not use is the others'.

When requests fail one after another the circuit opens: nothing is sent for a while, then one request alone tries.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

DEFAULT_LIMIT = 1000
"""Requests a minute and API user, unless the answers say otherwise (Core API guide, Miscellaneous)."""

WINDOW = 60_000
"""The limit's minute, in milliseconds."""

FLIGHT = 20_000
"""A request is answered or given up within this many ms; one whose worker died counts as answered then."""

MAX_PAUSE = 600_000
"""A time to wait that Emarsys names is believed up to ten minutes: beyond it the clocks must differ."""

BREAK_AFTER = 5
"""Failures in a row, without a success between them, that open the circuit."""

FIRST_BREAK, LONGEST_BREAK = 1_000, 60_000
"""Milliseconds that the circuit stays open: at first, and at most; doubled from failure to failure."""

FIRST_PAUSE = 2_000
"""Milliseconds after a 429 that names no time; doubled from one to the next."""

WAITING = 3_000
"""A space that was refused within these ms is still waiting for its share."""


class Share(Struct, frozen=True, array_like=True):
    """What one space has sent: (second since 1970 from which it counts, requests) pairs; *refused* in ms since 1970."""

    space: str
    sent: tuple[tuple[int, int], ...] = ()
    refused: int = 0

    def count(self) -> int:
        """Return the requests that count."""
        return sum(number for _, number in self.sent)


class Budget(Struct, frozen=True, array_like=True):
    """
    The state of one API user, shared by all workers. Times are ms since 1970 UTC.

    *left* are the requests that Emarsys says are left until *left_until*: other programs use the API user too.
    *writer* makes the states that two workers compute at the same time differ.
    """

    limit: int = DEFAULT_LIMIT
    shares: tuple[Share, ...] = ()
    granted: int = 0
    left: int | None = None
    left_until: int = 0
    paused_until: int = 0
    pauses: int = 0
    failures: int = 0
    open_until: int = 0
    probe_until: int = 0
    writer: str = ""


class Granted(Struct, frozen=True):
    """A request may be sent now; goes back with its `Report`. *serial* counts the grants of the API user."""

    space: str
    second: int
    serial: int


class Wait(Struct, frozen=True):
    """Nothing may be sent before *until* (ms since 1970); *reason* says why."""

    until: int
    reason: str


class Report(Struct, frozen=True):
    """
    What a sent request has shown: *failed* (no answer, or one of an outage), *limited* (429), and the rate headers.

    *reset* is in ms since 1970 UTC.
    """

    failed: bool = False
    limited: bool = False
    limit: int | None = None
    left: int | None = None
    reset: int | None = None


def reserve(budget: Budget, space: str, now: int) -> tuple[Budget, Granted | Wait]:
    """Return the state after a space asked to send one request, and whether it may."""
    budget = _current(budget, now)
    mine = next((share for share in budget.shares if share.space == space), Share(space))
    wait = _wait(budget, mine, now)
    if wait is not None:
        return _with(budget, replace(mine, refused=now)), wait
    second = (now + FLIGHT) // 1000
    half_open = budget.failures >= BREAK_AFTER
    granted = replace(
        _with(budget, replace(mine, sent=_counted(mine.sent, second, 1))),
        granted=budget.granted + 1,
        left=None if budget.left is None else budget.left - 1,
        probe_until=now + FLIGHT if half_open else 0,
    )
    return granted, Granted(space, second, granted.granted)


def report(budget: Budget, granted: Granted, found: Report, now: int, jitter: float) -> Budget:
    """Return the state after a request was answered or given up. *jitter* is between 0 and 1."""
    budget = _learned(_moved(budget, granted, now), granted, found, now)
    if found.failed:
        if budget.open_until > now:
            return budget  # one of several in flight when the circuit opened: it tells nothing new
        failures = budget.failures + 1
        delay = min(LONGEST_BREAK, FIRST_BREAK * 2 ** min(max(0, failures - BREAK_AFTER), 16))
        open_until = now + _spread(delay, jitter) if failures >= BREAK_AFTER else budget.open_until
        return replace(budget, failures=failures, open_until=open_until, probe_until=0)
    budget = replace(budget, failures=0, open_until=0, probe_until=0)
    if not found.limited:
        return replace(budget, pauses=0)
    delay = min(WINDOW, FIRST_PAUSE * 2 ** min(budget.pauses, 16))
    named = None if found.left else _believed(found.reset, now)  # with requests left it was not the limit
    until = named or now + _spread(delay, jitter)
    return replace(budget, pauses=budget.pauses + 1, paused_until=max(until, budget.paused_until))


def state(budget: Budget, now: int) -> str:
    """Return the state of the circuit in one word: closed, open, half-open."""
    if budget.failures < BREAK_AFTER:
        return "closed"
    return "open" if budget.open_until > now else "half-open"


def used(budget: Budget, now: int) -> int:
    """Return how many requests count against the limit now."""
    return sum(share.count() for share in _current(budget, now).shares)


def _wait(budget: Budget, mine: Share, now: int) -> Wait | None:
    """Return why a space has to wait, None when it need not."""
    if budget.open_until > now:
        return Wait(budget.open_until, f"Emarsys failed {budget.failures} times in a row; the next try is due then")
    if budget.probe_until > now:
        return Wait(min(budget.probe_until, now + 1000), "Emarsys failed, and one request alone tries it just now")
    if budget.paused_until > now:
        return Wait(budget.paused_until, "Emarsys answered that there were too many requests (429)")
    if budget.left is not None and budget.left <= 0:
        return Wait(budget.left_until, "Emarsys says that no requests are left in this minute")
    if sum(share.count() for share in budget.shares) >= budget.limit:
        return Wait(_free(budget, now), f"the limit of {budget.limit} requests a minute is reached")
    if _over_its_share(budget, mine, now):
        return Wait(now + 1000, "other spaces of the same API user are waiting for their share")
    return None


def _over_its_share(budget: Budget, mine: Share, now: int) -> bool:
    """Tell whether a space has had its share while another one, which has not, is waiting."""
    active = [share for share in budget.shares if share.sent or share.refused > now - WAITING]
    fair = budget.limit / max(1, len(active))
    return mine.count() >= fair and any(
        share.refused > now - WAITING and share.count() < fair for share in active if share.space != mine.space
    )


def _free(budget: Budget, now: int) -> int:
    """Return when the first of the requests that count does so no more."""
    first = min((second for share in budget.shares for second, _ in share.sent), default=now // 1000)
    return max(now + 1, (first + 1) * 1000 + WINDOW)


def _current(budget: Budget, now: int) -> Budget:
    """Return the state without what does not count any more."""
    oldest = (now - WINDOW) // 1000
    shares = tuple(
        replace(share, sent=tuple([pair for pair in share.sent if pair[0] >= oldest])) for share in budget.shares
    )
    kept = tuple([share for share in shares if share.sent or share.refused > now - WAITING])
    known = budget.left is not None and budget.left_until > now
    return replace(budget, shares=kept, left=budget.left if known else None)


def _with(budget: Budget, mine: Share) -> Budget:
    others = [share for share in budget.shares if share.space != mine.space]
    return replace(budget, shares=(*others, mine))


def _moved(budget: Budget, granted: Granted, now: int) -> Budget:
    """Let an answered request count from now on instead of from the end of the time it was given."""
    mine = next((share for share in budget.shares if share.space == granted.space), Share(granted.space))
    if not any(second == granted.second for second, _ in mine.sent):
        return budget
    sent = _counted(_counted(mine.sent, granted.second, -1), min(now // 1000, granted.second), 1)
    return _with(budget, replace(mine, sent=sent))


def _counted(sent: tuple[tuple[int, int], ...], second: int, change: int) -> tuple[tuple[int, int], ...]:
    counts = dict(sent)
    counts[second] = counts.get(second, 0) + change
    return tuple(sorted((one, number) for one, number in counts.items() if number > 0))


def _learned(budget: Budget, granted: Granted, found: Report, now: int) -> Budget:
    """Take over what the answer's headers say about the limit."""
    if found.limit is not None and found.limit > 0:
        budget = replace(budget, limit=found.limit)
    reset = _believed(found.reset, now)
    if found.left is None or reset is None:
        return budget
    since = budget.granted - granted.serial  # granted after this request: the answer does not know of them
    left = max(0, found.left - since)
    if budget.left is not None and budget.left_until >= reset:
        left = min(left, budget.left)
    return replace(budget, left=left, left_until=reset)


def _believed(reset: int | None, now: int) -> int | None:
    """Return a time that Emarsys named if it can be true."""
    return reset if reset is not None and now < reset <= now + MAX_PAUSE else None


def _spread(delay: int, jitter: float) -> int:
    """Return a delay between half of it and all of it."""
    return int(delay * (0.5 + jitter / 2))
