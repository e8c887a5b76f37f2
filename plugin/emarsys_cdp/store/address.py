"""Reading the URL of Redis."""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec.structs import replace
from redis.asyncio.connection import parse_url

from emarsys_cdp.store.wire import Address
from emarsys_cdp_hooks import StopAndFix

SENTINEL_PORT = 26379

_MASTER = re.compile(r"[A-Za-z0-9._-]+")
"""What may be the name of a master: the comments of Valkey's sentinel.conf, "sentinel monitor"."""


def read_address(url: str) -> Address:
    """
    Return the address of a Redis URL: `redis://`, `unix://`, `redis+sentinel://`; with `rediss` by TLS.

    Raises:
        StopAndFix: it is none; the message shows no user and no password.

    """
    try:
        scheme, _, rest = url.partition("://")
        tls = ssl.create_default_context() if scheme in {"rediss", "rediss+sentinel"} else None
        if scheme in {"redis+sentinel", "rediss+sentinel"}:
            return _by_sentinels(rest, tls)
        return _of_server(url, urlsplit(url), tls)
    except ValueError:
        raise StopAndFix(
            "EMARSYS_CDP_REDIS_URL is none: write redis://host:6379/0, rediss://host:6379/0, unix:///path/to/socket or "
            "redis+sentinel://host:26379,host:26379/name/0"
        ) from None


def _of_server(url: str, parts: SplitResult, tls: ssl.SSLContext | None) -> Address:
    found: dict[str, Any] = dict(parse_url(url))
    path = parts.path.strip("/")
    if parts.scheme == "unix" and "path" not in found:
        raise ValueError
    if parts.scheme != "unix" and path and not path.isdigit():
        raise ValueError
    known = {key: found[key] for key in ("host", "port", "path", "username", "password") if key in found}
    return Address(**known, database=int(found.get("db", 0)), tls=tls)


def _by_sentinels(rest: str, tls: ssl.SSLContext | None) -> Address:
    """
    Read `user:password@host:port,host:port/name/database`; the credentials are for all of the servers.

    It is taken apart here: urlsplit of some versions of Python 3.11 refuses brackets behind a first host.
    """
    servers, _, path = rest.partition("/")
    credentials, _, hosts = servers.rpartition("@")
    user, colon, password = credentials.partition(":")
    name, _, database = path.strip("/").partition("/")
    if not _MASTER.fullmatch(name) or not (database or "0").isdigit():
        raise ValueError
    common = Address(username=unquote(user) or None, password=unquote(password) if colon else None, tls=tls)
    places = [urlsplit(f"//{host}") for host in hosts.split(",")]
    sentinels = tuple(_at(place, common) for place in places)
    return replace(common, database=int(database or 0), sentinels=sentinels, master=name)


def _at(place: SplitResult, common: Address) -> Address:
    if not place.hostname or place.path:
        raise ValueError
    return replace(common, host=place.hostname, port=place.port or SENTINEL_PORT)
