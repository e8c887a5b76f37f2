"""The parts of the service that make rules run: looking at people whose time has come, and asking the gate again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from msgspec import Struct

from emarsys_cdp.gate_again import GateAgain
from emarsys_cdp.merging import Merger
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.service.timers import Timers
from emarsys_cdp.shares import Shares
from emarsys_cdp.spaces import Spaces
from emarsys_cdp.store import Store
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.lifetimes import LifetimesOf
from emarsys_cdp.waking import Waker


class Ruling(Struct, frozen=True):
    """What runs rules beside the calls: looking at people, timers, and the gate for what is sent later."""

    waker: Waker
    timers: Timers
    again: GateAgain


def build_ruling(
    store: Store,
    namer: Namer,
    spaces: Spaces,
    lifetimes: LifetimesOf,
    metrics: Metrics,
    shares: Shares,
    first_revision: int,
    clock: Callable[[], int],
    forget: Callable[[str], None],
    posted: Callable[[], None],
) -> Ruling:
    """Return these parts. *forget* is told of people who were written, *posted* when something is to be sent."""
    revisions = count(first_revision)
    merger = Merger(store, namer, revisions, lifetimes)
    waker = Waker(store, namer, merger, revisions, spaces.rules, clock, forget)
    timers = Timers(store, waker, shares, metrics, clock, posted)
    return Ruling(waker, timers, GateAgain(spaces.rules))
