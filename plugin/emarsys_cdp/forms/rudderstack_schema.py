"""
schema.json of RudderStack's form: which settings of a destination may be stored.

Also the facts that the three files of the form share: types of sources, ways to give consents, patterns.
"""

from __future__ import annotations

from collections.abc import Iterable

from emarsys_cdp.forms import Field, Manifest, fields_of
from emarsys_cdp_hooks import Json

HOST = "rudderstack"

LEGACY_CONSENT_SOURCES = (
    "android",
    "ios",
    "web",
    "unity",
    "amp",
    "reactnative",
    "flutter",
    "cordova",
    "shopify",
    "cloud",
    "warehouse",
)
"""Source types whose older destinations may still hold consents under the keys of `LEGACY_CONSENTS`."""

SOURCE_TYPES = (*LEGACY_CONSENT_SOURCES, "androidKotlin", "iosSwift")

LEGACY_CONSENTS = {"oneTrustCookieCategories": "oneTrustCookieCategory", "ketchConsentPurposes": "purpose"}
"""Setting and the key of its items. No longer shown, but to drop them would drop people's refusals."""

CONSENT_PROVIDERS = {"custom": "Custom", "iubenda": "iubenda", "ketch": "Ketch", "oneTrust": "OneTrust"}

CONSENT = ".{1,100}"

DYNAMIC = r"(^\{\{.*\|\|(.*)\}\}$)|(^env[.].+)"
"""What RudderStack allows in place of any value: `{{ path || default }}` and `env.NAME`."""


def schema(manifest: Manifest) -> dict[str, Json]:
    """Return the JSON Schema of a destination's settings."""
    fields = fields_of(manifest, HOST)
    content = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "required": [field["key"] for field in fields if field["required"] and "requiredUnless" not in field],
        "anyOf": alternatives(fields),
        "properties": {
            **{field["key"]: field_schema(field) for field in fields},
            **legacy_consent_schemas(),
            "connectionMode": by_source(SOURCE_TYPES, {"type": "string", "enum": ["cloud"]}),
            "consentManagement": by_source(SOURCE_TYPES, consent_schema()),
        },
    }
    return {"configSchema": content}


def alternatives(fields: list[Field]) -> list[dict[str, Json]]:
    """Return the sets of settings of which one has to be given: the field, or all that stand in for it."""
    [field] = [field for field in fields if "requiredUnless" in field]
    return [given([field["key"]]), given(field["requiredUnless"])]


def given(keys: Iterable[str]) -> dict[str, Json]:
    """Return a schema that wants a value for each key (a field left empty may be stored as an empty text)."""
    properties = {key: {"type": "string", "minLength": 1} for key in keys}
    return {"required": list(properties), "properties": properties}


def field_schema(field: Field) -> dict[str, Json]:
    """Return the schema of one setting."""
    match field["type"]:
        case "boolean":
            return {"type": "boolean", "default": field["default"]}
        case "choice":
            return choice_schema(field)
        case "mapping":
            cells = {column["key"]: text_schema(column["pattern"]) for column in field["columns"]}
            return {"type": "array", "items": {"type": "object", "properties": cells}}
        case _:
            return text_schema(field["pattern"], may_be_empty(field))


def choice_schema(field: Field) -> dict[str, Json]:
    """Return the schema of a setting with choices; one that is not required may be empty."""
    values = [choice["value"] for choice in field["choices"]]
    if "default" in field:
        return {"type": "string", "enum": values, "default": field["default"]}
    return {"type": "string", "enum": values if field["required"] else [*values, ""]}


def text_schema(pattern: str, empty: bool = False) -> dict[str, Json]:
    """Return the schema of a text."""
    return {"type": "string", "pattern": regex(pattern, empty)}


def regex(pattern: str, empty: bool = False) -> str:
    """Return *pattern* for the whole value beside RudderStack's own forms; *empty* allows the empty text."""
    return f"{DYNAMIC}|^({pattern}){'?' if empty else ''}$"


def may_be_empty(field: Field) -> bool:
    """Return whether the form may be saved with nothing in *field*."""
    return not field["required"] or "requiredUnless" in field


def by_source(sources: Iterable[str], content: dict[str, Json]) -> dict[str, Json]:
    """Return the schema of a setting that each type of source has for itself."""
    return {"type": "object", "properties": dict.fromkeys(sources, content)}


def legacy_consent_schemas() -> dict[str, Json]:
    """Return the schemas of the settings in which older destinations hold consents."""
    return {name: by_source(LEGACY_CONSENT_SOURCES, consent_ids_schema(key)) for name, key in LEGACY_CONSENTS.items()}


def consent_ids_schema(key: str) -> dict[str, Json]:
    """Return the schema of a list of consents, each an object with one text under *key*."""
    item = {"type": "object", "properties": {key: text_schema(CONSENT, empty=True)}}
    return {"type": "array", "items": item}


def consent_schema() -> dict[str, Json]:
    """Return the schema of the consents that a source wants before it lets a call through."""
    strategy = {"resolutionStrategy": {"type": "string", "enum": ["and", "or"]}}
    custom = {
        "if": {"properties": {"provider": {"const": "custom"}}, "required": ["provider"]},
        "then": {"properties": strategy, "required": ["resolutionStrategy"]},
    }
    properties = {
        "provider": {"type": "string", "enum": list(CONSENT_PROVIDERS), "default": "oneTrust"},
        "consents": consent_ids_schema("consent"),
    }
    return {"type": "array", "items": {"type": "object", "properties": properties, "allOf": [custom]}}
