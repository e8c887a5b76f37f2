"""A call as the users table takes it, and how the users table of its space behaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from emarsys_cdp.identity.ruling import Ruled
from emarsys_cdp.store.keys import Namer, Names
from emarsys_cdp_hooks import Identifiers, StoredValue

USER, KEY, ANON = 0, 1, 2
"""Ranks of the kinds of identifiers: missing rows are claimed in this order."""


class Policy(Struct, frozen=True, gc=False):
    """
    How a space treats conflicts (semantics 1.3), and its limits (semantics 1.7).

    *stitch*: default, strict, first-owner. *on_key_shared*: share, refuse, move, merge.
    """

    stitch: str = "default"
    on_key_shared: str = "share"
    anon_limit: int = 100
    merge_limit: int = 100
    alias_merge_known: bool = False


DEFAULT_POLICY = Policy()

NO_NAMES: Names = (None, None, None)


class Previous(Struct, frozen=True, gc=False):
    """
    The `previousId` of an alias call, and its row names as a userId and as an anonymousId.

    *value* is empty when there is no usable one; *warning* says why it was refused.
    """

    value: str
    user_name: str
    anon_name: str
    warning: str | None = None


class Entry(Struct, frozen=True, gc=False):
    """
    One call to add to the users table.

    *values* holds what the data maps read. *previous* is what an alias call names beside its userId. *names* are the
    row names of userId, primary key and anonymousId, None where the call has none; they are made when they are needed.
    *warned*: what the call was warned of already, when it was tried before. *joined* are profiles that became one since
    the call asked for it, with the users that they had then. *ruled* is set when rules look at the call.
    """

    space: str
    type: str
    message_id: str
    event_time: int
    ids: Identifiers
    values: Mapping[str, StoredValue]
    policy: Policy = DEFAULT_POLICY
    previous: Previous | None = None
    names: Names = NO_NAMES
    warned: tuple[str, ...] = ()
    joined: tuple[tuple[str, str | None], ...] = ()
    ruled: Ruled | None = None

    def named(self, namer: Namer) -> Entry:
        """Return the call with its row names."""
        if self.names is not NO_NAMES:
            return self
        ids = self.ids
        return replace(self, names=namer.names(self.space, ids.user, ids.key, ids.anon))

    def all_names(self) -> Iterator[str]:
        """Yield the names of all rows that the call is about."""
        for name in self.names:
            if name is not None:
                yield name
        if self.previous is not None:
            yield self.previous.user_name
            yield self.previous.anon_name
