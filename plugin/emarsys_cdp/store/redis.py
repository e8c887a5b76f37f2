"""The store in Redis 7 or Valkey: stand-alone, by Sentinel, or Cluster. One method is one pipelined round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache

from emarsys_cdp.store import CELL_SECONDS, Claim, Commit, Publication
from emarsys_cdp.store.address import read_address
from emarsys_cdp.store.keys import (
    PEOPLE,
    RECORDS,
    REMEMBERED,
    cell_key,
    kept_key,
    lease_key,
    record_key,
    row_key,
    shelf_keys,
)
from emarsys_cdp.store.record import header
from emarsys_cdp.store.redis_outbox import SCRIPTS, RedisOutbox
from emarsys_cdp.store.scripts import load
from emarsys_cdp.store.topology import Topology
from emarsys_cdp.store.wire import Command

_SCAN_COUNT = 1000

_COMMIT_TO = b"*7\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n$%d\r\n%b\r\n"
_COMMIT = b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n%b"
"""A commit in the protocol's form, up to the key and whole: a quarter of the price of packing it in general."""

_NO_TTL = b"$1\r\n0\r\n"


@lru_cache(16)
def _ttl(seconds: int) -> bytes:
    return b"$%d\r\n%d\r\n" % (len(str(seconds)), seconds)


class RedisStore(RedisOutbox):
    """A `Store` in the servers of a Redis URL."""

    def __init__(self, url: str) -> None:
        self._target = lru_cache(REMEMBERED)(self._make_target)
        names = ("commit", "claim", "swap", "lease", "release", "publish", *SCRIPTS)
        scripts = {name: load(name) for name in names}
        self._commit_sha, self._claim_sha = scripts["commit"].sha.encode(), scripts["claim"].sha
        self._swap_sha, self._lease_sha, self._release_sha = (
            scripts[name].sha for name in ("swap", "lease", "release")
        )
        self._publish_sha = scripts["publish"].sha
        setup = [("SCRIPT", "LOAD", script.source) for script in scripts.values()]
        super().__init__(Topology(read_address(url), setup), {name: scripts[name].sha for name in SCRIPTS})

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
        commands: list[Command] = []
        for commit in commits:
            key, command = self._target(commit.pid)
            keys.append(key)
            if commit.wake is not None or commit.postings or not commit.record:
                commands.append(self._posting(key, commit))
                continue
            expected = header(commit.expected) if commit.expected else b""
            ttl = _ttl(commit.lifetime) if commit.stub or commit.seconds else _NO_TTL
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
            ("EVALSHA", sha, 1, key, claim.old or b"", claim.new, claim.seconds)
            for key, claim in zip(keys, claims, strict=True)
        ]
        return [reply == 1 for reply in await self._topology.run(keys, commands)]

    async def read_kept(self, name: str) -> bytes | None:
        """Return bytes that workers share."""
        (content,) = await self._get([kept_key(name)])
        return content

    async def keep(self, contents: Mapping[str, bytes], seconds: int) -> None:
        """Keep bytes that workers share for some seconds."""
        keys = [kept_key(name) for name in contents]
        commands = [("SET", key, content, "EX", seconds) for key, content in zip(keys, contents.values(), strict=True)]
        await self._topology.run(keys, commands)

    async def read_cell(self, name: str) -> bytes | None:
        """Return the content of a cell."""
        (content,) = await self._get([cell_key(name)])
        return content

    async def swap_cell(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Set a cell by compare-and-set on its content."""
        key = cell_key(name)
        command = ("EVALSHA", self._swap_sha, 1, key, old or b"", new, CELL_SECONDS)
        return bool((await self._topology.run([key], [command]))[0] == 1)

    async def publish(self, publication: Publication) -> bool:
        """Put a document on a shelf by compare-and-set on its revision."""
        one, (revisions, documents) = publication, shelf_keys(publication.shelf)
        words = (_encoded(one.name), one.expected, one.revision, one.content)
        command = ("EVALSHA", self._publish_sha, 2, revisions, documents, *words)
        return bool((await self._topology.run([revisions], [command]))[0] == 1)

    async def read_shelf(self, shelf: str) -> dict[str, int]:
        """Return the revisions of the documents on a shelf."""
        key, _ = shelf_keys(shelf)
        (found,) = await self._topology.run([key], [("HGETALL", key)])
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode("utf-8", "surrogatepass"): int(revision) for name, revision in pairs}

    async def read_published(self, shelf: str, name: str) -> bytes | None:
        """Return a document of a shelf."""
        _, key = shelf_keys(shelf)
        (content,) = await self._topology.run([key], [("HGET", key, _encoded(name))])
        return content  # type: ignore[no-any-return]

    async def lease(self, names: Sequence[str], holder: str, milliseconds: int) -> list[bool]:
        """Take names for a time, unless somebody else has them."""
        keys = [lease_key(name) for name in names]
        sha = self._lease_sha
        commands = [("EVALSHA", sha, 1, key, holder, milliseconds) for key in keys]
        return [reply == 1 for reply in await self._topology.run(keys, commands)]

    async def release(self, names: Sequence[str], holder: str) -> None:
        """Give names back that *holder* still has."""
        keys = [lease_key(name) for name in names]
        await self._topology.run(keys, [("EVALSHA", self._release_sha, 1, key, holder) for key in keys])

    async def scan(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every profile; one that is written or changes its server meanwhile may come twice or not at all."""
        async for found in self._steps(RECORDS, _SCAN_COUNT):
            for _, name, record in found:
                yield name, record

    async def walk(self, step: int) -> AsyncIterator[tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]]:
        """Go through everything in steps, server by server: SCAN answers a step at once, and blocks nobody."""
        async for found in self._steps(PEOPLE, step):
            yield (
                [(name, content) for kind, name, content in found if kind == "p"],
                [(name, content) for kind, name, content in found if kind == "i"],
            )

    async def _steps(self, pattern: str, size: int) -> AsyncIterator[list[tuple[str, str, bytes]]]:
        """Yield kind, name and content of the keys of each step of a scan."""
        for wire in await self._topology.masters():
            cursor: bytes = b"0"
            while True:
                cursor, found = await self._topology.ask(wire, ("SCAN", cursor, "MATCH", pattern, "COUNT", size))
                keys = [key.decode() for key in found]
                contents = zip(keys, await self._get(keys), strict=True)
                yield [(*_kind_and_name(key), content) for key, content in contents if content is not None]
                if cursor == b"0":
                    break

    async def step(self, at: str, size: int) -> tuple[list[tuple[str, bytes]], str | None]:
        """Return the records among some keys: a place is the number of a server, and a cursor of its SCAN."""
        server, _, cursor = at.partition(".")
        number, wires = int(server), await self._topology.masters()
        if number >= len(wires) or int(cursor) >= 2**64:
            return [], None
        command = ("SCAN", cursor, "MATCH", RECORDS, "COUNT", size)
        following, found = await self._topology.ask(wires[number], command)
        keys = [key.decode() for key in found]
        records = zip(keys, await self._get(keys), strict=True)
        after = f"{number}.{following.decode()}"
        if following == b"0":
            after = f"{number + 1}.0" if number + 1 < len(wires) else ""
        return [(_kind_and_name(key)[1], record) for key, record in records if record is not None], after or None

    async def seconds_left(self, names: Sequence[str]) -> list[int | None]:
        """Return how long identifier rows stay."""
        keys = [row_key(name) for name in names]
        left = await self._topology.run(keys, [("TTL", key) for key in keys])
        return [seconds if seconds >= 0 else None for seconds in left]

    async def size(self) -> int:
        """Return how many keys there are in all servers."""
        return sum([await self._topology.ask(wire, ("DBSIZE",)) for wire in await self._topology.masters()])

    async def ping(self) -> None:
        """Raise `StoreUnavailable` when a server does not answer."""
        await self._topology.ping()

    async def close(self) -> None:
        """Close the connections."""
        self._topology.close()


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _kind_and_name(key: str) -> tuple[str, str]:
    """Return the last two parts of a key."""
    _, kind, name = key.rsplit(":", 2)
    return kind, name
