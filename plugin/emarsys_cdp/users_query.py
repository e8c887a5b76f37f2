"""People as they are asked for: by a kind of identifier and a value, read as one of a call is read."""

from __future__ import annotations

from typing import Final

from emarsys_cdp.document.model import Document
from emarsys_cdp.identity.identifiers import MAX_LENGTH, Reader
from emarsys_cdp.values.paths import compile_path
from emarsys_cdp.values.text import shorten
from emarsys_cdp_hooks import DropCall

WORDS: Final = {"user": "userId", "key": "primary key", "anon": "anonymousId"}
"""What the kinds are called in words."""

FIELD_OF: Final = {"user": "userId", "key": "primaryKey", "anon": "anonymousId"}
"""Where the reader of this module finds them."""

_PROBLEMS: Final = {
    "id_blocked": "is a value that programs send when they know nobody, so no call is found by it",
    "id_too_long": f"has more than {MAX_LENGTH} characters, so no call is found by it",
    "id_wrong_type": "has characters that no identifier has",
    "key_not_email": "is no e-mail address, and the primary keys of this space are",
}

_NO_PHONE: Final = "is no phone number with + and 5 to 20 digits, and the primary keys of this space are"


class NoIdentifier(DropCall):
    """What was given as an identifier of a kind can be none."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def reader_of(document: Document | None, value: str) -> Reader:
    """
    Return what reads identifiers in a space with a document.

    Without one nobody can tell whether the stock settings have a key that is no e-mail address: it is if it looks so.
    """
    if document is None:
        return Reader(compile_path(FIELD_OF["key"]), "email" if "@" in value else "text")
    return Reader(compile_path(FIELD_OF["key"]), document.identity.key_type)


def read_identifier(reader: Reader, kind: str, value: str) -> str:
    """
    Return an identifier in its normal form; *kind* is user, key or anon, *reader* is of `reader_of`.

    Raises:
        NoIdentifier: no call can have it.

    """
    found = reader.read({FIELD_OF[kind]: value})
    text = {"user": found.user, "key": found.key, "anon": found.anon}[kind]
    if text is None:
        raise NoIdentifier(kind, f"{WORDS[kind]} {shorten(value)} {_problem(reader, found.warnings[0])}")
    return text


def _problem(reader: Reader, code: str) -> str:
    return _NO_PHONE if code == "key_not_email" and reader.key_type == "phone" else _PROBLEMS[code]
