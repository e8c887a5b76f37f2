"""
Delivers what the host hands back to us for sending: `POST /v1/destinations/emarsys/proxy` and `/v0/...`.

A request is sent once, signed at that moment; repeating is the host's work. A 200 of Emarsys in which rows failed
becomes one status for each job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from emarsys_cdp.credentials import Credentials, OAuth, Secret, Wsse
from emarsys_cdp.delivery.deliverer import Deliverer, Parcel
from emarsys_cdp.delivery.missing import make_missing
from emarsys_cdp.delivery.pairing import DONE_SECONDS, Pairing, Pairings, Verdicts
from emarsys_cdp.delivery.parcel import RowOrigin, Sent
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.emarsys.reply_rows import rows_of
from emarsys_cdp.hosts.rudderstack import HOST
from emarsys_cdp.hosts.rudderstack.decode import has_template
from emarsys_cdp.hosts.rudderstack.proxy_form import (
    ABORTED,
    DELIVERED,
    LASTING,
    RETRY,
    Delivery,
    JobAnswer,
    Undeliverable,
    answer_of,
    encode_v0,
    encode_v1,
    read_delivery,
    worst,
)
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.spaces import Spaces
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp_hooks import StopAndFix

PATIENCE: Final = 5.0
"""Seconds to wait for a contact and for the budget each, before the host is told to come again."""

_SECRETS: Final = ("apiKey", "emersysUsername", "emersysUserSecret")

_log = structlog.get_logger("emarsys_cdp.rudderstack")
_canonical = msgspec.json.Encoder(order="deterministic").encode


class Proxy:
    """The delivery endpoint of one service."""

    def __init__(
        self, deliverer: Deliverer, pairings: Pairings, spaces: Spaces, metrics: Metrics, api_base: str
    ) -> None:
        self._deliverer = deliverer
        self._pairings = pairings
        self._spaces = spaces
        self._metrics = metrics
        self._api_base = api_base

    async def v1(self, body: bytes) -> bytes:
        """
        Deliver a request and answer for each job.

        Raises:
            DropCall: the request cannot be read, or is not for Emarsys.
            RetryLater: the store is out of order; nothing was sent.

        """
        try:
            delivery = read_delivery(body, self._api_base)
        except Undeliverable as error:
            return encode_v1(error.jobs, [JobAnswer(ABORTED, str(error))] * len(error.jobs))
        return encode_v1(delivery.jobs, await self._answers(delivery, one_for_all=False))

    async def v0(self, body: bytes) -> tuple[int, bytes]:
        """Deliver a request and answer for all jobs at once, with the HTTP status; raises as `v1`."""
        delivery = read_delivery(body, self._api_base)
        return encode_v0(await self._answers(delivery, one_for_all=True))

    async def _answers(self, delivery: Delivery, *, one_for_all: bool) -> list[JobAnswer]:
        """Return what the host learns of each job."""
        await self._pairings.want(delivery.space)
        try:
            credentials, space = self._sender_of(delivery)
        except StopAndFix as error:
            return [JobAnswer(ABORTED, f"destination {delivery.space}: {error}")] * len(delivery.jobs)
        keys = rows_of(delivery.request)
        numbers = [job.id for job in delivery.jobs]
        name = self._pairings.name(delivery.space, numbers, delivery.request.method, delivery.endpoint, keys)
        pairing = await self._pairings.find(name)
        if pairing is not None and len(pairing.rows) != len(keys):
            pairing = None
        if pairing is None and len(numbers) > 1 and not one_for_all:
            self._metrics.count_warning("rows_unknown")
            reason = "nobody knows any more which row is of which job; each is sent alone"
            return [JobAnswer(RETRY, reason, alone=True)] * len(numbers)
        origins = (RowOrigin(),) * len(keys) if pairing is None else pairing.rows
        contacts = tuple([self._pairings.contact(delivery.space, key) for key in keys])
        signed = None if space is not None else delivery.signed
        maps = () if space is None else space.maps
        parcel = Parcel(delivery.space, credentials, delivery.request, contacts, origins, maps, signed)
        sent = await self._deliverer.deliver(parcel, PATIENCE)
        if space is not None and space.stock is None and space.create == "always":
            sent = await make_missing(self._deliverer, parcel, sent, PATIENCE)
        self._count(delivery, sent)
        answers = self._by_job(numbers, origins, sent, known=pairing is not None)
        return answers if pairing is None else await self._finished(delivery.space, name, pairing, numbers, answers)

    def _sender_of(self, delivery: Delivery) -> tuple[Credentials, CompiledSpace | None]:
        """Return who sends, and the space; None when the settings take their values from calls that are gone."""
        config = delivery.config
        if any(has_template(config.get(name)) for name in _SECRETS):
            return _signer_of(delivery), None
        space = self._spaces.get(delivery.space, HOST, _canonical(config), config)
        return space.credentials, space

    @staticmethod
    def _by_job(
        numbers: Sequence[int], origins: Sequence[RowOrigin], sent: Sequence[Sent], *, known: bool
    ) -> list[JobAnswer]:
        """Return the answer of each job by its rows; where rows are not known, all of them are of every job."""
        of_rows = [answer_of(one) for one in sent]
        if not known:
            return [worst(of_rows)] * len(numbers)
        found: dict[int, list[JobAnswer]] = {}
        for origin, answer in zip(origins, of_rows, strict=True):
            for job in origin.jobs:
                found.setdefault(job, []).append(answer)
        lost = JobAnswer(RETRY, "the job has no row in its request; it is sent alone", alone=True)
        return [worst(found[number]) if number in found else lost for number in numbers]

    async def _finished(
        self, space: str, name: str, pairing: Pairing, numbers: Sequence[int], answers: list[JobAnswer]
    ) -> list[JobAnswer]:
        """Keep what the last request of an output has to tell as well, and let go of what is not needed any more."""
        final = [answer.status != LASTING and answer.status < RETRY for answer in answers]
        try:
            if pairing.more:
                pairs = zip(numbers, answers, strict=True)
                bad = [(number, one.status, one.error) for number, one in pairs if one.status != DELIVERED]
                await self._pairings.keep_verdicts(space, name, Verdicts(tuple(bad)))
            elif pairing.earlier:
                answers = _with_earlier(numbers, answers, await self._pairings.verdicts(space, pairing.earlier))
            if all(final):
                await self._pairings.keep(name, pairing, DONE_SECONDS)
        except StoreUnavailable as error:  # what was sent is sent: the host has to learn of it
            _log.warning("pairing_not_updated", space=space, reason=str(error))
        return answers

    def _count(self, delivery: Delivery, sent: Sequence[Sent]) -> None:
        for one in sent:
            self._metrics.count_delivery(delivery.request.path, type(one.outcome).__name__.lower())
        failed = [one for one in sent if answer_of(one).status != DELIVERED]
        if failed:
            _log.warning(
                "rows_not_delivered",
                space=delivery.space,
                path=delivery.request.path,
                rows=len(sent),
                failed=len(failed),
                reason=answer_of(failed[0]).error,
            )


def _with_earlier(numbers: Sequence[int], answers: list[JobAnswer], earlier: list[Verdicts]) -> list[JobAnswer]:
    """Return the answers of jobs with what became of them in earlier requests: the host looks at the last ones only."""
    bad = {job: JobAnswer(status, error) for verdicts in earlier for job, status, error in verdicts.jobs}
    return [worst([one, bad[number]]) if number in bad else one for number, one in zip(numbers, answers, strict=True)]


def _signer_of(delivery: Delivery) -> Credentials:
    """Return who has signed a request whose API Key came from a call; its secret is not needed any more."""
    for name, value in delivery.signed.items():
        if name.lower() == "x-wsse":
            return Wsse(value.partition('Username="')[2].partition('"')[0] or "unknown", Secret(""))
        return OAuth(delivery.space, Secret(""))
    raise StopAndFix("the API Key is taken from each call, and the request has no signature: it has to be made anew")
