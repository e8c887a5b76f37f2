"""The store in Redis 7 or Valkey: stand-alone or Cluster. One method is one pipelined round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache

from emarsys_cdp.store import STUB_SECONDS, Claim, Commit, StoreUnavailable
from emarsys_cdp.store.keys import RECORDS, REMEMBERED, record_key, row_key, sealed_key
from emarsys_cdp.store.record import header
from emarsys_cdp.store.scripts import load
from emarsys_cdp.store.topology import Topology, read_address

_SCAN_COUNT = 1000

_COMMIT_TO = b"*7\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n$%d\r\n%b\r\n"
_COMMIT = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b"
"""A commit in the protocol's form, up to the key and whole: a quarter of the price of packing it in general."""

_NO_TTL = b"$1\r\n0\r\n"
_STUB_TTL = b"$%d\r\n%d\r\n" % (len(str(STUB_SECONDS)), STUB_SECONDS)


class RedisStore:
    """A `Store` in the servers of a Redis URL."""

    def __init__(self, url: str) -> None:
        self._target = lru_cache(REMEMBERED)(self._make_target)
        commit, claim = load("commit"), load("claim")
        self._commit_sha, self._claim_sha = commit.sha.encode(), claim.sha
        setup = [("SCRIPT", "LOAD", script.source) for script in (commit, claim)]
        self._topology = Topology(read_address(url), setup)

    async def read_rows(self, names: Sequence[str]) -> list[bytes | None]:
        """Return the contents of identifier rows."""
        return await self._get([row_key(name) for name in names])

    async def read_records(self, pids: Sequence[str]) -> list[bytes | None]:
        """Return stored profile records."""
        return await self._get([record_key(pid) for pid in pids])

    async def _get(self, keys: list[str]) -> list[bytes | None]:
        return await self._topology.run(keys, [("GET", key) for key in keys])

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        """Write records by compare-and-set on their revision."""
        keys: list[str] = []
        commands: list[bytes] = []
        for commit in commits:
            key, command = self._target(commit.pid)
            expected = header(commit.expected) if commit.expected else b""
            ttl = _STUB_TTL if commit.stub else _NO_TTL
            keys.append(key)
            commands.append(_COMMIT % (command, len(expected), expected, len(commit.record), commit.record, ttl))
        return [reply == 1 for reply in await self._topology.run(keys, commands)]

    def _make_target(self, pid: str) -> tuple[str, bytes]:
        """Return the key of a record, and the beginning of the command that commits it."""
        key = record_key(pid)
        return key, _COMMIT_TO % (self._commit_sha, len(key), key.encode())

    async def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Set identifier rows by compare-and-set on their content."""
        keys = [row_key(claim.name) for claim in claims]
        sha = self._claim_sha
        commands = [
            ("EVALSHA", sha, 1, key, claim.old or b"", claim.new) for key, claim in zip(keys, claims, strict=True)
        ]
        return [reply == 1 for reply in await self._topology.run(keys, commands)]

    async def read_sealed(self, name: str) -> bytes | None:
        """Return sealed bytes that workers share."""
        (sealed,) = await self._get([sealed_key(name)])
        return sealed

    async def write_sealed(self, name: str, sealed: bytes, seconds: int) -> None:
        """Keep sealed bytes that workers share for some seconds."""
        key = sealed_key(name)
        await self._topology.run([key], [("SET", key, sealed, "EX", seconds)])

    async def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every profile; one that is written meanwhile may come twice or not at all."""
        for wire in await self._topology.masters():
            cursor: bytes = b"0"
            while True:
                (reply,) = await wire.run([("SCAN", cursor, "MATCH", RECORDS, "COUNT", _SCAN_COUNT)])
                if isinstance(reply, Exception):
                    raise StoreUnavailable(f"Redis refuses: {reply}")
                cursor, keys = reply
                for key, record in zip(keys, await wire.run(("GET", key) for key in keys), strict=True):
                    if isinstance(record, bytes):
                        yield key.decode().rsplit(":", 1)[1], record
                if cursor == b"0":
                    break

    async def ping(self) -> None:
        """Raise `StoreUnavailable` when a server does not answer."""
        await self._topology.ping()

    async def close(self) -> None:
        """Close the connections."""
        self._topology.close()
