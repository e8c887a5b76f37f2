"""RudderStack's form and workspace, generated from the neutral manifest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fastjsonschema
import pytest

from emarsys_cdp.credentials import parse_api_key
from emarsys_cdp.forms import Manifest, rudderstack, shipped
from emarsys_cdp_hooks import Json, StopAndFix
from emarsys_cdp_manifests import read

MANIFEST = shipped()
FILES = rudderstack.files(MANIFEST)
UI = json.loads(FILES["ui-config.json"])["uiConfig"]
DEFINITION = json.loads(FILES["db-config.json"])
SCHEMA = json.loads(FILES["schema.json"])["configSchema"]
WORKSPACE = json.loads(FILES["workspaceConfig.json"])

CONFIG_KEYS = """
    supportedAccountDefinitions transformAtV1 features saveDestinationResponse isAudienceSupported
    throttlingCost supportedSourceTypes supportedMessageTypes supportedConnectionModes
    hybridModeCloudEventsFilter cdkV2Enabled cdkEnabled destConfig includeKeys excludeKeys
    secretKeys immutableKeys auth configFilters supportsBlankAudienceCreation supportsVisualMapper
    disableJsonMapper syncBehaviours
"""
"""What RudderStack's schema of db-config.json allows under `config`."""

STOCK = {
    "emersysUsername": "account_name001",
    "emersysUserSecret": "s",
    "emersysCustomIdentifier": "3",
    "defaultContactList": "l1",
    "eventsMapping": [{"from": "Order Completed", "to": "5678"}],
    "fieldMapping": [{"rudderProperty": "email", "emersysProperty": "3"}],
    "discardEmptyProperties": True,
}

KEY = {"apiKey": "id:secret"}


def consents(source: str, **consent: Json) -> dict[str, Json]:
    """Return settings with a consent that a source wants."""
    return {**KEY, "consentManagement": {source: [consent]}}


VALID = {
    "OAuth 2.0 credentials": {"apiKey": "client_id:client_secret"},
    "OAuth 2.0 credentials with their name": {"apiKey": "oauth2:client_id:client_secret"},
    "WSSE credentials": {"apiKey": "wsse:account_name001:s"},
    "a secret with a colon": {"apiKey": "client_id:a:b"},
    "an API Key from RudderStack's environment": {"apiKey": "env.EMARSYS_API_KEY"},
    "an API Key from the call": {"apiKey": '{{ message.context.emarsys || "id:secret" }}'},
    "the stock settings alone": STOCK,
    "the stock settings with the API Key left empty": {**STOCK, "apiKey": ""},
    "the API Key with the stock settings left empty": {
        **dict.fromkeys(STOCK, ""),
        **KEY,
        "eventsMapping": [],
        "fieldMapping": [],
        "discardEmptyProperties": False,
    },
    "API Key and stock settings": {**STOCK, **KEY},
    "a dynamic column": {**KEY, "eventsMapping": [{"from": "{{ event.event || x }}", "to": "1"}]},
    "connection modes": {**KEY, "connectionMode": {"web": "cloud", "iosSwift": "cloud"}},
    "consents": consents("cloud", provider="oneTrust", consents=[{"consent": "C0004"}, {"consent": ""}]),
    "consents with a strategy": consents("web", provider="custom", resolutionStrategy="and", consents=[]),
    "consents in the older form": {
        **KEY,
        "oneTrustCookieCategories": {"web": [{"oneTrustCookieCategory": "C0004"}]},
        "ketchConsentPurposes": {"web": [{"purpose": "marketing"}]},
    },
}

INVALID = {
    "nothing": {},
    "an empty API Key": {"apiKey": ""},
    "no colon": {"apiKey": "client_id"},
    "no secret": {"apiKey": "client_id:"},
    "no id": {"apiKey": ":client_secret"},
    "a space": {"apiKey": "client id:client_secret"},
    "oauth2 with the secret missing": {"apiKey": "oauth2:client_id"},
    "wsse with the secret missing": {"apiKey": "wsse:account_name001"},
    "an API Key that is a number": {"apiKey": 1},
    "a user name alone": {"emersysUsername": "account_name001"},
    "a user secret alone": {"emersysUserSecret": "s"},
    "an empty user secret": {"emersysUsername": "account_name001", "emersysUserSecret": ""},
    "a broken API Key beside the stock settings": {**STOCK, "apiKey": "client_id"},
    "a contact list that is a number": {**KEY, "defaultContactList": 1},
    "a switch that is a text": {**KEY, "discardEmptyProperties": "true"},
    "a mapping that is no list": {**KEY, "eventsMapping": {"from": "a", "to": "1"}},
    "an event mapped to nothing": {**KEY, "eventsMapping": [{"from": "Order Completed", "to": ""}]},
    "a field mapped from nothing": {**KEY, "fieldMapping": [{"rudderProperty": "", "emersysProperty": "3"}]},
    "a mode without a server": {**KEY, "connectionMode": {"web": "device"}},
    "an unknown consent manager": consents("cloud", provider="other"),
    "a custom consent manager without a strategy": consents("cloud", provider="custom"),
}


def validate(schema: dict[str, Json], value: Json) -> None:
    """Raise when *value* does not satisfy *schema*."""
    fastjsonschema.compile(schema, use_default=False)(value)


def nodes(value: Json) -> Iterator[dict[str, Json]]:
    """Yield every object in *value*."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from nodes(child)


def texts(value: Json) -> list[str]:
    """Return every text among the values of the objects in *value*."""
    return [text for node in nodes(value) for text in node.values() if isinstance(text, str)]


def base_fields() -> list[dict[str, Json]]:
    """Return the settings on the pages of the form, without rows."""
    return [node for node in nodes(UI["baseTemplate"]) if "configKey" in node and "label" in node]


def with_field(**field: Json) -> Manifest:
    """Return the shipped manifest with one more field."""
    head = {"key": "region", "label": "Region", "required": False, "help": "Where."}
    return {**MANIFEST, "fields": [*MANIFEST["fields"], {**head, **field}]}


# --- the files ----------------------------------------------------------------------------------------------


def test_the_files_are_those_of_rudderstack() -> None:
    """The form is RudderStack's three files, and the workspace for self-hosting."""
    assert sorted(FILES) == ["db-config.json", "schema.json", "ui-config.json", "workspaceConfig.json"]


@pytest.mark.parametrize("name", list(FILES))
def test_the_committed_file_is_the_generated_one(name: str) -> None:
    """Mend a difference with `emarsys-cdp manifest rudderstack --out DIR`, DIR being the committed files'."""
    assert read(f"hosts/rudderstack/{name}").decode() == FILES[name]


def test_making_the_files_leaves_the_manifest_as_it_is() -> None:
    """The generators are pure."""
    manifest = copy.deepcopy(dict(MANIFEST))

    rudderstack.files(manifest)

    assert manifest == MANIFEST


# --- db-config.json -----------------------------------------------------------------------------------------


def test_the_definition_extends_rudderstacks_own() -> None:
    """Name and stage are those of the stock destination, which stand in every route."""
    config = DEFINITION["config"]

    assert (DEFINITION["name"], DEFINITION["displayName"]) == ("EMARSYS", "Emarsys")
    assert config["transformAtV1"] == "router"
    assert config["saveDestinationResponse"] is True
    assert config["supportedMessageTypes"] == {"cloud": MANIFEST["messageTypes"]}


def test_the_definition_has_only_keys_that_rudderstack_allows() -> None:
    """RudderStack refuses a definition with a key it does not know."""
    assert set(DEFINITION) <= {"name", "displayName", "category", "config", "options", "responseRules"}
    assert set(DEFINITION["config"]) <= set(CONFIG_KEYS.split())


def test_the_definition_knows_every_secret() -> None:
    """What is secret in the manifest is kept apart by the host and hidden in the form."""
    secrets = [field["key"] for field in MANIFEST["fields"] if field.get("secret")]
    hidden = [node["configKey"] for node in base_fields() if node.get("secret")]

    assert secrets == ["apiKey", "emersysUsername", "emersysUserSecret"]
    assert DEFINITION["config"]["secretKeys"] == secrets
    assert hidden == secrets


def test_the_definition_lists_the_settings_of_each_source() -> None:
    """Each type of source has its connection mode and its consents, and no other type is listed."""
    config = DEFINITION["config"]
    by_source = {name: keys for name, keys in config["destConfig"].items() if name != "defaultConfig"}

    assert sorted(by_source) == sorted(config["supportedSourceTypes"])
    assert sorted(by_source) == sorted(config["supportedConnectionModes"])
    assert all({"connectionMode", "consentManagement"} <= set(keys) for keys in by_source.values())
    assert "consentManagement" not in config["destConfig"]["defaultConfig"]


def test_every_setting_is_in_all_three_files() -> None:
    """A setting that one of the files lacks is not stored, not checked or not seen."""
    keys = [field["key"] for field in MANIFEST["fields"]]
    rows = {form["configKey"] for page in UI["redirectGroups"].values() for form in page["fields"]}

    assert DEFINITION["config"]["destConfig"]["defaultConfig"] == keys
    assert set(keys) <= set(SCHEMA["properties"])
    assert {node["configKey"] for node in base_fields()} | rows == set(keys)


# --- schema.json --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", VALID.values(), ids=VALID)
def test_the_schema_accepts(config: dict[str, Json]) -> None:
    """Settings that the destination works with may be stored."""
    validate(SCHEMA, config)


@pytest.mark.parametrize("config", INVALID.values(), ids=INVALID)
def test_the_schema_refuses(config: dict[str, Json]) -> None:
    """Settings that the destination cannot work with are refused when they are saved."""
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(SCHEMA, config)


@pytest.mark.parametrize(
    "name", ["connectionMode", "consentManagement", "oneTrustCookieCategories", "ketchConsentPurposes"]
)
def test_the_schema_has_the_source_settings_of_the_definition(name: str) -> None:
    """RudderStack's checks compare the two, source by source."""
    sources = [source for source, keys in DEFINITION["config"]["destConfig"].items() if name in keys]

    assert sorted(SCHEMA["properties"][name]["properties"]) == sorted(sources)


API_KEYS = [
    "i:s",
    "oauth2:i:s",
    "WSSE:u:s",
    "i:a:b",
    "i",
    "i:",
    ":s",
    "i j:s",
    'i":s',
    "Wsse:u",
    "oauth2:i",
    "i:é",
]


@pytest.mark.parametrize("key", API_KEYS)
def test_the_form_takes_the_api_keys_that_the_service_takes(key: str) -> None:
    """An API Key that can be saved is one that the service can read, and the other way round."""
    assert accepted(lambda: validate(SCHEMA, {"apiKey": key})) == accepted(lambda: parse_api_key(key))


def accepted(check: Callable[[], object]) -> bool:
    """Return whether *check* has nothing against its value."""
    try:
        check()
    except (fastjsonschema.JsonSchemaException, StopAndFix):
        return False
    return True


# --- ui-config.json -----------------------------------------------------------------------------------------


def test_a_text_is_checked_alike_in_form_and_schema() -> None:
    """RudderStack's schema generator takes a field's regex as its pattern."""
    inputs = [node for node in base_fields() if node["type"] == "textInput"]

    assert inputs
    for node in inputs:
        assert SCHEMA["properties"][node["configKey"]]["pattern"] == node["regex"]


def test_the_initial_setup_has_no_field_that_would_be_taken_as_required() -> None:
    """RudderStack's generator requires each field of that page that has no preRequisites."""
    [page] = [page for page in UI["baseTemplate"] if page["title"] == "Initial setup"]
    taken = [node["configKey"] for node in nodes(page) if "regex" in node and "preRequisites" not in node]

    assert taken == SCHEMA["required"]


def test_every_setting_is_described() -> None:
    """Each setting of the form has its label and its help."""
    shown = {node.get("configKey", node.get("redirectGroupKey")): node for node in nodes(UI["baseTemplate"])}
    for field in MANIFEST["fields"]:
        assert shown[field["key"]]["label"] == field["label"]
        assert shown[field["key"]]["note"] == field["help"]


def test_rows_are_behind_a_redirect() -> None:
    """RudderStack's schema generator fails on rows in the pages themselves."""
    kinds = {node["type"] for node in nodes(UI["baseTemplate"]) if "type" in node}
    redirects = [node["redirectGroupKey"] for node in nodes(UI["baseTemplate"]) if "redirectGroupKey" in node]

    assert kinds == {"textInput", "checkbox", "redirect"}
    assert redirects == list(UI["redirectGroups"]) == ["fieldMapping", "eventsMapping"]


def test_the_form_links_to_the_configuration_page() -> None:
    """A note leads to the page of data maps and rules and says whose host and port the link has."""
    [link] = [node for node in nodes(UI) if node.get("link") == "http://localhost:9090/ui"]

    assert "host and port are those of your emarsys-cdp service" in link["text"]


def test_the_form_links_to_the_documentation() -> None:
    """A note leads to more about the API Key."""
    assert "https://github.com/emarsys-cdp/emarsys-cdp#readme" in [node.get("link") for node in nodes(UI)]


def test_the_form_has_the_consent_settings() -> None:
    """RudderStack's checks count the parts of the consent form; the keys of its older form are gone."""
    found = texts(UI)

    assert [page["id"] for page in nodes(UI) if "id" in page] == ["consentSettings"]
    assert found.count("consentManagement") == 1
    assert found.count("iubenda") == 2
    assert not {"oneTrustCookieCategories", "ketchConsentPurposes"} & set(found)


@pytest.mark.parametrize(
    ("rest", "values"),
    [
        ({}, {"type": "string", "enum": ["eu", "us", ""]}),
        ({"default": "eu"}, {"type": "string", "enum": ["eu", "us"], "default": "eu"}),
        ({"required": True}, {"type": "string", "enum": ["eu", "us"]}),
    ],
    ids=["optional", "default", "required"],
)
def test_a_choice_becomes_a_select(rest: dict[str, Json], values: dict[str, Json]) -> None:
    """A field with choices is a select whose values the schema lists; only an optional one may be empty."""
    choices = [{"value": "eu", "label": "Europe"}, {"value": "us", "label": "America"}]
    manifest = with_field(type="choice", choices=choices, **rest)

    [node] = [node for node in nodes(rudderstack.ui_config(manifest)) if node.get("configKey") == "region"]
    schema = rudderstack.schema(manifest)["configSchema"]

    assert (node["type"], node["options"]) == ("singleSelect", choices)
    assert schema["properties"]["region"] == values
    assert schema["required"] == (["region"] if rest.get("required") else [])


# --- workspaceConfig.json -----------------------------------------------------------------------------------


def test_the_workspace_has_one_source_and_one_destination() -> None:
    """The workspace runs as it is, but for the API Key: an HTTP source that feeds Emarsys."""
    [source] = WORKSPACE["sources"]
    [destination] = source["destinations"]

    assert source["enabled"] is destination["enabled"] is destination["isConnectionEnabled"] is True
    assert source["sourceDefinition"]["name"] == "HTTP"
    assert {source["workspaceId"], destination["workspaceId"]} == {WORKSPACE["workspaceId"]}
    assert destination["isProcessorEnabled"] is True
    assert destination["config"] == {"apiKey": "client_id:client_secret"}


def test_the_workspace_has_the_definition_in_the_form_of_the_server() -> None:
    """The server looks at the types of calls only when they are one list."""
    definition = WORKSPACE["sources"][0]["destinations"][0]["destinationDefinition"]

    assert (definition["name"], definition["displayName"]) == ("EMARSYS", "Emarsys")
    assert definition["config"]["transformAtV1"] == "router"
    assert definition["config"]["supportedMessageTypes"] == MANIFEST["messageTypes"]
    assert definition["config"]["secretKeys"] == DEFINITION["config"]["secretKeys"]


def test_the_settings_of_the_workspace_satisfy_the_schema() -> None:
    """What the workspace ships could be saved in the form."""
    validate(SCHEMA, WORKSPACE["sources"][0]["destinations"][0]["config"])


# --- the documentation --------------------------------------------------------------------------------------


def test_the_help_explains_every_setting() -> None:
    """The help names each setting of the form by its label and its key."""
    text = (Path(rudderstack.__file__).parents[1] / "help" / "rudderstack.md").read_text()
    missing = [field["key"] for field in MANIFEST["fields"] if f"| {field['label']} | `{field['key']}` |" not in text]

    assert missing == []
