"""Which identifiers a call has: semantics.md 1.2, written anew."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from tests.model.reading import Json, first, scalar_text

LONGEST = 255
"""Characters of an identifier."""

BLOCKED = frozenset(
    (
        # Segment's suggestions
        "-1", "null", "anonymous",
        # PostHog's list
        "", "guest", "distinctid", "distinct_id", "id", "not_authenticated", "email", "undefined", "true", "false",
        "[object object]", "nan", "none", "0",
        # seen in the wild
        "anonymousid", "anonymous_id", "userid", "user_id",
        # added here
        "nil", "(null)", "<nil>", "n/a", "na", "unknown", "user", "test", "void",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    )
)  # fmt: skip
"""Values that are nobody's, in lower case."""

BLOCKED_FORMS = tuple(re.compile(form) for form in (r"[0-]*", r"\{\{.*\}\}", r"\$\{.*\}", r"%[^%\s]+%", r"<.*>"))
"""Whole values that are nobody's: only zeros and dashes, and what a template left over."""

EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
PHONE = re.compile(r"\+\d{5,20}", re.ASCII)
"""*Chosen*: what is shorter or longer than any number in the world is none."""

SEPARATORS = re.compile(r"[\s()./-]")
"""What people write into a phone number besides + and digits."""


@dataclass(frozen=True)
class Reader:
    """
    How a space reads identifiers.

    `blocked` are further values that are nobody's, for each kind: texts, or patterns between two slashes.
    """

    primary_key: tuple[str, ...] = ("traits.email",)
    key_type: str = "email"
    blocked: Mapping[str, tuple[str, ...]] | None = None

    def read(self, message: Mapping[str, Json]) -> Identifiers:
        """Return the identifiers of a call."""
        found = {
            "user": self.usable("user", message.get("userId")),
            "key": self.usable("key", first(message, self.primary_key)),
            "anon": self.usable("anon", message.get("anonymousId")),
        }
        if message.get("type") == "alias":
            found["previous"] = self.usable("user", message.get("previousId"))
        return Identifiers(
            **{kind: value.text for kind, value in found.items()},
            refused=tuple(value.refusal for value in found.values() if value.refusal),
        )

    def usable(self, kind: str, raw: Json) -> Value:
        """Return a value as the identifier it is, or why it is none; neither for null."""
        if raw is None:
            return Value()
        text = None if isinstance(raw, bool) else scalar_text(raw)
        if text is None:
            return Value(refusal="id_wrong_type")
        text = text.strip()
        if self._is_blocked(kind, text):
            return Value(refusal="id_blocked")
        if len(text) > LONGEST:
            return Value(refusal="id_too_long")
        return Value(text) if kind != "key" else self._key(text)

    def _key(self, text: str) -> Value:
        if self.key_type == "email":
            text = unicodedata.normalize("NFC", text.lower())
            return Value(text) if EMAIL.fullmatch(text) else Value(refusal="key_not_email")
        if self.key_type == "phone":
            text = SEPARATORS.sub("", text)
            # The list of codes has none of its own for a phone.
            return Value(text) if PHONE.fullmatch(text) else Value(refusal="key_not_email")
        return Value(text)

    def _is_blocked(self, kind: str, text: str) -> bool:
        text = text.lower()
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        return any(self._is_nobody(kind, each) for each in ([text, text[1:-1]] if quoted else [text]))

    def _is_nobody(self, kind: str, text: str) -> bool:
        if text in BLOCKED or any(form.fullmatch(text) for form in BLOCKED_FORMS):
            return True
        return any(_fits(blocked, text) for blocked in (self.blocked or {}).get(kind, ()))


def _fits(blocked: str, text: str) -> bool:
    if len(blocked) > 2 and blocked[0] == blocked[-1] == "/":
        return re.search(blocked[1:-1], text, re.IGNORECASE) is not None
    return blocked.lower() == text


@dataclass(frozen=True)
class Value:
    """One identifier: its text, or the code of the warning why there is none."""

    text: str | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class Identifiers:
    """What a call says about who it is of; `refused` has a code for each value that is no identifier."""

    user: str | None = None
    key: str | None = None
    anon: str | None = None
    previous: str | None = None
    refused: tuple[str, ...] = ()
