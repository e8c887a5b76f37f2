"""`FakeHost`, a stand-in for a RudderStack server, and the values that it tells of."""

from emarsys_cdp.testing.fake_host.calls import Refused
from emarsys_cdp.testing.fake_host.core import AsyncFakeHost, NotDrained
from emarsys_cdp.testing.fake_host.options import HostOptions
from emarsys_cdp.testing.fake_host.server import FakeHost
from emarsys_cdp.testing.fake_host.values import (
    QUICK_PACE,
    REAL_PACE,
    Consequence,
    Delivery,
    Job,
    JobState,
    Overtaking,
    Pace,
    SeenBreach,
)

__all__ = [
    "QUICK_PACE",
    "REAL_PACE",
    "AsyncFakeHost",
    "Consequence",
    "Delivery",
    "FakeHost",
    "HostOptions",
    "Job",
    "JobState",
    "NotDrained",
    "Overtaking",
    "Pace",
    "Refused",
    "SeenBreach",
]
