"""
RudderStack's files: the form (db-config, ui-config, schema) and workspaceConfig.json for self-hosting.

The form extends RudderStack's own EMARSYS definition: its settings stay, the API Key and more types of
calls are added. The layout follows github.com/rudderlabs/rudder-integrations-config, whose checks read the
three files together: a field's `regex` in ui-config is its `pattern` in schema.
"""

from __future__ import annotations

import json

from emarsys_cdp.forms import Manifest, fields_of
from emarsys_cdp.forms.rudderstack_schema import (
    HOST,
    LEGACY_CONSENT_SOURCES,
    LEGACY_CONSENTS,
    SOURCE_TYPES,
    schema,
)
from emarsys_cdp.forms.rudderstack_ui import ui_config
from emarsys_cdp_hooks import Json

__all__ = ["db_config", "files", "schema", "ui_config", "workspace_config"]


def files(manifest: Manifest) -> dict[str, str]:
    """Return the text of each file by its name."""
    contents = {
        "db-config.json": db_config(manifest),
        "ui-config.json": ui_config(manifest),
        "schema.json": schema(manifest),
        "workspaceConfig.json": workspace_config(manifest),
    }
    return {name: text_of(content) for name, content in contents.items()}


def text_of(content: dict[str, Json]) -> str:
    """Return the text of a file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def db_config(manifest: Manifest) -> dict[str, Json]:
    """Return the definition of the destination."""
    return {
        "name": manifest["name"].upper(),
        "displayName": manifest["displayName"],
        "config": {
            **routing(manifest),
            "supportedSourceTypes": list(SOURCE_TYPES),
            "supportedConnectionModes": {source: ["cloud"] for source in SOURCE_TYPES},
            "supportedMessageTypes": {"cloud": list(manifest["messageTypes"])},
            "destConfig": dest_config(manifest),
        },
        "options": {"isBeta": True},
    }


def routing(manifest: Manifest) -> dict[str, Json]:
    """Return what all forms of the definition say: calls are transformed at the router, secrets are kept."""
    return {
        "transformAtV1": "router",
        "saveDestinationResponse": True,
        "excludeKeys": [],
        "secretKeys": [field["key"] for field in fields_of(manifest, HOST) if field.get("secret")],
    }


def dest_config(manifest: Manifest) -> dict[str, list[str]]:
    """Return the names of the settings: those of the destination, then those of each type of source."""
    modern = ["connectionMode", "consentManagement"]
    older = [*modern, *LEGACY_CONSENTS]
    return {
        "defaultConfig": [field["key"] for field in fields_of(manifest, HOST)],
        **{source: older if source in LEGACY_CONSENT_SOURCES else modern for source in SOURCE_TYPES},
    }


def workspace_config(manifest: Manifest) -> dict[str, Json]:
    """Return a workspace of one HTTP source and one Emarsys destination, for RudderStack's file mode."""
    workspace = "emarsys-cdp"
    source = {
        "id": "http",
        "name": "HTTP",
        "writeKey": "write-key",
        "enabled": True,
        "workspaceId": workspace,
        "config": {},
        "sourceDefinition": http_source_definition(),
        "dgSourceTrackingPlanConfig": None,
        "destinations": [destination(manifest, workspace)],
    }
    return {"enableMetrics": False, "workspaceId": workspace, "libraries": [], "sources": [source]}


def http_source_definition() -> dict[str, Json]:
    """Return RudderStack's definition of a source that is called over HTTP."""
    return {
        "id": "http-source",
        "name": "HTTP",
        "displayName": "HTTP",
        "category": "",
        "type": "cloud",
        "options": None,
    }


def destination(manifest: Manifest, workspace: str) -> dict[str, Json]:
    """Return a destination with placeholders for the required settings; its id is the name of its space."""
    required = [field for field in fields_of(manifest, HOST) if field["required"]]
    return {
        "id": manifest["name"],
        "name": manifest["displayName"],
        "enabled": True,
        "workspaceId": workspace,
        "revisionId": "1",
        "isConnectionEnabled": True,
        "isProcessorEnabled": True,
        "transformations": [],
        "secretConfig": {},
        "config": {field["key"]: field["placeholder"] for field in required},
        "destinationDefinition": destination_definition(manifest),
    }


def destination_definition(manifest: Manifest) -> dict[str, Json]:
    """Return the definition as the server reads it, with the types of calls in one list."""
    definition = db_config(manifest)
    return {
        "id": f"{manifest['name']}-destination",
        "name": definition["name"],
        "displayName": definition["displayName"],
        "config": {
            **routing(manifest),
            "supportedSourceTypes": definition["config"]["supportedSourceTypes"],
            "supportedMessageTypes": list(manifest["messageTypes"]),
            "destConfig": {"defaultConfig": definition["config"]["destConfig"]["defaultConfig"]},
        },
    }
