"""Answers the host's requests: groups jobs by destination, has them processed, and puts the answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from emarsys_cdp.calls import make_call
from emarsys_cdp.delivery.directory import Directory
from emarsys_cdp.delivery.origins import pairings_of
from emarsys_cdp.delivery.pairing import Pairings
from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.hosts.rudderstack import HOST, encode
from emarsys_cdp.hosts.rudderstack.decode import (
    Destination,
    Job,
    PartialReader,
    canonical,
    decode,
    is_request,
    read_message,
)
from emarsys_cdp.hosts.rudderstack.dynamic_config import resolve
from emarsys_cdp.outbox.handing import Ask, Handing, is_ask, read_ask
from emarsys_cdp.pipeline import Answer, Pipeline, Subject
from emarsys_cdp.spaces import Spaces
from emarsys_cdp.store import StoreUnavailable
from emarsys_cdp.values.times import parse_time, parse_usual_time
from emarsys_cdp_hooks import Call, Filtered, Postponed, Refused, RetryLater, StopAndFix

_log = structlog.get_logger("emarsys_cdp.rudderstack")


ROUTER, PROCESSOR = "router", "processor"
"""Stages at which the host has calls transformed."""


class NeedsWhole(Exception):
    """A call that was decoded in part has to be decoded whole."""


Settled = dict[int, Refused | Filtered | Postponed]


class _Group:
    """The jobs of one request for the same destination, and its space; *asks* are those that hand effects back."""

    def __init__(self, space: CompiledSpace, destination: Destination) -> None:
        self.space = space
        self.destination = destination
        self.calls: list[Call] = []
        self.asks: list[tuple[Call, Ask]] = []
        self.alone: set[int] = set()

    def singles(self) -> list[_Group]:
        """Return a group for each of the jobs."""
        groups = []
        for call in self.calls:
            groups.append(_Group(self.space, self.destination))
            groups[-1].calls = [call]
        for ask in self.asks:
            groups.append(_Group(self.space, self.destination))
            groups[-1].asks = [ask]
        return groups


class RudderStack:
    """
    The three transform endpoints; *clock* gives milliseconds since 1970 UTC.

    *whole*: calls are read whole, for extensions; otherwise only those parts that the built-in steps look at.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        spaces: Spaces,
        pairings: Pairings,
        directory: Directory,
        handing: Handing,
        clock: Callable[[], int],
        *,
        whole: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._pairings = pairings
        self._directory = directory
        self._handing = handing
        self._whole = whole
        self._partial: PartialReader | None = None
        self._spaces = spaces
        self._clock = clock

    async def router(self, body: bytes) -> bytes:
        """
        Answer `POST /routerTransform`.

        Raises:
            DropCall: the request cannot be read.

        """
        jobs, groups, settled = self._take(body, array=False)
        return encode.encode({"output": await self._route(jobs, groups, settled)})

    async def batch(self, body: bytes) -> bytes:
        """
        Answer `POST /batch`: requests of the processor stage pass as they are, calls as in `router`.

        Raises:
            DropCall: the request cannot be read.

        """
        jobs = decode(body, array=False)
        made = [job for job in jobs if job.error is None and is_request(job.message)]
        numbers = {job.index for job in made}
        groups, settled = self._groups([job for job in jobs if job.index not in numbers], ROUTER)
        return encode.encode([*map(encode.passed_output, made), *await self._route(jobs, groups, settled)])

    async def processor(self, body: bytes) -> bytes:
        """
        Answer `POST /v0/destinations/emarsys`, in the order of the events.

        Raises:
            DropCall: the request cannot be read.
            RetryLater: the whole request has to come again: at this stage a failed event is lost.

        """
        jobs, groups, settled = self._take(body, array=True)
        outputs: dict[int, list[dict[str, Any]]] = {}
        for group in groups:
            for answer in await self._process(group, merge=False):
                settled |= answer.settled
                for outgoing in answer.outgoing:
                    index = outgoing.calls[0]
                    outputs[index] = encode.processor_outputs(outgoing, jobs[index])
        for index, decision in settled.items():
            if isinstance(decision, Postponed):
                raise RetryLater(decision.reason)
            outputs[index] = [encode.settled_output(jobs[index], decision, PROCESSOR)]
        return encode.encode([output for job in jobs for output in outputs[job.index]])

    async def _route(self, jobs: Sequence[Job], groups: Sequence[_Group], settled: Settled) -> list[dict[str, Any]]:
        """Return the router outputs of the groups and the settled jobs; *jobs* are all of the request."""
        outputs: list[dict[str, Any]] = []
        for group in groups:
            try:
                answers = await self._process(group, merge=True)
            except RetryLater as error:
                every = [*group.calls, *(call for call, _ in group.asks)]
                settled |= {call.index: Postponed(str(error)) for call in every}
                continue
            for answer in answers:
                settled |= answer.settled
                outputs += [
                    encode.router_output(outgoing, [jobs[index] for index in outgoing.calls])
                    for outgoing in answer.outgoing
                ]
                await self._pair(group, answer, jobs)
        return outputs + [encode.settled_output(jobs[index], decision, ROUTER) for index, decision in settled.items()]

    async def _pair(self, group: _Group, answer: Answer, jobs: Sequence[Job]) -> None:
        """Keep which row is of which job, for a host that hands the requests back to us for sending."""
        space = group.space.id
        try:
            if not answer.outgoing or not await self._pairings.wanted(space):
                return
        except StoreUnavailable as error:  # the jobs come one by one then
            _log.warning("rows_not_kept", space=space, reason=str(error))
            return
        subjects = answer.subjects()
        for outgoing in answer.outgoing:
            numbers = [job.jobId for index in outgoing.calls if (job := jobs[index].metadata) is not None]
            for name, pairing in pairings_of(outgoing, subjects, numbers, partial(self._pairings.name, space)):
                self._pairings.keep_soon(name, pairing)

    def _take(self, body: bytes, *, array: bool) -> tuple[Sequence[Job], list[_Group], Settled]:
        """
        Return the jobs of a request, their calls by space, and what is settled already.

        First the calls are decoded in part, in one pass with the rest. Whatever asks for a closer look - a space that
        looks at other parts, a setting that takes its value from the call, a call that is malformed - has the request
        decoded again, step by step.
        """
        jobs = None if self._partial is None else self._partial.jobs(body, array=array)
        stage = PROCESSOR if array else ROUTER
        if jobs is not None:
            try:
                return jobs, *self._groups(jobs, stage)
            except NeedsWhole:
                pass
        jobs = decode(body, array=array)
        return jobs, *self._groups(jobs, stage)

    def _groups(self, jobs: Sequence[Job], stage: str) -> tuple[list[_Group], Settled]:
        """
        Return the jobs' calls by space; jobs that cannot be processed are settled.

        Raises:
            NeedsWhole: a call that was decoded in part has to be decoded whole.

        """
        groups: dict[tuple[int, int], _Group] = {}
        group: _Group | None = None
        settled: Settled = {}
        now = self._clock()
        known: dict[int, CompiledSpace | Refused | Postponed] = {}
        for job in jobs:
            metadata, destination, raw = job.metadata, job.destination, job.message
            if job.error is not None or metadata is None or destination is None:
                settled[job.index] = Refused(job.error or "the job has no destination")
                continue
            space = known.get(id(destination))
            message: dict[str, Any] | str
            if space is not None and isinstance(raw, dict):
                message = raw
            else:
                space, message = self._read(job, destination, known)
            if not isinstance(space, CompiledSpace):
                settled[job.index] = space
                continue
            if isinstance(message, str):
                settled[job.index] = Refused(message)
                continue
            if group is None or space is not group.space or destination is not group.destination:
                key = (id(space), id(destination))  # an output echoes one destination
                group = groups.get(key)
                if group is None:
                    group = groups[key] = _Group(space, destination)
            received = metadata.receivedAt
            arrival = None if received is None else parse_usual_time(received)
            call = make_call(job.index, message, _arrival(message, now) if arrival is None else arrival)
            if metadata.dontBatch:
                group.alone.add(job.index)
            if is_ask(message):
                self._ask(group, job, call, stage, settled)
            else:
                group.calls.append(call)
        return list(groups.values()), settled

    def _ask(self, group: _Group, job: Job, call: Call, stage: str, settled: Settled) -> None:
        """
        Add a job that hands an effect back to its group, or settle it.

        A job has the same number whenever the host asks again. The router counts otherwise than the processor, and two
        installations may come to the same number, but not for the same workspace.
        """
        if isinstance(job.message, dict):
            raise NeedsWhole
        metadata = job.metadata
        name = "" if metadata is None else f"{stage}/{metadata.workspaceId or ''}/{metadata.jobId}"
        ask = read_ask(call.message, name)
        if isinstance(ask, Ask):
            group.asks.append((call, ask))
        else:
            settled[job.index] = ask

    def _read(
        self, job: Job, destination: Destination, known: dict[int, CompiledSpace | Refused | Postponed]
    ) -> tuple[CompiledSpace | Refused | Postponed, dict[str, Any] | str]:
        """Return the space of a job and its message, without what went into the settings."""
        message = job.message
        space = known.get(id(destination))
        if space is None:
            if destination.dynamic:
                return self._read_dynamic(job, destination)
            space = known[id(destination)] = self._compiled(
                job, destination, destination.Config, destination.fingerprint
            )
            self._learn(space, partial=isinstance(message, dict))
        if not isinstance(space, CompiledSpace):
            return space, ""
        return space, message if isinstance(message, dict) else read_message(message)

    def _read_dynamic(
        self, job: Job, destination: Destination
    ) -> tuple[CompiledSpace | Refused | Postponed, dict[str, Any] | str]:
        """Return the space of a job whose settings take values from its call, and the call without them."""
        if isinstance(job.message, dict):
            raise NeedsWhole
        message = read_message(job.message)
        if isinstance(message, str):
            return Refused(message), ""
        config, message = resolve(destination.Config, message)
        return self._compiled(job, destination, config, canonical(config)), message

    def _learn(self, space: CompiledSpace | Refused | Postponed, *, partial: bool) -> None:
        """Let the partial reader keep what a space looks at; extensions may read anything, then there is none."""
        if (
            self._whole
            or not isinstance(space, CompiledSpace)
            or (self._partial is not None and space.parts <= self._partial.parts)
        ):
            return
        known = frozenset() if self._partial is None else self._partial.parts
        self._partial = PartialReader(known | space.parts)
        if partial:
            raise NeedsWhole

    def _compiled(
        self, job: Job, destination: Destination, config: dict[str, Any], fingerprint: bytes
    ) -> CompiledSpace | Refused | Postponed:
        """Return the space of a destination with these settings, or what becomes of its jobs."""
        name = (job.metadata and job.metadata.destinationId) or destination.ID
        if not name:
            return Refused("metadata.destinationId is missing: it names the destination")
        try:
            return self._spaces.get(name, HOST, fingerprint, config)
        except StopAndFix as error:
            return Refused(f"destination {name}: {error}")
        except RetryLater as error:
            return Postponed(f"destination {name}: {error}")

    async def _process(self, group: _Group, *, merge: bool) -> list[Answer]:
        """
        Process a group; when that fails by a fault of ours, process its calls one by one.

        So a call that meets a fault costs only itself.
        """
        alone = frozenset(group.alone)
        try:
            await self._directory.seen(group.space.id, group.space.credentials)
            handed = [await self._handed(group, merge=merge)] if group.asks else []
            if handed and not group.calls:
                return handed
            return [*handed, await self._pipeline.process(group.space, group.calls, merge=merge, alone=alone)]
        except RetryLater:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not cost the other calls
            every = [*group.calls, *(call for call, _ in group.asks)]
            _log.exception("batch_failed", space=group.space.id, calls=len(every))
            if len(every) == 1:
                reason = f"a fault of emarsys-cdp ({type(error).__name__}); its log says more"
                return [Answer((), {every[0].index: Postponed(reason)})]
        answers: list[Answer] = []
        for single in group.singles():
            answers += await self._process(single, merge=merge)
        return answers

    async def _handed(self, group: _Group, *, merge: bool) -> Answer:
        """Return the requests of effects that the host hands back, and what becomes of the jobs that have none."""
        space = group.space
        decisions = await self._handing.hand(space.id, space.create == "always", [ask for _, ask in group.asks])
        found = [(call, decision) for (call, _), decision in zip(group.asks, decisions, strict=True)]
        actions = [(call.index, decision) for call, decision in found if isinstance(decision, tuple)]
        settled = {call.index: decision for call, decision in found if not isinstance(decision, tuple)}
        outgoing = await self._pipeline.requests(space, actions, merge=merge, alone=frozenset(group.alone))
        calls = {call.index: call for call, _ in group.asks}
        subjects = {
            index: Subject(calls[index], tuple([one.key for one in of_call]), None) for index, of_call in actions
        }
        return Answer(outgoing, settled, lambda: subjects)


def _arrival(message: dict[str, Any], now: int) -> int:
    """Return when a call arrived whose host does not say so, in ms since 1970: as the call says, else now."""
    text = message.get("receivedAt")
    time = parse_time(text) if isinstance(text, str) else None
    return now if time is None else time
