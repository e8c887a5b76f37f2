"""Extensions and their faults: each costs only the extension, and the log says clearly which one it was."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pluggy
import pytest
from structlog.testing import capture_logs
from tests.sample_extension import emarsys_cdp_sample
from tests.support.app import PROCESSOR, ROUTER, answers, host_of
from tests.support.requests import call, processor_request, router_request
from tests.support.world import make_service

from emarsys_cdp.credentials import Secret, Wsse
from emarsys_cdp.extensions import BUILT_INS, Steps, build_plugin_manager
from emarsys_cdp.rules.criteria import Facts
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.steps.mapping import read_maps
from emarsys_cdp.store.memory import MemoryStore
from emarsys_cdp_hooks import PROJECT, InvalidDocument, specs

BUILT_IN_NAMES = {f"built-in:{module.__name__.rsplit('.', 1)[1]}" for module in BUILT_INS}
HOOKS = [name for name in vars(specs) if name.startswith(f"{PROJECT}_")]

CALLS = [
    call("identify", 1, userId="u-1", traits={"email": "ada@example.com", "firstName": "Ada"}),
    call("page", 2, anonymousId="anon-2"),
    call("identify", 3, userId="u-3", traits={"email": "cleo@example.com"}),
]

GOOD = """
from emarsys_cdp_hooks import *
from msgspec.structs import replace

@hookimpl
def emarsys_cdp_enrich_calls(calls):
    return [
        replace(call, message={**call.message, "traits": {**call.message.get("traits", {}), "lastName": "Lovelace"}})
        for call in calls
    ]
"""

UNUSED = Wsse("user", Secret("secret"))

Install: TypeAlias = Callable[..., EntryPoint]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that makes a module of some source and an entry point to it."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def write(name: str, source: str, attribute: str = "") -> EntryPoint:
        made.append(f"extension_{len(made)}_of_a_test")
        (tmp_path / f"{made[-1]}.py").write_text(source)
        return EntryPoint(name, made[-1] + attribute, PROJECT)

    yield write
    for module in made:
        sys.modules.pop(module, None)


def hook(signature: str, body: str) -> str:
    """Return the source of an extension with one hook."""
    return f"from emarsys_cdp_hooks import *\n\n@hookimpl\ndef emarsys_cdp_{signature}:\n    {body}\n"


def names(manager: pluggy.PluginManager) -> set[str]:
    """Return the names of all steps and extensions."""
    return {name for name, plugin in manager.list_name_plugin() if plugin is not None}


def post(path: str, body: bytes, *points: EntryPoint, store: MemoryStore | None = None) -> httpx.Response:
    """Send one request to a service with these extensions; the host has to accept the answer."""

    async def send() -> httpx.Response:
        async with host_of(make_service(store or MemoryStore(), manager=build_plugin_manager(points))) as host:
            return await host.send(path, body)

    return asyncio.run(send())


def route(*points: EntryPoint) -> list[dict[str, Any]]:
    """Return what the host is told of the calls by a service with these extensions."""
    return answers(ROUTER, post(ROUTER, router_request(CALLS), *points))


def rows(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all contacts that are sent."""
    requests = [output["batchedRequest"] for output in outputs if "batchedRequest" in output]
    return [row for request in requests for row in request["body"]["JSON"]["contacts"]]


def test_all_built_in_steps_are_registered() -> None:
    """The manager has every built-in step under its name, and no hook of them is unknown."""
    manager = build_plugin_manager([])
    manager.check_pending()

    assert names(manager) == BUILT_IN_NAMES
    assert len(BUILT_IN_NAMES) == len(BUILT_INS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_user(name: str) -> None:
    """Each hook is implemented by a built-in step or by the sample extension."""
    assert any(hasattr(module, name) for module in (*BUILT_INS, emarsys_cdp_sample))


def test_a_good_extension_is_loaded(install: Install) -> None:
    """An extension that is in order is registered, logged, and changes the calls."""
    with capture_logs() as logs:
        outputs = route(install("good", GOOD))

    assert [(log["event"], log["extension"]) for log in logs if "extension" in log] == [("extension_loaded", "good")]
    assert [row["2"] for row in rows(outputs)] == ["Lovelace", "Lovelace"]


IMPORT_ERROR = "import a_module_that_nobody_has"
UNKNOWN_HOOK = hook("transform_calls(calls)", "return None")
WRONG_ARGUMENT = hook("drop_calls(space, events)", "return None")
WRAPPER = hook("enrich_calls(calls)", "return (yield)").replace("@hookimpl", "@hookimpl(wrapper=True)")
A_CLASS = """
from emarsys_cdp_hooks import hookimpl

class Plugin:
    @hookimpl
    def emarsys_cdp_field_types(self):
        return []
"""

UNLOADABLE = pytest.mark.parametrize(
    ("source", "attribute", "error"),
    [
        (IMPORT_ERROR, "", "No module named 'a_module_that_nobody_has'"),
        ("", ":missing", "has no attribute 'missing'"),
        (A_CLASS, ":Plugin", "is a class: name a module or an instance"),
        (UNKNOWN_HOOK, "", "unknown hook 'emarsys_cdp_transform_calls'"),
        (WRONG_ARGUMENT, "", "events"),
        (WRAPPER, "", "wrapper"),
    ],
    ids=["import error", "no such attribute", "class", "unknown hook", "wrong argument", "wrapper"],
)


@UNLOADABLE
def test_one_that_cannot_be_loaded_is_left_out(install: Install, source: str, attribute: str, error: str) -> None:
    """It is not registered, and one event of the log has its name, its entry point and the reason."""
    point = install("broken", source, attribute)
    with capture_logs() as logs:
        manager = build_plugin_manager([point])
    (log,) = logs

    assert names(manager) == BUILT_IN_NAMES
    assert (log["event"], log["log_level"]) == ("extension_left_out", "error")
    assert (log["extension"], log["value"]) == ("broken", point.value)
    assert error in log["error"]


@UNLOADABLE
def test_the_others_are_loaded_all_the_same(install: Install, source: str, attribute: str, error: str) -> None:
    """Extensions before and after one that cannot be loaded work."""
    points = [install("before", GOOD), install("broken", source, attribute), install("after", GOOD)]
    manager = build_plugin_manager(points)
    manager.check_pending()

    assert names(manager) == BUILT_IN_NAMES | {"before", "after"}


@pytest.mark.parametrize("name", ["good", "built-in:contacts"])
@pytest.mark.parametrize("source", [GOOD, IMPORT_ERROR], ids=["in order", "import error"])
def test_a_taken_name_is_left_out(install: Install, name: str, source: str) -> None:
    """A second extension of the same name, or one with a built-in's name, does not push the first one out."""
    points = [install("good", GOOD), install(name, source)]
    with capture_logs() as logs:
        manager = build_plugin_manager(points)

    assert names(manager) == BUILT_IN_NAMES | {"good"}
    assert [log["value"] for log in logs if log["event"] == "extension_left_out"] == [points[1].value]


FAULTS = {
    "raises": "raise OSError('the list is away')",
    "too short": "return []",
    "no answers": "return [7 for _ in {}]",
}
SIGNATURES = {
    "enrich_calls": "calls",
    "validate_calls": "calls",
    "read_identifiers": "calls",
    "map_values": "calls",
    "decide_actions": "calls",
    "build_requests": "actions",
}


def faulty(name: str, fault: str) -> str:
    """Return the source of an extension whose one hook has a fault."""
    return hook(f"{name}({SIGNATURES[name]})", FAULTS[fault].format(SIGNATURES[name]))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", SIGNATURES)
def test_a_failing_hook_changes_nothing(install: Install, name: str, fault: str) -> None:
    """When a hook raises or gives no usable answer, the host is told what it would be told without the extension."""
    assert route(install("broken", faulty(name, fault))) == route()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", SIGNATURES)
def test_a_failing_hook_is_logged(install: Install, name: str, fault: str) -> None:
    """An error of the log names the extension, the hook, and what was wrong."""
    point = install("broken", faulty(name, fault))
    with capture_logs() as logs:
        route(point)
    errors = [(log.get("extension"), log.get("hook")) for log in logs if log["event"] == "extension_failed"]
    texts = [log["error"] for log in logs if log["event"] == "extension_failed"]

    assert set(errors) == {("broken", name)}
    assert fault != "raises" or texts == ["OSError: the list is away"]


def test_the_others_run_when_one_fails(install: Install) -> None:
    """An extension before and one after one that raises do their work."""
    failing = faulty("enrich_calls", "raises")
    first_name = GOOD.replace("lastName", "firstName").replace("Lovelace", "Ada")
    outputs = route(install("before", GOOD), install("broken", failing), install("after", first_name))

    assert [(row["1"], row["2"]) for row in rows(outputs)] == [("Ada", "Lovelace"), ("Ada", "Lovelace")]


def test_a_changed_index_is_no_answer(install: Install) -> None:
    """A call whose index an extension changes would answer another job: the calls go on as they were."""
    body = "from msgspec.structs import replace; return [replace(call, index=0) for call in calls]"

    assert route(install("broken", hook("enrich_calls(calls)", body))) == route()


DROP_FAULTS = {
    "raises": "raise OSError('the list is away')",
    "too short": "return []",
    "true and false": "return [True] + [False for _ in calls[1:]]",
}


@pytest.fixture(params=DROP_FAULTS)
def consent(request: pytest.FixtureRequest, install: Install) -> EntryPoint:
    """Install an extension that may drop calls, with each fault."""
    return install("consent", hook("drop_calls(calls)", DROP_FAULTS[request.param]))


def test_a_failing_drop_makes_the_host_retry(consent: EntryPoint) -> None:
    """When a hook that may drop calls fails, each call of the batch gets a 500 that names the extension."""
    outputs = route(consent)

    assert [output["statusCode"] for output in outputs] == [500] * len(CALLS)
    assert {output["error"].split(",")[0] for output in outputs} == {"extension consent"}


def test_a_failing_drop_is_a_503_at_the_processor(consent: EntryPoint) -> None:
    """At the processor stage, where a failed call would be lost, the whole request comes again."""
    response = post(PROCESSOR, processor_request(CALLS), consent)

    assert (response.status_code, response.headers.get("X-Rudder-Should-Retry")) == (503, "true")


def test_a_failing_drop_writes_nothing(consent: EntryPoint) -> None:
    """Of a batch whose consent could not be checked nothing is in the users table."""
    store = MemoryStore()
    post(ROUTER, router_request(CALLS), consent, store=store)

    assert (store.records, store.rows) == ({}, {})


def test_a_failing_drop_is_logged(consent: EntryPoint) -> None:
    """An error of the log names the extension and the hook."""
    with capture_logs() as logs:
        route(consent)

    assert [(log["extension"], log["hook"]) for log in logs if log["event"] == "extension_failed"] == [
        ("consent", "drop_calls")
    ]


FIELD_TYPE_DOCUMENT = {
    "dataMaps": [
        {"name": "first", "path": "traits.firstName", "type": "string", "field": 10501, "fieldType": "tier"},
        {"name": "email", "path": "traits.email", "type": "string", "field": 3},
    ]
}


@pytest.mark.parametrize(
    "body",
    ["raise OSError('away')", "return FieldType('tier', str)", "return ['tier']", "return 7"],
    ids=["raises", "no list", "no field types", "no answers"],
)
def test_failing_field_types_do_not_exist(install: Install, body: str) -> None:
    """When an extension cannot list its field types the service knows the built-in ones, and the log names it."""
    manager = build_plugin_manager([install("tiers", hook("field_types()", body))])
    with capture_logs() as logs:
        assert Steps(manager).field_types() == []
        compiler = build_compiler(manager)

    assert {(log["event"], log["extension"]) for log in logs} == {("extension_failed", "tiers")}
    with pytest.raises(InvalidDocument, match=r"dataMaps\[0\]\.fieldType: 'tier' is no field type"):
        compiler.read("document", FIELD_TYPE_DOCUMENT)


@pytest.mark.parametrize("error", ["ValueError", "KeyError", "TypeError"])
def test_a_failing_field_type_costs_its_value(install: Install, tmp_path: Path, error: str) -> None:
    """When a field type raises, whatever it is, the value is left out, the map is named, and the rest is sent."""
    source = f"""
from emarsys_cdp_hooks import *

def convert(value, timezone):
    raise {error}("no tier")

@hookimpl
def emarsys_cdp_field_types():
    return [FieldType("tier", convert)]
"""
    manager = build_plugin_manager([install("tiers", source)])
    outputs = asyncio.run(_route_with_document(manager, tmp_path))

    assert rows(outputs) == [{"3": "ada@example.com"}, {"3": "cleo@example.com"}]
    assert ["data map first, field 10501" in output.get("error", "") for output in outputs] == [True, False]


async def _route_with_document(manager: pluggy.PluginManager, directory: Path) -> list[dict[str, Any]]:
    rules = directory / "rules"
    rules.mkdir()
    (rules / "default.json").write_text(json.dumps(FIELD_TYPE_DOCUMENT))
    async with host_of(make_service(MemoryStore(), manager=manager, rules_dir=rules)) as host:
        return answers(ROUTER, await host.send(ROUTER, router_request(CALLS)))


KINDS_SOURCE = """
from emarsys_cdp_hooks import *

{more}

@hookimpl
def emarsys_cdp_operators():
    return [Operator("good_operator", ("string",), lambda value, wanted, time: True), {operators}]

@hookimpl
def emarsys_cdp_data_types():
    return [DataType("good_type", "string", lambda raw, timezone: raw), {types}]

@hookimpl
def emarsys_cdp_actions():
    return [ActionKind("good_action", lambda action: []), {actions}]
"""


def kinds_source(more: str = "", operators: str = "", types: str = "", actions: str = "") -> str:
    """Return the source of an extension with one of each kind that is right, and others."""
    return KINDS_SOURCE.format(more=more, operators=operators, types=types, actions=actions)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (kinds_source(operators='Operator("equals", ("string",), max)'), "the name 'equals' is taken"),
        (kinds_source(operators='Operator("is empty", ("string",), max)'), "'is empty' cannot be used"),
        (kinds_source(operators='Operator("not_good", ("string",), max)'), "add the positive one"),
        (kinds_source(operators='Operator("other", ("text",), max)'), "operator other is for ['text']: give some of"),
        (kinds_source(operators='Operator("good_operator", ("string",), max)'), "the name 'good_operator' is taken"),
        (kinds_source(types='DataType("list", "string", str)'), "the name 'list' is taken"),
        (kinds_source(types='DataType("other", "text", str)'), "data type other is like 'text', which is none of"),
        (kinds_source(actions='ActionKind("trigger", list)'), "the name 'trigger' is taken"),
    ],
)
def test_what_cannot_be_added_is_left_out(install: Install, source: str, says: str) -> None:
    """A name that is taken or that documents cannot write costs only what has it, and the log says why."""
    manager = build_plugin_manager([install("kinds", source)])
    with capture_logs() as logs:
        kinds = Steps(manager).kinds()
    (log,) = logs

    assert (log["event"], log["extension"]) == ("extension_failed", "kinds")
    assert says in log["error"]
    assert (set(kinds.operators), set(kinds.types), set(kinds.actions)) == (
        {"good_operator"},
        {"good_type"},
        {"good_action"},
    )


@pytest.mark.parametrize("name", ["operators", "data_types", "actions"])
def test_failing_lists_of_kinds_do_not_exist(install: Install, name: str) -> None:
    """An extension that cannot list what it adds adds nothing of it, and the others do."""
    points = [install("broken", hook(f"{name}()", "raise OSError('away')")), install("good", kinds_source())]
    with capture_logs() as logs:
        kinds = Steps(build_plugin_manager(points)).kinds()

    assert [log["extension"] for log in logs if log["event"] == "extension_failed"] == ["broken"]
    assert (set(kinds.operators), set(kinds.types), set(kinds.actions)) == (
        {"good_operator"},
        {"good_type"},
        {"good_action"},
    )


FAILING_KINDS = """
def away(*_):
    raise OSError("the list is away")
"""


def kinds_document(**parts: Any) -> dict[str, Any]:
    """Return a document of a rule that uses one of each kind."""
    start = {"seq": 0, "type": "start", "match": {"map": "sku", "op": "odd", "value": 1}}
    action = {"do": "odd_one", "card": "tea"}
    return {
        "dataMaps": [{"name": "sku", "path": "properties.sku", "type": "odd_type"}],
        "rules": [{"id": "r", "conditions": [start, {"seq": 1, "type": "exit", "actions": [action]}]}],
        **parts,
    }


def test_a_failing_check_refuses_the_document(install: Install) -> None:
    """What an extension cannot check is refused at its place, with the reason."""
    source = kinds_source(
        FAILING_KINDS,
        operators='Operator("odd", ("string",), away, away)',
        types='DataType("odd_type", "string", away)',
        actions='ActionKind("odd_one", away, away)',
    )
    compiler = build_compiler(build_plugin_manager([install("odd", source)]))
    with pytest.raises(InvalidDocument) as error:
        compiler.read("document", kinds_document())

    assert [str(one) for one in error.value.problems] == [
        "rules[0].conditions[0].match.value: operator odd of extension odd failed: OSError: the list is away",
        "rules[0].conditions[1].actions[0]: action odd_one of extension odd failed: OSError: the list is away",
    ]


def test_a_failing_operator_is_false(install: Install) -> None:
    """Whatever it raises, a comparison by it does not hold, its negation does, and the log has the error."""
    source = kinds_source(
        FAILING_KINDS,
        operators='Operator("odd", ("string",), away)',
        types='DataType("odd_type", "string", lambda raw, timezone: raw)',
        actions='ActionKind("odd_one", away)',
    )
    compiler = build_compiler(build_plugin_manager([install("odd", source)]))
    space = compiler.compile("s", "h", compiler.read("document", kinds_document()), UNUSED)
    (pattern,) = [program.pattern for program in [space.rules.program("r", 1)] if program] if space.rules else []
    with capture_logs() as logs:
        held = pattern.rows[0].criterion.holds(Facts({"sku": "a"}, 0))

    assert held is False
    assert [(log["event"], log["extension"]) for log in logs] == [("extension_failed", "odd")]


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ("away", "data type odd_type of extension odd failed: OSError: the list is away"),
        ("lambda raw, timezone: {}", "data type odd_type of extension odd read {}: no string"),
        ("lambda raw, timezone: None", "'x' is not of type odd_type: give a value of its type"),
    ],
    ids=["raises", "another form", "absent"],
)
def test_a_failing_data_type_costs_its_value(install: Install, read: str, says: str) -> None:
    """The value is left out with the reason, and every other value of the call is read."""
    source = kinds_source(FAILING_KINDS, types=f'DataType("odd_type", "string", {read})')
    compiler = build_compiler(build_plugin_manager([install("odd", source)]))
    maps = [
        {"name": "sku", "path": "properties.sku", "type": "odd_type"},
        {"name": "name", "path": "properties.name", "type": "good_type"},
    ]
    space = compiler.compile("s", "h", compiler.read("document", {"dataMaps": maps}), UNUSED)
    values = read_maps(space.maps, {"properties": {"sku": "x", "name": "y"}})

    assert values["name"] == "y"
    assert says in values["sku"].reason
