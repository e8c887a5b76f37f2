"""The direct transport: effects become requests of up to 1,000 contacts, which we send ourselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from emarsys_cdp.credentials import Credentials
from emarsys_cdp.delivery.deliverer import Deliverer, Parcel
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.delivery.parcel import RowOrigin, Sent
from emarsys_cdp.effect import Effect
from emarsys_cdp.emarsys.batch import emarsys_cdp_build_requests
from emarsys_cdp.emarsys.reply_rows import rows_of
from emarsys_cdp.emarsys.rows import part_of
from emarsys_cdp.outbox.fates import Again, Done, Fate, Held, Never, fate_of
from emarsys_cdp.outbox.names import Unknown
from emarsys_cdp.outbox.pinning import Pinner
from emarsys_cdp.outbox.requests import (
    ADD_TO_LIST,
    REMOVE_FROM_LIST,
    TRIGGER,
    Builds,
    Unsendable,
    actions_of,
    contact_of,
)
from emarsys_cdp.outbox.spaces import PolicyOf
from emarsys_cdp.outbox.transport import Leased, Tried
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import Action, Delivery, Request, RetryLater, Space

PATIENCE: Final = 5.0
"""Seconds to wait for a contact and for the budget each, before an effect is tried later."""

AT_ONCE: Final = 4
"""Requests of one space that are under way at the same time."""

MISSING_TRIES: Final = 5
"""A contact that was made and is still not there is waited for so often: Emarsys may need a moment."""

_log = structlog.get_logger("emarsys_cdp.outbox")

NO_KEY: Final = "no API Key of the space is known: it comes with the first call of the host"


class Direct:
    """Sends effects of a space with the API Key that it had last. *contact* names the contact with a key in a space."""

    ordered = False

    def __init__(
        self,
        deliverer: Deliverer,
        directory: Directory,
        pinner: Pinner,
        policy: PolicyOf,
        contact: Callable[[str, str], str],
        builds: Builds,
    ) -> None:
        self._deliverer = deliverer
        self._directory = directory
        self._pinner = pinner
        self._policy = policy
        self._contact = contact
        self._builds = builds

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:
        """Send effects and return what became of each; raises `StoreUnavailable`."""
        credentials = await self._directory.credentials(space)
        if credentials is None:
            return [Tried(one.effect, Again(NO_KEY)) for one in leased]
        policy = self._policy(space)
        batch = _Batch(self._deliverer, self._contact, space, credentials, policy.create)
        pinned: dict[int, Effect] = {}
        actions: dict[int, tuple[Action, ...]] = {}
        for index, one in enumerate(leased):
            fate = await attempt(self._pinner.pin(one.effect, credentials, policy.timezone))
            if isinstance(fate, Effect):
                pinned[index] = fate
                try:
                    actions[index] = actions_of(fate, policy.create, self._builds)
                    continue
                except Unsendable as error:
                    fate = Never(str(error))
            batch.fates[index] = fate
        await batch.send(leased, actions)
        return [Tried(pinned.get(index, one.effect), batch.fates[index]) for index, one in enumerate(leased)]


async def attempt(pinning: Awaitable[Effect]) -> Effect | Again | Held | Never:
    """Return a pinned effect, or what becomes of it because it cannot be pinned."""
    try:
        return await pinning
    except Unknown as error:
        return Held(str(error))
    except Unsendable as error:
        return Never(str(error))
    except RetryLater as error:
        return Again(str(error), error.at)


class _Batch:
    """The requests that the effects of one space take; *fates* are by the effects' index."""

    def __init__(
        self,
        deliverer: Deliverer,
        contact: Callable[[str, str], str],
        space: str,
        credentials: Credentials,
        create: bool,
    ) -> None:
        self._deliverer = deliverer
        self._contact = contact
        self._space = space
        self._credentials = credentials
        self._create = create
        self._free = asyncio.Semaphore(AT_ONCE)
        self._actions: Mapping[int, tuple[Action, ...]] = {}
        self._leased: Sequence[Leased] = ()
        self.fates: dict[int, Fate] = {}

    async def send(self, leased: Sequence[Leased], actions: Mapping[int, tuple[Action, ...]]) -> None:
        """Send the actions of effects, those of one effect one after another."""
        self._leased, self._actions = leased, actions
        if not actions:
            return
        space = Space(id=self._space, host="", key_field="")
        deliveries = emarsys_cdp_build_requests(space, list(actions.items()), merge=True)
        async with asyncio.TaskGroup() as tasks:
            for delivery in deliveries:
                tasks.create_task(self._deliver(delivery))

    async def _deliver(self, delivery: Delivery) -> None:
        async with self._free:
            left = list(delivery.calls)
            try:
                for position, request in enumerate(delivery.requests):
                    last = position == len(delivery.requests) - 1
                    found = await self._one(request, position, left)
                    self.fates |= found if last else {index: _early(fate) for index, fate in found.items()}
                    left = [index for index in left if isinstance(found[index], Done)]
            except Exception as error:  # noqa: BLE001 - a fault of ours must not cost the other requests
                _log.exception("effects_failed", space=self._space, effects=len(left))
                reason = f"a fault of emarsys-cdp ({type(error).__name__}); its log says more"
                self.fates |= {index: Again(reason, unclear=True) for index in left}

    async def _one(self, request: Request, position: int, indexes: Sequence[int]) -> dict[int, Fate]:
        """Send the rows of some effects; make contacts that are missing, and send their rows once more."""
        found = await self._rows(request, position, indexes)
        missing = [index for index, fate in found.items() if isinstance(fate, Never) and fate.missing]
        if not missing:
            return found
        wanted = [index for index in missing if self._may_make(index)]
        made = await self._make(wanted) if wanted else {}
        again = [index for index, fate in made.items() if isinstance(fate, Done)]
        second = await self._rows(request, position, again) if again else {}
        kept = {index: self._without_contact(index, found[index]) for index in missing if index not in made}
        late = {index: self._still_missing(index, fate) for index, fate in second.items()}
        return found | kept | {index: _early(fate) for index, fate in made.items()} | late

    def _may_make(self, index: int) -> bool:
        return self._create and self._leased[index].effect.do in (TRIGGER, ADD_TO_LIST)

    def _without_contact(self, index: int, fate: Fate) -> Fate:
        """Return the fate of an effect whose contact does not exist and is not made."""
        if self._leased[index].effect.do == REMOVE_FROM_LIST:
            return Done("there was nothing to remove: Emarsys has no contact with this key")
        if self._create or not isinstance(fate, Never):
            return fate
        return Never(f"{fate.reason}; the document's contacts.create does not let a rule make contacts", missing=True)

    def _still_missing(self, index: int, fate: Fate) -> Fate:
        if isinstance(fate, Never) and fate.missing and self._leased[index].stored.tries < MISSING_TRIES:
            return Again(f"{fate.reason}, though it was made just before")
        return fate

    async def _make(self, indexes: Sequence[int]) -> dict[int, Fate]:
        """Make the contacts of effects."""
        pairs = [(index, (contact_of(self._leased[index].effect),)) for index in indexes]
        found: dict[int, Fate] = {}
        for delivery in emarsys_cdp_build_requests(Space(id=self._space, host="", key_field=""), pairs, merge=True):
            keys = {index: self._leased[index].effect.key for index in delivery.calls}
            found |= await self._sent(delivery.requests[0], keys)
        return found

    async def _rows(self, request: Request, position: int, indexes: Sequence[int]) -> dict[int, Fate]:
        return await self._sent(request, {index: self._actions[index][position].key for index in indexes})

    async def _sent(self, request: Request, keys: Mapping[int, str]) -> dict[int, Fate]:
        """Send the rows of a request that have the keys of effects, and return the fate of each effect."""
        wanted = frozenset(keys.values())
        every = rows_of(request)
        rows = [row for row, key in enumerate(every) if key in wanted]
        if not rows:
            return {}
        part = request if len(rows) == len(every) else part_of(request, rows)
        chosen = [every[row] for row in rows]
        contacts = tuple([self._contact(self._space, key) for key in chosen])
        parcel = Parcel(self._space, self._credentials, part, contacts, (RowOrigin(),) * len(rows))
        try:
            outcomes = await self._deliverer.deliver(parcel, PATIENCE)
        except StoreUnavailable as error:  # nothing was sent
            return {index: Again(str(error)) for index in keys}
        sent: dict[str, Sent] = dict(zip(chosen, outcomes, strict=True))
        return {index: fate_of(sent[key]) for index, key in keys.items()}


def _early(fate: Fate) -> Fate:
    """Return the fate of an effect by what was sent before it: it itself has certainly not been taken then."""
    return Again(fate.reason, fate.at) if isinstance(fate, Again) else fate
