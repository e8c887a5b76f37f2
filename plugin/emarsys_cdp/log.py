"""JSON logs on stderr, with a processor that hides secrets and people."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

HIDDEN = "***"

_SECRET_NAMES = re.compile(
    r"api_?key|secret|password|passwd|authorization|x-wsse|token|cookie|credential|emersysuser", re.IGNORECASE
)
_SECRET_TEXTS = re.compile(
    r"(?i)(?P<kind>bearer|basic)\s+[\w.~+/=-]+"
    r"|PasswordDigest=\"[^\"]*\""
    r"|\b(?:oauth2|wsse):[^\s\"',}]+"
    r"|(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)[^\s/@\"']*@"
)
_ADDRESSES = re.compile(r"[\w.+%-]{1,64}@(?=[\w-]{1,63}\.\w)")
"""The part of mail addresses that names a person: reasons show values of calls, and a data map may find any there."""


_NAME = r"(?:api_?key|secret|passw(?:or)?d|token|emersysuser)[\w-]*"
_NAMED_TEXTS = re.compile(
    rf"(?is)(?P<plain>{_NAME}[\"']\s*:\s*)(?P<quote>[\"'])(?:\\.|(?!(?P=quote)).)*(?P=quote)"
    rf"|(?P<escaped>{_NAME}\\+[\"']\s*:\s*)(?P<mark>\\+[\"'])(?:(?!(?P=mark)).)*(?P=mark)"
)
"""Echoes of settings in a text: JSON, JSON within a JSON text, or Python's form of it."""


def hide_secrets(
    logger: Any,  # noqa: ARG001 - the signature of a processor
    method: str,  # noqa: ARG001
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Replace what is or looks like a secret, and who a mail address names, by `***`, at any depth of the event."""
    for key in event:
        event[key] = _hide(key, event[key])
    return event


def _hide(key: str, value: Any) -> Any:
    if _SECRET_NAMES.search(key) and value is not None and not isinstance(value, bool):
        return HIDDEN
    if isinstance(value, Mapping):
        return {_clean(str(name)): _hide(str(name), child) for name, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hide("", child) for child in value]
    return value if value is None or isinstance(value, (bool, int, float)) else _clean(str(value))


def _clean(text: str) -> str:
    text = _SECRET_TEXTS.sub(_hide_text, _NAMED_TEXTS.sub(_hide_named, text))
    return _ADDRESSES.sub(f"{HIDDEN}@", text) if "@" in text else text


def _hide_text(match: re.Match[str]) -> str:
    if match["kind"]:
        return f"{match['kind']} {HIDDEN}"
    if match["scheme"]:
        return f"{match['scheme']}{HIDDEN}@"
    return HIDDEN


def _hide_named(match: re.Match[str]) -> str:
    return f"{match['plain'] or match['escaped']}'{HIDDEN}'"


def configure_logging(level: str, worker: int | None = None) -> None:
    """
    Write logs of this level and above as one JSON object a line on stderr; called once, by the commands.

    Of several workers each says its number. A line is one write, so that theirs do not mix.
    """

    def add_worker(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return event if worker is None else {"worker": worker, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_worker,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
