"""The API Key: what is taken for one, and that a secret shows itself nowhere."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from emarsys_cdp.credentials import OAuth, Secret, Wsse, parse_api_key, read_credentials
from emarsys_cdp_hooks import StopAndFix

S3CRET = "hunter2-the-secret"


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        (f"client:{S3CRET}", OAuth("client", Secret(S3CRET))),
        (f"oauth2:client:{S3CRET}", OAuth("client", Secret(S3CRET))),
        (f"OAuth2:client:{S3CRET}", OAuth("client", Secret(S3CRET))),
        (f"wsse:customer001:{S3CRET}", Wsse("customer001", Secret(S3CRET))),
        (f"WSSE:customer001:{S3CRET}", Wsse("customer001", Secret(S3CRET))),
        (f"  client:{S3CRET}\n", OAuth("client", Secret(S3CRET))),
        ("client:a:b:c", OAuth("client", Secret("a:b:c"))),
        ("wsse:user:a:b", Wsse("user", Secret("a:b"))),
        ("oauth2:oauth2:x", OAuth("oauth2", Secret("x"))),
        ("c-1_2.3@x:!#$%&/()=", OAuth("c-1_2.3@x", Secret("!#$%&/()="))),
    ],
)
def test_an_api_key_is_of_one_of_three_forms(text: str, credentials: OAuth | Wsse) -> None:
    """Only the first colon parts name and secret; the form's name is taken in any case."""
    assert parse_api_key(text) == credentials


@pytest.mark.parametrize(
    "text",
    [
        "", " ", S3CRET, f":{S3CRET}", f"{S3CRET}:", f"oauth2:{S3CRET}", f"wsse:{S3CRET}", f"wsse::{S3CRET}",
        f"oauth2:{S3CRET}:", f"client name:{S3CRET}", f"client:{S3CRET} x", f'client:"{S3CRET}"',
        f"client:{S3CRET}\nX-Header: 1", f"client:{S3CRET}\x00", f"cl\u00efent:{S3CRET}", f"client:{S3CRET}\u2028x",
        f"client:{S3CRET * 20}", f"wsse:us er:{S3CRET}",
    ],
)  # fmt: skip
def test_another_form_is_refused_without_showing_it(text: str) -> None:
    """The message says what is expected; neither it nor its traceback has the value."""
    with pytest.raises(StopAndFix) as caught:
        parse_api_key(text)
    shown = str(caught.value) + "".join(traceback.format_exception_only(caught.value))

    assert "client_id:client_secret" in shown
    assert "wsse:user:secret" in shown
    assert S3CRET not in shown


@pytest.mark.parametrize(
    ("settings", "credentials"),
    [
        ({"apiKey": f"client:{S3CRET}"}, OAuth("client", Secret(S3CRET))),
        ({"emersysUsername": " u ", "emersysUserSecret": f" {S3CRET} "}, Wsse("u", Secret(S3CRET))),
        (
            {"apiKey": f"client:{S3CRET}", "emersysUsername": "u", "emersysUserSecret": "s"},
            OAuth("client", Secret(S3CRET)),
        ),
        ({"apiKey": " ", "emersysUsername": "u", "emersysUserSecret": S3CRET}, Wsse("u", Secret(S3CRET))),
        ({"apiKey": None, "emersysUsername": "u", "emersysUserSecret": S3CRET}, Wsse("u", Secret(S3CRET))),
    ],
)
def test_the_api_key_wins_over_the_stock_settings(settings: dict[str, Any], credentials: OAuth | Wsse) -> None:
    """Without one, RudderStack's own user and secret are WSSE credentials."""
    assert read_credentials(settings) == credentials


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "(apiKey) is missing"),
        ({"apiKey": ""}, "(apiKey) is missing"),
        ({"emersysUsername": S3CRET}, "(apiKey) is missing"),
        ({"emersysUserSecret": S3CRET}, "(apiKey) is missing"),
        ({"emersysUsername": 5, "emersysUserSecret": S3CRET}, "(apiKey) is missing"),
        ({"apiKey": S3CRET}, "not of a known form"),
        ({"apiKey": [S3CRET]}, "must be text"),
        ({"apiKey": {"client": S3CRET}}, "must be text"),
        ({"apiKey": 5}, "must be text"),
        ({"apiKey": True}, "must be text"),
        ({"emersysUsername": "u", "emersysUserSecret": f"{S3CRET} x"}, "without spaces"),
        ({"emersysUsername": "u\n", "emersysUserSecret": f"{S3CRET}\r\nX: 1"}, "without spaces"),
        ({"emersysUsername": f"{S3CRET}\u00e4", "emersysUserSecret": "x"}, "without spaces"),
    ],
)
def test_settings_without_credentials_are_refused_without_showing_them(settings: dict[str, Any], says: str) -> None:
    """Each mistake has its words."""
    with pytest.raises(StopAndFix) as caught:
        read_credentials(settings)

    assert says in str(caught.value)
    assert S3CRET not in str(caught.value)


SHOWN: dict[str, Callable[[Secret], str]] = {
    "str": str,
    "repr": repr,
    "format": "{}".format,
    "format as repr": "{!r:>40}".format,
    "in a list": lambda secret: str([secret]),
    "in an object": lambda secret: repr({"a": (secret,)}),
    "in OAuth": lambda secret: repr(OAuth("client", secret)),
    "in Wsse": lambda secret: repr(replace(Wsse("user", secret), user="x")),
    "in JSON": lambda secret: json.dumps({"a": secret}, default=str),
    "in an exception": lambda secret: repr(ValueError(secret)),
    "a copy": lambda secret: repr(copy.deepcopy(secret)),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_secret_is_not_printed(show: Callable[[Secret], str]) -> None:
    """Whoever writes one down by mistake writes down stars."""
    shown = show(Secret(S3CRET))

    assert S3CRET not in shown
    assert "***" in shown


def test_a_secret_is_revealed_on_request_only() -> None:
    """To the place that signs."""
    assert Secret(S3CRET).reveal() == S3CRET


def test_secrets_are_compared_by_their_text() -> None:
    """So settings that did not change are known again."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins])
def test_credentials_are_not_encoded(encode: Callable[[Any], Any]) -> None:
    """They cannot get into a record or an answer as a part of something else."""
    with pytest.raises(TypeError, match="Secret"):
        encode({"space": OAuth("client", Secret(S3CRET))})
