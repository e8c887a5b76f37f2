"""The contact lists of the fake's account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.records import ContactList, Json
from emarsys_cdp.testing.fake_emarsys.replies import number_of

FIRST_ID: Final = 5001


class _List(Struct):
    """A list that changes; *members* is a set that keeps its order."""

    id: int
    name: str
    description: str
    created: int
    members: dict[int, None]

    def frozen(self) -> ContactList:
        return ContactList(self.id, self.name, self.description, self.created, tuple(self.members))


class ListBook:
    """All lists, by id."""

    def __init__(self) -> None:
        self._lists: dict[int, _List] = {}
        self._next = FIRST_ID

    def __iter__(self) -> Iterator[ContactList]:
        return (one.frozen() for one in self._lists.values())

    def create(self, name: str, description: str, now: int, list_id: int | None = None) -> int:
        """Make a list and return its id."""
        number = self._next if list_id is None else list_id
        self._next = max(self._next, number + 1)
        self._lists[number] = _List(number, name, description, now, {})
        return number

    def has_name(self, name: str) -> bool:
        """Tell whether a list has this name."""
        return any(one.name == name for one in self._lists.values())

    def find(self, list_id: Json) -> int | None:
        """Return the id of the list that a request means, None when there is none."""
        number = None if isinstance(list_id, bool) else number_of(str(list_id))
        return number if number in self._lists else None

    def add(self, list_id: int, contacts: Iterable[int]) -> int:
        """Put contacts into a list and return how many were new to it."""
        members = self._lists[list_id].members
        before = len(members)
        members.update(dict.fromkeys(contacts))
        return len(members) - before

    def remove(self, list_id: int, contacts: Iterable[int]) -> int:
        """Take contacts out of a list and return how many were in it."""
        members = self._lists[list_id].members
        found = [contact for contact in dict.fromkeys(contacts) if contact in members]
        for contact in found:
            del members[contact]
        return len(found)

    def forget(self, contact: int) -> None:
        """Take a deleted contact out of every list."""
        for one in self._lists.values():
            one.members.pop(contact, None)
