"""The command `demo` as a newcomer runs it: a process of its own, an empty home, nothing configured."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

import emarsys_cdp_manifests as manifests
from emarsys_cdp.demo.run import ADMIN_PREFIX, SECRET_PREFIX

COMMAND = Path(sysconfig.get_path("scripts")) / "emarsys-cdp"
BATCHES: list[list[dict[str, Any]]] = json.loads(manifests.read("demo/calls.json"))["batches"]
CALLS = [call for batch in BATCHES for call in batch]
LONGEST = 60
"""Seconds after which a run is taken as hanging."""


class Run(Struct):
    """What one run printed, how it ended, and the directory it had for itself."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    directory: Path
    group: int


def environment(directory: Path, columns: int = 80, **more: str) -> dict[str, str]:
    """Return a bare environment whose home and directory for temporary files are empty ones of the test's."""
    for name in ("home", "tmp"):
        (directory / name).mkdir(exist_ok=True)
    return {
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "tmp"),
        "PATH": os.environ["PATH"],
        "COLUMNS": str(columns),
        **more,
    }


@contextmanager
def started(variables: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process group of its own."""
    with subprocess.Popen(
        [COMMAND, "demo", *arguments],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def finished(process: subprocess.Popen[str], directory: Path) -> Run:
    """Wait for the end of the command."""
    begin = time.monotonic()
    stdout, stderr = process.communicate(timeout=LONGEST)
    return Run(process.returncode, stdout, stderr, time.monotonic() - begin, directory, process.pid)


def demo(directory: Path, *arguments: str, **more: Any) -> Run:
    """Run the command to its end."""
    with started(environment(directory, **more), *arguments) as process:
        return finished(process, directory)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command on a terminal of 80 columns."""
    return demo(tmp_path_factory.mktemp("narrow"), columns=80)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command on a terminal of 120 columns."""
    return demo(tmp_path_factory.mktemp("wide"), columns=120)


@pytest.fixture(scope="module")
def as_json(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command with `--json`."""
    return demo(tmp_path_factory.mktemp("json"), "--json")


@pytest.fixture(scope="module")
def shown(as_json: Run) -> dict[str, Any]:
    """Return the JSON object of the run with `--json`."""
    value: dict[str, Any] = json.loads(as_json.stdout)
    return value


@pytest.fixture(params=["narrow", "wide", "as_json"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return each of the runs."""
    value: Run = request.getfixturevalue(request.param)
    return value


def section(text: str, title: str) -> str:
    """Return what is printed from a section's title to the next one."""
    return re.split(r"^(?:\d\. |Next: )", text.split(title, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_it_succeeds_and_logs_nothing(run: Run) -> None:
    """The exit code is 0 and stderr stays empty."""
    assert (run.code, run.stderr) == (0, "")


def test_it_takes_less_than_five_seconds(run: Run) -> None:
    """A newcomer sees everything within five seconds."""
    assert run.seconds < 5


def test_no_secret_is_shown(run: Run) -> None:
    """Neither the client's secret nor a token is printed; the header shows that there is one."""
    assert SECRET_PREFIX not in run.stdout
    assert ADMIN_PREFIX not in run.stdout
    assert set(re.findall(r"(?i)\b(?:bearer|basic) \S+", run.stdout)) <= {"Bearer ***", 'Bearer ***"'}
    assert "Bearer ***" in run.stdout


def test_nothing_is_left_running(run: Run) -> None:
    """When the command ends its service, its Valkey and everything else of its process group have ended."""
    with pytest.raises(ProcessLookupError):
        os.killpg(run.group, 0)


def test_nothing_is_left_lying_around(run: Run) -> None:
    """Home and the directory for temporary files are as empty as before."""
    assert list((run.directory / "home").iterdir()) == []
    assert list((run.directory / "tmp").iterdir()) == []


def test_every_call_has_its_row(narrow: Run) -> None:
    """The first table has one row for each shipped call, in their order, with its time and type."""
    rows = re.findall(r"^ (\d+) +(\d\d:\d\d:\d\d)  (\S+)", section(narrow.stdout, "1. What RudderStack sent"), re.M)

    assert rows == [
        (str(number), call["timestamp"][11:19], call.get("type", "(no")) for number, call in enumerate(CALLS, start=1)
    ]


def test_every_user_has_its_row(narrow: Run, shown: dict[str, Any]) -> None:
    """The second table has one row for each person, with userId and primary key."""
    text = section(narrow.stdout, "2. The users table").split("values of data maps")[0]
    rows = re.findall(r"^ (\S+) +(\S+) +(\S+) +28 Nov \d\d:\d\d  28 Nov \d\d:\d\d", text, re.M)

    assert [row[1:] for row in rows] == [(user["userId"] or "-", user["primaryKey"] or "-") for user in shown["users"]]


def test_the_values_of_data_maps_are_shown(narrow: Run) -> None:
    """Below the users stand the values that data maps read of their calls."""
    text = " ".join(section(narrow.stdout, "values of data maps").split())

    assert "c-1042 page /checkout/thanks, email Nora.Lindqvist@example.com, first_name Nora" in text
    assert "order_total 386.91" in text


def test_every_request_is_shown(wide: Run, shown: dict[str, Any]) -> None:
    """The third part shows each Emarsys request with its method, URL, headers and body."""
    text = section(wide.stdout, "3. What goes to Emarsys")
    lines = [line.strip("│ ") for line in text.splitlines()]
    bodies = re.findall(r"^\{\n.*?^\}$", "\n".join(line[2:-2].rstrip() for line in text.splitlines()), re.M | re.S)

    assert [line for line in lines if line.startswith("PUT ")] == [f"PUT {one['url']}" for one in shown["requests"]]
    assert lines.count("Authorization: Bearer ***") == len(shown["requests"])
    assert [json.loads(body) for body in bodies] == [one["body"] for one in shown["requests"]]


@pytest.mark.parametrize(("name", "columns"), [("narrow", 80), ("wide", 120)])
def test_no_line_is_wider_than_the_terminal(name: str, columns: int, request: pytest.FixtureRequest) -> None:
    """All tables fit the terminal; only the paths of the last lines are left whole."""
    output: Run = request.getfixturevalue(name)

    assert max(map(len, output.stdout.split("\nNext:")[0].splitlines())) <= columns


def test_the_end_says_what_to_do_next(narrow: Run) -> None:
    """The last lines name the command that runs the service, and help pages that are there."""
    end = narrow.stdout.split("\nNext:")[1]
    pages = [Path(name) for name in re.findall(r"(\S+\.md)", end)]

    assert "emarsys-cdp serve" in end
    assert [page.name for page in pages] == ["rudderstack.md", "extensions.md"]
    assert all(page.is_file() for page in pages)


def test_json_has_every_call(shown: dict[str, Any]) -> None:
    """`--json` prints the shipped calls in their order, with type, event and who they are of."""
    assert [(call["type"], call["event"], call["who"]) for call in shown["calls"]] == [
        (call.get("type"), call.get("event") or call.get("name"), call.get("userId") or call["anonymousId"])
        for call in CALLS
    ]
    assert [call["number"] for call in shown["calls"]] == list(range(1, len(CALLS) + 1))


def test_json_says_what_became_of_the_calls(shown: dict[str, Any]) -> None:
    """Calls with mapped values are sent, calls of nobody known need nothing, the one without a type is refused."""
    assert [call["status"] for call in shown["calls"]] == [
        298,
        298,
        200,
        200,
        200,
        200,
        200,
        298,
        200,
        298,
        200,
        200,
        400,
    ]
    assert shown["calls"][-1]["note"].startswith("the call has no type: it must be one of identify, ")


def test_a_bad_value_costs_only_itself(shown: dict[str, Any]) -> None:
    """The birthday that is no date is named and left out; the contact's other fields are sent."""
    call, request = shown["calls"][10], shown["requests"][2]

    assert call["note"].startswith("data map birthday: '31.02.1990' is not of type date")
    assert request["calls"] == [11, 12]
    assert request["leftOut"] == call["note"]
    assert request["body"]["contacts"] == [
        {
            "1": "Mira",
            "2": "Kovač",
            "11": "Vienna",
            "14": "10",
            "31": "1",
            "3": "mira.kovac@example.com",
            "10502": "WINTER5",
        }
    ]


def test_json_has_the_users_table(shown: dict[str, Any]) -> None:
    """The four people of the calls are in it, with identifiers and times; the shared tablet is nobody's."""
    laptop, visitor, phone = (CALLS[index]["anonymousId"] for index in (0, 1, 10))
    times = [call["timestamp"] for call in CALLS]

    assert [
        (user["userId"], user["primaryKey"], user["anonymousIds"], user["firstSeen"], user["lastSeen"])
        for user in shown["users"]
    ] == [
        ("c-1042", "nora.lindqvist@example.com", [laptop], times[0], times[8]),
        (None, None, [visitor], times[1], times[1]),
        ("c-2077", "jonas.weber@example.com", [], times[6], times[7]),
        ("c-3150", "mira.kovac@example.com", [phone], times[10], times[11]),
    ]


def test_json_has_the_values_of_users(shown: dict[str, Any]) -> None:
    """A user has the last value of each data map, those without an Emarsys field too."""
    values = shown["users"][0]["values"]

    assert values["page"] == "/checkout/thanks"
    assert values["sku"] == "CHAIR-204"
    assert values["ordered_skus"] == ["LAMP-118", "CHAIR-204"]
    assert values["order_total"] == "386.91"


def test_json_has_the_requests(shown: dict[str, Any]) -> None:
    """Each request names its calls; choices are ids, dates are dates of the space, custom fields have their ids."""
    requests = shown["requests"]

    assert [request["calls"] for request in requests] == [[3, 4, 5, 6, 7], [9], [11, 12]]
    assert {(request["method"], request["url"]) for request in requests} == {
        ("PUT", "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1")
    }
    assert requests[0]["body"]["contacts"][0] == {
        "1": "Nora",
        "2": "Lindqvist",
        "3": "nora.lindqvist@example.com",
        "4": "1988-04-23",
        "5": "2",
        "11": "Malmö",
        "14": "167",
        "31": "1",
        "10501": "LAMP-118",
        "10502": "LIGHT10",
        "10503": "386.91",
        "10504": "2025-12-02",
        "10505": "LAMP-118, CHAIR-204",
    }


def test_json_calls_and_requests_refer_to_each_other(shown: dict[str, Any]) -> None:
    """A call lists exactly the requests that list it."""
    assert {(call["number"], number) for call in shown["calls"] for number in call["requests"]} == {
        (number, request["number"]) for request in shown["requests"] for number in request["calls"]
    }


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 128 + signal.SIGTERM)], ids=["Ctrl-C", "SIGTERM"]
)
def test_interrupted_it_stops_and_removes_everything(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Told to stop while its Valkey runs, the command leaves neither a process nor a file behind."""
    with started(environment(tmp_path)) as process:
        while not list((tmp_path / "tmp").glob("*/data/valkey/valkey.pid")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        run = finished(process, tmp_path)

    assert (run.code, run.stdout) == (code, "")
    test_nothing_is_left_running(run)
    test_nothing_is_left_lying_around(run)


def test_json_has_what_fired_two_days_later(shown: dict[str, Any]) -> None:
    """The coupon without an order triggers its event once, of the time two days after it; the other one does not."""
    assert shown["fired"]["now"] == "2025-11-30T15:09:13.700Z"
    (request,) = shown["fired"]["requests"]
    trigger = request["body"].pop("trigger_id")
    assert re.fullmatch("[0-9a-f]{32}", trigger)
    assert request == {
        "method": "POST",
        "url": "https://api.emarsys.net/api/v3/event/1234/trigger",
        "body": {
            "key_id": "3",
            "external_id": "mira.kovac@example.com",
            "event_time": "2025-11-30T15:08:21.340Z",
            "data": {"global": {"coupon": "WINTER5"}},
        },
    }


def test_what_fired_is_shown(wide: Run) -> None:
    """The fourth part has the time and the request of the rule."""
    text = section(wide.stdout, "4. Two days later, 30 Nov 15:09")

    assert text.count("POST https://api.emarsys.net/api/v3/event/1234/trigger") == 1


def extension(directory: Path, hook: str) -> str:
    """Install an extension of one hook and return the directory for PYTHONPATH."""
    information = directory / "faulty-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[emarsys_cdp]\nfaulty = faulty\n")
    (directory / "faulty.py").write_text(f"from emarsys_cdp_hooks import *\n\n{hook}")
    return str(directory)


UNSENDABLE = """
@hookimpl
def emarsys_cdp_build_requests(actions):
    return [Delivery((Request("FETCH", "contact/", {}),), (index,)) for index, _ in actions]
"""

FAILING = """
@hookimpl
def emarsys_cdp_drop_calls(calls):
    raise OSError("the list of consents is away")
"""


@pytest.mark.parametrize(
    ("hook", "said"),
    [(UNSENDABLE, "1.3-7 a request that the host can send: output["), (FAILING, "calls 1, 2, 3, 4, 5, 6, 7, 8")],
    ids=["an answer that a host refuses", "postponed calls"],
)
def test_it_fails_when_the_service_does(tmp_path: Path, hook: str, said: str) -> None:
    """An answer that a RudderStack server would refuse, or calls that were put off, end with exit code 1."""
    run = demo(tmp_path, PYTHONPATH=extension(tmp_path / "packages", hook))

    assert (run.code, run.stdout) == (1, "")
    assert said in run.stderr
    test_nothing_is_left_running(run)
    test_nothing_is_left_lying_around(run)
