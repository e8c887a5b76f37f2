"""Logs: one JSON object a line, and no secret at any depth."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog

from emarsys_cdp.credentials import OAuth, Secret
from emarsys_cdp.log import HIDDEN, configure_logging, hide_secrets

S3CRET = "hunter2-the-secret"
TOKEN68 = "aHVudGVyMi10aGUtc2VjcmV0Og=="


def logger(level: str = "debug") -> Any:
    """Configure logging as the commands do and return a logger that is not kept for the next test."""
    configure_logging(level)
    structlog.configure(cache_logger_on_first_use=False)
    return structlog.get_logger("test")


def hidden(**event: Any) -> dict[str, Any]:
    """Return what is left of a log event."""
    return dict(hide_secrets(None, "info", event))


@pytest.mark.parametrize(
    "name",
    [
        "apiKey", "api_key", "APIKEY", "emersysUserSecret", "emersysUsername", "secret", "EMARSYS_CDP_SECRET",
        "password", "passwd", "Authorization", "authorization", "X-WSSE", "x-wsse", "token", "access_token",
        "host_token", "Cookie", "Set-Cookie", "credentials", "client_secret",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "wrap",
    [
        lambda name, value: {name: value},
        lambda name, value: {"config": {name: value}},
        lambda name, value: {"jobs": [{"destination": {"Config": {name: value}}}]},
        lambda name, value: {"pair": (1, {name: [value, {"deeper": value}]})},
    ],
    ids=["at the top", "in an object", "deep in arrays", "in a tuple"],
)
def test_what_a_name_gives_away_is_hidden(name: str, wrap: Any) -> None:
    """Wherever it stands: the value under the name of a secret is not shown, whatever it is."""
    found = json.dumps(hidden(**wrap(name, S3CRET)))

    assert S3CRET not in found
    assert HIDDEN in found


@pytest.mark.parametrize("value", [5, 1.5, [S3CRET], {"a": S3CRET}, b"bytes", Secret(S3CRET)])
def test_a_secret_need_not_be_text(value: Any) -> None:
    """Numbers, arrays and objects under such a name are hidden whole."""
    assert hidden(password=value) == {"password": HIDDEN}


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {S3CRET}",
        f"authorization: bearer  {S3CRET}",
        f"Authorization: Basic {TOKEN68}",
        f'UsernameToken Username="u", PasswordDigest="{S3CRET}", Nonce="n"',
        f"the API Key wsse:user:{S3CRET} is wrong",
        f"the API Key oauth2:client:{S3CRET} is wrong",
        f"OAUTH2:client:{S3CRET}",
        f"redis://user:{S3CRET}@host:6379/0 is down",
        f"redis://:{S3CRET}@host",
        f"https://{S3CRET}@host/path",
        f'{{"apiKey":"client:{S3CRET}"}}',
        f'{{"Config": {{"apiKey" : "client:{S3CRET}", "other": 1}}}}',
        f'"emersysUserSecret": "{S3CRET}"',
        f"{{'apiKey': 'client:{S3CRET}'}}",
        f"{{'emersysUsername': 'u', 'emersysUserSecret': '{S3CRET}'}}",
        f'{{\\"apiKey\\": \\"client:{S3CRET}\\"}}',
        f'{{"access_token":"{S3CRET}","expires_in":3600}}',
        f'"apiKey": "with \\" a quote {S3CRET}"',
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_looks_like_a_secret_is_hidden_in_texts(text: str, depth: int) -> None:
    """In the middle of a sentence, a URL or an echo of settings, and however deep that text stands."""
    value: Any = f"before {text} after"
    for _ in range(depth):
        value = {"inner": [value]}
    found = str(hidden(reason=value))

    assert S3CRET not in found
    assert TOKEN68 not in found
    assert HIDDEN in found
    assert "before " in found


@pytest.mark.parametrize(
    "value",
    [RuntimeError(f"Bearer {S3CRET}"), f"Bearer {S3CRET}".encode(), {f"Bearer {S3CRET}": 1}, {1: {f"Bearer {S3CRET}"}}],
    ids=["exception", "bytes", "name", "set"],
)
def test_what_is_written_as_text_is_looked_at_as_text(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception or bytes as a value are no way around."""
    logger().info("something_happened", value=value)
    written = capsys.readouterr().err

    assert "something_happened" in written
    assert S3CRET not in written


@pytest.mark.parametrize(
    "event",
    [
        {"event": "document_loaded", "space": "dest-1", "rules": 3},
        {"reason": "the call has no type: it must be one of identify, track"},
        {"path": "/routerTransform", "status": 200, "request": "ab12-1"},
        {"reason": "Redis at 127.0.0.1:6379 cannot be reached", "url": "redis://127.0.0.1:6379/0"},
        {"token": None, "secret": True},
        {"nested": {"calls": [1, 2.5, None, True, "x"]}},
    ],
)
def test_everything_else_stays(event: dict[str, Any]) -> None:
    """A log that hides what one needs is of no use."""
    assert hidden(**event) == event


def test_a_line_is_one_object_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in a value, line breaks as well."""
    logger().warning("values_left_out", reason="one\ntwo", key=object)
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    written = json.loads(line)

    assert out == ""
    assert (written["event"], written["level"], written["reason"]) == ("values_left_out", "warning", "one\ntwo")
    assert written["timestamp"].endswith("Z")


def test_a_traceback_is_written_without_its_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    """The message of an exception, and of the one that caused it."""

    def sign() -> None:
        try:
            raise ValueError(f'cannot sign with {{"apiKey": "client:{S3CRET}"}}')
        except ValueError as error:
            raise RuntimeError(f"Authorization: Bearer {S3CRET} for {OAuth('client', Secret(S3CRET))}") from error

    try:
        sign()
    except RuntimeError:
        logger().exception("batch_failed", space="dest-1")
    written = capsys.readouterr().err

    assert "in sign" in json.loads(written)["exception"]
    assert "RuntimeError" in written
    assert "cannot sign with" in written
    assert S3CRET not in written


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_leaves_out_what_is_below_it(
    level: str, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """EMARSYS_CDP_LOG_LEVEL in any case."""
    log = logger(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("something_happened")

    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == written


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'jane.doe+x@example.com' is no number", "'***@example.com' is no number"),
        ("to jane@example.com, joe@mail.example.org", "to ***@example.com, ***@mail.example.org"),
        ("version@2 of a@b", "version@2 of a@b"),
    ],
)
def test_a_mail_address_does_not_name_anybody(text: str, shown: str) -> None:
    """Reasons show values of calls, which may be anything; domains stay."""
    assert hidden(reason=text) == {"reason": shown}
    assert hidden(problems=[text]) == {"problems": [shown]}


def test_a_long_text_of_at_signs_is_hidden_quickly() -> None:
    """What a caller sends costs as much as it is long: a scheme is looked for in each place of a text only so far."""
    text = "a" * 100_000 + "@" * 100_000

    assert hidden(reason=text) == {"reason": text}
