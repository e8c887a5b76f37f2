"""
The users table as a model: semantics.md section 1 in plain dictionaries, with the numbers of its steps.

Where the text is silent a comment with *Chosen* says what the model does and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.model.identifiers import Identifiers
from tests.model.profiles import Identifier, Profile, Tombstone, Version, compatible, is_anonymous, place, rank
from tests.model.reading import UNITS, Json, event_time, message_id
from tests.model.rules import rules_of

USERS_PER_KEY = 5
"""More users than this and a key matches nobody any more (1.7)."""

KNOWN_TTL = 365 * UNITS["d"]
SHARED_TTL = 90 * UNITS["d"]
"""Milliseconds after which a profile with a user but no key goes, and a device is no longer shared (1.8)."""

CODES = (
    "id_blocked", "id_wrong_type", "id_too_long", "key_not_email", "unidentifiable", "key_shared", "anon_shared",
    "alias_refused", "alias_incomplete", "merge_limit",
)  # fmt: skip
"""Warnings in the order in which those of one call come (amendment 3)."""


@dataclass(frozen=True)
class Call:
    """A call, read."""

    ids: Identifiers
    time: int
    version: Version
    values: Mapping[str, Json]
    is_alias: bool


class Model:
    """One space's users table."""

    def __init__(self, document: Mapping[str, Json]) -> None:
        self.rules = rules_of(document)
        self.live: dict[int, Profile] = {}
        self.owner: dict[Identifier, Profile] = {}
        self.isolates: dict[Identifier, Profile] = {}
        self.shared_since: dict[str, int] = {}
        self.users_of_key: dict[str, set[str]] = {}
        self.quarantined: set[str] = set()
        self.tombstones: dict[Identifier, list[Tombstone]] = {}
        self.erasures = 0
        self.pids = 0
        self.now = 0
        self.codes: list[str] = []
        self.met: set[str] = set()

    # What a users table can do

    def call(self, message: Mapping[str, Json], arrival: int) -> str:
        """Take a call in: ok, duplicate or dropped."""
        self._expire(arrival)
        call, self.met = self._read(message, arrival), set()
        result = self._take(call)
        self.codes += sorted([*call.ids.refused, *self.met], key=CODES.index)
        self._expire(arrival)
        return result

    def erase(self, kind: str, value: str, mode: str, now: int) -> None:
        """Erase a person (1.9). *Chosen*: an identifier that nobody has gets its tombstone all the same."""
        self._expire(now)
        identifier = self._identifier(kind, value)
        profile = self.owner.get(identifier) or self.isolates.get(identifier)
        identifiers = {identifier} if profile is None else {identifier, *self._identifiers(profile)}
        self.erasures += 1
        for each in identifiers:
            self._forget(each)
            stones = self.tombstones.setdefault(each, [])
            # Chosen: what is suppressed already stays in its first suppression.
            if mode != "suppress" or all(stone.mode != "suppress" for stone in stones):
                stones.append(Tombstone(self.erasures, mode, now))
        if profile is not None:
            self._remove(profile)
            for users in self.users_of_key.values():
                users.difference_update(value for kind, value in identifiers if kind == "user")

    def unsuppress(self, kind: str, value: str) -> None:
        """End a suppression. *Chosen*: under any identifier of the person, for all of them, as it began."""
        ended = {stone.erasure for stone in self.tombstones.get(self._identifier(kind, value), ())}
        for identifier, stones in list(self.tombstones.items()):
            left = [stone for stone in stones if stone.mode != "suppress" or stone.erasure not in ended]
            self.tombstones[identifier] = left

    def profiles(self) -> list[dict[str, Json]]:
        """Return all profiles, sorted, without isolates."""
        return [profile.shown() for profile in self._visible()]

    def values(self) -> list[dict[str, Json]]:
        """Return all profiles with their values."""
        return [
            profile.shown() | {"values": {name: held.value for name, held in sorted(profile.values.items())}}
            for profile in self._visible()
        ]

    def shared(self) -> list[str]:
        """Return the devices that belong to nobody."""
        return sorted(self.shared_since)

    def warnings(self) -> list[str]:
        """Return the codes of all warnings so far."""
        return list(self.codes)

    def is_needed(self, profile: Profile) -> bool:  # noqa: ARG002
        """Tell whether somebody stays although his lifetime is over; who is in no rule does not."""
        return False

    # A call

    def _read(self, message: Mapping[str, Json], arrival: int) -> Call:
        """Read a call (1.1, 1.2)."""
        time = event_time(message, arrival)
        values = {row.name: row.value(message, self.rules.zone) for row in self.rules.data_maps}
        return Call(
            ids=self.rules.reader.read(message),
            time=time,
            version=(time, message_id(message)),
            values={name: value for name, value in values.items() if value is not None},
            is_alias=message.get("type") == "alias",
        )

    def _take(self, call: Call) -> str:
        if self._is_erased(call):  # step 0
            return "dropped"
        if call.is_alias and not self._links(call):
            # Chosen: it links nobody, and is a call like any other, of whom else it names.
            self.met.add("alias_incomplete")
        if call.ids.user is None and call.ids.key in self.quarantined:
            self.met.add("key_shared")
        if call.ids.user is None and call.ids.anon is None and call.ids.key in {None, *self.quarantined}:
            # Chosen: a key that matches nobody (1.7) is no usable identifier (1.2).
            self.met.add("unidentifiable" if call.ids.key is None else "key_shared")
            return "dropped"
        profile = self._whose(call)
        if not profile.isolate:
            self._claim_user(profile, call)
            profile = self._link_previous(profile, call)
            profile = self._claim_key(profile, call)
            profile = self._claim_anon(profile, call)
        return self._note(profile, call)

    def _links(self, call: Call) -> bool:
        """Tell whether a call is an alias of two names (1.6)."""
        return None not in (call.ids.user, call.ids.previous) and call.ids.user != call.ids.previous

    def _is_erased(self, call: Call) -> bool:
        """Step 0: `delete` covers what happened until the erasure, `suppress` everything."""
        ids = call.ids
        named = [
            ("user", ids.user),
            ("key", ids.key),
            ("anon", ids.anon),
            ("user", ids.previous),
            ("anon", ids.previous),
        ]
        stones = [stone for kind, value in named if value for stone in self.tombstones.get((kind, value), ())]
        return any(stone.mode == "suppress" or call.time <= stone.at for stone in stones)

    def _whose(self, call: Call) -> Profile:
        """Find out whose call it is, steps 1 to 5."""
        user, key, anon = call.ids.user, call.ids.key, call.ids.anon
        if user and (owner := self.owner.get(("user", user))):  # 1
            return owner
        if self._links(call) and (owner := self._previous(call)) and self._may_rename(owner, call):  # 1.6, rows 2 and 3
            return owner
        if key and (owner := self.owner.get(("key", key))) and (not user or owner.user in (None, user)):  # 2
            return owner
        if anon and (owner := self.owner.get(("anon", anon))) and self._may_find(owner, call):  # 3
            return owner
        if not user and (key is None or key in self.quarantined) and (anon is None or anon in self.shared_since):  # 4
            # Chosen: a quarantined key beside the device says nothing more.
            return self._isolate(("anon", str(anon)), call.time)
        return self._new(call.time)  # 5

    def _may_find(self, owner: Profile, call: Call) -> bool:
        """
        Step 3: the device's owner does not contradict the call.

        *Chosen*: in the mode `strict` a device finds somebody known only for a call that has no user and key, since
        1.3 says that I17 ends in a shared device there, which step 8c alone does not lead to.
        """
        if not compatible(owner, call.ids.user, call.ids.key):
            return False
        return self.rules.stitch != "strict" or is_anonymous(owner) or not (call.ids.user or call.ids.key)

    def _may_rename(self, owner: Profile, call: Call) -> bool:
        """
        1.6, rows 2 and 3: whether the owner of previousId gets the new user.

        *Chosen*: a device whose owner has another key than the call is not anonymous, but another person's.
        """
        return owner.user == call.ids.previous or compatible(owner, call.ids.user, call.ids.key)

    def _claim_user(self, profile: Profile, call: Call) -> None:
        """Take step 6; a rename (1.6, row 3) as well."""
        if call.ids.user and ("user", call.ids.user) not in self.owner:
            profile.is_named_now = profile.user is None
            profile.user = call.ids.user
            self.owner["user", call.ids.user] = profile

    def _link_previous(self, profile: Profile, call: Call) -> Profile:
        """1.6: previousId and userId are one person, unless both are known."""
        previous, owner = call.ids.previous, self._previous(call)
        if not previous or not self._links(call):
            return profile
        if owner is None or self.owner.get(("user", previous)) is profile:
            return self._point(profile, previous)
        if owner is profile:
            return profile
        known = owner.user is not None
        fits = compatible(owner, profile.user, call.ids.key or profile.key)
        if self.rules.alias_merge_known if known else fits:
            return self._merge(profile, owner) or profile
        # Chosen: a profile with another key but no user is no less another person than a known user.
        self.met.add("alias_refused")
        return profile

    def _previous(self, call: Call) -> Profile | None:
        """Return the owner of previousId: looked up as user, then as anon."""
        previous = call.ids.previous
        return self.owner.get(("user", previous or "")) or self.owner.get(("anon", previous or ""))

    def _point(self, profile: Profile, previous: str) -> Profile:
        """
        Let a previousId that is unknown, or a user of the profile, point at the profile.

        *Chosen*: it may turn out to be a user or a device, so it points as both; as a device it is listed only when it
        has been seen as one. Otherwise an alias that arrives before the calls of its device would leave two profiles.
        """
        self.owner["user", previous] = profile
        if previous not in self.shared_since:
            self.owner.setdefault(("anon", previous), profile)
        return profile

    def _claim_key(self, profile: Profile, call: Call) -> Profile:
        """Step 7."""
        key = call.ids.key
        if key is None:
            return profile
        owner = self.owner.get(("key", key))
        if owner is not None and owner.user and profile.user and owner.user != profile.user:
            self._count_users(key, owner, profile)
        if key in self.quarantined:
            # Chosen: the person keeps the address, the key just matches nobody.
            self.met.add("key_shared")
            profile.set_key(key, call.version)
            return profile
        if owner is None:  # a
            self.owner["key", key] = profile
        elif owner is profile:  # b
            pass
        elif not (owner.user and profile.user and owner.user != profile.user):  # c
            # Chosen: when the limit refuses the merge, the profile uses the key as in e.
            profile = self._merge(profile, owner) or profile
        elif owner.key != key:  # d
            owner.former.discard(key)
            owner.changed = self.now
            self.owner["key", key] = profile
        else:  # e
            return self._share_key(profile, owner, key, call)
        profile.set_key(key, call.version)
        return profile

    def _share_key(self, profile: Profile, owner: Profile, key: str, call: Call) -> Profile:
        """Step 7e, two users with one key, in the four modes of onKeyShared."""
        self.met.add("key_shared")
        mode = self.rules.on_key_shared
        if mode == "refuse":
            return profile
        if mode == "move":
            # Chosen: the former owner is left without a key, also without the ones before.
            owner.key, owner.key_version, owner.changed = None, None, self.now
            self.owner["key", key] = profile
        if mode == "merge":
            profile = self._merge(profile, owner) or profile
        profile.set_key(key, call.version)
        return profile

    def _count_users(self, key: str, owner: Profile, profile: Profile) -> None:
        """
        1.7: with too many users a key is quarantined.

        *Chosen*: users count when they claim a key that another user has or had, and go on counting when they leave it.
        In the mode `merge` those count, and go on counting, whom it has made one person: a merge cannot be undone.
        """
        users = self.users_of_key.setdefault(key, set())
        users |= {one.user for one in (owner, profile) if one.user}
        if self.rules.on_key_shared == "merge":
            users |= {user for (kind, user), one in self.owner.items() if kind == "user" and one in (owner, profile)}
        if len(users) > USERS_PER_KEY:
            self.quarantined.add(key)
            owner.changed = self.now
            self.owner.pop(("key", key), None)

    def _claim_anon(self, profile: Profile, call: Call) -> Profile:
        """Step 8."""
        anon = call.ids.anon
        if anon in self.shared_since:  # a
            # Chosen: "the last conflicting call" (1.8) is the last one of somebody who says who he is, by its arrival.
            self.shared_since[anon] = self.now
        elif anon:
            owner = self.owner.setdefault(("anon", anon), profile)  # b
            if owner is not profile and self._may_merge(owner, profile):  # c
                profile = self._merge(profile, owner) or profile
                # When the limit refuses the merge, the device stays with its owner.
            elif owner is not profile and self.rules.stitch != "first-owner":  # d
                self.met.add("anon_shared")
                owner.changed = self.now
                self._forget(("anon", anon))
                self.shared_since[anon] = self.now
            if self.owner.get(("anon", anon)) is profile:
                profile.see(anon, call.time, call.time)
        while len(profile.anons) > self.rules.anon_limit:
            # Chosen: of two seen last at one time the lesser text leaves.
            self._forget(("anon", min(profile.anons, key=lambda each: (profile.anons[each].last, each))))
        return profile

    def _may_merge(self, owner: Profile, profile: Profile) -> bool:
        """Step 8c; in the mode `strict` only with a purely anonymous owner."""
        fits = compatible(owner, profile.user, profile.key)
        return fits and (self.rules.stitch != "strict" or is_anonymous(owner))

    def _note(self, profile: Profile, call: Call) -> str:
        """Step 9, the values and the log: what makes the call count."""
        profile.is_new = profile.is_named_now = False
        profile.first_seen = min(profile.first_seen, call.time)
        profile.changed = self.now
        for name, value in call.values.items():
            profile.set_value(name, value, call.version)
        known = call.version[1] in profile.log
        profile.log.add(call.version[1])
        return "duplicate" if known else "ok"

    # Profiles

    def _new(self, time: int) -> Profile:
        self.pids += 1
        self.live[self.pids] = Profile(self.pids, first_seen=time, changed=self.now)
        return self.live[self.pids]

    def _isolate(self, identifier: Identifier, time: int) -> Profile:
        if identifier not in self.isolates:
            self.isolates[identifier] = self._new(time)
            self.isolates[identifier].isolate = True
        return self.isolates[identifier]

    def _merge(self, one: Profile, other: Profile) -> Profile | None:
        """
        1.4: make two profiles one, which has the user of the one that stays; None when the limit refuses it.

        *Chosen*: `merges` is how many profiles went into one, so that it does not depend on the order of merges.
        """
        if one.is_new or other.is_new:
            # Chosen: whom this call has just made is not merged: nothing is known of him but what the call says.
            stays = other if one.is_new else one
            return self._absorb(stays, one if one.is_new else other)
        merges = one.merges + other.merges + 1
        if merges > self.rules.merge_limit:
            self.met.add("merge_limit")
            return None
        stays, goes = sorted((one, other), key=rank)
        stays.merges, stays.merged_from = merges, stays.merged_from | goes.merged_from | {goes.pid}
        return self._absorb(stays, goes)

    def _absorb(self, stays: Profile, goes: Profile) -> Profile:
        """Let all of one profile be another's."""
        stays.user = stays.user or goes.user
        stays.first_seen = min(stays.first_seen, goes.first_seen)
        stays.log |= goes.log
        stays.former |= goes.former
        if goes.key is not None and goes.key_version is not None:
            stays.set_key(goes.key, goes.key_version)
        stays.former.discard(stays.key or "")
        for anon, seen in goes.anons.items():
            stays.see(anon, seen.first, seen.last)
        for name, held in goes.values.items():
            stays.set_value(name, held.value, held.version)
        for identifier in [each for each, owner in self.owner.items() if owner is goes]:
            self.owner[identifier] = stays
        del self.live[goes.pid]
        return stays

    def _identifiers(self, profile: Profile) -> set[Identifier]:
        """
        Return all identifiers of a profile.

        *Chosen*: a key that it uses and somebody else owns, or that is quarantined, is not among them: its tombstone
        would drop the calls of others.
        """
        own = {identifier for identifier, owner in self.owner.items() if owner is profile}
        own |= {identifier for identifier, isolate in self.isolates.items() if isolate is profile}
        keys = profile.former | ({profile.key} if profile.key else set())
        return own | {("key", key) for key in keys - self.quarantined if ("key", key) not in self.owner}

    def _forget(self, identifier: Identifier) -> None:
        """Take away all that is known under an identifier, except the profile."""
        kind, value = identifier
        owner = self.owner.pop(identifier, None)
        if kind == "anon":
            self.shared_since.pop(value, None)
            if owner is not None:
                owner.anons.pop(value, None)
        if kind == "key":
            self.quarantined.discard(value)
            self.users_of_key.pop(value, None)

    def _remove(self, profile: Profile) -> None:
        del self.live[profile.pid]
        self.owner = {each: owner for each, owner in self.owner.items() if owner is not profile}
        self.isolates = {each: isolate for each, isolate in self.isolates.items() if isolate is not profile}

    def _expire(self, now: int) -> None:
        """
        1.8. *Chosen*: the clock is the latest arrival so far; what ends at an instant is gone at that instant.

        *Chosen*: a lifetime begins anew, by arrival, with every call of the person, and with every call of another
        that takes an identifier away: who has lost his key just now is somebody without a key from now on.
        """
        self.now = max(self.now, now)
        for profile in list(self.live.values()):
            lives = None if profile.key else KNOWN_TTL if profile.user else self.rules.anonymous_ttl
            if lives is not None and profile.changed + lives <= self.now and not self.is_needed(profile):
                self._remove(profile)
        self.shared_since = {
            anon: since for anon, since in self.shared_since.items() if since + SHARED_TTL > self.now
        }  # fmt: skip

    def _visible(self) -> list[Profile]:
        return sorted((profile for profile in self.live.values() if not profile.isolate), key=place)

    def _identifier(self, kind: str, value: str) -> Identifier:
        """Return the identifier that an operator names. *Chosen*: also a blocked one, which changes nothing."""
        return kind, self.rules.reader.usable(kind, value).text or value
