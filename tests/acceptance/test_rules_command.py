"""The command `rules` as an operator runs it: list, show, publish, pull."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.documents import EVENT, EXIT, START, document, rule
from tests.support.servers import flush
from tests.support.world import SECRET

COMMAND: Final = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
LONGEST: Final = 60
"""Seconds after which a run is taken as hanging."""

WORTH: Final = {"map": "revenue", "as": "worth"}

Variables = Mapping[str, str]


@pytest.fixture
def store(valkey_url: str) -> Variables:
    """Return the settings of an empty Redis."""
    flush(valkey_url)
    return {"EMARSYS_CDP_REDIS_URL": valkey_url, "EMARSYS_CDP_SECRET": SECRET}


def run(variables: Variables, *arguments: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        [COMMAND, "rules", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "120", **paths, **variables},
        input=typed,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LONGEST,
    )


def read(variables: Variables, *arguments: str | Path, typed: str = "") -> Any:
    """Return the JSON that a command prints."""
    done = run(variables, *arguments, typed=typed)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(variables: Variables, *arguments: str | Path, code: int = 1, typed: str = "") -> str:
    """Return what a command that is refused says, in one line."""
    done = run(variables, *arguments, typed=typed)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    return " ".join(done.stderr.split())


def write(path: Path, raw: Any) -> Path:
    """Write a document to a file."""
    path.write_text(json.dumps(raw))
    return path


def test_a_document_goes_there_and_back(store: Variables, tmp_path: Path) -> None:
    """Pulled, changed and published; what changed is told rule by rule, and listed then."""
    file = tmp_path / "shop.json"
    cart = rule("cart", name="Cart", status="paused", transaction="ecom_event")
    first = run(store, "publish", write(file, document(rule(), cart)), "--space", "dest-1")
    run(store, "pull", "-o", file)
    pulled = json.loads(file.read_text())
    changed = {**pulled, "rules": [{**pulled["rules"][0], "lifetime": "7d"}, {**pulled["rules"][1], "name": "Basket"}]}
    second = run(store, "publish", write(file, changed))

    assert (first.returncode, first.stderr) == (0, "")
    assert [line.strip() for line in first.stdout.splitlines()] == [
        "Space dest-1 has revision 1.",
        "coupon: new, version 1",
        "cart: new, version 1",
    ]
    assert (pulled["revision"], [one["version"] for one in pulled["rules"]]) == (1, [1, 1])
    assert second.stdout.splitlines() == [
        "Space dest-1 has revision 2.",
        "  coupon: version 2; people who are in the rule go on with the version that they began with",
        "  cart: settings only, version 1 stays: they count at once for everybody",
    ]
    listed = read(store, "list", "--json")
    assert listed == {
        "space": "dest-1",
        "revision": 2,
        "source": "store",
        "rules": [
            {
                "id": "coupon",
                "name": "coupon",
                "status": "active",
                "version": 2,
                "lifetime": "7d",
                "transaction": None,
                "conditions": 3,
            },
            {
                "id": "cart",
                "name": "Basket",
                "status": "paused",
                "version": 1,
                "lifetime": "48h",
                "transaction": "ecom_event",
                "conditions": 3,
            },
        ],
    }


def test_rules_are_listed_for_people(store: Variables, tmp_path: Path) -> None:
    """A line for each, under the space and its revision; without a document that is said."""
    nothing = run(store, "list", "--space", "dest-1").stdout
    run(store, "publish", write(tmp_path / "a.json", document(rule(lifetime=24))), "--space", "dest-1")
    text = run(store, "list").stdout

    assert "Space dest-1, revision 0: the space has no document, so the default one counts." in nothing
    assert "It has no rules." in nothing
    assert "Space dest-1, revision 1: published in the store." in text
    assert [line.split() for line in text.splitlines() if line.strip().startswith("coupon")] == [
        ["coupon", "coupon", "active", "1", "24h", "-", "3"]
    ]


def test_a_rule_is_shown_in_full(store: Variables, tmp_path: Path) -> None:
    """Its conditions as they are read, and its old versions; nothing steers the terminal."""
    conditions = [
        {
            **START,
            "match": ["ecom_event = Coupon", "ecom_event != x"],
            "variables": [WORTH],
        },
        {"seq": "*", "type": "exclude", "match": {"not": "ecom_event = \u001b[31m"}},
        {**EXIT, "wait": "1h", "actions": [{"do": "addToList", "list": "77"}]},
    ]
    run(store, "publish", write(tmp_path / "a.json", document(rule())), "--space", "dest-1")
    run(store, "publish", write(tmp_path / "a.json", document(rule(conditions=conditions, onPublish="cancel"))))
    text, shown = run(store, "show", "coupon").stdout, read(store, "show", "coupon", "--json")

    words = " ".join(text.split())
    for part in ("version 2", "lifetime 48h", "ecom_event = Coupon and", "revenue as worth", "1h", "addToList list 77"):
        assert part in words
    assert "version 1; people who were in the rule leave it." in words
    assert "\u001b" not in text
    assert shown["rule"] == {**rule(conditions=conditions, onPublish="cancel"), "version": 2}
    assert [(one["version"], one["mode"]) for one in shown["kept"]] == [(1, "cancel")]


def test_a_rule_that_is_not_there_is_told(store: Variables, tmp_path: Path) -> None:
    """With those that are."""
    run(store, "publish", write(tmp_path / "a.json", document(rule())), "--space", "dest-1")

    assert "space dest-1 has no rule with the id 'copon'; it has: coupon" in refusal(store, "show", "copon")


def test_who_was_slower_is_refused(store: Variables, tmp_path: Path) -> None:
    """Unless it is forced; a document without a revision follows whatever is there."""
    first, second = (write(tmp_path / f"{name}.json", document(rule(name))) for name in ("a", "b"))
    run(store, "publish", first, "--space", "dest-1")
    late = write(tmp_path / "late.json", {"revision": 1, **document(rule("late"))})
    assert run(store, "publish", second).returncode == 0

    text = refusal(store, "publish", late)
    assert "somebody has published since: the document has revision 2 now" in text
    assert "`emarsys-cdp rules pull` gets it, --force overwrites it" in text
    assert [one["id"] for one in read(store, "list", "--json")["rules"]] == ["b"]
    forced = read(store, "publish", late, "--force", "--json")
    assert forced == {
        "space": "dest-1",
        "revision": 3,
        "changes": [
            {"rule": "late", "version": 1, "what": "added", "mode": None},
            {"rule": "b", "version": 1, "what": "removed", "mode": "cancel"},
        ],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ('{"settings": {"anonymousTtl": NaN}}', "NaN is no number of JSON"),
        ('{"dataMaps": [{"name": "a", "path": "b..c", "type": "string"}]}', "dataMaps[0].path"),
        (" " * (10 * 1024 * 1024 + 1), "file: has more than 10 MB"),
    ],
    ids=["no JSON", "no number", "a wrong path", "too large"],
)
def test_a_wrong_document_changes_nothing(store: Variables, tmp_path: Path, text: str, says: str) -> None:
    """Its problems are told with file and place."""
    file = tmp_path / "wrong.json"
    file.write_text(text)

    said = refusal(store, "publish", file, "--space", "dest-1")

    assert f"{file}: " in said
    assert says in said
    assert read(store, "list", "--space", "dest-1", "--json")["revision"] == 0


def test_a_document_comes_from_standard_input(store: Variables) -> None:
    """What is pulled can be piped on; a problem is told for `-`."""
    text = run(store, "pull", "--space", "dest-1").stdout

    assert read(store, "publish", "-", "--space", "dest-1", "--json", typed=text)["revision"] == 1
    assert "emarsys-cdp: -: file: is no JSON" in refusal(store, "publish", "-", typed="")


def test_a_document_in_a_file_is_shown_and_not_published(store: Variables, tmp_path: Path) -> None:
    """Who looks writes nothing: the service alone gives versions."""
    directory = tmp_path / "rules"
    directory.mkdir()
    write(directory / "dest-1.json", document(rule(), maps=(EVENT,)))
    variables = {**store, "EMARSYS_CDP_RULES_DIR": str(directory)}

    assert "dest-1.json of EMARSYS_CDP_RULES_DIR" in refusal(
        variables, "publish", directory / "dest-1.json", "--space", "dest-1"
    )
    listed = read(variables, "list", "--space", "dest-1", "--json")
    assert (listed["source"], listed["revision"], listed["rules"][0]["version"]) == ("file", 0, None)
    assert read(store, "list", "--space", "dest-1", "--json")["source"] == "default"


def test_several_spaces_have_to_be_told_apart(store: Variables, tmp_path: Path) -> None:
    """The error lists them; none at all is told as well."""
    file = write(tmp_path / "a.json", document())

    assert "there is no space yet: name one by --space" in refusal(store, "list")
    for space in ("dest-1", "dest-2"):
        run(store, "publish", file, "--space", space)
    assert "there are several spaces, name one by --space: dest-1, dest-2" in refusal(store, "publish", file)


def test_a_store_that_is_down_is_told(tmp_path: Path) -> None:
    """With the setting that says where it is."""
    variables = {"EMARSYS_CDP_REDIS_URL": f"unix://{tmp_path}/none.sock", "EMARSYS_CDP_SECRET": SECRET}

    assert "Does it run? EMARSYS_CDP_REDIS_URL says where it is" in refusal(variables, "list", "--space", "dest-1")
