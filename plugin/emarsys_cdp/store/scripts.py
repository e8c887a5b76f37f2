"""The Lua commands of this package: one a file, its header is its interface."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files

from msgspec import Struct


class Script(Struct, frozen=True):
    """A Lua command and the SHA-1 that Redis knows it by."""

    source: bytes
    sha: str


def load(name: str) -> Script:
    """
    Return the command of the file `lua/<name>.lua`.

    Raises:
        FileNotFoundError: there is no such command.

    """
    source = files("emarsys_cdp.store").joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest())
