"""Entity tags of documents: the revision in quotes (RFC 9110, 8.8.3), and what an If-Match asks for (13.1.1)."""

from __future__ import annotations

import re
from typing import Final

from emarsys_cdp.values.text import shorten

_TAG: Final = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|\Z)')
_REVISION: Final = re.compile(r"(0|[1-9][0-9]{0,18})\Z", re.ASCII)


def etag(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def read_if_match(value: str) -> frozenset[int]:
    """
    Return the revisions that an If-Match header names.

    A weak tag matches nothing, as the comparison is the strong one, and neither does a tag that no document ever had.

    Raises:
        ValueError: it is no list of entity tags, or `*`, which would overwrite whatever somebody else has published.

    """
    if value.strip() == "*":
        raise ValueError('"*" names no revision: send the ETag of the document that was changed')
    found, place = set[int](), 0
    while place < len(value):
        match = _TAG.match(value, place)
        if match is None:
            raise ValueError(f'{shorten(value)} is no ETag: write the revision in quotes, such as "7"')
        weak, tag = match.groups()
        if weak is None and _REVISION.match(tag):
            found.add(int(tag))
        place = match.end()
    return frozenset(found)
