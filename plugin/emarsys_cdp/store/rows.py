"""
What an identifier row says: one read of it answers who has the identifier.

| content | meaning |
|---|---|
| `p<pid>` | *pid* owns it; `+<tags>` after it: users who have claimed the key, once there were several |
| `s`, `s<pid>` | shared: nobody's; *pid* is the isolate, for calls that have nothing else; `^<day>` after it |
| `q` | a key that too many people use: it is nobody's |
| `td<ms>`, `ts<ms>` | erased at *ms* (calls of then and before are dropped), or suppressed (all calls are dropped) |

`~<ms>` after the others: the identifier was erased once, and came again later or is suppressed. `@<pid>` at the end of
a tombstone names the record that lists all rows which were suppressed together. A day (counted from 1970) is that of
the last call by which the device was shared. A tag is the beginning of the row name
of a userId, so it says of nobody who it is.
"""

from __future__ import annotations

import re

from msgspec import Struct

OWNED, SHARED, QUARANTINED, TOMBSTONE = "p", "s", "q", "t"

DELETE, SUPPRESS = "delete", "suppress"
"""Modes of an erasure (semantics 1.9)."""

_MODES = {"d": DELETE, "s": SUPPRESS}
_LETTERS = {mode: letter for letter, mode in _MODES.items()}
TAG_CHARACTERS = 6
"""Of the row name of a userId: 36 bits, enough to tell a handful of users of a key apart."""

DAY = 24 * 3_600_000
_ROW = re.compile(r"([psq])([\w-]*)(?:\+((?:[\w-]{6})+))?(?:\^(\d+))?(?:~(\d+))?\Z", re.ASCII)
_TOMBSTONE = re.compile(r"t([ds])(\d+)(?:~(\d+))?(?:@([\w-]+))?\Z", re.ASCII)


class Row(Struct, frozen=True, gc=False):
    """
    An identifier row, read.

    *pid* is the owner, the isolate, or the record of a suppression. *users* are tags of those who have claimed a key,
    once there were several. *erased*: calls of this time (ms) and before are dropped. *mode* is that of a tombstone.
    *since* (ms) is the beginning of a suppression, or of the day on which a device was last seen to be shared.
    """

    kind: str
    pid: str | None = None
    users: tuple[str, ...] = ()
    erased: int = 0
    mode: str | None = None
    since: int = 0

    def drops(self, event_time: int) -> bool:
        """Tell that a call of this time must not come in, since its person was erased."""
        return self.mode == SUPPRESS or event_time <= self.erased

    def without_owner(self) -> bytes:
        """Return the row of the identifier when nobody has it any more, empty for no row."""
        return Row(TOMBSTONE, None, (), self.erased, DELETE).content() if self.erased else b""

    def content(self) -> bytes:
        """Return the row as it is stored."""
        erased = f"~{self.erased}" if self.erased else ""
        if self.kind == TOMBSTONE:
            time, erased = (self.since, erased) if self.mode == SUPPRESS else (self.erased, "")
            record = f"@{self.pid}" if self.pid else ""
            return f"t{_LETTERS[self.mode or DELETE]}{time}{erased}{record}".encode()
        users, day = f"+{''.join(self.users)}" if self.users else "", f"^{self.since // DAY}" if self.since else ""
        return f"{self.kind}{self.pid or ''}{users}{day}{erased}".encode()


def read_row(content: bytes | None) -> Row | None:
    """Return what a row says, None for no row. One that cannot be read names nobody: it is taken over."""
    if content is None:
        return None
    text = content.decode("ascii", "replace")
    match = _ROW.match(text)
    if match is not None:
        kind, pid, tags, day, erased = match.groups()
        starts = range(0, len(tags or ""), TAG_CHARACTERS)
        users = tuple([tags[start : start + TAG_CHARACTERS] for start in starts])
        return Row(kind, pid or None, users, int(erased or 0), None, int(day or 0) * DAY)
    match = _TOMBSTONE.match(text)
    if match is None:
        return None
    letter, time, erased, pid = match.groups()
    mode = _MODES[letter]
    if mode == SUPPRESS:
        return Row(TOMBSTONE, pid, (), int(erased or 0), mode, int(time))
    return Row(TOMBSTONE, pid, (), int(time), mode)
