"""The client of the transformer: features, router and processor transforms, and what is tried again here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from emarsys_cdp.testing.conformance_types import Breach, Json
from emarsys_cdp.testing.fake_host.backoff import is_final
from emarsys_cdp.testing.fake_host.http_client import Address, HttpClient, NoAnswer, Response
from emarsys_cdp.testing.fake_host.requests import Item, processor_request, router_request
from emarsys_cdp.testing.fake_host.run import Run
from emarsys_cdp.testing.fake_host.values import Consequence
from emarsys_cdp.testing.fake_host.verdict import (
    Found,
    Output,
    Verdict,
    judge_processor,
    judge_router,
    processor_breaches,
)

ROUTER: Final = "/routerTransform"
BATCH: Final = "/batch"
FEATURES: Final = "/features"

MAX_RETRIES: Final = 30
"""Processor.maxRetry: after so many tries again the server ends itself."""
FEATURES_TIMEOUT: Final = 30.0
_BACKOFF_FACTOR: Final = 1.5
_HEADERS: Final = {
    "User-Agent": "Go-http-client/1.1",
    "Content-Type": "application/json; charset=utf-8",
    "X-Feature-Gzip-Support": "?1",
    "X-Feature-Filter-Code": "?1",
}


class HostRule(StrEnum):
    """Rules that are broken by more than one answer, numbered as those of `emarsys_cdp.testing.Rule`."""

    REACHABLE = "1.3-5 the transformer can be reached"
    PROCESSOR_ANSWERS = "1.4 an end to 408, 429 and 5xx"
    FEATURES = "1.7 features are a 200, or no answer at all"
    SOURCE_TRANSFORM = "1.7 features say how sources are transformed"
    PROXY_JOBS = "1.5 every jobId once in the proxy's answer"
    PROXY_FORM = "1.5 the proxy's answer can be read"
    PROXY_FOUND = "1.5 the proxy's status is never 404"


class Features(Struct, frozen=True):
    """What the transformer can do: *router* are the kinds of destination that it transforms at the router."""

    router: frozenset[str] = frozenset({"MARKETO", "HS"})
    proxy_v1: bool = False
    compacted: bool = False


class _Features(Struct, rename="camel"):
    router_transform: dict[str, Json] | None = None
    support_transformer_proxy_v1: bool = msgspec.field(name="supportTransformerProxyV1", default=False)
    compacted: bool = msgspec.field(name="supportDestTransformCompactedPayloadV1", default=False)
    source_v1: bool = msgspec.field(name="supportSourceTransformV1", default=False)
    source_v2: bool = msgspec.field(name="upgradedToSourceTransformV2", default=False)


class Transformer:
    """The transformer of a host; *compacted*: in that form where the transformer can read it."""

    def __init__(self, address: Address, client: HttpClient, run: Run, *, compacted: bool) -> None:
        self.address = address
        self.features = Features()
        self._client = client
        self._run = run
        self._wants_compacted = compacted

    async def read_features(self) -> None:
        """Read the features, once for the whole run, as soon as there is an answer (reference 1.7)."""
        while True:
            try:
                headers = {"User-Agent": _HEADERS["User-Agent"], **self.address.authorization}
                url = self.address.base + FEATURES
                response = await self._client.request("GET", url, headers, None, FEATURES_TIMEOUT)
            except NoAnswer as error:
                self._run.standstill = f"GET {FEATURES}: {error}"
                await asyncio.sleep(self._run.pace.features_sleep)
                continue
            self.features = self._features_of(response)
            self._run.standstill = ""
            return

    def _features_of(self, response: Response) -> Features:
        if response.status == HTTPStatus.NOT_FOUND:
            return Features()
        if response.status != HTTPStatus.OK:
            breach = Breach(
                HostRule.FEATURES, f"the status is {response.status}: counts as features with nothing in it"
            )
            self._run.breach(FEATURES, breach, Consequence.NOTED)
            return Features()
        try:
            said = msgspec.json.decode(response.body, type=_Features)
        except msgspec.MsgspecError as error:
            self._run.breach(FEATURES, Breach(HostRule.FEATURES, f"they cannot be read: {error}"), Consequence.NOTED)
            said = _Features()
        if not said.source_v1 and not said.source_v2:
            what = "upgradedToSourceTransformV2 or supportSourceTransformV1 must be true"
            self._run.breach(FEATURES, Breach(HostRule.SOURCE_TRANSFORM, what), Consequence.PANIC)
        router = frozenset(name for name, able in (said.router_transform or {}).items() if able is True)
        return Features(router, said.support_transformer_proxy_v1, said.compacted)

    @property
    def compacted(self) -> bool:
        """Tell in which form requests are sent."""
        return self._wants_compacted and self.features.compacted

    async def router(self, items: Sequence[Item], *, batch: bool = False) -> Verdict:
        """Transform jobs of the router; there is no end to it before the transformer has answered."""
        path, body = BATCH if batch else ROUTER, router_request(items, compacted=self.compacted)
        records, tries = [item.record for item in items], 0
        while True:
            try:
                response = await self._post(path, items, body)
                break
            except NoAnswer as error:
                tries += 1
                self._waiting(path, items, str(error))
                if tries > MAX_RETRIES and tries % MAX_RETRIES == 1:
                    breach = Breach(HostRule.REACHABLE, f"{tries} tries in vain: {error}")
                    self._run.breach(path, breach, Consequence.PANIC, records)
                await asyncio.sleep(self._run.pace.connection_sleep)
        verdict = judge_router(records, body, response, batch=batch)
        self._note(path, verdict.found, items)
        return verdict

    async def processor(self, items: Sequence[Item]) -> tuple[Output, ...]:
        """Transform jobs of one source and destination at the processor stage; there is no end to it before that."""
        path = f"/v0/destinations/{items[0].destination.type}"
        body, pace = processor_request(items, compacted=self.compacted), self._run.pace
        tries = asked = 0
        while True:
            try:
                response = await self._post(path, items, body)
            except NoAnswer as error:
                reason = str(error)
            else:
                if is_final(response.status):
                    verdict = self._ended(path, items, body, response)
                    if not verdict.panicked:
                        return verdict.outputs
                    await asyncio.sleep(pace.min_backoff)
                    continue
                reason = f"HTTP {response.status}"
                if _asks_for_retry(response):
                    asked += 1
                    self._waiting(path, items, f"{reason} with X-Rudder-Should-Retry")
                    await asyncio.sleep(_multiplied(pace.should_retry_min, pace.should_retry_max, asked, 2.0))
                    continue
                self._note(path, processor_breaches(body, response), items)
            self._waiting(path, items, reason)
            tries = self._tried(path, items, tries + 1, reason)
            wait = _multiplied(pace.processor_min_backoff, pace.processor_max_backoff, tries, _BACKOFF_FACTOR)
            await asyncio.sleep(wait)

    def _ended(self, path: str, items: Sequence[Item], body: bytes, response: Response) -> Verdict:
        verdict = judge_processor([item.record for item in items], body, response)
        self._note(path, verdict.found, items)
        return verdict

    def _tried(self, path: str, items: Sequence[Item], tries: int, reason: str) -> int:
        """Return the number of tries, none when there were so many that the server has ended itself meanwhile."""
        if tries <= MAX_RETRIES:
            return tries
        breach = Breach(HostRule.PROCESSOR_ANSWERS, f"{tries} tries in vain: {reason}")
        self._run.breach(path, breach, Consequence.PANIC, [item.record for item in items])
        return 0

    async def _post(self, path: str, items: Sequence[Item], body: bytes) -> Response:
        headers = {**_HEADERS, **self.address.authorization}
        if self.compacted:
            headers["X-Content-Format"] = "json+compactedv1"
        for item in items:
            item.record.error = f"in POST {path}"
        sent = self._run.seconds()
        response = await self._client.request(
            "POST", self.address.base + path, headers, body, self._run.pace.transform_timeout
        )
        self._run.store.transforms += 1
        for item in items:
            item.record.transforms.append(sent)
        return response

    def _note(self, path: str, found: Iterable[Found], items: Iterable[Item]) -> None:
        records = [item.record for item in items]
        for one in found:
            self._run.breach(path, one.breach, one.consequence, records)

    @staticmethod
    def _waiting(path: str, items: Iterable[Item], reason: str) -> None:
        for item in items:
            item.record.error = f"POST {path}: {reason}"


def _asks_for_retry(response: Response) -> bool:
    asks: Mapping[str, str] = response.headers
    return response.status == HTTPStatus.SERVICE_UNAVAILABLE and asks.get("x-rudder-should-retry") == "true"


def _multiplied(low: float, high: float, tries: int, factor: float) -> float:
    return float(min(high, low * factor ** min(max(tries - 1, 0), 64)))
