"""Reading and normalising the identifiers of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from emarsys_cdp.values.paths import Getter
from emarsys_cdp.values.text import decimal_text, nfc
from emarsys_cdp_hooks import Identifiers

MAX_LENGTH = 255
"""Longest identifier, in characters."""

BLOCKED = frozenset(
    (
        "", "-1", "null", "anonymous", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email",
        "undefined", "true", "false", "[object object]", "nan", "none", "0", "anonymousid", "anonymous_id",
        "userid", "user_id", "nil", "(null)", "<nil>", "n/a", "na", "unknown", "user", "test", "void",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    )
)  # fmt: skip
"""Values that no person is called by, in lower case: what programs send when they know nobody (semantics 1.2)."""

_BLOCKED_PATTERN = re.compile(r"[0-]*\Z | .*\{\{.*\}\} | .*\$\{.*\} | %\w+%\Z | <.*>\Z", re.VERBOSE)
_QUOTES = ("'", '"')
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"\\\x00-\x1f]+@[^\s@<>()\[\],;:\"\\\x00-\x1f]+\Z")
_NO_DIGITS = re.compile(r"[\s().\-/]+")
_PHONE = re.compile(r"\+?\d{5,20}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Reader:
    """
    Reads the identifiers of the calls of one space.

    *primary_key* reads the key from a message, *key_type* is email, phone or text, *blocked* are further values
    that no person is called by, in lower case.
    """

    def __init__(self, primary_key: Getter, key_type: str, blocked: frozenset[str] = frozenset()) -> None:
        self._primary_key = primary_key
        self._key_type = key_type
        self._blocked = BLOCKED | blocked

    def read(self, message: Mapping[str, Any]) -> Identifiers:
        """Return what the call says about its person; a refused identifier becomes a warning."""
        user = self._text(message.get("userId"))
        anon = self._text(message.get("anonymousId"))
        key = self._key(self._primary_key(message))
        warnings = tuple([w for w in (user[1], key[1], anon[1]) if w is not None])
        return Identifiers(user[0], key[0], anon[0], warnings)

    def _text(self, raw: Any) -> tuple[str | None, str | None]:
        if raw is None:
            return None, None
        if type(raw) is not str:
            if isinstance(raw, bool) or not isinstance(raw, (int, float)):
                return None, "id_wrong_type"
            raw = decimal_text(raw) or ""
        text = nfc(raw).strip()
        if len(text) > MAX_LENGTH:
            return None, "id_too_long"
        if self._is_blocked(text.lower()):
            return None, "id_blocked"
        if not text.isprintable() and _CONTROL.search(text):
            return None, "id_wrong_type"
        return text, None

    def _is_blocked(self, text: str) -> bool:
        if text in self._blocked:
            return True
        if text[0] in _QUOTES and text[-1] == text[0] and len(text) > 1:
            return self._is_blocked(text[1:-1].strip())
        if text[0] in "0-{$%<" or "{" in text:
            return _BLOCKED_PATTERN.match(text) is not None
        return False

    def _key(self, raw: Any) -> tuple[str | None, str | None]:
        text, warning = self._text(raw)
        if text is None or self._key_type == "text":
            return text, warning
        if self._key_type == "email":
            text = text.lower()
            return (text, None) if _EMAIL.match(text) else (None, "key_not_email")
        digits = _NO_DIGITS.sub("", text)
        return (digits, None) if _PHONE.match(digits) else (None, "id_wrong_type")
