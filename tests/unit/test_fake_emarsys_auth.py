"""The fake's idea of who asks: WSSE, access tokens, permissions."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping

import msgspec
import pytest

from emarsys_cdp.testing.fake_emarsys.auth import Permissions, Tokens, Wsse, digest
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.records import ViolationKind

NOW = 1_571_011_200_000
CREATED = "2019-10-14T00:00:00.000Z"
NONCE = "5398e214ae99c2e50afb709a3bc423f9"
DIGEST = "NDc5MjNlODIyMGE4ODhiMTQyNTA0OGMzZTFjZTM1MmMzMmU0NmNiNw=="
RAW_DIGEST = "R5I+giCoiLFCUEjD4c41LDLkbLc="
"""The digest of the WSSE standard, over the bytes of SHA-1: Emarsys does not take it."""
SECRET = "s3cret:%"  # noqa: S105 - of the stand-in
FORM = {"content-type": "application/x-www-form-urlencoded"}


def header(created: str = CREATED, **changes: str) -> str:
    """Return the X-WSSE header of the reference, with changes."""
    parts = {"Username": "user", "PasswordDigest": DIGEST, "Nonce": NONCE, "Created": created, **changes}
    return "UsernameToken " + ", ".join(f'{name}="{value}"' for name, value in parts.items())


def test_the_digest_is_over_the_hexadecimal_text() -> None:
    """The digest of the known example is that of Emarsys' signing script."""
    assert digest(NONCE, CREATED, "dummy") == DIGEST


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (header(), None),
        (header().replace("Nonce", "nonce"), None),
        (header(PasswordDigest=RAW_DIGEST), "PasswordDigest is wrong"),
        (header(Nonce="0" * 32), "PasswordDigest is wrong"),
        (header(Username="nobody"), "no such WSSE user"),
        (header().replace("UsernameToken ", ""), "X-WSSE is not"),
        (header().replace("Nonce", "Once"), "X-WSSE is not"),
        ("", "X-WSSE is not"),
        (None, "X-WSSE is missing"),
    ],
)
def test_a_wsse_header_is_verified(text: str | None, problem: str | None) -> None:
    """Only the digest of the right user over the header's own nonce and time passes; attributes in any case."""
    caller = Wsse({"user": "dummy"}).identify(text, NOW)

    assert (problem or "None") in str(caller.problem)
    assert (caller.nonce == NONCE) is (problem is None)


@pytest.mark.parametrize(("seconds", "passes"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_created_is_within_five_minutes(seconds: int, passes: bool) -> None:
    """A header from another time does not pass, whichever clock is wrong."""
    caller = Wsse({"user": "dummy"}).identify(header(), NOW + seconds * 1000)

    assert (caller.problem is None) is passes


@pytest.mark.parametrize("created", ["2019-10-14T00:00:00Z", "2019-10-14T02:00:00+02:00"])
def test_created_may_be_in_any_form_of_iso_8601(created: str) -> None:
    """Forms that clients of Emarsys use pass: without milliseconds, with an offset."""
    text = header(created, PasswordDigest=digest(NONCE, created, "dummy"))

    assert Wsse({"user": "dummy"}).identify(text, NOW).problem is None


def test_a_created_that_is_no_time_is_refused() -> None:
    """A header that is signed rightly over no time does not pass."""
    text = header("yesterday", PasswordDigest=digest(NONCE, "yesterday", "dummy"))

    assert "Created yesterday" in str(Wsse({"user": "dummy"}).identify(text, NOW).problem)


def test_a_nonce_that_comes_again_is_told() -> None:
    """The first use of a nonce is new, the second is a replay; wrong headers use up none."""
    wsse = Wsse({"user": "dummy"})
    wrong = wsse.identify(header(PasswordDigest=RAW_DIGEST), NOW)
    caller = wsse.identify(header(), NOW)

    assert [wsse.is_replay(one) for one in (wrong, caller, caller)] == [False, False, True]


def fetch(tokens: Tokens, now: int = NOW, secret: str = SECRET) -> tuple[int, Mapping[str, object]]:
    """Fetch a token; returns status and answer."""
    basic = b64encode(f"client:{secret.replace('%', '%25')}".encode()).decode()
    breaches: list[tuple[ViolationKind, str]] = []
    headers = {**FORM, "authorization": f"Basic {basic}"}
    reply = tokens.answer("POST", headers, b"grant_type=client_credentials", now, breaches)
    return reply.status, msgspec.json.decode(reply.body)


def test_a_token_passes_until_it_expires() -> None:
    """A token that was handed out is its client's for its life, not longer, and no other text is a token."""
    tokens = Tokens({"client": SECRET}, Options(token_seconds=60))
    status, answer = fetch(tokens)
    bearer = f"Bearer {answer['access_token']}"

    assert (status, answer["token_type"], answer["expires_in"]) == (200, "Bearer", 60)
    assert tokens.identify(bearer, NOW + 59_999).problem is None
    assert tokens.identify(bearer, NOW + 59_999).user == "client"
    assert tokens.identify(bearer, NOW + 60_000).problem == "the token has expired"
    assert tokens.identify("Bearer other", NOW).problem == "the token was never handed out"
    assert tokens.identify(None, NOW).problem == "the header Authorization: Bearer is missing"


def test_a_token_looks_like_a_jwt() -> None:
    """It has three parts, and the first two are JSON objects that are told what its client may read."""
    tokens = Tokens({"client": SECRET}, Options())
    parts = str(fetch(tokens)[1]["access_token"]).split(".")
    claims = msgspec.json.decode(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))

    assert len(parts) == 3
    assert claims == {"sub": "client", "iat": NOW // 1000, "exp": NOW // 1000 + 3600, "jti": "1"}


def test_revoked_tokens_do_not_pass() -> None:
    """Every token that was valid is not any more, and one that is fetched afterwards is."""
    tokens = Tokens({"client": SECRET}, Options())
    old = f"Bearer {fetch(tokens)[1]['access_token']}"

    assert tokens.revoke() == 1
    assert tokens.revoke() == 0
    assert tokens.identify(old, NOW).problem == "the token was revoked"
    assert tokens.identify(f"Bearer {fetch(tokens)[1]['access_token']}", NOW).problem is None


def test_the_expiry_can_be_left_out() -> None:
    """An account may be made whose tokens do not tell how long they live."""
    tokens = Tokens({"client": SECRET}, Options(tell_expiry=False))

    assert "expires_in" not in fetch(tokens)[1]


def test_a_third_fetch_within_a_minute_is_refused() -> None:
    """Only right requests count against the limit of token fetches."""
    tokens = Tokens({"client": SECRET}, Options())
    statuses = [fetch(tokens, secret=secret)[0] for secret in ("wrong", "wrong", SECRET, SECRET, SECRET)]

    assert statuses == [401, 401, 200, 200, 429]
    assert fetch(tokens, NOW + 60_000)[0] == 200


@pytest.mark.parametrize(
    ("method", "headers", "raw", "want"),
    [
        ("GET", {}, b"", (405, "invalid_request")),
        ("POST", {}, b"grant_type=client_credentials", (401, "invalid_client")),
        ("POST", {"authorization": "Basic !"}, b"", (401, "invalid_client")),
        ("POST", {"authorization": "Bearer x"}, b"", (401, "invalid_client")),
        ("POST", {"content-type": "application/json"}, b"{}", (400, "invalid_request")),
        ("POST", {}, b"grant_type=password", (400, "unsupported_grant_type")),
        ("POST", {}, b"\xff\x00", (400, "unsupported_grant_type")),
    ],
)
def test_wrong_token_requests_are_refused(
    method: str, headers: dict[str, str], raw: bytes, want: tuple[int, str]
) -> None:
    """The answer says what is wrong with a request to the token URL in the words of OAuth 2.0."""
    right = {"authorization": f"Basic {b64encode(b'client:secret').decode()}"} if want[0] == 400 else {}
    reply = Tokens({"client": "secret"}, Options()).answer(method, {**FORM, **right, **headers}, raw, NOW, [])

    assert (reply.status, msgspec.json.decode(reply.body)["error"]) == want


def test_permissions_are_switched_off_per_user() -> None:
    """What one API user may not do another may, until it is permitted again; unknown names are refused."""
    permissions = Permissions(["contact.delete", "contact.update"])
    permissions.forbid("one", ["contact.delete"])

    assert not permissions.has("one", "contact.delete")
    assert permissions.has("one", "contact.update")
    assert permissions.has("two", "contact.delete")
    permissions.permit("one", ["contact.delete"])
    assert permissions.has("one", "contact.delete")
    with pytest.raises(ValueError, match=r"contact\.remove: no such permission; there are contact\.delete"):
        permissions.forbid("one", ["contact.remove"])
