"""What a FakeHost adds to calls and reads of destinations, and JSON as Go writes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest

from emarsys_cdp.forms import rudderstack, shipped
from emarsys_cdp.testing.fake_host import Refused, go_json
from emarsys_cdp.testing.fake_host.calls import Arrival, Taken, is_wanted, take
from emarsys_cdp.testing.fake_host.workspace import (
    WrongWorkspace,
    read_workspace,
    simple_workspace,
    with_config,
)

NOW = datetime(2026, 11, 23, 10, 0, 5, 123_456, tzinfo=UTC)


def taken(header: str = "", **call: Any) -> Taken:
    """Take a call that arrives now."""
    read = go_json.loads(json.dumps({"userId": "u-1", **call}))
    return take(read, Arrival(NOW, "192.0.2.1", header), lambda: "new-id")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b'{"b":1,"a":2}', b'{"a":2,"b":1}'),
        (b"[1.0,2.50,1e3,-0.5]", b"[1,2.5,1000,-0.5]"),
        (b"9007199254740993", b"9007199254740992"),
        (b"12345678901234567890", b"12345678901234567000"),
        (b"1e21", b"1e+21"),
        (b'"<a href=\\"x\\">&"', rb'"\u003ca href=\"x\"\u003e\u0026"'),
        ("\u2028ä".join('""').encode(), '"\\u2028ä"'.encode()),
        (b'"\xff"', '"\ufffd"'.encode()),
        (rb'"\ud800"', '"\ufffd"'.encode()),
    ],
)
def test_json_goes_through_a_go_map(text: bytes, want: bytes) -> None:
    """Names come out sorted, numbers as float64, markup escaped, and no character stays that is none."""
    assert go_json.recoded(text) == want


@pytest.mark.parametrize("text", [b"{", b"NaN", b"1e400"])
def test_what_go_cannot_read_is_an_error(text: bytes) -> None:
    """No JSON, and numbers beyond float64."""
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of json
        go_json.loads(text)


def test_the_gateway_adds_what_is_missing() -> None:
    """A bare call gets its id, times and address."""
    call = taken(type="identify").call

    assert call == {
        "type": "identify",
        "userId": "u-1",
        "messageId": "new-id",
        "rudderId": call["rudderId"],
        "request_ip": "192.0.2.1",
        "originalTimestamp": "2026-11-23T10:00:05.123Z",
        "sentAt": "2026-11-23T10:00:05.123Z",
        "receivedAt": "2026-11-23T10:00:05.123Z",
        "timestamp": "2026-11-23T10:00:05.123Z",
    }


def test_calls_of_one_person_have_one_rudder_id() -> None:
    """It is derived from both ids."""
    ids = [{}, {"event": "x"}, {"userId": "u-2"}, {"anonymousId": "a-1"}]
    first, second, *others = [taken(**one).call["rudderId"] for one in ids]

    assert first == second
    assert len({first, *others}) == 3


def test_the_message_is_the_call_as_go_writes_it() -> None:
    """What the transformer gets has sorted names, float64, and no U+0000, which the host's database cannot hold."""
    message = taken(properties={"n": 2.0, "a\0": "b\0c"}).message

    assert b'"properties":{"a":"bc","n":2}' in message
    assert list(json.loads(message)) == sorted(json.loads(message))


@pytest.mark.parametrize(
    ("times", "want"),
    [
        ({"timestamp": "2026-11-20T08:00:00+01:00"}, "2026-11-20T08:00:00.000+01:00"),
        (
            {"originalTimestamp": "2026-11-23T09:00:00Z", "sentAt": "2026-11-23T09:30:00Z"},
            "2026-11-23T09:30:05.123Z",
        ),
        ({"timestamp": "yesterday", "originalTimestamp": 5}, "2026-11-23T10:00:05.123Z"),
    ],
)
def test_the_time_of_a_call(times: dict[str, Any], want: str) -> None:
    """Its own timestamp counts; else it is as old as it was when the device sent it."""
    assert taken(**times).call["timestamp"] == want


@pytest.mark.parametrize(
    ("header", "ids", "want"),
    [
        ("", {"anonymousId": "a-1"}, "<<>>a-1<<>>u-1"),
        ("", {}, "<<>>u-1<<>>u-1"),
        ("h", {"userId": None, "anonymousId": " a-1 "}, "h<<>>a-1<<>>"),
        ("", {"userId": 17}, "<<>>17<<>>17"),
    ],
)
def test_the_order_key(header: str, ids: dict[str, Any], want: str) -> None:
    """Jobs keep their order under a header, the anonymousId (else the userId) and the userId."""
    assert taken(header, **ids).order_key == want


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ([], "Event is not a valid rudder event"),
        ({"type": "track", "userId": "", "anonymousId": None}, "Request neither has anonymousId nor userId"),
    ],
)
def test_what_the_gateway_refuses(call: Any, message: str) -> None:
    """A call must be an object and say whose it is."""
    with pytest.raises(Refused, match=message) as refused:
        take(call, Arrival(NOW), str)

    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_a_record_needs_no_id() -> None:
    """Calls of type record come from a warehouse and name nobody."""
    assert take({"type": "record"}, Arrival(NOW), str).order_key == "<<>><<>>"


@pytest.mark.parametrize(
    ("integrations", "want"),
    [
        ({}, True),
        ({"All": False}, False),
        ({"All": False, "Emarsys": True}, True),
        ({"All": False, "Emarsys": {"contactListId": "1"}}, True),
        ({"Emarsys": False}, False),
        ({"Other": False}, True),
        ({"All": "yes"}, False),
        (["Emarsys"], False),
    ],
)
def test_integrations_decide_where_a_call_goes(integrations: Any, want: bool) -> None:
    """A destination named there is decided by that, all others by All; what is malformed goes nowhere."""
    assert is_wanted({"integrations": integrations}, "Emarsys") is want


def test_a_few_lines_are_a_workspace() -> None:
    """Settings by id make one source with an enabled Emarsys destination, in the server's names."""
    (source,) = simple_workspace({"dest-1": {"b": 1.0, "apiKey": "k"}}, "wk").sources
    payload = json.loads(source.active[0].payload)

    assert (source.write_key, source.id) == ("wk", "src-1")
    assert payload == {
        "ID": "dest-1",
        "Name": "Emarsys dest-1",
        "DestinationDefinition": {
            "ID": "def-1",
            "Name": "EMARSYS",
            "DisplayName": "Emarsys",
            "Config": payload["DestinationDefinition"]["Config"],
        },
        "Config": {"apiKey": "k", "b": 1},
        "Enabled": True,
        "WorkspaceID": "ws-1",
        "Transformations": [],
        "IsProcessorEnabled": True,
        "RevisionID": "1",
        "hasDynamicConfig": False,
    }


def test_dynamic_settings_are_noticed() -> None:
    """One template anywhere in the settings sets the flag."""
    (source,) = simple_workspace({"d": {"rows": [{"to": "{{ message.x || 'y' }}"}]}}, "wk").sources

    assert json.loads(source.active[0].payload)["hasDynamicConfig"] is True


def test_the_shipped_workspace_can_be_used() -> None:
    """The workspaceConfig.json of `emarsys-cdp manifest rudderstack` has one destination that takes every type."""
    text = rudderstack.files(shipped())["workspaceConfig.json"]
    (source,) = read_workspace(text.encode()).sources

    assert source.enabled
    assert [destination.type for destination in source.active] == ["emarsys"]
    assert source.active[0].destination_definition.takes("Identify")


@pytest.mark.parametrize("change", [{"enabled": False}, {"isProcessorEnabled": False}])
def test_a_destination_that_is_off_gets_nothing(change: dict[str, bool]) -> None:
    """Both flags of a destination have to be on."""
    (source,) = simple_workspace([{"id": "d", "config": {}, **change}], "wk").sources

    assert source.active == []


def test_only_a_flat_array_filters_types() -> None:
    """The object form of supportedMessageTypes, which is the control plane's, filters nothing."""
    config = [{"cloud": ["identify"]}, ["identify"]]
    definitions = [{"name": "EMARSYS", "config": {"supportedMessageTypes": types}} for types in config]
    (source,) = simple_workspace(
        [{"id": str(n), "config": {}, "destinationDefinition": one} for n, one in enumerate(definitions)], "wk"
    ).sources

    assert [one.destination_definition.takes("track") for one in source.active] == [True, False]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"{", "workspaceConfig.json"),
        (b'{"sources": [{"id": "s"}]}', r"writeKey.*\$\.sources\[0\]"),
        (b'{"sources": [{"id": "s", "writeKey": 5}]}', r"\$\.sources\[0\]\.writeKey"),
    ],
)
def test_a_wrong_workspace_is_told_with_its_place(content: bytes, place: str) -> None:
    """The message names the place in the file."""
    with pytest.raises(WrongWorkspace, match=place):
        read_workspace(content)


def test_settings_change_in_one_destination() -> None:
    """The others stay as they were; an id that does not exist is an error."""
    workspace = simple_workspace({"a": {"x": 1}, "b": {"x": 1}}, "wk")
    (source,) = with_config(workspace, "b", {"x": 2}).sources

    assert [one.config for one in source.active] == [{"x": 1}, {"x": 2}]
    with pytest.raises(WrongWorkspace, match="'c'"):
        with_config(workspace, "c", {})
