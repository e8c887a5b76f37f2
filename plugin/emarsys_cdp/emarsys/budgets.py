"""The budgets of all API users, shared by all workers through the store."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.emarsys.budget import Budget, Granted, Report, Wait, report, reserve, state, used
from emarsys_cdp.store import Store
from emarsys_cdp.store.cells import Cells


class Health(Struct, frozen=True):
    """What /ready and /metrics show of an API user. *used* of *limit* requests count now; *circuit* is a word."""

    user: str
    circuit: str
    used: int
    limit: int
    reason: str = ""


class Budgets:
    """
    Asks for and gives back the right to send one request.

    API users are given by a hash. *clock* gives ms since 1970 UTC, *jitter* numbers between 0 and 1, *writer* a
    text of this worker that no other worker has.
    """

    def __init__(self, store: Store, clock: Callable[[], int], jitter: Callable[[], float], writer: str) -> None:
        self._cells = Cells(store, Budget, Budget())
        self._clock = clock
        self._jitter = jitter
        self._writer = writer
        self._users: dict[str, None] = {}

    async def reserve(self, user: str, space: str) -> Granted | Wait:
        """Ask to send one request of a space; raises `StoreUnavailable`."""
        self._users[user] = None

        def decide(budget: Budget) -> tuple[Budget, Granted | Wait]:
            changed, answer = reserve(budget, space, self._clock())
            return replace(changed, writer=self._writer), answer

        return await self._cells.change(user, decide)

    async def report(self, user: str, granted: Granted, found: Report) -> None:
        """Tell what a request has shown; raises `StoreUnavailable`."""
        jitter = self._jitter()

        def decide(budget: Budget) -> tuple[Budget, None]:
            changed = report(budget, granted, found, self._clock(), jitter)
            return replace(changed, writer=self._writer), None

        await self._cells.change(user, decide)

    def health(self) -> list[Health]:
        """Return the state of every API user that this worker has sent for, as it was seen last."""
        return [self._health(user) for user in self._users]

    def _health(self, user: str) -> Health:
        budget, now = self._cells.last(user), self._clock()
        _, answer = reserve(budget, "", now)
        reason = answer.reason if isinstance(answer, Wait) else ""
        return Health(user, state(budget, now), used(budget, now), budget.limit, reason)
