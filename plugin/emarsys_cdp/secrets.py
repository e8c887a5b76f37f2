"""The installation's secret and the keys derived from it: names of identifiers, sealing."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from emarsys_cdp_hooks import StopAndFix

MIN_SECRET = 16
"""Shortest EMARSYS_CDP_SECRET, in characters."""

_NONCE_BYTES = 12


def derive(secret: str, purpose: str) -> bytes:
    """Return the 32-byte key of one purpose (`identifiers`, `seal`)."""
    return blake2b(purpose.encode(), key=blake2b(secret.encode()).digest(), digest_size=32).digest()


def secret_of_directory(directory: Path, random_bytes: Callable[[int], bytes]) -> str:
    """
    Return the secret in *directory*; make one in a file that only its owner can read when there is none.

    Raises:
        StopAndFix: the file cannot be read or written.

    """
    path = directory / "secret"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_text().strip()
        with os.fdopen(descriptor, "w") as file:
            secret = random_bytes(32).hex()
            file.write(secret)
            return secret
    except OSError as error:
        raise StopAndFix(f"the secret in {path} cannot be read or made: {error.strerror}") from error


class Seal:
    """Encrypts what rests in the store (AES-256-GCM); *random_bytes* makes nonces."""

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(key)
        self._random_bytes = random_bytes

    def close(self, plain: bytes, name: str) -> bytes:
        """Return *plain* sealed; it opens only under the same name."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes | None:
        """Return what was sealed, None when it is not of this key and name."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            return None
