"""Settings of the service: from the environment or a TOML file, every mistake at once, no secret shown."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emarsys_cdp.credentials import Secret
from emarsys_cdp.settings import PREFIX, VARIABLES, Settings, read_settings, read_write_keys
from emarsys_cdp_hooks import StopAndFix

S3CRET = "hunter2-the-secret"


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with some of our variables, and one of somebody else's."""
    return {"PATH": "/bin", **{PREFIX + name: value for name, value in variables.items()}}


def refusal(given: Mapping[str, str], config: Path | None = None) -> str:
    """Return what is wrong with settings, with all that a traceback would show of it."""
    with pytest.raises(StopAndFix) as caught:
        read_settings(given, config)
    shown = str(caught.value)
    assert S3CRET not in "".join(traceback.format_exception(caught.value))
    return shown


def test_nothing_has_to_be_set() -> None:
    """The first try works without set-up: an embedded server, Emarsys's own addresses, no token."""
    settings = read_settings({"PATH": "/bin"})

    assert settings == Settings()
    assert (settings.redis_url, settings.upstream, settings.host_token) == (None, None, None)
    assert settings.api_base == "https://api.emarsys.net/api"
    assert settings.token_url == "https://auth.emarsys.net/oauth2/token"  # noqa: S105 - an address
    assert settings.data_dir == Path.home() / ".local/share/emarsys-cdp"


def test_every_variable_is_a_setting() -> None:
    """What the help lists is what is read, and nothing else is."""
    assert {name.lower() for name in VARIABLES} == set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("REDIS_URL", "redis://host:6379/0", Secret("redis://host:6379/0")),
        ("REDIS_URL", " unix:///run/valkey.sock ", Secret("unix:///run/valkey.sock")),
        ("DATA_DIR", "/var/lib/x", Path("/var/lib/x")),
        ("DATA_DIR", "~/x", Path.home() / "x"),
        ("SECRET", "0123456789abcdef", Secret("0123456789abcdef")),
        ("UPSTREAM", "http://transformer:9090/", "http://transformer:9090"),
        ("API_BASE", "https://api.example.com/api/", "https://api.example.com/api"),
        ("TOKEN_URL", "https://auth.example.com/token", "https://auth.example.com/token"),
        ("HTTP_PROXY", "http://proxy:3128", Secret("http://proxy:3128")),
        ("SEND_SECONDS", "2.5", 2.5),
        ("HOST_TOKEN", S3CRET, Secret(S3CRET)),
        ("CLOCK", "virtual", "virtual"),
        ("LOG_LEVEL", "debug", "debug"),
    ],
)
def test_a_variable_sets_its_setting(name: str, text: str, value: Any, tmp_path: Path) -> None:
    """From the environment as from a file, without the space around it."""
    more = {"SECRET": "0123456789abcdef"} if name == "REDIS_URL" else {}
    file = tmp_path / "settings.toml"
    file.write_text("".join(f'{key} = "{given}"\n' for key, given in {name.lower(): text.strip(), **more}.items()))
    settings = [read_settings(environment(**{name: text}, **more)), read_settings({}, file)]

    assert [getattr(one, name.lower()) for one in settings] == [value, value]


def test_a_virtual_clock_is_for_the_embedded_server() -> None:
    """A Redis of one's own is of real people; a name of a clock that is none is refused."""
    own = environment(CLOCK="virtual", REDIS_URL="redis://host:6379/0", SECRET="0123456789abcdef")  # noqa: S106

    assert "EMARSYS_CDP_CLOCK virtual is for the embedded server only: leave EMARSYS_CDP_REDIS_URL out" in refusal(own)
    assert "EMARSYS_CDP_CLOCK must be system or virtual" in refusal(environment(CLOCK="sundial"))


def test_the_directory_of_rules_has_to_be_there(tmp_path: Path) -> None:
    """A wrong path would be a service without rules that nobody notices."""
    assert read_settings(environment(RULES_DIR=str(tmp_path))).rules_dir == tmp_path
    assert f"EMARSYS_CDP_RULES_DIR {tmp_path / 'x'} is no directory" in refusal(
        environment(RULES_DIR=str(tmp_path / "x"))
    )


def test_write_keys_are_for_destinations() -> None:
    """One for all, or one for each; spaces around them do not matter."""
    ingestion = {"INGEST_URL": "http://rudder:8080/"}
    one = read_settings(environment(INGEST_WRITE_KEY=S3CRET, **ingestion))

    assert (one.ingest_url, one.ingest_write_key) == ("http://rudder:8080", Secret(S3CRET))
    assert read_write_keys(S3CRET) == {"": Secret(S3CRET)}
    assert read_write_keys("dest-1=a, dest-2=b ,c") == {"dest-1": Secret("a"), "dest-2": Secret("b"), "": Secret("c")}


@pytest.mark.parametrize(
    "text", [f"={S3CRET}", f"dest-1={S3CRET},dest-1=x", f"{S3CRET},x", "dest-1=", ",", f"a:{S3CRET}"]
)
def test_malformed_write_keys_are_told_without_showing_them(text: str) -> None:
    """The variable is named, and what would be right."""
    told = refusal(environment(INGEST_WRITE_KEY=text, INGEST_URL="http://rudder:8080"))

    assert told.startswith("EMARSYS_CDP_INGEST_WRITE_KEY ")


@pytest.mark.parametrize(("name", "text"), [("INGEST_URL", "http://rudder:8080"), ("INGEST_WRITE_KEY", "key")])
def test_an_ingestion_needs_an_address_and_a_key(name: str, text: str) -> None:
    """The one that is missing is named."""
    missing = {"INGEST_URL": "INGEST_WRITE_KEY", "INGEST_WRITE_KEY": "INGEST_URL"}[name]

    assert f"EMARSYS_CDP_{missing} is missing" in refusal(environment(**{name: text}))


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_variable_is_not_set(blank: str) -> None:
    """As compose files and unit files leave them."""
    assert read_settings(environment(**dict.fromkeys(VARIABLES, blank))) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Name by name; names in a file may be written in any case and with the prefix."""
    file = tmp_path / "settings.toml"
    file.write_text('log_level = "error"\nEMARSYS_CDP_UPSTREAM = "http://in-file:9090"\nAPI_BASE = "https://in-file"\n')
    settings = read_settings(environment(UPSTREAM="http://in-environment:9090"), file)

    assert settings.upstream == "http://in-environment:9090"
    assert settings.log_level == "error"
    assert settings.api_base == "https://in-file"


@pytest.mark.parametrize("name", ["UPSTREAM", "API_BASE", "TOKEN_URL"])
@pytest.mark.parametrize(
    "text",
    [
        "host:9090", "ftp://host", "http://", "//host", "http://[", "http://[::1", "https://host:port",
        "http://host:99999", f"http://user:{S3CRET}@host", f"http://{S3CRET}@host",
    ],
)  # fmt: skip
def test_an_address_is_a_url_without_a_password(name: str, text: str) -> None:
    """The message names the variable and an example; a password in an address would reach errors and answers."""
    shown = refusal(environment(**{name: text}))

    assert f"EMARSYS_CDP_{name} " in shown
    assert "http" in shown


@pytest.mark.parametrize("url", [f"redis://:{S3CRET}@host/0", "unix:///run/valkey.sock"])
def test_a_redis_of_one_s_own_needs_a_secret(url: str) -> None:
    """Two services with secrets of their own would not know each other's people."""
    assert "EMARSYS_CDP_SECRET is missing" in refusal(environment(REDIS_URL=url))


@pytest.mark.parametrize(
    "url",
    ["host:6379", f"http://:{S3CRET}@host", f"redis://:{S3CRET}@host:x", f"redis://:{S3CRET}@[", f"{S3CRET}://host"],
)
def test_a_redis_url_is_looked_at_before_the_start(url: str) -> None:
    """Not at the first call."""
    assert "EMARSYS_CDP_REDIS_URL" in refusal(environment(REDIS_URL=url, SECRET="0123456789abcdef"))  # noqa: S106


@pytest.mark.parametrize("text", [S3CRET[:15], "x"])
def test_a_short_secret_is_refused_without_showing_it(text: str) -> None:
    """At least 16 characters."""
    shown = refusal(environment(SECRET=text))

    assert "EMARSYS_CDP_SECRET is too short: at least 16 characters" in shown
    assert S3CRET[:15] not in shown


def test_a_level_is_one_of_four() -> None:
    """The message lists them."""
    assert "EMARSYS_CDP_LOG_LEVEL must be one of debug, info, warning, error" in refusal(environment(LOG_LEVEL="loud"))


@pytest.mark.parametrize("name", ["API_BASE", "TOKEN_URL"])
@pytest.mark.parametrize("text", ["http://api.example.com", "http://10.0.0.1:8080", "http://127.0.0.1.example.com"])
def test_secrets_go_over_https(name: str, text: str) -> None:
    """Plain http is for a stand-in on this machine only."""
    assert "https" in refusal(environment(**{name: text}))
    assert read_settings(environment(**{name: "http://127.0.0.1:8080/api"}))
    assert read_settings(environment(**{name: "http://localhost:8080"}))


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e9", "nan"])
def test_a_time_to_wait_is_a_number_of_seconds(text: str) -> None:
    """One that never comes to an end, or gives up at once, is refused."""
    assert "SEND_SECONDS" in refusal(environment(SEND_SECONDS=text))


def test_an_http_proxy_is_a_url_and_a_secret() -> None:
    """It may have a password, which no message shows."""
    shown = refusal(environment(HTTP_PROXY=f"socks://user:{S3CRET}@proxy"))

    assert "HTTP_PROXY" in shown
    assert S3CRET not in shown


def test_every_mistake_is_told_at_once() -> None:
    """One a line, so nobody starts the service again for the next one."""
    given = environment(LOG_LEVEL="loud", API_BASE="x", UPSTREAM="y", SECRET="z", RULES_DIR="/no/such")  # noqa: S106
    lines = refusal(given).splitlines()

    assert len(lines) == 5
    assert all(line.startswith(PREFIX) for line in lines)


def test_a_name_in_a_file_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    """A slip of the pen would be a setting that does nothing."""
    file = tmp_path / "settings.toml"
    file.write_text(f'redis = "{S3CRET}"\n[host]\ntoken = "{S3CRET}"\n')
    lines = refusal({}, file).splitlines()

    assert lines == ["EMARSYS_CDP_HOST is no setting of emarsys-cdp", "EMARSYS_CDP_REDIS is no setting of emarsys-cdp"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f'secret = "{S3CRET}\n'.encode(), "is no TOML"),
        (f"secret = {S3CRET}".encode(), "is no TOML"),
        (f'host_token = "{S3CRET}"\nhost_token = "{S3CRET}"'.encode(), "is no TOML"),
        (b"secret = '\xff'", "is no TOML"),
        (b"log_level = 5", "EMARSYS_CDP_LOG_LEVEL"),
        (b"upstream = ['http://a']", "EMARSYS_CDP_UPSTREAM"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    """With what is wrong in it, and without what it holds."""
    file = tmp_path / "settings.toml"
    file.write_bytes(content)

    assert says in refusal({}, file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By its path."""
    assert f"{tmp_path / 'x.toml'} cannot be read: No such file" in refusal({}, tmp_path / "x.toml")
    assert f"{tmp_path} cannot be read" in refusal({}, tmp_path)


def test_settings_do_not_print_their_secrets() -> None:
    """Nor does whatever holds them."""
    given = environment(REDIS_URL=f"redis://:{S3CRET}@host/0", SECRET=S3CRET, HOST_TOKEN=S3CRET)
    settings = read_settings(given)

    assert S3CRET not in f"{settings} {settings!r} {[settings]}"
    assert settings.host_token == Secret(S3CRET)
