"""Settings of the service: environment or a TOML file to one frozen value, read once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from emarsys_cdp.credentials import Secret
from emarsys_cdp.secrets import MIN_SECRET
from emarsys_cdp.store.address import read_address
from emarsys_cdp_hooks import StopAndFix

PREFIX = "EMARSYS_CDP_"

LOG_LEVELS = ("debug", "info", "warning", "error")

DEFAULT_API_BASE = "https://api.emarsys.net/api"
"""Base of the Emarsys API, before the version (Core API guide)."""

SYSTEM, VIRTUAL = "system", "virtual"
"""Clocks: that of the machine, and one that stands still until it is moved (`service/virtual_time.py`)."""

MIN_SECONDS, MAX_SECONDS = 0.1, 600.0
"""Bounds of SEND_SECONDS."""

VARIABLES = {
    "REDIS_URL": "Redis or Valkey for the users table, as redis://host:6379/0; none: a server of our own.",
    "DATA_DIR": "Directory of the embedded server and the secret; default ~/.local/share/emarsys-cdp.",
    "SECRET": "At least 16 characters that keys are derived from; required with a Redis of your own.",
    "UPSTREAM": "URL of the stock RudderStack transformer; everything that is not for Emarsys goes there.",
    "API_BASE": "Base URL of the Emarsys API; default https://api.emarsys.net/api.",
    "TOKEN_URL": "OAuth 2.0 token URL; default https://auth.emarsys.net/oauth2/token.",
    "HTTP_PROXY": "URL of an HTTP proxy on the way to Emarsys; none: the environment's proxies are not used.",
    "SEND_SECONDS": "An Emarsys request is given up after this many seconds; default 10.",
    "API_KEY": "API Key for commands such as `account check`; the service gets it with each call.",
    "HOST_TOKEN": "When set, hosts must send it as bearer token or basic password.",
    "ADMIN_TOKEN": "When set, programs that send it as bearer token may use the API under /api/v1.",
    "RULES_DIR": "Directory of documents: <destination id>.json, default.json for all others.",
    "INGEST_URL": "URL of the host's ingestion, which effects of rules go through; none: they are sent directly.",
    "INGEST_WRITE_KEY": "Write key of its source, or several as <destination id>=<key>, separated by commas.",
    "CLOCK": "system (default), or virtual: time stands still, and POST /api/v1/clock moves it. For trying rules only.",
    "LOG_LEVEL": "debug, info (default), warning or error.",
}
"""Every variable, without the prefix, with its meaning."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the service is told from outside."""

    redis_url: Secret | None = None
    data_dir: Path = field(default_factory=lambda: Path("~/.local/share/emarsys-cdp").expanduser())
    secret: Secret | None = None
    upstream: str | None = None
    api_base: str = DEFAULT_API_BASE
    token_url: str = "https://auth.emarsys.net/oauth2/token"  # noqa: S105 - an address, not a secret
    http_proxy: Secret | None = None
    send_seconds: float = 10.0
    api_key: Secret | None = None
    host_token: Secret | None = None
    admin_token: Secret | None = None
    rules_dir: Path | None = None
    ingest_url: str | None = None
    ingest_write_key: Secret | None = None
    clock: str = SYSTEM
    log_level: str = "info"


def read_settings(environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """
    Return the settings of the environment; what it lacks is taken from a TOML file with the same names.

    Raises:
        StopAndFix: with every wrong setting at once; no value of a secret is shown.

    """
    given = {**_from_file(config), **_from_environment(environment)}
    unknown = sorted(set(given) - set(VARIABLES))
    problems = [*(f"{PREFIX}{name} is no setting of emarsys-cdp" for name in unknown), *_problems(given)]
    if problems:
        raise StopAndFix("\n".join(problems))
    values: dict[str, Any] = {name.lower(): value for name, value in given.items()}
    for name in ("redis_url", "secret", "api_key", "host_token", "admin_token", "http_proxy", "ingest_write_key"):
        if name in values:
            values[name] = Secret(values[name])
    if "send_seconds" in values:
        values["send_seconds"] = float(values["send_seconds"])
    for name in ("data_dir", "rules_dir"):
        if name in values:
            values[name] = Path(values[name]).expanduser()
    for name in ("api_base", "upstream", "ingest_url"):
        if name in values:
            values[name] = values[name].rstrip("/")
    return Settings(**values)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: environment[PREFIX + name].strip() for name in VARIABLES if environment.get(PREFIX + name, "").strip()
    }


def _from_file(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise StopAndFix(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StopAndFix(f"{path} is no TOML: {error}") from error
    return {name.upper().removeprefix(PREFIX): str(value) for name, value in table.items()}


def _problems(given: Mapping[str, str]) -> list[str]:
    problems = [
        f"{PREFIX}{name} is no http or https URL without user and query: write for instance http://transformer:9090"
        for name in ("UPSTREAM", "API_BASE", "TOKEN_URL", "INGEST_URL")
        if name in given and not _is_http(given[name])
    ]
    if "REDIS_URL" in given and "SECRET" not in given:
        problems.append(
            f"{PREFIX}SECRET is missing: with a Redis of your own set it to a random text, the same everywhere"
        )
    if "REDIS_URL" in given:
        try:
            read_address(given["REDIS_URL"])
        except StopAndFix as error:
            problems.append(str(error))
    problems += [
        f"{PREFIX}{name} would send secrets unprotected: http is for addresses of this machine only, write https"
        for name in ("API_BASE", "TOKEN_URL")
        if name in given and _is_http(given[name]) and not is_safe_address(given[name])
    ]
    if not _is_seconds(given.get("SEND_SECONDS", "10")):
        problems.append(f"{PREFIX}SEND_SECONDS must be a number from {MIN_SECONDS:g} to {MAX_SECONDS:g}")
    if "HTTP_PROXY" in given and urlsplit(given["HTTP_PROXY"]).scheme not in ("http", "https"):
        problems.append(f"{PREFIX}HTTP_PROXY is no http or https URL: write for instance http://proxy:3128")
    if len(given.get("SECRET", "x" * MIN_SECRET)) < MIN_SECRET:
        problems.append(f"{PREFIX}SECRET is too short: at least {MIN_SECRET} characters")
    if len(given.get("ADMIN_TOKEN", "x" * MIN_SECRET)) < MIN_SECRET:
        problems.append(f"{PREFIX}ADMIN_TOKEN is too short: at least {MIN_SECRET} characters")
    if given.get("LOG_LEVEL", "info").lower() not in LOG_LEVELS:
        problems.append(f"{PREFIX}LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
    problems += [*_clock_problems(given), *_ingestion_problems(given)]
    if "RULES_DIR" in given and not Path(given["RULES_DIR"]).expanduser().is_dir():
        problems.append(f"{PREFIX}RULES_DIR {given['RULES_DIR']} is no directory")
    return problems


def _clock_problems(given: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the clock: with a Redis of one's own others live by the real time."""
    clock = given.get("CLOCK", SYSTEM)
    if clock not in (SYSTEM, VIRTUAL):
        return [f"{PREFIX}CLOCK must be {SYSTEM} or {VIRTUAL}"]
    if clock == VIRTUAL and "REDIS_URL" in given:
        return [f"{PREFIX}CLOCK {VIRTUAL} is for the embedded server only: leave {PREFIX}REDIS_URL out"]
    return []


def _ingestion_problems(given: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the settings of the host's ingestion: an address and a key, or neither."""
    names = ("INGEST_URL", "INGEST_WRITE_KEY")
    missing = [name for name in names if name not in given]
    if len(missing) == 1:
        return [f"{PREFIX}{missing[0]} is missing: the host's ingestion needs {PREFIX}{' and '.join(names)}"]
    try:
        read_write_keys(given.get("INGEST_WRITE_KEY", "-"))
    except ValueError as error:
        return [f"{PREFIX}INGEST_WRITE_KEY {error}"]
    return []


def read_write_keys(text: str) -> dict[str, Secret]:
    """
    Return write keys by the space that they are for; that under "" is for all others.

    Raises:
        ValueError: the text is malformed; the message shows none of it.

    """
    found: dict[str, Secret] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        space, separator, key = part.rpartition("=")
        if not key or (separator and not space) or ":" in key or not key.isascii() or not key.isprintable():
            raise ValueError("is malformed: write a key, or <destination id>=<key>,<destination id>=<key>")
        if space in found:
            raise ValueError("has two keys for the same destination, or two without one")
        found[space.strip()] = Secret(key)
    if not found:
        raise ValueError("is empty: write a key, or <destination id>=<key>,<destination id>=<key>")
    return found


def is_safe_address(url: str) -> bool:
    """Tell whether secrets may go to an address: https, or http to this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_seconds(text: str) -> bool:
    try:
        return MIN_SECONDS <= float(text) <= MAX_SECONDS
    except ValueError:
        return False


def _is_http(text: str) -> bool:
    """Tell whether the text is an address without a user, a password or a port that is none."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not parts.query
            and "@" not in text
            and (parts.port or 1) > 0
        )
    except ValueError:
        return False
