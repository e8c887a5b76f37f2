"""
Who asks: OAuth 2.0 for API v3, WSSE for API v2, and what each API user may do.

Written from Emarsys' documentation and signing script alone, so that a fault of a client is not made here, too.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from hashlib import sha1, sha256
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from emarsys_cdp.testing.fake_emarsys.limits import FetchLimit
from emarsys_cdp.testing.fake_emarsys.options import Options
from emarsys_cdp.testing.fake_emarsys.records import IssuedToken, Json, Log, ViolationKind
from emarsys_cdp.testing.fake_emarsys.replies import Reply
from emarsys_cdp.values.times import parse_time

TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105 - an address, not a secret
WSSE_SKEW: Final = 5 * 60 * 1000
"""Milliseconds that Created may be away from the server's time (authentication guide of API v2)."""

_PAIR: Final = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_PARTS: Final = {"username", "passworddigest", "nonce", "created"}
_NONCES: Final = 200_000


class Caller(Struct, frozen=True):
    """
    Who a request says it is of, and in words why that is not so; *problem* None: it is.

    *nonce* is that of a right WSSE header.
    """

    user: str | None
    problem: str | None = None
    nonce: str | None = None


class Wsse:
    """The header X-WSSE: a digest over nonce, time and secret."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = dict(secrets)
        self._nonces: dict[tuple[str, str], None] = {}

    def identify(self, header: str | None, now: int) -> Caller:
        """Tell who a header is of."""
        if header is None:
            return Caller(None, "the header X-WSSE is missing")
        pairs = {name.lower(): value for name, value in _PAIR.findall(header)}
        if not header.lstrip().startswith("UsernameToken") or _PARTS - set(pairs):
            return Caller(pairs.get("username"), 'X-WSSE is not: UsernameToken Username="…", PasswordDigest="…", …')
        user, nonce, created = pairs["username"], pairs["nonce"], pairs["created"]
        secret = self._secrets.get(user)
        if secret is None:
            return Caller(user, "there is no such WSSE user")
        if not hmac.compare_digest(digest(nonce, created, secret).encode(), pairs["passworddigest"].encode()):
            return Caller(user, "PasswordDigest is wrong: base64 of the hex text of SHA-1 of nonce, Created and secret")
        time = parse_time(created)
        if time is None or abs(now - time) > WSSE_SKEW:
            return Caller(user, f"Created {created} is not within five minutes of the time here")
        return Caller(user, nonce=nonce)

    def is_replay(self, caller: Caller) -> bool:
        """Tell whether a caller's nonce came before, which is accepted: whether Emarsys minds is not known."""
        if caller.user is None or caller.nonce is None:
            return False
        if (caller.user, caller.nonce) in self._nonces:
            return True
        self._nonces[caller.user, caller.nonce] = None
        if len(self._nonces) > _NONCES:
            del self._nonces[next(iter(self._nonces))]
        return False


def digest(nonce: str, created: str, secret: str) -> str:
    """Return the PasswordDigest: the Base64 of the lower-case hexadecimal *text* of SHA-1 (Emarsys' own script)."""
    signed = sha1(f"{nonce}{created}{secret}".encode(), usedforsecurity=False).hexdigest()
    return b64encode(signed.encode()).decode()


class Tokens:
    """The token endpoint and the bearer tokens that it handed out."""

    def __init__(self, clients: Mapping[str, str], options: Options) -> None:
        self._clients = dict(clients)
        self._options = options
        self._limit = FetchLimit(options.token_fetches)
        self._numbers: dict[str, int] = {}
        self.issued: Log[IssuedToken] = Log(options.keep)

    def identify(self, header: str | None, now: int) -> Caller:
        """Tell who a header `Authorization: Bearer …` is of."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer":
            return Caller(None, "the header Authorization: Bearer is missing")
        number = self._numbers.get(token.strip())
        found = None if number is None else self.issued.get(number)
        if found is None:
            return Caller(None, "the token was never handed out")
        if found.revoked:
            return Caller(found.client, "the token was revoked")
        return Caller(found.client, "the token has expired" if now >= found.expires else None)

    def revoke(self) -> int:
        """Make every token invalid that was handed out, and return how many were valid."""
        valid = 0
        for number in self._numbers.values():
            token = self.issued.get(number)
            if token is not None and not token.revoked:
                self.issued.replace(number, msgspec.structs.replace(token, revoked=True))
                valid += 1
        return valid

    def answer(
        self, method: str, headers: Mapping[str, str], raw: bytes, now: int, breaches: list[tuple[ViolationKind, str]]
    ) -> Reply:
        """Answer a request to the token URL."""
        client, secret = basic(headers.get("authorization"))
        if method != "POST":
            return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "invalid_request", "the method is not POST")
        if client is None or not self._is_secret(client, secret):
            return _refused(HTTPStatus.UNAUTHORIZED, "invalid_client", "HTTP Basic has wrong or no credentials")
        form = parse_qs(raw.decode("latin-1"))
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/x-www-form-urlencoded":
            return _refused(HTTPStatus.BAD_REQUEST, "invalid_request", "the body is no form")
        if form.get("grant_type") != ["client_credentials"]:
            return _refused(HTTPStatus.BAD_REQUEST, "unsupported_grant_type", "not client_credentials")
        excess = self._limit.take(client, now)
        if excess is not None:
            breaches.append(("token_rate", excess))
            return _refused(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", excess)
        return self._issue(client, now)

    def _is_secret(self, client: str, secret: str) -> bool:
        known = self._clients.get(client)
        return known is not None and hmac.compare_digest(known.encode(), secret.encode())

    def _issue(self, client: str, now: int) -> Reply:
        expires = now + int(self._options.token_seconds * 1000)
        token = _jwt(client, now, expires, self.issued.total + 1)
        self._numbers[token] = self.issued.add(IssuedToken(client, token, now, expires))
        answer: dict[str, Json] = {"access_token": token, "token_type": "Bearer"}
        if self._options.tell_expiry:
            seconds = self._options.token_seconds
            answer["expires_in"] = int(seconds) if seconds == int(seconds) else seconds
        return Reply(HTTPStatus.OK, msgspec.json.encode(answer), headers={"Cache-Control": "no-store"})


def basic(header: str | None) -> tuple[str | None, str]:
    """Return client and secret of HTTP Basic; both are form-encoded in it (RFC 6749, 2.3.1)."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    try:
        text = b64decode(encoded, validate=True).decode()
    except (Base64Error, ValueError):
        return None, ""
    client, _, secret = text.partition(":")
    return unquote(client), unquote(secret)


def _refused(status: int, error: str, note: str) -> Reply:
    headers = {"WWW-Authenticate": "Basic"} if status == HTTPStatus.UNAUTHORIZED else {}
    return Reply(status, msgspec.json.encode({"error": error}), headers=headers, note=note)


def _jwt(client: str, issued: int, expires: int, number: int) -> str:
    """Return a token that looks like a JWT; the signature is none."""
    claims = {"sub": client, "iat": issued // 1000, "exp": expires // 1000, "jti": str(number)}
    parts = [_base64url(msgspec.json.encode(part)) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{_base64url(sha256(signed.encode()).digest())}"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class Permissions:
    """Which endpoints an API user may not use; everything else is permitted."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._missing: dict[str, set[str]] = {}

    def forbid(self, user: str, names: Iterable[str]) -> None:
        """
        Switch permissions of a user off.

        Raises:
            ValueError: a name is none of Emarsys' permissions that the fake has an endpoint for.

        """
        wanted = set(names)
        if unknown := sorted(wanted - self._known):
            raise ValueError(f"{', '.join(unknown)}: no such permission; there are {', '.join(sorted(self._known))}")
        self._missing.setdefault(user, set()).update(wanted)

    def permit(self, user: str, names: Iterable[str]) -> None:
        """Switch permissions of a user on again."""
        self._missing.get(user, set()).difference_update(names)

    def has(self, user: str, name: str) -> bool:
        """Tell whether a user has a permission."""
        return name not in self._missing.get(user, ())
