"""
What an identifier row says: one read of it answers who has the identifier.

| content | meaning |
|---|---|
| `p<pid>` | *pid* owns it; `+n` after it: n others use the key without owning it |
| `s`, `s<pid>` | shared: it is nobody's; *pid* is the isolate, the profile of calls that have nothing else |
| `q` | a key that too many people use: it is nobody's |
| `td<ms>`, `ts<ms>` | erased at *ms* (calls of then and before are dropped), or suppressed (all calls are dropped) |

`~<ms>` at the end of the first three: the identifier was erased once, and came again later. `@<pid>` at the end of a
tombstone names the record that lists all rows which were suppressed together.
"""

from __future__ import annotations

import re

from msgspec import Struct

OWNED, SHARED, QUARANTINED, TOMBSTONE = "p", "s", "q", "t"

DELETE, SUPPRESS = "delete", "suppress"
"""Modes of an erasure (semantics 1.9)."""

_MODES = {"d": DELETE, "s": SUPPRESS}
_LETTERS = {mode: letter for letter, mode in _MODES.items()}
_ROW = re.compile(r"([psq])([\w-]*)(?:\+(\d+))?(?:~(\d+))?\Z", re.ASCII)
_TOMBSTONE = re.compile(r"t([ds])(\d+)(?:@([\w-]+))?\Z", re.ASCII)


class Row(Struct, frozen=True, gc=False):
    """
    An identifier row, read.

    *pid* is the owner, the isolate, or the record of a suppression. *users* use a key without owning it. *erased*:
    calls of this time (ms) and before are dropped. *mode* is that of a tombstone.
    """

    kind: str
    pid: str | None = None
    users: int = 0
    erased: int = 0
    mode: str | None = None

    def drops(self, event_time: int) -> bool:
        """Tell that a call of this time must not come in, since its person was erased."""
        return self.mode == SUPPRESS or event_time <= self.erased

    def content(self) -> bytes:
        """Return the row as it is stored."""
        if self.kind == TOMBSTONE:
            record = f"@{self.pid}" if self.pid else ""
            return f"t{_LETTERS[self.mode or DELETE]}{self.erased}{record}".encode()
        users, erased = f"+{self.users}" if self.users else "", f"~{self.erased}" if self.erased else ""
        return f"{self.kind}{self.pid or ''}{users}{erased}".encode()


def read_row(content: bytes | None) -> Row | None:
    """Return what a row says, None for no row. One that cannot be read names nobody: it is taken over."""
    if content is None:
        return None
    text = content.decode("ascii", "replace")
    match = _ROW.match(text)
    if match is not None:
        kind, pid, users, erased = match.groups()
        return Row(kind, pid or None, int(users or 0), int(erased or 0))
    match = _TOMBSTONE.match(text)
    if match is None:
        return None
    letter, erased, pid = match.groups()
    return Row(TOMBSTONE, pid, 0, int(erased), _MODES[letter])
