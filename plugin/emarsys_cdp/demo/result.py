"""What the demonstration shows: calls, users, Emarsys requests; read from the answers and from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from emarsys_cdp.log import HIDDEN
from emarsys_cdp.settings import DEFAULT_API_BASE
from emarsys_cdp.store.record import Record
from emarsys_cdp.testing.fake_emarsys.records import ReceivedRequest
from emarsys_cdp.values.times import iso_time
from emarsys_cdp_hooks import Json

DELIVER, FILTERED, REFUSED = 200, 298, 400


class ShownCall(Struct, frozen=True, rename="camel"):
    """
    A call and what became of it.

    *who* is the userId, else the anonymousId. *requests* are the numbers of the Emarsys requests made for it. *note*
    is what the service said to the host about it.
    """

    number: int
    time: str
    type: str | None
    event: str | None
    who: str
    status: int
    outcome: str
    note: str | None
    requests: tuple[int, ...]


class ShownUser(Struct, frozen=True, rename="camel"):
    """A row of the users table."""

    anonymous_ids: tuple[str, ...]
    user_id: str | None
    primary_key: str | None
    first_seen: str
    last_seen: str
    values: Mapping[str, Json]


class ShownRequest(Struct, frozen=True, rename="camel"):
    """
    An Emarsys request as it was handed to the host; *headers* without the token.

    *calls* are the numbers of the calls it is for, *left_out* says which of their values did not fit.
    """

    number: int
    calls: tuple[int, ...]
    method: str
    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Json]
    left_out: str | None


class FiredRequest(Struct, frozen=True, rename="camel"):
    """A request that the service has sent itself, as Emarsys' stand-in took it."""

    method: str
    url: str
    body: Mapping[str, Json]


class Fired(Struct, frozen=True, rename="camel"):
    """What the rule had done when it was *now*, two days after the calls."""

    now: str
    requests: tuple[FiredRequest, ...]


class Result(Struct, frozen=True):
    """Everything that the demonstration prints, in the order of events."""

    calls: tuple[ShownCall, ...]
    users: tuple[ShownUser, ...]
    requests: tuple[ShownRequest, ...]
    fired: Fired


class Reading:
    """
    Reads router answers one after another; calls and requests are numbered through.

    *api_base* is that of Emarsys' stand-in: shown is the address of the real one.
    """

    def __init__(self, api_base: str) -> None:
        self._api_base = api_base
        self.calls: list[ShownCall] = []
        self.requests: list[ShownRequest] = []

    def add(self, calls: Sequence[Mapping[str, Json]], outputs: Sequence[Mapping[str, Json]]) -> None:
        """Add a batch and the outputs of its answer, which the conformance checker has accepted."""
        found: dict[int, tuple[Mapping[str, Json], tuple[int, ...]]] = {}
        for output in sorted(outputs, key=lambda output: int(output["metadata"][0]["jobId"])):
            jobs = tuple(metadata["jobId"] for metadata in output["metadata"])
            numbers = self._add_requests(output, jobs) if output["statusCode"] == DELIVER else ()
            found |= dict.fromkeys(jobs, (output, numbers))
        for number, call in enumerate(calls, len(self.calls) + 1):
            self.calls.append(_shown_call(number, call, *found[number]))

    def _add_requests(self, output: Mapping[str, Json], jobs: tuple[int, ...]) -> tuple[int, ...]:
        batched = output["batchedRequest"]
        numbers = []
        for request in batched if isinstance(batched, list) else [batched]:
            numbers.append(len(self.requests) + 1)
            self.requests.append(
                ShownRequest(
                    numbers[-1],
                    jobs,
                    request["method"],
                    DEFAULT_API_BASE + request["endpoint"].removeprefix(self._api_base),
                    {name: _without_secret(name, value) for name, value in request["headers"].items()},
                    request["body"]["JSON"],
                    output.get("error"),
                )
            )
        return tuple(numbers)


def shown_fired(now: str, requests: Sequence[ReceivedRequest]) -> Fired:
    """
    Return what Emarsys' stand-in took for the rule.

    The first try is refused: nothing of part 3 was sent, so the service has to make the contact before the second.
    """
    base = DEFAULT_API_BASE.removesuffix("/api")
    sent = [one for one in requests if one.path.endswith("/trigger") and one.status == DELIVER]
    return Fired(now, tuple([FiredRequest(one.method, base + one.path, one.body) for one in sent]))


def _without_secret(name: str, value: str) -> str:
    if name.lower() not in ("authorization", "x-wsse"):
        return value
    return f"{value.split(' ', 1)[0]} {HIDDEN}"


def _shown_call(
    number: int, call: Mapping[str, Any], output: Mapping[str, Any], requests: tuple[int, ...]
) -> ShownCall:
    status, note = output["statusCode"], output.get("error")
    kind, event = call.get("type"), call.get("event") or call.get("name")
    who = call.get("userId") or call.get("anonymousId") or ""
    return ShownCall(number, call["timestamp"], kind, event, who, status, _outcome(status), note, requests)


def _outcome(status: int) -> str:
    return {DELIVER: "request", FILTERED: "nothing to send", REFUSED: "refused"}.get(status, "postponed")


def shown_user(record: Record) -> ShownUser:
    """Return a record of the users table as it is shown."""
    return ShownUser(
        tuple(device.value for device in record.devices),
        record.user,
        record.key,
        iso_time(record.first_seen),
        iso_time(record.last_seen),
        {name: stored.value for name, stored in record.values.items()},
    )
