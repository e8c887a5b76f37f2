"""
The transport by way of the host: an effect is given to its ingestion as a call, and comes back through the transformer.

The call says only which effect it is. What is sent is looked up by that when it comes back (`handing`), so nobody can
forge a trigger; the host keeps the order per person, since the call's anonymousId is that of the effect's profile.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec.structs import replace

from emarsys_cdp.credentials import Secret
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.effect import Effect
from emarsys_cdp.emarsys.client import Client, NoAnswer, NotSent
from emarsys_cdp.outbox.direct import NO_KEY, attempt
from emarsys_cdp.outbox.fates import Again, Fate, Held, Never, Posted
from emarsys_cdp.outbox.pinning import Pinner
from emarsys_cdp.outbox.requests import Builds, Unsendable, actions_of
from emarsys_cdp.outbox.spaces import PolicyOf
from emarsys_cdp.outbox.transport import Leased, Tried
from emarsys_cdp.settings import PREFIX
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Json

EVENT: Final = "Emarsys CDP Effect"
"""Name of the track call that an effect is given to the host as."""

ANONYMOUS: Final = "ecdp-"
"""Beginning of its anonymousId; the profile's id follows."""

AT_ONCE: Final = 500
"""Calls of one request: a fifth of a megabyte, where a RudderStack gateway takes 4 MB (Gateway.maxReqSizeInKB)."""

_INTEGRATIONS: Final = {"All": False, "Emarsys": True}
"""The call is for Emarsys alone: other destinations of the source do not get it."""

_encode = msgspec.json.Encoder().encode


class Ingestion:
    """Gives effects to the host at *url*, with the write key of their space (under "": of all others)."""

    ordered = True

    def __init__(
        self,
        client: Client,
        url: str | None,
        keys: Mapping[str, Secret],
        directory: Directory,
        pinner: Pinner,
        policy: PolicyOf,
        builds: Builds,
        clock: Callable[[], int],
    ) -> None:
        self._client = client
        self._url = url
        self._keys = keys
        self._directory = directory
        self._pinner = pinner
        self._policy = policy
        self._builds = builds
        self._clock = clock

    def takes(self, space: str) -> bool:
        """Tell whether effects of a space can be given to the host."""
        return self._url is not None and self._key(space) is not None

    def _key(self, space: str) -> Secret | None:
        return self._keys.get(space) or self._keys.get("")

    async def send(self, space: str, leased: Sequence[Leased]) -> list[Tried]:
        """Pin effects and give them to the host; raises `StoreUnavailable`."""
        key, credentials = self._key(space), await self._directory.credentials(space)
        if self._url is None or key is None:
            reason = f"the transport host needs {PREFIX}INGEST_URL, and {PREFIX}INGEST_WRITE_KEY for this space"
            return [Tried(one.effect, Held(reason)) for one in leased]
        if credentials is None:
            return [Tried(one.effect, Again(NO_KEY)) for one in leased]
        policy = self._policy(space)
        found: list[Effect | Fate] = []
        for one in leased:
            pinned = await attempt(self._pinner.pin(one.effect, credentials, policy.timezone))
            found.append(self._checked(pinned, policy.create) if isinstance(pinned, Effect) else pinned)
        fates = await self._post([one for one in found if isinstance(one, Effect)], self._url, key)
        return [
            Tried(one, fates[one.id]) if isinstance(one, Effect) else Tried(before.effect, one)
            for before, one in zip(leased, found, strict=True)
        ]

    def _checked(self, effect: Effect, create: bool) -> Effect | Never:
        """
        Return an effect as the host will hand it back.

        Its contact is always made first, where that is allowed: the host may still have the call that makes it, in
        another of its queues, and nobody could do it when Emarsys has refused the effect.
        """
        effect = replace(effect, fresh=effect.fresh or create)
        try:
            actions_of(effect, create, self._builds)
        except Unsendable as error:
            return Never(str(error))
        return effect

    async def _post(self, effects: Sequence[Effect], url: str, key: Secret) -> dict[str, Fate]:
        """Post effects in their order; after a request that fails no other is sent, which might overtake it."""
        fates: dict[str, Fate] = {}
        failed: Fate | None = None
        for start in range(0, len(effects), AT_ONCE):
            part = effects[start : start + AT_ONCE]
            fate = failed or await self._request(part, url, key)
            failed = None if fate == Posted() else Again("the request before it failed")
            fates |= dict.fromkeys([one.id for one in part], fate)
        return fates

    async def _request(self, effects: Sequence[Effect], url: str, key: Secret) -> Fate:
        body = _encode({"batch": [call_of(one) for one in effects], "sentAt": iso_time(self._clock())})
        basic = b64encode(f"{key.reveal()}:".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        try:
            reply = await self._client.exchange("POST", f"{url}/v1/batch", headers, body)
        except NotSent as error:
            return Again(f"the host's ingestion could not be reached: {error}")
        except NoAnswer as error:
            return Posted(f"nobody knows whether the host's ingestion took it: {error}")
        if reply.status == HTTPStatus.OK:
            return Posted()
        advice = f"; check {PREFIX}INGEST_WRITE_KEY" if reply.status == HTTPStatus.UNAUTHORIZED else ""
        return Again(f"the host's ingestion answered with HTTP {reply.status}{advice}")


def call_of(effect: Effect) -> dict[str, Json]:
    """Return the call that an effect is given to the host as."""
    return {
        "type": "track",
        "event": EVENT,
        "anonymousId": f"{ANONYMOUS}{effect.pid}",
        "messageId": effect.id,
        "originalTimestamp": iso_time(effect.emitted),
        "properties": {"space": effect.space, "effect": effect.id},
        "integrations": _INTEGRATIONS,
    }
