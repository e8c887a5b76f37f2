"""ui-config.json of RudderStack's form: what people see and fill in."""

from __future__ import annotations

from emarsys_cdp.forms import Field, Manifest, fields_of
from emarsys_cdp.forms.rudderstack_schema import CONSENT, CONSENT_PROVIDERS, HOST, may_be_empty, regex
from emarsys_cdp_hooks import Json

INITIAL_SETUP = "Initial setup"
"""RudderStack's checks take a field under this title as required, unless it has preRequisites."""

ALWAYS = {
    "featureFlags": [
        {"configKey": "AMP_emarsys-cdp-hidden", "value": False},
        {"configKey": "AMP_emarsys-cdp-hidden"},
    ],
    "featureFlagsCondition": "or",
}
"""preRequisites that always hold (no such flag is ever set): the field is shown and not taken as required."""


def ui_config(manifest: Manifest) -> dict[str, Json]:
    """Return the form."""
    fields = fields_of(manifest, HOST)
    mappings = [field for field in fields if field["type"] == "mapping"]
    secrets = [field for field in fields if field.get("secret")]
    others = [field for field in fields if field not in mappings and field not in secrets]
    content = {
        "baseTemplate": [
            setup_template(manifest, secrets),
            settings_template(others),
            mappings_template(mappings),
        ],
        "sdkTemplate": {"title": "SDK settings", "note": "This destination has none.", "fields": []},
        "redirectGroups": {field["key"]: {"fields": [mapping_form(field)]} for field in mappings},
        "consentSettingsTemplate": consent_template(),
    }
    return {"uiConfig": content}


def setup_template(manifest: Manifest, secrets: list[Field]) -> dict[str, Json]:
    """Return the first page: credentials, the link to the configuration page, the connection mode."""
    page = manifest["page"]
    groups = [
        group("Emarsys credentials", credentials_note(secrets), "settings", secrets),
        group("Data maps and rules", [page["help"] + " ", link(page["label"], page["url"])], "settings", []),
        group("Connection mode", "Calls reach Emarsys through RudderStack's servers.", "sliders", []),
    ]
    sections = [{"groups": [content]} for content in groups]
    return {"title": INITIAL_SETUP, "note": manifest["description"], "sections": sections}


def credentials_note(secrets: list[Field]) -> list[Json]:
    """Return what to fill in, with a link for each setting that has a page of its own."""
    links = [link(f"About the {field['label']}", field["docsUrl"]) for field in secrets if "docsUrl" in field]
    return ["Fill in the API Key, or keep the WSSE user name and secret that this destination has. ", *links]


def settings_template(fields: list[Field]) -> dict[str, Json]:
    """Return the page of the settings that are neither secret nor rows, with the place of the consents."""
    settings = {"title": "Destination settings", "note": "All of them may stay empty.", "icon": "settings"}
    consent = {"id": "consentSettings", "title": "Consent settings", "icon": "settings"}
    return {
        "title": "Configuration settings",
        "note": "Settings of RudderStack's stock destination",
        "sections": [
            {**settings, "groups": [group("Contacts", "Which contacts are written, and how.", None, fields)]},
            {**consent, "note": "What people must have agreed to before calls go to Emarsys", "groups": []},
        ],
    }


def mappings_template(mappings: list[Field]) -> dict[str, Json]:
    """
    Return the page that leads to the rows.

    The rows are in redirectGroups: as fields of this page they crash RudderStack's schema generator.
    """
    groups = [{"title": field["label"], "fields": [redirect(field)]} for field in mappings]
    note = "Rows of RudderStack's stock destination; the configuration page can do more"
    return {"title": "Mappings", "note": note, "hideEditIcon": True, "sections": [{"groups": groups}]}


def group(title: str, note: Json, icon: str | None, fields: list[Field]) -> dict[str, Json]:
    """Return fields under a title."""
    symbol = {"icon": icon} if icon else {}
    return {"title": title, "note": note, **symbol, "fields": [field_form(field) for field in fields]}


def link(text: str, url: str) -> dict[str, str]:
    """Return a link in a note."""
    return {"text": text, "link": url}


def field_form(field: Field) -> dict[str, Json]:
    """Return the form of one setting that is not made of rows."""
    head = {"label": field["label"], "configKey": field["key"], "note": field["help"]}
    default = {"default": field["default"]} if "default" in field else {}
    match field["type"]:
        case "boolean":
            return {"type": "checkbox", **head, **default}
        case "choice":
            options = {"options": field["choices"], "required": field["required"]}
            return {"type": "singleSelect", **head, **options, **default}
        case _:
            return {**text_input(field, may_be_empty(field)), **head, **default, **secret_form(field)}


def text_input(field: Field, empty: bool = False) -> dict[str, Json]:
    """Return the form of a text: a setting or a cell of a row."""
    return {
        "type": "textInput",
        "label": field["label"],
        "configKey": field["key"],
        "regex": regex(field["pattern"], empty),
        "regexErrorMessage": f"Not in the form expected here, e.g. {field['placeholder']}",
        "placeholder": f"e.g. {field['placeholder']}",
    }


def secret_form(field: Field) -> dict[str, Json]:
    """Return what hides a secret and lets its page be saved with another one in its stead."""
    if not field.get("secret"):
        return {}
    return {"secret": True, "preRequisites": ALWAYS} if may_be_empty(field) else {"secret": True}


def redirect(field: Field) -> dict[str, Json]:
    """Return the button that leads to the rows of *field*."""
    return {
        "type": "redirect",
        "redirectGroupKey": field["key"],
        "label": field["label"],
        "note": field["help"],
    }


def mapping_form(field: Field) -> dict[str, Json]:
    """Return the form of rows."""
    row = {"type": "mappingRow", "columns": [text_input(column) for column in field["columns"]]}
    return {
        "type": "dynamicCustomForm",
        "label": field["help"],
        "configKey": field["key"],
        "rowFields": [row],
    }


def consent_template() -> dict[str, Json]:
    """Return the form of the consents that RudderStack looks at before it sends a call here."""
    form = {
        "type": "dynamicCustomForm",
        "configKey": "consentManagement",
        "default": [],
        "uniqueRowFields": ["provider"],
        "rowFields": [consent_provider_form(), consent_strategy_form(), consent_ids_form()],
    }
    return {"title": "Consent settings", "note": "Shown under each source", "fields": [form]}


def consent_provider_form() -> dict[str, Json]:
    """Return the choice of the consent manager."""
    return {
        "type": "singleSelect",
        "label": "Consent manager",
        "configKey": "provider",
        "options": [{"label": label, "value": value} for value, label in CONSENT_PROVIDERS.items()],
        "default": "oneTrust",
        "required": True,
    }


def consent_strategy_form() -> dict[str, Json]:
    """Return the choice between all and one of the consents, which only a custom manager leaves open."""
    return {
        "type": "singleSelect",
        "label": "Consents that must be given",
        "configKey": "resolutionStrategy",
        "options": [{"label": "All", "value": "and"}, {"label": "At least one", "value": "or"}],
        "required": True,
        "preRequisites": {"fields": [{"configKey": "provider", "value": "custom"}]},
    }


def consent_ids_form() -> dict[str, Json]:
    """Return the list of consents."""
    return {
        "type": "tagInput",
        "label": "Consent IDs",
        "note": "IDs as your consent manager shows them; press Enter after each.",
        "configKey": "consents",
        "tagKey": "consent",
        "regex": regex(CONSENT, empty=True),
        "placeholder": "e.g. C0004",
        "default": [{"consent": ""}],
    }
