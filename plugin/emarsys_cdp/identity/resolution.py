"""
Which person a call is of, what it claims, and which two profiles it joins: semantics 1.3, step by step. Pure.

A wrong merge mails one person's cart to another and cannot be undone; a missed one only delays. So where two people
could be meant, an identifier becomes nobody's, or stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from emarsys_cdp.identity.entries import ANON, KEY, USER, Entry, Previous
from emarsys_cdp.identity.picture import (
    NOBODY,
    Owners,
    Picture,
    Records,
    Rows,
    compatible,
    has_user,
)
from emarsys_cdp.store.record import Record
from emarsys_cdp.store.rows import QUARANTINED, SUPPRESS, Row

MAX_USERS_OF_KEY = 5
"""People who may use one key; when a further one comes, the key is nobody's (semantics 1.7)."""

SHARE, RENEW, TAKE, QUARANTINE, COUNT = "share", "renew", "take", "quarantine", "count"
"""What a call changes about an identifier that somebody else has, or nobody: a device is shared for longer."""

WARNINGS = {SHARE: "anon_shared", TAKE: "key_shared", QUARANTINE: "key_shared", COUNT: "key_shared"}
"""What a call that changes an identifier is warned of, if of anything."""

Tag = Callable[[str, str], str]
"""Space and userId to what a row notes of a user (`rows.py`)."""


class Change(Struct, frozen=True, gc=False):
    """
    A row that the call's person does not have, and what becomes of it: see `SHARE` and its neighbours.

    *holder* has it so far. *users* are tags of those who have claimed the key by now.
    """

    what: str
    name: str
    holder: str = NOBODY
    users: tuple[str, ...] = ()


class Resolution(Struct, frozen=True, gc=False):
    """
    The person of a call: *pid* is None when the call belongs to nobody.

    *claims* are (rank, row name) of identifiers without an owner, *changes* what becomes of those of others. *merge*
    are two profiles that have to be joined before the call can be added; then only those *warnings* are there that
    will not come up any more. *takes_key*: the call's key may be the person's. *rename*: an alias call gives the
    person another userId. *isolate*: it is the profile of a shared anonymousId. *dropped* says why the call must not
    come in.
    """

    pid: str | None
    claims: tuple[tuple[int, str], ...] = ()
    changes: tuple[Change, ...] = ()
    merge: tuple[str, str] | None = None
    warnings: tuple[str, ...] = ()
    takes_key: bool = True
    rename: bool = False
    isolate: bool = False
    dropped: str | None = None


ERASED = "the person was erased, and the call is from before"
SUPPRESSED = "the person is suppressed"


def resolve(
    entry: Entry, owners: Owners, records: Records, new_pid: Callable[[], str], tag: Tag, rows: Rows | None = None
) -> Resolution:
    """Return the person of a call, given the owners of its identifiers and their records."""
    user_name, key_name, anon_name = entry.names
    if rows:
        for name in entry.all_names():
            row = rows.get(name)
            if row is not None and row.drops(entry.event_time):
                return Resolution(None, dropped=SUPPRESSED if row.mode == SUPPRESS else ERASED)
    elif entry.previous is None and user_name is not None:
        pid = owners.get(user_name)
        record = records.get(pid) if pid else None
        if (
            record is not None
            and (record.user is None or has_user(record, entry.ids.user))
            and (key_name is None or owners.get(key_name) == pid)
            and (anon_name is None or owners.get(anon_name) == pid)
        ):
            return Resolution(pid, warnings=entry.warned)
    return _Resolving(entry, Picture(owners, records, rows or {}), new_pid, tag).run()


class _Resolving:
    """One call on its way through the steps."""

    def __init__(self, entry: Entry, picture: Picture, new_pid: Callable[[], str], tag: Tag) -> None:
        self._entry = entry
        self._picture = picture
        self._new_pid = new_pid
        self._tag = tag
        self._claims: list[tuple[int, str]] = []
        self._changes: list[Change] = []
        self._warnings = list(entry.warned)
        self._lasting = len(self._warnings)
        self._merge: tuple[str, str] | None = None
        self._alias_of: Previous | None = None
        self._takes_key = True
        self._rename = False

    def run(self) -> Resolution:
        """Return the resolution: steps 1 to 8."""
        entry, picture = self._entry, self._picture
        user_name, key_name, anon_name = entry.names
        key_counts = key_name is not None and not self._is_quarantined(key_name)
        previous = entry.previous
        if previous is not None and (entry.ids.user is None or previous.value in ("", entry.ids.user)):
            self._warnings.append("alias_incomplete")
            previous = None
        self._alias_of = previous
        if user_name is None and not key_counts and (anon_name is None or self._is_shared()):
            return self._nobody(anon_name)
        pid = self._by_user() or self._alias() or self._joined() or self._by_key() or self._by_device()
        self._pid = pid or self._new_pid()
        self._record = picture.records.get(self._pid) or Record(entry.space)
        self._user = entry.ids.user if self._rename else self._record.user or entry.ids.user
        if user_name is not None and self._by_user() is None:
            self._claims.append((USER, user_name))
        if previous is not None:
            self._previous(previous)
        if key_name is not None:
            self._key(key_name)
        if anon_name is not None:
            self._device(anon_name)
        if self._merge is not None:
            return Resolution(
                self._pid, merge=self._merge, warnings=tuple(dict.fromkeys(self._warnings[: self._lasting]))
            )
        return Resolution(
            self._pid,
            tuple(self._claims),
            tuple(self._changes),
            None,
            tuple(dict.fromkeys(self._warnings)),
            self._takes_key,
            self._rename,
        )

    def _is_quarantined(self, name: str) -> bool:
        row = self._picture.rows.get(name)
        return row is not None and row.kind == QUARANTINED

    def _is_shared(self) -> bool:
        return self._picture.is_shared(self._entry.names[ANON])

    def _nobody(self, anon_name: str | None) -> Resolution:
        """Step 4: a call that has nothing but a shared anonymousId, and one that has not even that."""
        key_name = self._entry.names[KEY]
        if key_name is not None:
            self._warnings.append("key_shared")
        elif anon_name is None:
            self._warnings.append("unidentifiable")
        warnings = tuple(self._warnings)
        if anon_name is None:
            return Resolution(None, warnings=warnings)
        pid = self._picture.isolate(anon_name)
        if pid is not None and pid in self._picture.records:
            return Resolution(pid, warnings=warnings, takes_key=False, isolate=True)
        return Resolution(self._new_pid(), ((ANON, anon_name),), warnings=warnings, takes_key=False, isolate=True)

    def _joined(self) -> str | None:
        """
        Return the profile that this call has joined with another one, as somebody whose userId was new then.

        If another user has come to it meanwhile, it is that user's.
        """
        users = {user for _, user in self._entry.joined}
        users = users - {None} or users
        for pid, _ in self._entry.joined:
            record = self._picture.records.get(pid)
            if record is not None and not record.isolate and record.user in users:
                return pid
        return None

    def _alias(self) -> str | None:
        """
        Return the profile of the previousId, for an alias call whose userId is new (semantics 1.6).

        One that has another user gets the new userId only when the previousId is that user.
        """
        previous = self._alias_of
        if previous is None:
            return None
        pid = self._picture.holder(previous.user_name)
        if pid is not None:
            self._rename = self._picture.records[pid].user == previous.value
            if self._rename:
                return pid
            return pid if self._fits(pid) else None
        pid = self._picture.holder(previous.anon_name)
        return pid if pid is not None and self._fits(pid) else None

    def _fits(self, pid: str) -> bool:
        record, ids = self._picture.records[pid], self._entry.ids
        return compatible(record, ids.user, ids.key)

    def _by_user(self) -> str | None:
        """Step 1: the profile of the userId; one that has another user does not count, whatever the row says."""
        pid = self._picture.holder(self._entry.names[USER])
        if pid is None:
            return None
        record = self._picture.records[pid]
        return pid if record.user is None or has_user(record, self._entry.ids.user) else None

    def _by_key(self) -> str | None:
        """Step 2: the profile of the key, unless it is of another user."""
        ids, (_, key_name, _) = self._entry.ids, self._entry.names
        pid = self._picture.holder(key_name)
        if pid is None:
            return None
        record = self._picture.records[pid]
        return pid if ids.user is None or record.user is None or has_user(record, ids.user) else None

    def _by_device(self) -> str | None:
        """Step 3: the profile of the anonymousId, unless something says that it is of another person."""
        pid = self._picture.holder(self._entry.names[ANON])
        if pid is None or not self._fits(pid):
            return None
        record, ids = self._picture.records[pid], self._entry.ids
        tells = ids.user is not None or ids.key is not None
        known = record.user is not None or record.key is not None
        return None if self._entry.policy.stitch == "strict" and tells and known else pid

    def _previous(self, previous: Previous) -> None:
        """Let the previousId of an alias call point at the person too, or merge its profile (semantics 1.6)."""
        picture, key = self._picture, self._entry.ids.key
        other = picture.holder(previous.user_name) or picture.holder(previous.anon_name)
        if other is None:
            self._claims.append((USER, previous.user_name))
        if other is None or picture.holder(previous.user_name) == self._pid:
            # It may be a user or a device: a call of either that comes after the alias finds the person.
            if picture.holder(previous.anon_name) is None and not picture.is_shared(previous.anon_name):
                self._claims.append((ANON, previous.anon_name))
        elif other != self._pid:
            record = picture.records[other]
            known = record.user is not None and not has_user(record, self._user)
            allowed = self._entry.policy.alias_merge_known
            fits = compatible(record, self._user, key or self._record.key)
            if allowed if known else fits:
                self._join(other)
            else:
                self._warnings.append("alias_refused")

    def _key(self, name: str) -> None:
        """Step 7: the key."""
        other = self._picture.holder(name)
        if self._is_quarantined(name):
            self._warnings.append("key_shared")
        elif other is None:
            self._claims.append((KEY, name))
        elif other != self._pid:
            record = self._picture.records[other]
            if record.user is None or self._user is None or has_user(record, self._user):
                self._join(other)
            else:
                self._conflict(name, other, record)

    def _conflict(self, name: str, other: str, record: Record) -> None:
        """Two users have the same key, or one has it and the other had."""
        mode, row = self._entry.policy.on_key_shared, self._picture.rows.get(name)
        noted, users = row.users if row is not None else (), self._users_of_key(row, record)
        if len(users) > MAX_USERS_OF_KEY:
            self._warnings.append("key_shared")
            self._changes.append(Change(QUARANTINE, name, other))
            return
        if record.key != self._entry.ids.key:
            self._changes.append(Change(TAKE, name, other, users))
            return
        self._warnings.append("key_shared")
        if mode == "merge":
            asks = self._merge is None
            self._join(other)
            if asks:
                self._lasting = len(self._warnings)
            if self._merge is not None or self._pid == other:
                return  # else the limit refuses it, and the two share the key
        if mode == "refuse":
            self._takes_key = False
        if mode == "move":
            self._changes.append(Change(TAKE, name, other, users))
        elif users != noted:
            self._changes.append(Change(COUNT, name, other, users))

    def _users_of_key(self, row: Row | None, owner: Record) -> tuple[str, ...]:
        """
        Return tags of the users who have claimed a key: the owner, this person, and those before.

        Where users of one key are merged, each that its owner has become counts.
        """
        noted = row.users if row is not None else ()
        users = [owner.user, self._user]
        if self._entry.policy.on_key_shared == "merge":
            users += [*owner.aliases, *self._record.aliases]
        space = self._entry.space
        return tuple(sorted({*noted, *(self._tag(space, user) for user in users if user is not None)}))

    def _device(self, name: str) -> None:
        """Step 8: the anonymousId."""
        if self._is_shared():
            self._changes.append(Change(RENEW, name))
            return
        other = self._picture.holder(name)
        if other is None:
            self._claims.append((ANON, name))
        elif other != self._pid and not self._is_merged(other):
            record, stitch = self._picture.records[other], self._entry.policy.stitch
            joins = compatible(record, self._user, self._key_after())
            if joins and stitch == "strict":
                joins = record.user is None and record.key is None
            if joins:
                self._join(other)
            elif stitch != "first-owner":
                self._changes.append(Change(SHARE, name, other))
                self._warnings.append("anon_shared")

    def _is_merged(self, pid: str) -> bool:
        return self._merge is not None and pid in self._merge

    def _key_after(self) -> str | None:
        """Return the person's key after this call: the claim that is last by (event time, messageId)."""
        record, entry = self._record, self._entry
        key = entry.ids.key if self._takes_key else None
        if key is None or record.key is None:
            return record.key or key
        newer = (entry.event_time, entry.message_id) > (record.key_time, record.key_message)
        return key if newer else record.key

    def _join(self, other: str) -> None:
        """Ask for a merge with another profile: one at a time, since the call is resolved anew after it."""
        if self._merge is not None:
            return
        if self._pid not in self._picture.records:
            self._pid = other  # nothing of a new person has to be merged
            self._record = self._picture.records[other]
            self._user = self._record.user or self._user
            return
        merges = len(self._record.merged_from) + len(self._picture.records[other].merged_from) + 1
        if merges > self._entry.policy.merge_limit:
            self._warnings.append("merge_limit")
            return
        self._merge = (self._pid, other)
