"""Which transport the effects of a space take."""

from __future__ import annotations

from collections.abc import Callable

from emarsys_cdp.outbox.direct import Direct
from emarsys_cdp.outbox.ingestion import Ingestion
from emarsys_cdp.outbox.spaces import DIRECT, HOST, PolicyOf
from emarsys_cdp.outbox.transport import Transport


def transport_of(direct: Direct, ingestion: Ingestion, policy: PolicyOf) -> Callable[[str], Transport]:
    """
    Return the way of the effects of each space: as its document says, else by the host where that is set up.

    What is returned raises RetryLater for a space whose document has been invalid since the start.
    """

    def choose(space: str) -> Transport:
        wanted = policy(space).transport
        if wanted == HOST or (wanted != DIRECT and ingestion.takes(space)):
            return ingestion
        return direct

    return choose
