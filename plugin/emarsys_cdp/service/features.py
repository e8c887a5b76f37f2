"""
The answer of GET /features, by which the host decides how it calls us.

The host takes any status but 404 for an answer, so there is none until the stock transformer gave one: see
`emarsys_cdp.droppable.drop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from emarsys_cdp.service.upstream import Upstream
from emarsys_cdp_hooks import Json

DESTINATION: Final = "EMARSYS"
"""Name of the host's destination definition."""

ALONE: Final[Mapping[str, Json]] = {
    "routerTransform": {},
    "regulations": [],
    "supportSourceTransformV1": True,
    "upgradedToSourceTransformV2": True,
    "supportTransformerProxyV1": True,
    "supportDestTransformCompactedPayloadV1": True,
}
"""Features of a service without a stock transformer; without the two about sources the host panics."""


def merge_features(stock: Mapping[str, Json] | None) -> dict[str, Json]:
    """Return the *stock* answer with Emarsys among the destinations of the router; None: we stand alone."""
    features = ALONE if stock is None else stock
    router = features.get("routerTransform")
    others = router if isinstance(router, dict) else {}
    given = features.get("regulations")
    regulations = given if isinstance(given, list) else []
    return {
        **features,
        "routerTransform": {**others, DESTINATION: True},
        "regulations": [*regulations, *({DESTINATION} - set(map(str, regulations)))],
    }


class FeaturesSource:
    """What GET /features answers, with *upstream* or alone (None)."""

    def __init__(self, upstream: Upstream | None) -> None:
        self._upstream = upstream
        self._stock: dict[str, Json] | None = None

    async def answer(self) -> dict[str, Json] | None:
        """
        Ask the stock transformer and return the merged answer, its last good one when it is down.

        None: it has never answered yet, and the caller drops the connection.
        """
        if self._upstream is None:
            return merge_features(None)
        self._stock = await self._upstream.features() or self._stock
        return None if self._stock is None else merge_features(self._stock)
