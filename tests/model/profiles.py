"""What the model knows of a person, and of one who was erased."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.reading import Json

Identifier = tuple[str, str]
"""Kind and value."""

Version = tuple[int, str]
"""Event time and messageId: the total order of calls (1.1)."""


@dataclass
class Seen:
    """When a device was seen, by event time."""

    first: int
    last: int


@dataclass
class Value:
    """The last value of a data map."""

    value: Json
    version: Version


@dataclass(eq=False)
class Profile:
    """
    A person, as far as is known.

    `isolate`: all that happens on a device that belongs to nobody. `is_new`: the call that made it is not yet noted;
    `is_named_now`: nor the one that gave it a user. `changed`: when something of it has changed last, by arrival.
    """

    pid: int
    first_seen: int
    changed: int
    isolate: bool = False
    is_new: bool = True
    is_named_now: bool = False
    user: str | None = None
    key: str | None = None
    key_version: Version | None = None
    former: set[str] = field(default_factory=set)
    anons: dict[str, Seen] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    log: set[str] = field(default_factory=set)
    merges: int = 0
    merged_from: set[int] = field(default_factory=set)

    def set_key(self, key: str, version: Version) -> None:
        """Make the claim of the greater version the key, the other one a former key."""
        if self.key is None or self.key_version is None:
            self.key, self.key_version = key, version
        elif key == self.key:
            self.key_version = max(self.key_version, version)
        elif version > self.key_version:
            self.former.add(self.key)
            self.key, self.key_version = key, version
        else:
            self.former.add(key)
        self.former.discard(self.key)

    def set_value(self, name: str, value: Json, version: Version) -> None:
        """Last writer wins. *Chosen*: of two with one version the first stays (a redelivery changes nothing)."""
        if name not in self.values or version > self.values[name].version:
            self.values[name] = Value(value, version)

    def see(self, anon: str, first: int, last: int) -> None:
        """Note that a device was seen from *first* to *last*."""
        seen = self.anons.setdefault(anon, Seen(first, last))
        seen.first, seen.last = min(seen.first, first), max(seen.last, last)

    def shown(self) -> dict[str, Json]:
        """Return what `profiles` shows."""
        return {"user": self.user, "key": self.key, "anons": sorted(self.anons), "former": sorted(self.former)}


@dataclass(frozen=True)
class Tombstone:
    """A person was erased under this identifier; `erasure` is the same in all tombstones of one erasure."""

    erasure: int
    mode: str
    at: int


def compatible(profile: Profile, user: str | None, key: str | None) -> bool:
    """1.3: neither another user nor another key."""
    other_user = bool(profile.user and user and profile.user != user)
    other_key = bool(profile.key and key and profile.key != key)
    return not other_user and not other_key


def is_anonymous(profile: Profile) -> bool:
    """1.1: neither user nor key."""
    return profile.user is None and profile.key is None


def rank(profile: Profile) -> tuple[bool, bool, int, int]:
    """1.4: who survives a merge. *Chosen*: a user counts from the next call on."""
    return profile.user is None or profile.is_named_now, profile.key is None, profile.first_seen, profile.pid


def place(profile: Profile) -> tuple[str, str, list[str], list[str]]:
    """Return where a profile stands in the list."""
    return profile.user or "", profile.key or "", sorted(profile.anons), sorted(profile.former)
