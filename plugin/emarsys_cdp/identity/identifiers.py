"""Reading and normalising the identifiers of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from emarsys_cdp.values.paths import Getter
from emarsys_cdp.values.remembered import forget_oldest
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
REMEMBERED = 65_536
"""Combinations of identifiers that a worker remembers in their normal form."""

_QUOTES = ("'", '"')
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\"\\\x00-\x1f]+@[^\s@<>()\[\],;:\"\\\x00-\x1f]+\Z")
_NO_DIGITS = re.compile(r"[\s().\-/]+")
_PHONE = re.compile(r"\+\d{5,20}\Z", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Reader:
    """
    Reads the identifiers of the calls of one space.

    *primary_key* reads the key from a message, *key_type* is email, phone or text, *blocked* are further values
    that no person is called by, in lower case.
    """

    def __init__(self, primary_key: Getter, key_type: str, blocked: frozenset[str] = frozenset()) -> None:
        self._primary_key = primary_key
        self.key_type = key_type
        self._blocked = BLOCKED | blocked
        self._known: dict[tuple[str | None, str | None, str | None], Identifiers] = {}

    def read(self, message: Mapping[str, Any]) -> Identifiers:
        """Return what the call says about its person; a refused identifier becomes a warning."""
        parts = (message.get("userId"), self._primary_key(message), message.get("anonymousId"))
        try:
            known = self._known.get(parts)
        except TypeError:  # a list or an object cannot be looked up, and is no identifier
            known = None
        return self._read(*parts) if known is None else known

    def previous(self, message: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Return the usable `previousId` of an alias call, and the warning when it is refused."""
        return self._text(message.get("previousId"))

    def _read(self, *parts: Any) -> Identifiers:
        """Return the identifiers of parts that are new, and remember those of texts of usual length."""
        found = self._identifiers(*parts)
        if all(part is None or (type(part) is str and len(part) <= MAX_LENGTH) for part in parts):
            self._known[parts] = found
            forget_oldest(self._known, REMEMBERED)
        return found

    def _identifiers(self, raw_user: Any, raw_key: Any, raw_anon: Any) -> Identifiers:
        user, user_warning = self._text(raw_user)
        key, key_warning = self._key(raw_key)
        anon, anon_warning = self._text(raw_anon)
        warnings = [warning for warning in (user_warning, key_warning, anon_warning) if warning is not None]
        return Identifiers(user, key, anon, tuple(warnings))

    def _text(self, raw: Any) -> tuple[str | None, str | None]:
        if raw is None:
            return None, None
        if type(raw) is str:
            return self._normalise(raw)
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            return None, "id_wrong_type"
        return self._normalise(decimal_text(raw) or "")

    def _normalise(self, raw: str) -> tuple[str | None, str | None]:
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
        return (text, warning) if text is None else self._as_key(text)

    def _as_key(self, text: str) -> tuple[str | None, str | None]:
        if self.key_type == "text":
            return text, None
        if self.key_type == "email":
            text = text.lower()
            return (text, None) if _EMAIL.match(text) else (None, "key_not_email")
        digits = _NO_DIGITS.sub("", text)
        return (digits, None) if _PHONE.match(digits) else (None, "key_not_email")
