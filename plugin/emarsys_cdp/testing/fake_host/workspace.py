"""
Sources and destinations of a host: from RudderStack's workspaceConfig.json (reference 3.1), or from a few lines.

A destination becomes the JSON that the transformer gets of it, with the names that the server's Go types give it
(reference 1.2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host import go_json
from emarsys_cdp_hooks import StopAndFix

Settings: TypeAlias = Mapping[str, Json]
"""A destination's settings: the `config` of workspaceConfig.json, the `Config` that the transformer gets."""

DEFAULT_SOURCE: Final = "src-1"
DEFAULT_WORKSPACE: Final = "ws-1"
MESSAGE_TYPES: Final = ("identify", "track", "page", "screen", "group", "alias", "audiencelist", "record")

_DEFINITION: Final = {
    "id": "def-1",
    "name": "EMARSYS",
    "displayName": "Emarsys",
    "config": {
        "transformAtV1": "router",
        "saveDestinationResponse": True,
        "supportedMessageTypes": list(MESSAGE_TYPES),
    },
}
_DYNAMIC: Final = re.compile(r"\{\{.*\|\|.*\}\}")

ZERO_CONNECTION: Final = b'{"sourceId":"","destinationId":"","enabled":false,"config":null,"processorEnabled":false}'
"""What the server sends for every pair of source and destination that has no connection of its own."""


class WrongWorkspace(StopAndFix):
    """The workspaceConfig.json, or what was given for one, cannot be used: the message names the place."""


class Definition(Struct, frozen=True, rename="camel"):
    """The kind of a destination."""

    id: str = ""
    name: str = ""
    display_name: str = ""
    config: dict[str, Json] | None = None

    @property
    def settings(self) -> Settings:
        """Return its settings, empty where it has none."""
        return self.config or {}

    def takes(self, message_type: str) -> bool:
        """Tell whether calls of a type go to it; only a flat array of types is a filter (reference 3.1)."""
        types = self.settings.get("supportedMessageTypes")
        return not isinstance(types, list) or message_type.strip().lower() in types


class Destination(Struct, frozen=True, rename="camel", dict=True):
    """A destination as workspaceConfig.json describes it."""

    id: str
    name: str = ""
    enabled: bool = False
    is_processor_enabled: bool = False
    workspace_id: str = ""
    revision_id: str = ""
    config: dict[str, Json] = {}
    transformations: list[Json] | None = None
    destination_definition: Definition = Definition()

    @property
    def type(self) -> str:
        """Return the name of its kind in lower case, as it stands in paths and `destType`."""
        return self.destination_definition.name.lower()

    @cached_property
    def config_json(self) -> bytes:
        """Return its settings as the server sends them."""
        return go_json.recoded(json.dumps(self.config).encode())

    @cached_property
    def payload(self) -> bytes:
        """Return the JSON that the transformer gets of it."""
        kind = self.destination_definition
        definition = {"ID": kind.id, "Name": kind.name, "DisplayName": kind.display_name, "Config": kind.config}
        parts = {
            "ID": self.id,
            "Name": self.name,
            "DestinationDefinition": definition,
            "Config": Raw(self.config_json),
            "Enabled": self.enabled,
            "WorkspaceID": self.workspace_id,
            "Transformations": self.transformations,
            "IsProcessorEnabled": self.is_processor_enabled,
            "RevisionID": self.revision_id,
            "hasDynamicConfig": any(_DYNAMIC.search(text) for text in _texts(self.config)),
        }
        return msgspec.json.encode(parts)


class SourceDefinition(Struct, frozen=True):
    """The kind of a source."""

    id: str = ""
    name: str = ""
    type: str = ""
    category: str | None = ""


class Source(Struct, frozen=True, rename="camel"):
    """A source: who knows its write key may send calls, which go to its destinations."""

    id: str
    write_key: str
    name: str = ""
    enabled: bool = False
    workspace_id: str = ""
    source_definition: SourceDefinition = SourceDefinition()
    destinations: list[Destination] = []

    @property
    def active(self) -> list[Destination]:
        """Return the destinations that get calls."""
        return [one for one in self.destinations if one.enabled and one.is_processor_enabled]


class Workspace(Struct, frozen=True, rename="camel"):
    """The sources of a host."""

    sources: list[Source]
    workspace_id: str = ""

    def source(self, write_key: str) -> Source | None:
        """Return the source of a write key."""
        return next((source for source in self.sources if source.write_key == write_key), None)


def read_workspace(content: bytes | Mapping[str, Json]) -> Workspace:
    """
    Return the sources of a workspaceConfig.json, given as text or read.

    Raises:
        WrongWorkspace: it is no JSON or not of that form, or two destinations with one id are not the same.

    """
    try:
        if isinstance(content, bytes):
            workspace = msgspec.json.decode(content, type=Workspace)
        else:
            workspace = msgspec.convert(content, Workspace)
    except msgspec.MsgspecError as error:
        raise WrongWorkspace(f"workspaceConfig.json: {error}") from error
    seen: dict[str, Destination] = {}
    for source in workspace.sources:
        for destination in source.destinations:
            if seen.setdefault(destination.id, destination) != destination:
                raise WrongWorkspace(f"workspaceConfig.json: there are two destinations with the id {destination.id!r}")
    return workspace


def simple_workspace(destinations: Mapping[str, Settings] | Sequence[Mapping[str, Json]], write_key: str) -> Workspace:
    """
    Return one source with *write_key* for some destinations.

    Args:
        destinations: the settings of each by its id, or an array of destinations as in workspaceConfig.json, of which
            only `id` and `config` are needed: everything else is that of an enabled Emarsys destination.
        write_key: the source's.

    Raises:
        WrongWorkspace: one of them is not of that form.

    """
    if isinstance(destinations, Mapping):
        destinations = [{"id": name, "config": config} for name, config in destinations.items()]
    source = {
        "id": DEFAULT_SOURCE,
        "name": "http",
        "writeKey": write_key,
        "enabled": True,
        "workspaceId": DEFAULT_WORKSPACE,
        "sourceDefinition": {"id": "sd-1", "name": "HTTP", "type": "cloud"},
        "destinations": [_filled_in(destination) for destination in destinations],
    }
    return read_workspace({"workspaceId": DEFAULT_WORKSPACE, "sources": [source]})


def _filled_in(destination: Mapping[str, Json]) -> dict[str, Json]:
    if not isinstance(destination, Mapping) or "config" not in destination or "id" not in destination:
        raise WrongWorkspace('a destination must be {"id": "dest-1", "config": {...}}, with what else it needs')
    return {
        "name": f"Emarsys {destination['id']}",
        "enabled": True,
        "isProcessorEnabled": True,
        "workspaceId": DEFAULT_WORKSPACE,
        "revisionId": "1",
        "transformations": [],
        "destinationDefinition": _DEFINITION,
        **destination,
    }


def with_config(workspace: Workspace, destination: str, config: Settings) -> Workspace:
    """
    Return a workspace in which a destination has other settings.

    Raises:
        WrongWorkspace: there is no destination with that id.

    """
    if not any(one.id == destination for source in workspace.sources for one in source.destinations):
        raise WrongWorkspace(f"there is no destination with the id {destination!r}")
    content = msgspec.to_builtins(workspace)
    for source in content["sources"]:
        for one in source["destinations"]:
            if one["id"] == destination:
                one["config"] = dict(config)
    return read_workspace(content)


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)
