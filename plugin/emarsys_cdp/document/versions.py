"""
Versions of rules: which number each rule of a document has, and which old versions are kept (semantics 2.9).

A rule gets the next number when its pattern part changes. The version of before is kept as long as instances may be
pinned to it. Pure: documents come in as they were written, the time as ms since 1970 UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, structs

from emarsys_cdp.document.rule_parts import RUNS, maps_of, pattern_of, span_of, status_of
from emarsys_cdp.rules.pattern import CANCEL, FINISH
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Problem

RawDocument: TypeAlias = Mapping[str, Any]
"""A document as people wrote it, checked."""

Live: TypeAlias = Callable[[str, int], bool]
"""Tells whether a rule's version may have instances that run."""

MAX_KEPT: Final = 50
"""Old versions of a rule that are kept."""

MAX_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Old versions of all rules of a document, as JSON; with more, those that were replaced first are forgotten."""

GRACE_MS: Final = 30 * 86_400_000
"""An old version is kept this much longer than its instances may run."""


class RuleVersion(Struct, frozen=True):
    """
    An old version of a rule: the rule as it was written, and the types of the data maps that it reads.

    It was in force from *since* to *until* (ms since 1970 UTC). *mode* is onPublish of the version that replaced it,
    `cancel` when the rule was removed. A later publication that migrates or cancels does so with the instances of all
    old versions: their *mode* becomes that, and with `cancel` *until* is the time at which they end.
    """

    rule: str
    version: int
    raw: dict[str, Any]
    maps: dict[str, str]
    since: int
    mode: str
    until: int

    @property
    def ends(self) -> int:
        """The time after which no instance runs any more, by the rule's own windows."""
        return self.until + span_of(self.raw)


class Versions(Struct, frozen=True):
    """
    The versions of a document's rules: the *current* one of each rule by its id, and the old ones that are *kept*.

    *since* tells when the current ones came into force. A rule that only *kept* has was removed.
    """

    current: dict[str, int] = {}
    kept: tuple[RuleVersion, ...] = ()
    since: dict[str, int] = {}


class Change(Struct, frozen=True):
    """
    What a publication changes of a rule; *version* is the new one, the last one of a rule that is removed.

    *mode* tells what becomes of instances when a version is replaced: finish, migrate or cancel.
    """

    rule: str
    version: int
    what: Literal["added", "new version", "settings", "unchanged", "removed"]
    mode: str | None = None


def bare(raw: RawDocument) -> dict[str, Any]:
    """Return a document without what the service assigns: its revision, and the versions of its rules."""
    document = {name: part for name, part in raw.items() if name != "revision"}
    if "rules" in document:
        document["rules"] = [_unnumbered(rule) for rule in document["rules"]]
    return document


def numbered(raw: RawDocument, revision: int, versions: Versions) -> dict[str, Any]:
    """Return a document with its revision and the versions of its rules."""
    rules = [{**rule, "version": versions.current[rule["id"]]} for rule in raw.get("rules", ())]
    return {"revision": revision, **bare(raw), **({"rules": rules} if rules else {})}


def assign(before: RawDocument, versions: Versions, raw: RawDocument, now: int) -> tuple[Versions, tuple[Change, ...]]:
    """Return the versions when *raw* takes the place of *before*, and what that changes, rule by rule."""
    return _Step(before, versions, raw, now).take()


class _Step:
    """One step from a document to the next."""

    def __init__(self, before: RawDocument, versions: Versions, raw: RawDocument, now: int) -> None:
        self._old = {rule["id"]: rule for rule in before.get("rules", ())}
        self._new = {rule["id"]: rule for rule in raw.get("rules", ())}
        self._old_maps, self._new_maps = maps_by_name(before), maps_by_name(raw)
        self._versions = versions
        self._now = now
        self._last = dict(versions.current)
        for one in versions.kept:
            self._last[one.rule] = max(one.version, self._last.get(one.rule, 0))

    def take(self) -> tuple[Versions, tuple[Change, ...]]:
        changes = [self._change(rule, self._old.get(rule["id"]), rule["id"]) for rule in self._new.values()]
        gone = [Change(rule, self._versions.current[rule], "removed", CANCEL) for rule in self._old.keys() - self._new]
        replaced = [self._keep(one.rule, one.mode) for one in (*changes, *gone) if one.mode is not None]
        current = {one.rule: one.version for one in changes}
        since = {
            one.rule: self._now if one.what in ("added", "new version") else self._versions.since[one.rule]
            for one in changes
        }
        modes = {one.rule: one.mode for one in (*changes, *gone)}
        older = [self._carried(one, modes.get(one.rule)) for one in self._versions.kept]
        kept = _trimmed([*older, *replaced], self._now)
        return Versions(current, kept, since), (*changes, *sorted(gone, key=lambda one: one.rule))

    def _change(self, rule: Mapping[str, Any], old: Mapping[str, Any] | None, name: str) -> Change:
        if old is None:
            return Change(name, self._last.get(name, 0) + 1, "added")
        if pattern_of(rule, self._new_maps) != pattern_of(old, self._old_maps):
            return Change(name, self._last[name] + 1, "new version", rule.get("onPublish", FINISH))
        same = _unnumbered(rule) == _unnumbered(old)
        return Change(name, self._versions.current[name], "unchanged" if same else "settings")

    def _carried(self, one: RuleVersion, mode: str | None) -> RuleVersion:
        """Return an old version after a publication that does something with all instances."""
        if mode in (None, FINISH) or one.mode == CANCEL:
            return one
        return structs.replace(one, mode=mode, until=self._now if mode == CANCEL else one.until)

    def _keep(self, name: str, mode: str) -> RuleVersion:
        """Return the version of before."""
        old, number = self._old[name], self._versions.current[name]
        return RuleVersion(
            name,
            number,
            {**old, "version": number},
            {one: self._old_maps[one]["type"] for one in sorted(maps_of(old, self._old_maps))},
            self._versions.since[name],
            mode,
            self._now,
        )


def _unnumbered(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in rule.items() if name != "version"}


def _trimmed(kept: Sequence[RuleVersion], now: int) -> tuple[RuleVersion, ...]:
    """Return the old versions that instances may be pinned to, as many as are kept, by rule and version."""
    lasting = sorted((one for one in kept if now <= one.ends + GRACE_MS), key=lambda one: (one.rule, one.version))
    newest = [one for _, group in groupby(lasting, lambda one: one.rule) for one in list(group)[-MAX_KEPT:]]
    found, size = list[RuleVersion](), 0
    for one in sorted(newest, key=lambda one: one.until, reverse=True):
        size += len(json.dumps(one.raw))
        if size > MAX_KEPT_BYTES:
            break
        found.append(one)
    return tuple(sorted(found, key=lambda one: (one.rule, one.version)))


def maps_by_name(raw: RawDocument) -> dict[str, Mapping[str, Any]]:
    """Return the data maps of a document by their names."""
    return {one["name"]: one for one in raw.get("dataMaps", ())}


def presumed_live(raw: RawDocument, versions: Versions, now: int) -> Live:
    """
    Return what tells of versions beside the document *raw* whether instances of theirs may run.

    None do of a rule that is removed, a draft or archived, or of a version whose successor cancels them.
    """
    running = {rule["id"] for rule in raw.get("rules", ()) if status_of(rule) in RUNS}
    ends = {(one.rule, one.version): one.ends for one in versions.kept if one.mode != CANCEL}

    def live(rule: str, version: int) -> bool:
        return rule in running and (versions.current.get(rule) == version or now < ends.get((rule, version), 0))

    return live


def map_problems(raw: RawDocument, kept: Iterable[RuleVersion], live: Live) -> tuple[Problem, ...]:
    """Return a problem for each data map that running instances of old versions read and that *raw* has no more."""
    places = {name: place for place, name in enumerate(maps_by_name(raw))}
    types = {name: one["type"] for name, one in maps_by_name(raw).items()}
    found = []
    for one in kept:
        changed = {name: kind for name, kind in one.maps.items() if types.get(name) != kind}
        if not changed or not live(one.rule, one.version):
            continue
        for name, kind in changed.items():
            place = f"dataMaps[{places[name]}].type" if name in places else "dataMaps"
            found.append(Problem(place, _advice(one, name, kind)))
    return tuple(found)


def _advice(one: RuleVersion, name: str, kind: str) -> str:
    return (
        f"version {one.version} of rule {one.rule!r} reads {name!r} as {kind}, and instances of it may run until "
        f"{iso_time(one.ends)}: leave the data map as it was until then, or archive the rule"
    )
