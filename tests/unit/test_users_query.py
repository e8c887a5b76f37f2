"""Identifiers as people give them: read as those of a call are."""

from __future__ import annotations

import pytest

from emarsys_cdp.document.model import Document, Identity
from emarsys_cdp.users_query import NoIdentifier, read_identifier, reader_of

TEXT, PHONE = (Document(identity=Identity(key_type=kind)) for kind in ("text", "phone"))


@pytest.mark.parametrize(
    ("document", "kind", "value", "normal"),
    [
        (None, "user", " U1 ", "U1"),
        (None, "anon", "D1", "D1"),
        (None, "key", " A@X.com ", "a@x.com"),
        (None, "key", "Customer-7", "Customer-7"),
        (Document(), "key", "A@x.com", "a@x.com"),
        (TEXT, "key", "A@x.com", "A@x.com"),
        (PHONE, "key", "+49 (30) 123-456", "+4930123456"),
    ],
)
def test_an_identifier_is_read_as_that_of_a_call(document: Document | None, kind: str, value: str, normal: str) -> None:
    """By the type of the space's keys; without a document a key is an e-mail address if it looks so."""
    assert read_identifier(reader_of(document, value), kind, value) == normal


@pytest.mark.parametrize(
    ("document", "kind", "value", "message"),
    [
        (None, "user", "undefined", "userId 'undefined' is a value that programs send when they know nobody"),
        (None, "anon", "", "anonymousId '' is a value that programs send"),
        (None, "user", "x" * 256, "has more than 255 characters"),
        (None, "user", "a\x00b", "has characters that no identifier has"),
        (Document(), "key", "u1", "primary key 'u1' is no e-mail address"),
        (PHONE, "key", "call me", "primary key 'call me' is no phone number"),
    ],
)
def test_what_no_call_can_have_is_refused(document: Document | None, kind: str, value: str, message: str) -> None:
    """The error names kind, value and reason."""
    with pytest.raises(NoIdentifier) as caught:
        read_identifier(reader_of(document, value), kind, value)

    assert message in str(caught.value)
    assert caught.value.kind == kind
