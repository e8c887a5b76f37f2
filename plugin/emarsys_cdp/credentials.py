"""The API Key setting: what it may look like, and a type for secrets that does not print."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from emarsys_cdp_hooks import StopAndFix

FORMS = (
    "client_id:client_secret or oauth2:client_id:client_secret for OAuth 2.0 (API v3), "
    "or wsse:user:secret for WSSE (API v2)"
)
_PART = re.compile(r"[!#-~]{1,300}\Z")
"""Printable ASCII without space and double quote: what a header can carry."""


class Secret:
    """Text that appears in no log, error or page; `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the place that signs or sends it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class OAuth(Struct, frozen=True):
    """OAuth 2.0 client credentials, for API v3."""

    client_id: str
    secret: Secret

    version = "v3"


class Wsse(Struct, frozen=True):
    """WSSE credentials, for API v2; SAP announced its end for 2026-12-31."""

    user: str
    secret: Secret

    version = "v2"


Credentials: TypeAlias = OAuth | Wsse


def parse_api_key(text: str) -> Credentials:
    """
    Return the credentials that an API Key holds.

    Raises:
        StopAndFix: it is of no known form; the message does not show it.

    """
    kind, _, rest = text.strip().partition(":")
    if kind.lower() not in ("oauth2", "wsse"):
        kind, rest = "oauth2", text.strip()
    name, _, secret = rest.partition(":")
    if not _PART.match(name) or not _PART.match(secret):
        raise StopAndFix(f"the API Key is not of a known form: write {FORMS}")
    return Wsse(name, Secret(secret)) if kind.lower() == "wsse" else OAuth(name, Secret(secret))


def read_credentials(settings: Mapping[str, Any]) -> Credentials:
    """
    Return the credentials of a destination's settings: `apiKey`, else RudderStack's two stock settings.

    Raises:
        StopAndFix: none of them is given, or they are malformed; the message shows no value.

    """
    api_key = settings.get("apiKey")
    if isinstance(api_key, str) and api_key.strip():
        return parse_api_key(api_key)
    if api_key not in (None, "") and not isinstance(api_key, str):
        raise StopAndFix(f"the setting API Key (apiKey) must be text: write {FORMS}")
    user, secret = settings.get("emersysUsername"), settings.get("emersysUserSecret")
    if isinstance(user, str) and isinstance(secret, str) and user and secret:
        if not _PART.match(user.strip()) or not _PART.match(secret.strip()):
            raise StopAndFix("emersysUsername and emersysUserSecret must be printable text without spaces")
        return Wsse(user.strip(), Secret(secret.strip()))
    raise StopAndFix(f"the setting API Key (apiKey) is missing: write {FORMS}")
