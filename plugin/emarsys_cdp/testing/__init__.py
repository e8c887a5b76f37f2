"""
What a test of a transformer needs; for extensions as well as for ourselves.

The checks say whether a RudderStack server would accept an answer, without one: give them the request, the
status, the headers and the body (not compressed), and hand what they find to `expect`.

    expect(check_router_answer(request, response.status_code, response.headers, response.content))
"""

from emarsys_cdp.testing.conformance import (
    check_batch_answer,
    check_processor_answer,
    check_router_answer,
    expect,
)
from emarsys_cdp.testing.conformance_types import Breach, Rule

__all__ = [
    "Breach",
    "Rule",
    "check_batch_answer",
    "check_processor_answer",
    "check_router_answer",
    "expect",
]
