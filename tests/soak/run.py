"""One soak: a fake host, the service, a fake Emarsys, and everything that breaks; then what is left is compared."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct
from tests.soak.chaos import HOSTS_SEE, WE_SEE, Service, killing, service
from tests.soak.plan import (
    DOCUMENT,
    DOCUMENT_SPACE,
    EVENT_ID,
    PAGE_FIELD,
    STOCK_SETTINGS,
    STOCK_SPACE,
    Plan,
    email_of,
    is_stock,
    make_plan,
)

from emarsys_cdp.emarsys.fields import Field
from emarsys_cdp.testing import FakeEmarsys, FakeHost, JobState

LIMIT = 6000
"""Requests a minute that the fake Emarsys takes of each API user: a soak is not to take an hour."""

STEP = 250
"""Calls that the host gets at once."""

BEHIND = 2000
"""Jobs that the host may have before it gets more."""

FINAL = ("delivered", "done", "filtered", "aborted")


class Outcome(Struct, frozen=True, kw_only=True):
    """
    What came of a soak.

    *wrong* are contacts whose fields differ, with what they have and should have; *explained* are those of them of
    whose calls one overtook another at the host. *lost* are orders whose event did not arrive, *twice* those whose
    event was accepted twice, *repeats* counts repetitions that Emarsys knew by their trigger id. *log* is the
    service's, *secrets* are texts that must stand nowhere.
    """

    jobs: int
    seconds: float
    states: dict[str, int]
    aborted: list[str]
    wrong: dict[str, tuple[Any, Any]]
    explained: frozenset[str]
    lost: list[str]
    twice: list[str]
    repeats: int
    violations: list[str]
    requests: int
    faults: dict[str, int]
    kills: dict[str, int]
    breaches: list[str]
    log: Path
    secrets: tuple[str, ...]


def soak(
    calls: int,
    directory: Path,
    *,
    proxy: bool,
    seed: int = 1,
    kill_every: float = 3.0,
    told: Callable[[int], None] = lambda done: None,  # noqa: ARG005 - the default does nothing
) -> Outcome:
    """Run a soak of so many calls in an empty *directory*; *told* hears how many jobs are done."""
    plan = make_plan(calls, seed, time.time_ns() // 1_000_000)
    rules = directory / "rules"
    rules.mkdir(parents=True)
    (rules / f"{DOCUMENT_SPACE}.json").write_text(json.dumps(DOCUMENT))
    with _emarsys(plan, seed) as emarsys:
        emarsys.script(*HOSTS_SEE, *(WE_SEE if proxy else ()))
        settings = {
            "EMARSYS_CDP_API_BASE": emarsys.api_base,
            "EMARSYS_CDP_TOKEN_URL": emarsys.token_url,
            "EMARSYS_CDP_RULES_DIR": str(rules),
        }
        log, started = directory / "service.log", time.monotonic()
        with service(directory / "data", settings, log) as running, _host(running.url, emarsys, proxy) as host:
            with killing(running, Random(seed), kill_every):  # noqa: S311 - a run that can be repeated
                _feed(host, plan, told)
                emarsys.clear_faults()
            host.drain(600)
        found = _Found(plan, emarsys, host)
        return found.outcome(time.monotonic() - started, running, log)


def _emarsys(plan: Plan, seed: int) -> FakeEmarsys:
    emarsys = FakeEmarsys(seed=seed, limit=LIMIT, external_events={EVENT_ID: "order"})
    emarsys.add_field(Field(PAGE_FIELD, "Last page", None, "shorttext"))
    for address in plan.before:
        emarsys.add_contact({"3": address})
    return emarsys


def _host(url: str, emarsys: FakeEmarsys, proxy: bool) -> FakeHost:
    settings = {
        DOCUMENT_SPACE: {"apiKey": emarsys.api_key},
        STOCK_SPACE: {**STOCK_SETTINGS, "apiKey": emarsys.wsse_api_key},
    }
    sources = [
        {"id": f"src-{space}", "writeKey": space, "enabled": True, "destinations": [_destination(space, config)]}
        for space, config in settings.items()
    ]
    return FakeHost(
        url, workspace={"sources": sources}, proxy=proxy, batch=20, batch_timeout=0.05, give_up_after=3600.0
    )


def _destination(space: str, config: dict[str, Any]) -> dict[str, Any]:
    definition = {"id": "def-1", "name": "EMARSYS", "displayName": "Emarsys", "config": {"transformAtV1": "router"}}
    parts = {"id": space, "enabled": True, "isProcessorEnabled": True, "config": config}
    return {**parts, "destinationDefinition": definition}


def _feed(host: FakeHost, plan: Plan, told: Callable[[int], None]) -> None:
    """Give the host the calls, not much faster than it gets rid of them."""
    for start in range(0, len(plan.calls), STEP):
        part = plan.calls[start : start + STEP]
        host.send([call for call in part if not is_stock(call)], write_key=DOCUMENT_SPACE)
        host.send([call for call in part if is_stock(call)], write_key=STOCK_SPACE)
        while (done := _done(host)) < start + STEP - BEHIND:
            told(done)
            time.sleep(0.1)


def _done(host: FakeHost) -> int:
    counts = host.counts()
    return sum(counts.get(state, 0) for state in FINAL)


class _Found:
    """What is left after a soak, compared with what has to be."""

    def __init__(self, plan: Plan, emarsys: FakeEmarsys, host: FakeHost) -> None:
        self._plan = plan
        self._emarsys = emarsys
        self._host = host

    def outcome(self, seconds: float, running: Service, log: Path) -> Outcome:
        """Return everything that is worth knowing."""
        emarsys, host, wanted = self._emarsys, self._host, self._plan.events
        orders = Counter(event.data["global"]["order"] for event in emarsys.events if event.data is not None)
        jobs = host.jobs
        return Outcome(
            jobs=len(jobs),
            seconds=seconds,
            states=host.counts(),
            aborted=[f"job {job.id}: {job.status} {job.error}" for job in jobs if job.state is JobState.ABORTED],
            wrong=self._wrong(),
            explained=self._overtaken(),
            lost=sorted(wanted - set(orders)),
            twice=sorted(order for order, number in orders.items() if number > 1),
            repeats=len(emarsys.repeats),
            violations=[f"{one.kind}: {one.detail}" for one in emarsys.violations],
            requests=len(emarsys.requests),
            faults=Counter(one.fault.split(":")[0] for one in emarsys.requests if one.fault),
            kills=running.kills,
            breaches=[str(one) for one in host.breaches],
            log=log,
            secrets=tuple(emarsys.api_key.split(":")[1:] + emarsys.wsse_api_key.split(":")[2:]),
        )

    def _wrong(self) -> dict[str, tuple[Any, Any]]:
        found = {contact.fields.get("3"): contact.fields for contact in self._emarsys.contacts}
        return {
            address: (found.get(address), dict(fields))
            for address, fields in self._plan.contacts.items()
            if found.get(address) != fields
        }

    def _overtaken(self) -> frozenset[str]:
        """Return the contacts of whose calls one overtook another at the host."""
        by_id = {job.id: job for job in self._host.jobs}
        return frozenset(email_of(by_id[one.later].call) for one in self._host.overtakings)
