"""
The way of a batch of calls: the only module that knows the order of the steps.

    enrich, drop -> validate -> identifiers -> data maps -> users table -> actions -> Emarsys requests -> signing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.document.compile import CompiledSpace
from emarsys_cdp.emarsys.signing import Signer, endpoint
from emarsys_cdp.extensions import Steps
from emarsys_cdp.first_seen import FirstSeen
from emarsys_cdp.identity.entries import Entry, Previous
from emarsys_cdp.metrics import Metrics
from emarsys_cdp.rounds import Added, Rounds
from emarsys_cdp.ruled_calls import asked_history, rule_call
from emarsys_cdp.store.keys import Namer
from emarsys_cdp_hooks import (
    Action,
    Call,
    Decision,
    Delivery,
    Filtered,
    Identifiers,
    Json,
    Postponed,
    Profile,
    Refused,
    StoredValue,
    TriggerEvent,
    Unfit,
    UpsertContact,
)

_log = structlog.get_logger("emarsys_cdp.pipeline")

MAX_ERROR = 2000
"""Longest text about values that were left out, in characters."""


class HttpRequest(Struct, frozen=True):
    """A signed request, ready to send."""

    method: str
    url: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Json]


class Outgoing(Struct, frozen=True):
    """
    Requests to send one after another, and the indexes of the calls that are done then.

    *left_out* says which values of these calls did not fit and are not in the requests; empty: none.
    """

    requests: tuple[HttpRequest, ...]
    calls: tuple[int, ...]
    left_out: str = ""


class Subject(Struct, frozen=True, gc=False):
    """A call and whom its actions are about: their keys in order, and the person's profile (None: unknown)."""

    call: Call
    keys: tuple[str, ...]
    pid: str | None


class Answer(Struct, frozen=True):
    """
    What becomes of a batch: every call is in one outgoing or settled by its index.

    *subjects* are those of the calls in an outgoing.
    """

    outgoing: tuple[Outgoing, ...]
    settled: Mapping[int, Refused | Filtered | Postponed]
    subjects: Callable[[], Mapping[int, Subject]] = dict


class Pipeline:
    """Processes batches of calls of one space each; *clock* gives milliseconds since 1970 UTC."""

    def __init__(
        self,
        steps: Steps,
        rounds: Rounds,
        namer: Namer,
        signer: Signer,
        metrics: Metrics,
        clock: Callable[[], int],
        api_base: str,
        first_seen: FirstSeen,
    ) -> None:
        self._steps = steps
        self._first_seen = first_seen
        self._rounds = rounds
        self._namer = namer
        self._signer = signer
        self._metrics = metrics
        self._clock = clock
        self._api_base = api_base

    async def process(
        self,
        space: CompiledSpace,
        calls: Sequence[Call],
        *,
        merge: bool = True,
        alone: frozenset[int] = frozenset(),
    ) -> Answer:
        """
        Take calls in and return the Emarsys requests for them.

        *merge* allows one request for several calls; the calls in *alone* get requests of their own all the same.

        Raises:
            RetryLater: the store, the token or an extension that may drop calls is out of order; the host has to
                send the whole batch again, which does no harm.

        """
        now = self._clock()
        settled: dict[int, Refused | Filtered | Postponed] = {}
        accepted = self._accept(space, calls, now, settled)
        identifiers = self._steps.identifiers(space, accepted)
        values = self._steps.values(space, accepted)
        unfit: dict[int, list[str]] = {}
        seen = asked_history(space.rules, accepted, identifiers, values)
        firsts = await self._first_seen.of(space.id, seen) if seen else {}
        entries = self._entries(space, accepted, identifiers, values, unfit, now, firsts)
        added = await self._rounds.add(entries)
        profiles = [one.profile for one in added]
        decisions = self._decide(space, accepted, identifiers, profiles, unfit, now)
        actions, sources, left_out = _actions(accepted, decisions, added, settled)
        outgoing = await self._outgoing(space, actions, left_out, merge, alone)
        self._count(space, calls, identifiers, added, settled, outgoing)
        return Answer(outgoing, settled, partial(_subjects, actions, sources))

    async def requests(
        self,
        space: CompiledSpace,
        actions: list[tuple[int, tuple[Action, ...]]],
        *,
        merge: bool = True,
        alone: frozenset[int] = frozenset(),
    ) -> tuple[Outgoing, ...]:
        """
        Return the Emarsys requests for (index, actions) pairs that were decided before; otherwise as `process`.

        Raises:
            RetryLater: there is no token for now.

        """
        return await self._outgoing(space, actions, {}, merge, alone)

    def _accept(self, space: CompiledSpace, calls: Sequence[Call], now: int, settled: dict[int, Any]) -> Sequence[Call]:
        """Return the calls that go on; what is dropped or refused is settled."""
        calls = self._steps.enrich(space, calls, now)
        reasons = self._steps.drop(space, calls, now)
        refusals = self._steps.validate(space, calls)
        if reasons.count(None) < len(calls):
            settled |= {
                call.index: Filtered(reason) for call, reason in zip(calls, reasons, strict=True) if reason is not None
            }
        if refusals.count(None) < len(calls):
            for call, refusal in zip(calls, refusals, strict=True):
                if refusal is not None:
                    settled.setdefault(call.index, refusal)
        return calls if not settled else [call for call in calls if call.index not in settled]

    def _entries(
        self,
        space: CompiledSpace,
        calls: Sequence[Call],
        identifiers: Sequence[Identifiers],
        values: Sequence[Mapping[str, Any]],
        unfit: dict[int, list[str]],
        now: int,
        firsts: Mapping[str, int],
    ) -> list[Entry]:
        """
        Return the calls as the users table takes them, each value with its version, and what rules make of them.

        Why values do not fit is added to *unfit* by the call's position.
        """
        entries: list[Entry] = []
        space_id, policy, rules = space.id, space.policy, space.rules
        for call, ids, read in zip(calls, identifiers, values, strict=True):
            time, message_id = call.event_time, call.message_id
            stored: dict[str, StoredValue] = {}
            for name, value in read.items():
                if type(value) is not Unfit:
                    stored[name] = StoredValue(value, time, message_id)
                else:
                    unfit.setdefault(len(entries), []).append(value.reason)
            previous = _previous(space, call, self._namer) if call.type == "alias" else None
            fit = read if len(stored) == len(read) else {name: one.value for name, one in stored.items()}
            ruled = None if rules is None else rule_call(rules, call, ids, fit, now, firsts)
            entry = Entry(space_id, call.type, message_id, time, ids, stored, policy, previous, ruled=ruled)
            entries.append(entry)
        return entries

    def _decide(
        self,
        space: CompiledSpace,
        calls: Sequence[Call],
        identifiers: Sequence[Identifiers],
        profiles: Sequence[Profile | None],
        unfit: Mapping[int, list[str]],
        now: int,
    ) -> list[Decision]:
        decisions = self._steps.decide(space, calls, identifiers, profiles, now)
        for position, reasons in unfit.items():
            decisions[position] = _with_unfit(decisions[position], reasons)
        return decisions

    async def _outgoing(
        self,
        space: CompiledSpace,
        actions: list[tuple[int, tuple[Action, ...]]],
        left_out: Mapping[int, str],
        merge: bool,
        alone: frozenset[int],
    ) -> tuple[Outgoing, ...]:
        if not actions:
            return ()
        single = [pair for pair in actions if pair[0] in alone]
        rest = actions if not single else [pair for pair in actions if pair[0] not in alone]
        deliveries = [
            *(self._steps.requests(space, rest, merge) if rest else ()),
            *(self._steps.requests(space, single, False) if single else ()),
        ]
        headers = await self._signer.prepare(space.credentials)
        return tuple(self._sign(space, delivery, headers, left_out) for delivery in deliveries)

    def _sign(
        self,
        space: CompiledSpace,
        delivery: Delivery,
        headers: Callable[[], Mapping[str, str]],
        left_out: Mapping[int, str],
    ) -> Outgoing:
        requests = []
        for request in delivery.requests:
            url = endpoint(self._api_base, space.credentials, request.path)
            requests.append(HttpRequest(request.method, url, request.path, headers(), request.body))
            self._metrics.count_request(request.path)
        texts = [left_out[index] for index in delivery.calls if index in left_out] if left_out else []
        return Outgoing(tuple(requests), delivery.calls, "; ".join(texts)[:MAX_ERROR])

    def _count(
        self,
        space: CompiledSpace,
        calls: Sequence[Call],
        identifiers: Sequence[Identifiers],
        added: Sequence[Added],
        settled: Mapping[int, Refused | Filtered | Postponed],
        outgoing: Sequence[Outgoing],
    ) -> None:
        """Count and log what became of the batch."""
        outcomes = [(call.type, _outcome(settled.get(call.index)) if settled else "request") for call in calls]
        for kind, outcome in set(outcomes):
            self._metrics.count_calls(space.host, kind, outcome, outcomes.count((kind, outcome)))
        for ids, one in zip(identifiers, added, strict=True):
            if ids.warnings or one.warnings:
                for code in (*ids.warnings, *one.warnings):
                    self._metrics.count_warning(code)
        for index, decision in settled.items():
            if not isinstance(decision, Filtered):
                _log.info("call_refused", space=space.id, index=index, reason=decision.reason)
        for one_out in outgoing:
            if one_out.left_out:
                self._metrics.count_warning("value_left_out")
                _log.warning("values_left_out", space=space.id, reason=one_out.left_out)


def _previous(space: CompiledSpace, call: Call, namer: Namer) -> Previous:
    """Return what an alias call names beside its userId; without a usable one nothing can be done with it."""
    found, warning = space.reader.previous(call.message)
    value = found or ""
    return Previous(value, namer(space.id, "u", value), namer(space.id, "a", value), warning)


def _subjects(
    actions: Sequence[tuple[int, tuple[Action, ...]]], sources: Sequence[tuple[Call, Profile | None]]
) -> dict[int, Subject]:
    """Return whom each call with actions is about."""
    subjects: dict[int, Subject] = {}
    for (index, of_call), (call, profile) in zip(actions, sources, strict=True):
        keys = (of_call[0].key,) if len(of_call) == 1 else tuple([action.key for action in of_call])
        subjects[index] = Subject(call, keys, None if profile is None else profile.id)
    return subjects


def _outcome(decision: Refused | Filtered | Postponed | None) -> str:
    return "request" if decision is None else type(decision).__name__.lower()


def _with_unfit(decision: Decision, reasons: list[str]) -> Decision:
    """Add what did not fit to the decision; a call that has nothing else to send is refused with it."""
    if isinstance(decision, Filtered):
        return Refused("; ".join(reasons))
    if not isinstance(decision, tuple):
        return decision
    return tuple(
        replace(action, left_out=(*action.left_out, *reasons)) if isinstance(action, UpsertContact) else action
        for action in decision
    )


def _actions(
    calls: Sequence[Call],
    decisions: Sequence[Decision],
    added: Sequence[Added],
    settled: dict[int, Refused | Filtered | Postponed],
) -> tuple[list[tuple[int, tuple[Action, ...]]], list[tuple[Call, Profile | None]], dict[int, str]]:
    """
    Return the actions of each call that has some, with the call and its person, and what was left out of them.

    The rest is settled.
    """
    actions: list[tuple[int, tuple[Action, ...]]] = []
    sources: list[tuple[Call, Profile | None]] = []
    left_out: dict[int, str] = {}
    for call, decision, one in zip(calls, decisions, added, strict=True):
        if one.failure is not None:
            settled[call.index] = Postponed(one.failure)
        elif one.filtered is not None:
            settled[call.index] = Filtered(one.filtered)
        elif isinstance(decision, tuple):
            actions.append((call.index, decision))
            sources.append((call, one.profile))
            for action in decision:
                if isinstance(action, (UpsertContact, TriggerEvent)) and action.left_out:
                    left_out[call.index] = "; ".join(action.left_out)
        else:
            settled[call.index] = decision
    return actions, sources, left_out
