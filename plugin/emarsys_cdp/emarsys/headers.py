"""Headers that prove who we are: X-WSSE of API v2, and basic authentication. Pure: nonce and time are arguments."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

from emarsys_cdp.credentials import Wsse
from emarsys_cdp.values.times import iso_time

NONCE_BYTES = 16
"""Random bytes of a nonce; it is used as its hexadecimal text."""


def wsse_header(credentials: Wsse, nonce: bytes, now: int) -> str:
    """
    Return the value of `X-WSSE`; Emarsys takes it within five minutes of *now* (ms since 1970 UTC).

    The digest is the Base64 of the *hexadecimal text* of SHA-1 (Emarsys's own signing script), not of its bytes as
    in the WSSE standard.
    """
    text, created = nonce.hex(), iso_time(now)
    signed = f"{text}{created}{credentials.secret.reveal()}".encode()
    digest = b64encode(sha1(signed, usedforsecurity=False).hexdigest().encode()).decode()
    return (
        f'UsernameToken Username="{credentials.user}", PasswordDigest="{digest}", Nonce="{text}", Created="{created}"'
    )


def basic_header(user: str, password: str) -> str:
    """Return the value of `Authorization` by which a client signs in at the token URL."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
