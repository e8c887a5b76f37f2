"""
Settings forms of hosts, generated from one neutral manifest (`emarsys_cdp_manifests/settings.json`).

A module of this package is one host's form: pure functions from the manifest to the content of its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from emarsys_cdp_hooks import Json
from emarsys_cdp_manifests import read

Manifest: TypeAlias = Mapping[str, Json]
"""The neutral manifest, as `schemas/settings.schema.json` describes it."""

Field: TypeAlias = Mapping[str, Json]
"""One setting of the manifest."""


def shipped() -> Manifest:
    """Return the manifest that comes with this package."""
    manifest: Manifest = msgspec.json.decode(read("settings.json"))
    return manifest


def fields_of(manifest: Manifest, host: str) -> list[Field]:
    """Return the settings that *host* shows, in the order of the form."""
    return [field for field in manifest["fields"] if host in field.get("hosts", [host])]
