"""The neutral settings manifest, from which the forms of all hosts are generated."""

from __future__ import annotations

import json

import fastjsonschema
import pytest

from emarsys_cdp.forms import Manifest, fields_of, shipped
from emarsys_cdp_hooks import Json
from emarsys_cdp_manifests import read

MANIFEST = shipped()


def validate(manifest: Manifest) -> None:
    """Raise when *manifest* is not what its JSON Schema describes."""
    fastjsonschema.compile(json.loads(read("schemas/settings.schema.json")), use_default=False)(manifest)


def with_field(**field: Json) -> Manifest:
    """Return the shipped manifest with one more field."""
    head = {"key": "region", "label": "Region", "required": False, "help": "Where."}
    return {**MANIFEST, "fields": [*MANIFEST["fields"], {**head, **field}]}


def test_the_manifest_satisfies_its_schema() -> None:
    """The shipped manifest is what its JSON Schema describes."""
    validate(MANIFEST)


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "placeholder": "eu"},
        {"type": "string", "pattern": "^eu$", "placeholder": "eu"},
        {"type": "boolean"},
        {"type": "choice"},
        {"type": "mapping"},
        {"type": "password", "pattern": ".+", "placeholder": "eu"},
        {"type": "string", "pattern": ".+", "placeholder": "eu", "help": ""},
        {"type": "string", "pattern": ".+", "placeholder": "eu", "hint": "eu"},
        {"type": "string", "pattern": ".+", "placeholder": "eu", "hosts": ["elsewhere"]},
    ],
    ids=[
        "no pattern",
        "anchored pattern",
        "switch without default",
        "choice without choices",
        "mapping without columns",
        "unknown type",
        "no help",
        "unknown key",
        "unknown host",
    ],
)
def test_the_manifest_schema_refuses(field: dict[str, Json]) -> None:
    """A field that no form could be made of is refused."""
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(with_field(**field))


def test_a_field_of_one_host_is_not_shown_by_another() -> None:
    """RudderStack's stock settings are in its form only; the API Key is in every form."""
    keys = [field["key"] for field in fields_of(MANIFEST, "jitsu")]

    assert keys == ["apiKey"]


def test_the_api_key_is_secret_required_and_described() -> None:
    """The API Key is hidden, needed, and its help names every form and where to get one."""
    [field] = [field for field in MANIFEST["fields"] if field["key"] == "apiKey"]
    named = ("client_id:client_secret", "oauth2:client_id:client_secret", "wsse:user:secret", "2026-12-31")
    place = "Management > Security Settings > API Credentials"

    assert field["label"] == "API Key"
    assert field["secret"] is True
    assert field["required"] is True
    assert field["docsUrl"].startswith("https://")
    assert [text for text in (*named, place) if text not in field["help"]] == []
