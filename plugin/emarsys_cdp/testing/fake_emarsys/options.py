"""How a fake Emarsys behaves where accounts differ, or where it is not known how Emarsys does."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

from msgspec import Struct

RowErrorShape: TypeAlias = Literal["nested", "flat", "array"]
"""`{key: {code: message}}`, `{key: message}` or `[{"key", "errorCode", "errorMsg"}]`: clients meet all three."""

NoErrors: TypeAlias = Literal["absent", "array", "object"]
"""What stands at `errors` when there are none: nothing, `[]` or `{}`."""

Window: TypeAlias = Literal["sliding", "fixed"]
LimitBody: TypeAlias = Literal["json", "text"]
Overlong: TypeAlias = Literal["cut", "refuse"]
BatchData: TypeAlias = Literal["ids", "empty"]

RATE_LIMIT: Final = 1000
"""Requests a minute of one API user: https://dev.emarsys.com/docs/emarsys-core-api-guides/cd1025a4f6b0d-miscellaneous"""

TOKEN_FETCHES: Final = ((2, 60), (10, 3600))
"""Tokens handed out per client and seconds (authentication guide of API v3)."""

TOKEN_SECONDS: Final = 3600
"""Life of an access token."""

KEEP: Final = 200_000
"""Records that each log keeps."""

KEEP_BYTES: Final = 256_000_000
"""Bytes of request bodies that are kept."""

_CHOICES: Final = {
    "window": Window,
    "limit_body": LimitBody,
    "row_errors": RowErrorShape,
    "no_errors": NoErrors,
    "batch_data": BatchData,
    "overlong": Overlong,
}


class Options(Struct, frozen=True, kw_only=True):
    """
    The behaviour of one fake.

    *window* decides what is too many requests: `sliding` any 60 seconds, `fixed` the clock's minute. *limit_body* is
    the form of a 429, *batch_data* `empty` answers a batch trigger without errors by `data: {}`, *overlong* cuts or
    refuses text above a field's length, *interactions* are the advanced features of Interactions, *key_fields* the
    indexed fields beside id, uid and e-mail (None: every field), *row_errors* None the shape that each endpoint's
    documentation has.
    """

    limit: int = RATE_LIMIT
    window: Window = "sliding"
    limit_body: LimitBody = "json"
    token_seconds: float = TOKEN_SECONDS
    tell_expiry: bool = True
    token_fetches: tuple[tuple[int, float], ...] = TOKEN_FETCHES
    dedupe: bool = True
    interactions: bool = False
    row_errors: RowErrorShape | None = None
    no_errors: NoErrors = "array"
    batch_data: BatchData = "ids"
    overlong: Overlong = "cut"
    key_fields: frozenset[str] | None = None
    keep: int = KEEP
    keep_bytes: int = KEEP_BYTES

    def __post_init__(self) -> None:
        """
        Check the values.

        Raises:
            ValueError: an option is none of those there are; the message names it and what would be right.

        """
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("limit", "token_seconds", "keep", "keep_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} is not above zero")


def _check_choice(name: str, value: object, choices: Any) -> None:
    if name == "row_errors" and value is None:
        return
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is not known; give {' or '.join(map(repr, get_args(choices)))}")
