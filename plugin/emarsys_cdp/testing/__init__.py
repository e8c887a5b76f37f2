"""
What a test of a transformer needs; for extensions as well as for ourselves.

The checks say whether a RudderStack server would accept an answer, without one: give them the request, the
status, the headers and the body (not compressed), and hand what they find to `expect`.

    expect(check_router_answer(request, response.status_code, response.headers, response.content))

`FakeEmarsys` stands in for the Emarsys API, `FakeHost` for a RudderStack server: real ones, over HTTP. What needs a
server is imported when it is first used, so that this package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emarsys_cdp.testing.conformance import (
    check_batch_answer,
    check_processor_answer,
    check_router_answer,
    expect,
)
from emarsys_cdp.testing.conformance_types import Breach, Rule

if TYPE_CHECKING:
    from emarsys_cdp.testing.fake_emarsys import AcceptedEvent, FakeEmarsys, Fault, ReceivedRequest, Violation
    from emarsys_cdp.testing.fake_host import (
        QUICK_PACE,
        REAL_PACE,
        AsyncFakeHost,
        Consequence,
        Delivery,
        FakeHost,
        HostOptions,
        Job,
        JobState,
        NotDrained,
        Overtaking,
        Pace,
        Refused,
        SeenBreach,
    )

__all__ = [
    "QUICK_PACE",
    "REAL_PACE",
    "AcceptedEvent",
    "AsyncFakeHost",
    "Breach",
    "Consequence",
    "Delivery",
    "FakeEmarsys",
    "FakeHost",
    "Fault",
    "HostOptions",
    "Job",
    "JobState",
    "NotDrained",
    "Overtaking",
    "Pace",
    "ReceivedRequest",
    "Refused",
    "Rule",
    "SeenBreach",
    "Violation",
    "check_batch_answer",
    "check_processor_answer",
    "check_router_answer",
    "expect",
]

_LATER = {
    "QUICK_PACE": "fake_host",
    "REAL_PACE": "fake_host",
    "AcceptedEvent": "fake_emarsys",
    "AsyncFakeHost": "fake_host",
    "Consequence": "fake_host",
    "Delivery": "fake_host",
    "FakeEmarsys": "fake_emarsys",
    "FakeHost": "fake_host",
    "Fault": "fake_emarsys",
    "HostOptions": "fake_host",
    "Job": "fake_host",
    "JobState": "fake_host",
    "NotDrained": "fake_host",
    "Overtaking": "fake_host",
    "Pace": "fake_host",
    "ReceivedRequest": "fake_emarsys",
    "Refused": "fake_host",
    "SeenBreach": "fake_host",
    "Violation": "fake_emarsys",
}
"""Names to the modules here that they are imported from when they are first used."""


def __getattr__(name: str) -> Any:
    """Import what is not imported yet."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
