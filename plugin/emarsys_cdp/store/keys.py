"""
Names of everything in Redis.

All names begin with `ecdp:{xxx}:`, where the hash tag `{xxx}` is one of 1,024 shards for all spaces. A profile's
record, its timer and its outbox rows share the shard of the profile, so one script commits them; an identifier
row lives in the shard of its own hash.

| name | type | content |
|---|---|---|
| `ecdp:{xxx}:p:<pid>` | string | profile record: `record.py` |
| `ecdp:{xxx}:i:<hash>` | string | who has an identifier: `rows.py` |
| `ecdp:{xxx}:x:<hash>` | string | something that workers share for a time: access tokens (sealed), rows of requests |
| `ecdp:{xxx}:c:<hash>` | string | a small state that workers change together: budgets, fetches of tokens, spaces |
| `ecdp:{xxx}:l:<hash>` | string | who sends something for a contact just now |
| `ecdp:{xxx}:t` | sorted set | timers: profile ids by when they are to be looked at (ms) |
| `ecdp:{xxx}:q` | sorted set | queue of the outbox: effect ids by when they are to be sent, or their lease ends (ms) |
| `ecdp:{xxx}:d` | sorted set | dead effects: ids by when they died (ms) |
| `ecdp:{xxx}:e:<id>` | hash | an effect: `outbox.py` |
| `ecdp:{xxx}:d:<hash>` | hash | a shelf of documents by their names, for ever |
| `ecdp:{xxx}:v:<hash>` | hash | the revisions of a shelf's documents |

An identifier's hash is a keyed BLAKE2b of (space, kind, value), so no name holds personal data.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeAlias

from emarsys_cdp.values.remembered import forget_oldest

SHARDS = 1024
PREFIX = "ecdp:"
RECORDS = f"{PREFIX}{{???}}:p:*"
"""Pattern of all profile records."""

PEOPLE = f"{PREFIX}{{???}}:[ip]:*"
"""Pattern of all profile records and identifier rows."""

SHARED = b"s"
"""Content of the row of an identifier that belongs to nobody."""

_ID_BYTES = 9
_PID_END = 13
"""Where the profile id ends in the content of a row: it has twelve characters."""

_ROW_BYTES = 18

Kind = str
"""`u` userId, `k` primary key, `a` anonymousId."""

Names: TypeAlias = tuple[str | None, str | None, str | None]
"""Row names of a call's userId, primary key and anonymousId, None where the call has none."""


def new_pid(random_bytes: Callable[[int], bytes]) -> str:
    """Return a fresh profile id: 72 random bits as 12 characters."""
    return urlsafe_b64encode(random_bytes(_ID_BYTES)).decode()


def shard(name: str) -> int:
    """Return the shard of a profile id or a row name: ten bits of its first two characters."""
    return (_DIGITS[name[0]] << 6 | _DIGITS[name[1]]) % SHARDS


_DIGITS = {
    digit: value for value, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
}
_TAGS = tuple(f"{PREFIX}{{{number:03x}}}:" for number in range(SHARDS))


def record_key(pid: str) -> str:
    """Return the key of a profile's record."""
    return f"{_TAGS[shard(pid)]}p:{pid}"


def row_key(name: str) -> str:
    """Return the key of an identifier row."""
    return f"{_TAGS[shard(name)]}i:{name}"


def kept_key(name: str) -> str:
    """Return the key of bytes that workers share for a time, by their name, a hash."""
    return f"{_TAGS[shard(name)]}x:{name}"


def cell_key(name: str) -> str:
    """Return the key of a state that workers change together, by its name, a hash."""
    return f"{_TAGS[shard(name)]}c:{name}"


def lease_key(name: str) -> str:
    """Return the key that tells who holds a name."""
    return f"{_TAGS[shard(name)]}l:{name}"


def timers_key(number: int) -> str:
    """Return the key of the timers of a shard."""
    return f"{_TAGS[number]}t"


def queue_key(number: int) -> str:
    """Return the key of the effects of a shard that are to be sent."""
    return f"{_TAGS[number]}q"


def dead_key(number: int) -> str:
    """Return the key of the dead effects of a shard."""
    return f"{_TAGS[number]}d"


def effect_key(number: int, effect: str) -> str:
    """Return the key of an effect by its shard and id."""
    return f"{_TAGS[number]}e:{effect}"


def shelf_keys(name: str) -> tuple[str, str]:
    """Return the keys of a shelf's revisions and of its documents, by the shelf's name, a hash."""
    tag = _TAGS[shard(name)]
    return f"{tag}v:{name}", f"{tag}d:{name}"


def owned_by(pid: str) -> bytes:
    """Return the content of the row of an identifier that *pid* owns."""
    return b"p" + pid.encode()


def owner(content: bytes | None) -> str | None:
    """Return the profile that a row names, None when it names nobody."""
    return content[1:_PID_END].decode() if content is not None and content[:1] == b"p" else None


REMEMBERED = 65_536
"""Names that a worker remembers, so that a returning person costs no hashing."""


class Namer:
    """Names identifier rows by a hash that only the holder of *secret* (16 to 64 bytes) can make."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._known: dict[tuple[str, str | None, str | None, str | None], Names] = {}

    def names(self, space: str, user: str | None, key: str | None, anon: str | None) -> Names:
        """Return the row names of a call's identifiers: the same tuple as long as it is remembered."""
        parts = (space, user, key, anon)
        known = self._known.get(parts)
        if known is None:
            known = self._known[parts] = (
                None if user is None else self(space, "u", user),
                None if key is None else self(space, "k", key),
                None if anon is None else self(space, "a", anon),
            )
            forget_oldest(self._known, REMEMBERED)
        return known

    def __call__(self, space: str, kind: Kind, value: str) -> str:
        """Return the row name of an identifier: 24 characters of base64."""
        message = f"{space}\0{kind}\0{value}".encode("utf-8", "surrogatepass")
        digest = blake2b(message, key=self._secret, digest_size=_ROW_BYTES).digest()
        return urlsafe_b64encode(digest).decode()
