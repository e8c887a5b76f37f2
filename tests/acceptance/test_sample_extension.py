"""The sample extension, installed with pip as anybody's, in the real service and the real command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.requests import call, router_request

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing import FakeEmarsys, check_router_answer, expect

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
SOURCE = Path(__file__).parent.parent / "sample_extension"
LONGEST = 120
"""Seconds after which an installation or a command is taken as hanging."""

DOCUMENT = {
    "format": "emarsys-rules/1",
    "version": 1,
    "dataMaps": [
        {"name": "tier", "path": "traits.tier", "type": "string", "field": 10501, "fieldType": "loyalty_tier"},
        {"name": "last_store", "path": "traits.last_store", "type": "string", "field": 10502},
        {"name": "card", "path": "properties.card", "type": "string"},
        {"name": "amount", "path": "properties.cents", "type": "cents"},
    ],
    "settings": {"maxLateness": "3650d"},
    "rules": [
        {
            "id": "stamp-gold-cards",
            "lateFireMax": "3650d",
            "conditions": [
                {
                    "seq": 0,
                    "type": "start",
                    "on": "track",
                    "match": ["card has prefix of gold", "amount >= 12.5"],
                    "variables": ["amount"],
                },
                {"seq": 1, "type": "exit", "actions": [{"do": "stamp", "card": "coffee"}]},
            ],
        }
    ],
}

UNKNOWN = [
    "dataMaps[0].fieldType",
    "dataMaps[3].type",
    "rules[0].conditions[0].match[0]",
    "rules[0].conditions[0].match[1]",
    "rules[0].conditions[1].actions[0].do",
]
"""Places of the document that are wrong without the extension."""

GOLD = call("identify", 1, userId="u-1", traits={"email": "ada@example.com", "tier": "Gold"})
BOUGHT = call("track", 2, event="Order Completed", userId="u-1", properties={"store": "Leipzig", "order_id": "o-1"})
PLATINUM = call("identify", 3, userId="u-2", traits={"email": "bob@example.com", "tier": "platinum"})
NO_CONSENT = call(
    "identify", 4, userId="u-3", traits={"email": "cleo@example.com"}, context={"consent": {"marketing": False}}
)
STAMPED = call(
    "track", 6, event="Coffee", userId="u-6", properties={"card": "G-17", "cents": 1250},
    context={"traits": {"email": "fay@example.com"}},
)  # fmt: skip
TOO_CHEAP = call(
    "track", 7, event="Coffee", userId="u-7", properties={"card": "G-18", "cents": 1249},
    context={"traits": {"email": "gus@example.com"}},
)  # fmt: skip
SILVER = call(
    "track", 8, event="Coffee", userId="u-8", properties={"card": "S-19", "cents": 5000},
    context={"traits": {"email": "hal@example.com"}},
)  # fmt: skip
BOUGHT_LATER = call("track", 5, event="Order Completed", userId="u-3", properties={"store": "Berlin"})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the extension with pip into a directory of its own."""
    directory = tmp_path_factory.mktemp("sample")
    shutil.copytree(SOURCE, directory / "source", ignore=shutil.ignore_patterns("__pycache__"))
    target = directory / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", target, directory / "source"], check=True, timeout=LONGEST)
    return target


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the document that uses the extension's field type, as the one of all spaces."""
    path = tmp_path_factory.mktemp("rules") / "default.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


def environment(directory: Path, packages: Path | None, **more: str) -> dict[str, str]:
    """Return a bare environment in which Python finds what is installed in *packages*."""
    given = {"PATH": os.environ["PATH"], "HOME": str(directory), **more}
    return given if packages is None else {**given, "PYTHONPATH": str(packages)}


@contextmanager
def service(variables: dict[str, str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run `emarsys-cdp serve`; gives its URL and the log events of its start."""
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0"], env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            yield _wait_for_start(process.stderr)
        finally:
            process.terminate()
            process.stderr.read()


def _wait_for_start(lines: Iterator[str]) -> tuple[str, list[dict[str, Any]]]:
    events = []
    for line in lines:
        if line.startswith("{"):
            events.append(json.loads(line))
        listening = re.search(r"listens on (http://\S+)", line)
        if listening:
            return listening[1], events
    raise AssertionError("the service ended before it listened")


@pytest.fixture(scope="module")
def running(
    installed: Path, document: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run the service with the extension."""
    home = tmp_path_factory.mktemp("home")
    variables = {"EMARSYS_CDP_DATA_DIR": str(home / "data"), "EMARSYS_CDP_RULES_DIR": str(document.parent)}
    with service(environment(home, installed, **variables)) as started:
        yield started


@pytest.fixture(scope="module")
def outputs(running: tuple[str, list[dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    """Post the calls, each in a request of its own, and return the output of each by its number."""
    found = {}
    with httpx.Client(base_url=running[0], trust_env=False) as client:
        for number, one in enumerate((GOLD, BOUGHT, PLATINUM, NO_CONSENT, BOUGHT_LATER), start=1):
            request = router_request([one], first_job=number)
            answer = client.post("/routerTransform", content=request)
            expect(check_router_answer(request, answer.status_code, answer.headers, answer.content))
            (found[number],) = answer.json()["output"]
    return found


def contacts(output: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the Emarsys request of an output."""
    assert output["statusCode"] == 200, output
    rows: list[dict[str, Any]] = output["batchedRequest"]["body"]["JSON"]["contacts"]
    return rows


def test_the_service_loads_it(running: tuple[str, list[dict[str, Any]]]) -> None:
    """The log of the start names the extension by its entry point."""
    loaded = [(event["extension"], event["value"]) for event in running[1] if event["event"] == "extension_loaded"]

    assert ("sample", "emarsys_cdp_sample") in loaded


def test_its_field_type_converts_values(outputs: dict[int, dict[str, Any]]) -> None:
    """A loyalty tier is written as the id of its choice."""
    assert contacts(outputs[1]) == [{"3": "ada@example.com", "10501": "3"}]


def test_it_adds_to_calls(outputs: dict[int, dict[str, Any]]) -> None:
    """The trait that it makes of a property is read by a data map and written to the map's field."""
    assert contacts(outputs[2]) == [{"3": "ada@example.com", "10502": "Leipzig"}]


def test_its_field_type_refuses_values(outputs: dict[int, dict[str, Any]]) -> None:
    """A tier that it does not know is left out with its message; the contact is sent all the same."""
    assert contacts(outputs[3]) == [{"3": "bob@example.com"}]
    assert outputs[3]["error"] == (
        "data map tier, field 10501: 'platinum' is no loyalty tier; give bronze, silver, gold"
    )


def test_it_drops_calls_without_consent(outputs: dict[int, dict[str, Any]]) -> None:
    """A dropped call is answered as filtered, with the extension's reason, and nothing is sent for it."""
    assert outputs[4]["statusCode"] == 298
    assert "batchedRequest" not in outputs[4]
    assert outputs[4]["error"] == "no consent to marketing"


def test_a_dropped_call_leaves_no_trace(outputs: dict[int, dict[str, Any]]) -> None:
    """The e-mail address of a dropped call is not known when the same person buys something."""
    assert outputs[5]["statusCode"] == 298


def test_rules_use_what_it_adds(installed: Path, document: Path, tmp_path: Path) -> None:
    """
    A rule with its operator, data type and action stamps the card of who spent enough with a card of gold.

    What the action makes of the captured amount arrives at Emarsys as an effect of the rule.
    """
    with FakeEmarsys(fields=[Field(id="10511", name="Coffee stamps", type="numeric")]) as emarsys:
        variables = {
            "EMARSYS_CDP_DATA_DIR": str(tmp_path / "data"),
            "EMARSYS_CDP_RULES_DIR": str(document.parent),
            "EMARSYS_CDP_API_BASE": emarsys.api_base,
            "EMARSYS_CDP_TOKEN_URL": emarsys.token_url,
        }
        with service(environment(tmp_path, installed, **variables)) as (url, _):
            request = router_request([TOO_CHEAP, SILVER, STAMPED], {"apiKey": emarsys.api_key})
            assert httpx.post(f"{url}/routerTransform", content=request, trust_env=False).status_code == 200
            end = time.monotonic() + LONGEST
            while not emarsys.contacts and time.monotonic() < end:
                time.sleep(0.05)

        assert [contact.fields for contact in emarsys.contacts] == [{"3": "fay@example.com", "10511": "12.5"}]
        assert not emarsys.violations


@pytest.mark.parametrize(("with_it", "code"), [(True, 0), (False, 1)], ids=["installed", "not installed"])
def test_check_knows_what_it_adds(installed: Path, document: Path, tmp_path: Path, with_it: bool, code: int) -> None:
    """`emarsys-cdp check` accepts a document with what the extension adds only where it is installed."""
    variables = environment(tmp_path, installed if with_it else None)
    result = subprocess.run(
        [COMMAND, "check", "--json", document],
        env=variables,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    (report,) = json.loads(result.stdout)

    assert result.returncode == code
    assert [problem["place"] for problem in report["problems"]] == ([] if with_it else UNKNOWN)
