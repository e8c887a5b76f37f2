from __future__ import annotations

from pathlib import Path

from emarsys_cdp.service.worker import Launch, unpack
from emarsys_cdp.settings import PREFIX, VARIABLES, read_settings

GIVEN = {
    "REDIS_URL": "redis://:p@h/0",
    "DATA_DIR": "/data",
    "SECRET": "0123456789abcdef",
    "UPSTREAM": "http://up:9090",
    "API_BASE": "https://api.example.com/api",
    "TOKEN_URL": "https://auth.example.com/token",
    "HTTP_PROXY": "http://u:p@proxy:3128",
    "SEND_SECONDS": "2.5",
    "HOST_TOKEN": "token",
    "ADMIN_TOKEN": "a token of sixteen or more",
    "RULES_DIR": "/",
    "INGEST_URL": "http://host:8080",
    "CLOCK": "system",
    "LOG_LEVEL": "debug",
}


def test_every_setting_reaches_the_worker() -> None:
    """What a parent read is what its workers have, secrets too."""
    others = dict.fromkeys(set(VARIABLES) - set(GIVEN), "2")
    settings = read_settings({PREFIX + name: value for name, value in {**others, **GIVEN}.items()})
    launch = Launch(3, settings, [7, 9], Path("/tmp/metrics"))  # noqa: S108 - never made

    assert unpack(launch.pack()) == launch


def test_a_line_is_one_line() -> None:
    """Whatever the settings contain, the worker reads to the first end of a line."""
    settings = read_settings({f"{PREFIX}HOST_TOKEN": "one\ntwo"})

    assert Launch(1, settings, [], Path()).pack().count(b"\n") == 1
