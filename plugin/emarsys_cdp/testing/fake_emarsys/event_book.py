"""The external events of the fake's account, and what was triggered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from emarsys_cdp.testing.fake_emarsys.records import AcceptedEvent, EventDefinition, Log

FIRST_ID: Final = 9001
_PROGRAM: Final = 70_000
"""A program made for an event has the event's id above this number."""


class EventBook:
    """Definitions by id, and the triggers in order; with *dedupe* a repeated one is only counted."""

    def __init__(self, keep: int, *, dedupe: bool) -> None:
        self._definitions: dict[int, EventDefinition] = {}
        self._next = FIRST_ID
        self._dedupe = dedupe
        self._seen: set[tuple[int, str]] = set()
        self.accepted: Log[AcceptedEvent] = Log(keep)
        self.repeats: Log[AcceptedEvent] = Log(keep)

    def __iter__(self) -> Iterator[EventDefinition]:
        return iter(self._definitions.values())

    def get(self, event_id: int) -> EventDefinition | None:
        """Return a definition."""
        return self._definitions.get(event_id)

    def has_name(self, name: str) -> bool:
        """Tell whether an event has this name."""
        return any(one.name == name for one in self._definitions.values())

    def define(self, name: str, now: int, event_id: int | None = None, *, connected: bool = True) -> EventDefinition:
        """Make an event, *connected* to a program of the Automation Center or to nothing."""
        number = self._next if event_id is None else event_id
        programs = (_PROGRAM + number,) if connected else ()
        definition = EventDefinition(number, name, now, program_ids=programs)
        self.put(definition)
        return definition

    def put(self, definition: EventDefinition) -> None:
        """Take up a definition, or another one under the same id."""
        self._definitions[definition.id] = definition
        self._next = max(self._next, definition.id + 1)

    def is_repeated(self, event_id: int, trigger_id: str | None) -> bool:
        """Tell whether a trigger id was used before for this event."""
        return trigger_id is not None and (event_id, trigger_id) in self._seen

    def accept(self, events: Iterable[AcceptedEvent]) -> None:
        """Keep what was triggered."""
        for event in events:
            log = self.repeats if event.repeated and self._dedupe else self.accepted
            log.add(event)
            if event.trigger_id is not None:
                self._seen.add((event.event_id, event.trigger_id))
