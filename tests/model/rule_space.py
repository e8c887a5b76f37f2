"""
A space with rules on a virtual clock: the users table of `identity.py`, the canonical run of each person, the gate.

For every question all is computed anew from the whole list of calls and from what was decided. The clock goes from one
thing that happens to the next: calls when they arrive, wake-ups exactly at their time. At one instant calls go before
wake-ups, but what a call itself makes due at once goes before the next call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tests.model.identity import Call as ReadCall
from tests.model.identity import Model
from tests.model.profiles import Profile
from tests.model.reading import Json, event_time, message_id
from tests.model.rule_criteria import Space
from tests.model.rule_document import caps_in, rules_in
from tests.model.rule_gate import Gate, Look, Person, Sending
from tests.model.rule_instance import Decision, Instance, Passage, PassageKey
from tests.model.rule_log import Entry, united
from tests.model.rule_run import run

INSTANCE_PARTS = ("rule", "start", "status", "why")
DONE_WITH = {"update": ("field", "value"), "unset": ("field",), "addToList": ("list",), "removeFromList": ("list",)}
"""What an action is about, as `effects` shows it; a trigger has its event and the data."""


@dataclass
class Case:
    """What rules know of a person: calls, what was decided, which passages came in time."""

    log: list[Entry] = field(default_factory=list)
    facts: dict[PassageKey, Decision] = field(default_factory=dict)
    in_time: set[PassageKey] = field(default_factory=set)


@dataclass(frozen=True)
class Waiting:
    """A passage, as it was looked at."""

    pid: int
    instance: Instance
    passage: Passage
    look: Look

    @property
    def acts(self) -> bool:
        """Whether looking at it changes anything."""
        return self.look.what is not None or self.look.is_in_time

    @property
    def place(self) -> tuple[int, int, tuple[int, str], str]:
        """The order in which things of one instant are done."""
        return self.passage.due, self.instance.rule.order, self.instance.start.version, self.passage.key[2]


class RuleModel(Model):
    """One space: a users table whose people are in rules."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        super().__init__(document)
        self.rule_list = rules_in(document)
        self.caps = caps_in(document.get("settings", {}))
        self.first_seen: dict[str, int] = {}
        self.space = Space(self.rules.zone, {row.name: row.type for row in self.rules.data_maps}, self.first_seen)
        self.cases: dict[int, Case] = {}
        self.taken: Profile | None = None
        self.erasing: Profile | None = None
        self.turns = 0
        self.clock: int | None = None
        self.sent: list[dict[str, Json]] = []
        self.sendings: list[Sending] = []
        self.past: list[dict[str, Json]] = []
        self.late_stops: set[tuple[str, str, str]] = set()
        self._known: dict[int, list[Instance]] = {}

    # What happens

    def call(self, message: Mapping[str, Json], arrival: int) -> str:
        """Take a call in."""
        self.advance(arrival)
        before = [(waiting.passage.key, waiting.look.what) for waiting in self._acting()]
        self.taken = None
        self._see(message, arrival)
        result = super().call(message, arrival)
        if self.taken is not None:
            self._add(self.taken, message, arrival)
        self._changed()
        self._note_late_stops()
        # What the call has made due: a wake-up of its person, who is looked at as a whole.
        woken = {one.pid for one in self._acting() if (one.passage.key, one.look.what) not in before}
        self._act(woken)
        return result

    def erase(self, kind: str, value: str, mode: str, now: int) -> None:
        """Erase a person with all instances and whatever is still unsent."""
        self.advance(now)
        identifier = self._identifier(kind, value)
        profile = self.owner.get(identifier) or self.isolates.get(identifier)
        erased = self._identifiers(profile) if profile is not None else set()
        self.erasing = profile
        super().erase(kind, value, mode, now)
        self.erasing = None
        self.sendings = [one for one in self.sendings if ("key", one.key) not in erased]
        self._changed()

    def advance(self, until: int, *, included: bool = False) -> None:
        """Let time pass: all wake-ups before a time happen, or those at it as well."""
        while (wake := self._next_wake()) is not None and (wake < until or (included and wake == until)):
            self._set_clock(wake)
            self._act()
        self._set_clock(until)

    # What is shown

    def effects(self) -> list[dict[str, Json]]:
        """Return all that was sent, in the order of sending, with `at` in milliseconds since 1970."""
        return [dict(effect) for effect in self.sent]

    def instances(self) -> list[dict[str, Json]]:
        """Return all instances but those of erased people, sorted by rule and start."""
        self._expire(self._now())
        rows = [*self.past, *(row for pid in self.cases for row in self._shown(pid))]
        return sorted(rows, key=lambda row: (row["rule"], row["start"]))

    def contradictions(self) -> int:
        """Return how many stops came after what they would have stopped was sent."""
        return len(self.late_stops)

    # The users table tells what becomes of people

    def is_needed(self, profile: Profile) -> bool:
        """Tell whether an instance keeps somebody here (1.8): one that is alive or held."""
        live = [one for one in self._instances(profile.pid) if one.waiting() or one.is_live(self._now())]
        return bool(live)

    def _note(self, profile: Profile, call: ReadCall) -> str:
        self.taken = profile
        return super()._note(profile, call)

    def _absorb(self, stays: Profile, goes: Profile) -> Profile:
        mine, others = self.cases.setdefault(stays.pid, Case()), self.cases.pop(goes.pid, Case())
        mine.log = united(mine.log, others.log)
        mine.facts = {**others.facts, **mine.facts}
        mine.in_time |= others.in_time
        self._changed()
        return super()._absorb(stays, goes)

    def _remove(self, profile: Profile) -> None:
        if profile.pid in self.cases and profile is not self.erasing:
            self.past += self._shown(profile.pid)
        self.cases.pop(profile.pid, None)
        super()._remove(profile)

    # How

    def _see(self, message: Mapping[str, Json], arrival: int) -> None:
        """Note which data maps were seen. *Chosen*: by any call that names somebody, also somebody erased."""
        ids = self._read(message, arrival).ids
        for row in self.rules.data_maps if ids.user or ids.key or ids.anon else ():
            if row.value(message, self.rules.zone) is not None:
                self.first_seen.setdefault(row.name, event_time(message, arrival))

    def _add(self, profile: Profile, message: Mapping[str, Json], arrival: int) -> None:
        """Note a call in the log of its person, unless its messageId is there already."""
        self.turns += 1
        values = {row.name: row.value(message, self.rules.zone) for row in self.rules.data_maps}
        values = {name: value for name, value in values.items() if value is not None}
        time = event_time(message, arrival)
        entry = Entry(message["type"], time, message_id(message), arrival, self.turns, values)
        if not profile.isolate:
            # Chosen: a device that belongs to nobody is in no rule, since nothing could ever be sent (P12).
            case = self.cases.setdefault(profile.pid, Case())
            case.log = united(case.log, [entry])

    def _instances(self, pid: int) -> list[Instance]:
        if pid not in self._known:
            case = self.cases.get(pid, Case())
            runs = [run(rule, case.log, case.facts, self._now(), self.space) for rule in self.rule_list]
            self._known[pid] = [instance for instances in runs for instance in instances]
        return self._known[pid]

    def _changed(self) -> None:
        """Forget what was computed, since something has happened."""
        self._known = {}

    def _note_late_stops(self) -> None:
        self.late_stops |= {
            (one.rule.id, one.start.mid, stop)
            for pid in self.cases
            for one in self._instances(pid)
            for stop in one.late_stops
        }

    def _looks(self) -> Iterator[Waiting]:
        """Look at everything that waits at the gate."""
        gate = Gate(self.space, self.caps, self.sendings, self._now())
        for pid, case in self.cases.items():
            person = Person(self.live[pid].key, case.log)
            for instance in self._instances(pid):
                for passage in instance.waiting():
                    was_in_time = passage.key in case.in_time
                    look = gate.look(instance, passage, person, was_in_time=was_in_time)
                    yield Waiting(pid, instance, passage, replace(look, is_in_time=look.is_in_time and not was_in_time))

    def _acting(self) -> list[Waiting]:
        return sorted((waiting for waiting in self._looks() if waiting.acts), key=lambda waiting: waiting.place)

    def _act(self, pids: set[int] | None = None) -> None:
        """Do all that is to be done now, for some people or for all."""
        while found := [waiting for waiting in self._acting() if pids is None or waiting.pid in pids]:
            waiting, case = found[0], self.cases[found[0].pid]
            key, look = waiting.passage.key, waiting.look
            case.in_time.add(key)
            if look.what is not None:
                self.turns += 1
                case.facts[key] = Decision(look.what, self._now(), self.turns, waiting.instance.transaction)
            if look.what == "sent":
                self._send(waiting)
            self._changed()

    def _next_wake(self) -> int | None:
        """Return when the next wake-up is: now, if anything is left to do now."""
        looks = list(self._looks())
        if any(waiting.acts for waiting in looks):
            return self._now()
        times = [waiting.look.again for waiting in looks]
        times += [instance.wakes() for pid in self.cases for instance in self._instances(pid)]
        return min((time for time in times if time is not None and time > self._now()), default=None)

    def _send(self, waiting: Waiting) -> None:
        instance, key = waiting.instance, self.live[waiting.pid].key or ""
        self.sendings.append(Sending(self._now(), instance.rule.id, key))
        variables = waiting.passage.variables
        data = dict(instance.variables if variables is None else variables)
        for row in waiting.look.rows:
            for action in row.actions:
                effect = {"at": self._now(), "rule": instance.rule.id, "key": key, "do": action["do"]}
                self.sent.append(effect | _about(action, data))

    def _shown(self, pid: int) -> list[dict[str, Json]]:
        has_key = self.live[pid].key is not None
        return [
            dict(
                zip(
                    INSTANCE_PARTS,
                    (one.rule.id, one.start.mid, *one.shown_state(self._now(), has_key=has_key)),
                    strict=True,
                )
            )
            for one in self._instances(pid)
        ]

    def _now(self) -> int:
        return 0 if self.clock is None else self.clock

    def _set_clock(self, time: int) -> None:
        if self.clock is None or time > self.clock:
            self.clock = time
            self._changed()


def _about(action: Mapping[str, Json], data: Mapping[str, Json]) -> dict[str, Json]:
    if action["do"] == "trigger":
        return {"event": action["event"], "data": dict(data)}
    return {name: action[name] for name in DONE_WITH.get(action["do"], ())}
