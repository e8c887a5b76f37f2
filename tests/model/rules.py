"""The parts of a document that the users table goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.model.identifiers import Reader
from tests.model.reading import DataMap, Json, duration

KINDS = ("user", "key", "anon")
"""Kinds of identifiers, strongest first."""


@dataclass(frozen=True)
class Rules:
    """What a space has set, with the defaults of semantics.md 1.3, 1.6, 1.7 and 1.8. Times in milliseconds."""

    reader: Reader
    data_maps: tuple[DataMap, ...]
    stitch: str
    on_key_shared: str
    anon_limit: int
    merge_limit: int
    alias_merge_known: bool
    anonymous_ttl: int
    zone: str


def rules_of(document: Mapping[str, Json]) -> Rules:
    """Read a document."""
    identity, settings = document.get("identity", {}), document.get("settings", {})
    return Rules(
        reader=Reader(
            primary_key=_texts(identity.get("primaryKey", "traits.email")),
            key_type=identity.get("keyType", "email"),
            blocked=_blocked(identity.get("blocked", ())),
        ),
        data_maps=tuple(DataMap(row["name"], _texts(row["path"]), row["type"]) for row in document.get("dataMaps", ())),
        stitch=identity.get("stitch", "default"),
        on_key_shared=identity.get("onKeyShared", "share"),
        anon_limit=settings.get("anonLimit", 100),
        merge_limit=settings.get("mergeLimit", 100),
        alias_merge_known=settings.get("aliasMergeKnown", False),
        anonymous_ttl=duration(settings.get("anonymousTtl", "30d")),
        zone=settings.get("timezone", "UTC"),
    )


def _texts(value: Json) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _blocked(value: Json) -> dict[str, tuple[str, ...]]:
    """Read a list for all kinds, or a list for each kind."""
    return {kind: tuple(value.get(kind, ()) if isinstance(value, Mapping) else value) for kind in KINDS}
