"""Sweeps beside a running service: now and then, by whichever worker comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from emarsys_cdp.metrics import Metrics
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.sweeping import KEYS_A_SECOND, Sweeper, Swept, SweptElsewhere

LOOK_SECONDS: Final = 600.0
"""A worker asks this often whether a sweep is due, more or less: workers that start together do not ask together."""

_log = structlog.get_logger("emarsys_cdp.sweeps")


class Sweeps:
    """
    Sweeps the users table whenever it is due and no other worker does.

    *chance* gives numbers from 0 to 1, *look_seconds* and *keys_a_second* are those of this module and `sweeping`.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        metrics: Metrics,
        chance: Callable[[], float],
        look_seconds: float = LOOK_SECONDS,
        keys_a_second: float = KEYS_A_SECOND,
    ) -> None:
        self._sweeper = sweeper
        self._metrics = metrics
        self._chance = chance
        self._look_seconds = look_seconds
        self._keys_a_second = keys_a_second
        self._counted = Swept()

    async def run(self) -> None:
        """Look for a sweep to do until cancelled."""
        while True:
            await asyncio.sleep(self._look_seconds * (0.5 + self._chance()))
            try:
                if await self._sweeper.is_due():
                    await self._sweep()
            except StoreUnavailable as error:
                _log.warning("sweep_cut_short", reason=str(error))
            except Exception:  # noqa: BLE001 - the next sweep has to come all the same
                _log.exception("sweep_failed")

    async def _sweep(self) -> None:
        self._counted = Swept()
        outcome = "cut_short"
        self._metrics.show_sweeping(True)
        try:
            swept = await self._sweeper.run(self._keys_a_second, self._count)
        except SweptElsewhere:
            outcome = "cut_short" if self._counted.keys else "elsewhere"
        else:
            outcome = "whole"
            _log.info(
                "users_table_swept",
                people=swept.people,
                rows=swept.rows,
                removed=swept.removed,
                finished=swept.finished,
                mended=swept.mended,
                keys=swept.keys,
                seconds=round(swept.seconds, 1),
            )
        finally:
            self._metrics.show_sweeping(False)
            if outcome != "elsewhere":
                self._metrics.count_sweep(outcome)

    def _count(self, so_far: Swept) -> None:
        before, self._counted = self._counted, so_far
        self._metrics.count_swept(
            so_far.keys - before.keys,
            so_far.removed - before.removed,
            so_far.finished - before.finished,
            so_far.mended - before.mended,
        )
