"""
Looking at people whose time has come: timers, the gate, caps, and what goes to the outbox.

Being looked at too early, twice, or by two workers does no harm: all of it is computed from the record, which is
written by compare-and-set together with the effects. Times are in ms since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias

import structlog
from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.effect import Effect, pack_effect
from emarsys_cdp.identity.ruling import wake_of
from emarsys_cdp.merging import Merger
from emarsys_cdp.rules.book import CAPPED, Book, Posted
from emarsys_cdp.rules.limits import Full, Places, release, reserve
from emarsys_cdp.rules.passing import (
    Candidate,
    Sight,
    caps_of,
    deferred,
    doubted,
    look,
    passed,
    planned,
    refused,
    resolved,
)
from emarsys_cdp.rules.pattern import Cap
from emarsys_cdp.rules.posted import with_posted
from emarsys_cdp.rules.ruleset import RuleSet
from emarsys_cdp.rules.taking import trim
from emarsys_cdp.store import Commit, Store, StoreUnavailable
from emarsys_cdp.store.cells import Cells
from emarsys_cdp.store.keys import Namer, shard
from emarsys_cdp.store.outbox import EffectRef, Posting
from emarsys_cdp.store.record import Record, UnreadableRecord, pack, unpack
from emarsys_cdp_hooks import RetryLater

MAX_TRIES: Final = 20
"""Tries against other workers; then the person's timer comes again by itself."""

AGAIN: Final = 30_000
"""A person who is being looked at is nobody else's for this long (ms)."""

RulesOf: TypeAlias = Callable[[str], RuleSet | None]
"""From a space to its rules, None when it has none."""

_NO_RULES: Final = RuleSet({}, {}, {})
_log = structlog.get_logger("emarsys_cdp.waking")


class Woken(Struct, frozen=True):
    """What was written of a person: the effects that went to the outbox, and when to look next (0 never)."""

    pid: str
    effects: tuple[Effect, ...]
    wake: int


class _Due(Struct, frozen=True):
    """Somebody to look at, as stored."""

    pid: str
    revision: int
    record: Record


class _Place(Struct, frozen=True):
    """A place under a cap: the name of the cap's cell, and the passage that has it."""

    name: str
    passage: str


class Waker:
    """
    Looks at people. *revisions* are the numbers of the records it writes; *forget* is told of whom it has written.

    *clock* gives the time. A person's rules are those of *rules_of* the space.
    """

    def __init__(
        self,
        store: Store,
        namer: Namer,
        merger: Merger,
        revisions: Iterator[int],
        rules_of: RulesOf,
        clock: Callable[[], int],
        forget: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._namer = namer
        self._merger = merger
        self._revisions = revisions
        self._rules_of = rules_of
        self._clock = clock
        self._forget = forget
        self._caps = Cells(store, Places, ())

    async def wake(self, pids: Sequence[str], again: int = 0) -> list[Woken]:
        """
        Look at people; return what was written of each of them. *again* is when their timers are set to, 0 not known.

        Raises:
            StoreUnavailable: the store is out of order; whoever was not looked at comes again.

        """
        woken: list[Woken] = []
        taken: list[_Place] = []
        for _ in range(MAX_TRIES):
            if not pids:
                break
            due, gone = await self._read(pids)
            if gone and again:
                await self._store.drop_timers(gone, again)
            looked = [found for one in due if (found := await self._look_safely(one, taken)) is not None]
            pids = await self._write(looked, woken)
        await self._give_back(taken, woken)
        return woken

    async def _read(self, pids: Sequence[str]) -> tuple[list[_Due], list[str]]:
        """Return the people there are, and those that are gone; what was begun with somebody is finished first."""
        due: list[_Due] = []
        gone: list[str] = []
        for pid, stored in zip(pids, await self._store.read_records(pids), strict=True):
            try:
                found = None if stored is None else unpack(stored)
            except UnreadableRecord as error:
                _log.error("record_unreadable", profile=pid, reason=str(error))
                continue
            if found is not None and found[1].unfinished and not found[1].folded and not found[1].tombstones:
                await self._merger.finish(pid)  # whoever it is part of then has a timer
                known = await self._merger.read(pid)
                found = None if known is None else (known.revision, known.record)
            if found is None:
                gone.append(pid)
            elif not found[1].unfinished:
                due.append(_Due(pid, *found))
        return due, gone

    async def _look_safely(self, due: _Due, taken: list[_Place]) -> tuple[_Due, Record, tuple[Effect, ...]] | None:
        """Look at somebody; None when that has to be done later: the timer comes again, and the others do not wait."""
        try:
            return due, *await self._look(due, taken)
        except StoreUnavailable:
            raise
        except RetryLater as error:
            _log.warning("rules_not_known", space=due.record.space, reason=str(error))
        except Exception:  # noqa: BLE001 - a fault of ours must cost this person only
            _log.exception("look_failed", profile=due.pid, space=due.record.space)
        return None

    async def _look(self, due: _Due, taken: list[_Place]) -> tuple[Record, tuple[Effect, ...]]:
        """Return the record of somebody after the look, and the effects to send; *taken* gets the places it needs."""
        record, now, book = due.record, self._clock(), due.record.book
        if book is None:
            return record, ()
        rules = self._rules_of(record.space) or _NO_RULES
        if book.doubts:
            book = await self._withdrawn(rules, book, due, taken, now)
        looked = look(rules, book, Sight(record.space, record.key, now))
        book, effects = looked.book, list[Effect]()
        for candidate in looked.candidates:
            book, found = await self._pass(rules, book, due, candidate, taken, now)
            effects += found
        posted = [Posted(one.id, shard(due.pid), now) for one in effects]
        book = with_posted(trim(rules, book, now), posted, now, rules.late_max)
        return replace(record, book=book if book.log or book.rules or book.posted else None), tuple(effects)

    async def _withdrawn(self, rules: RuleSet, book: Book, due: _Due, taken: list[_Place], now: int) -> Book:
        """Take effects back that a stop came before, the last action first: until one has been sent already."""
        settled = []
        for name, instance, fact, effects in doubted(rules, book):
            refs = [EffectRef(shard(fact.pid), one) for one in reversed(effects)]
            done = await self._store.withdraw_effects(refs, now) if refs else []
            gone = bool(done) and all(done)
            settled.append((name, instance, fact, gone))
            if gone:
                passage, key = f"{instance}.{fact.node}", due.record.key or ""
                taken += [_Place(self._cap_name(due.record.space, rule, key), passage) for rule in (name, "")]
        return resolved(book, settled)

    async def _pass(
        self, rules: RuleSet, book: Book, due: _Due, candidate: Candidate, taken: list[_Place], now: int
    ) -> tuple[Book, tuple[Effect, ...]]:
        """Return the book with a candidate sent if the caps allow it, and its effects."""
        key, fulls = due.record.key or "", list[Full]()
        for rule, caps in _by_rule(caps_of(candidate.gate, rules.caps)).items():
            name = self._cap_name(due.record.space, rule, key)
            full = await self._caps.change(name, partial(reserve, candidate.name, caps, now))
            taken.append(_Place(name, candidate.name))
            fulls += [] if full is None else [full]
        if fulls:
            await self._give_back([one for one in taken if one.passage == candidate.name], ())
            until = max([full.until for full in fulls if full.until is not None], default=None)
            if until is not None:
                return deferred(rules, book, candidate, until), ()
            return refused(rules, book, candidate, CAPPED, now), ()
        effects = tuple(_effects(rules, due, candidate, key, now))
        return passed(rules, book, candidate, due.pid, now), effects

    async def _write(self, looked: Sequence[tuple[_Due, Record, tuple[Effect, ...]]], woken: list[Woken]) -> list[str]:
        """Write what has changed; return those who have to be looked at again, since somebody else has written them."""
        commits: list[Commit] = []
        for due, record, effects in looked:
            revision, wake = next(self._revisions), wake_of(record.book)
            seconds = self._merger.lifetimes(record.space).of(record)
            postings = tuple([Posting(one.id, pack_effect(one), one.emitted) for one in effects])
            commits.append(Commit(due.pid, due.revision, pack(record, revision), False, seconds, wake, postings))
        if not commits:
            return []
        lost: list[str] = []
        for (due, record, effects), done in zip(looked, await self._store.commit(commits), strict=True):
            if done:
                self._forget(due.pid)
                woken.append(Woken(due.pid, effects, wake_of(record.book)))
            else:
                lost.append(due.pid)
        return lost

    def _cap_name(self, space: str, rule: str, key: str) -> str:
        return self._namer(space, "cap", f"{rule}\0{key}")

    async def _give_back(self, taken: Sequence[_Place], woken: Sequence[Woken]) -> None:
        """Give places back that were taken for something that was not sent after all."""
        sent = {effect.passage for one in woken for effect in one.effects}
        for place in {one for one in taken if one.passage not in sent}:
            await self._caps.change(place.name, partial(release, place.passage))


def _by_rule(caps: Sequence[tuple[str, Cap]]) -> dict[str, list[Cap]]:
    found: dict[str, list[Cap]] = {}
    for rule, cap in caps:
        found.setdefault(rule, []).append(cap)
    return found


def _effects(rules: RuleSet, due: _Due, candidate: Candidate, key: str, now: int) -> Iterator[Effect]:
    """Yield the effects of a candidate, in the order of its actions."""
    instance, variables = candidate.instance, candidate.passage.variables
    for one in planned(candidate):
        yield Effect(
            one.id,
            due.record.space,
            due.pid,
            candidate.rule,
            instance.version,
            instance.id,
            one.row,
            one.action.do,
            dict(one.action.options),
            dict(instance.variables if variables is None else variables),
            rules.key_field,
            key,
            candidate.passage.fire,
            now,
            candidate.name,
            one.number,
            one.action.stops,
            candidate.fresh,
            zone=candidate.zone,
        )
