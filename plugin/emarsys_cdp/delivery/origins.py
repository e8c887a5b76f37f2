"""Which row of a request is of which calls, from how the request was made. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emarsys_cdp.delivery.pairing import Pairing, Pairings
from emarsys_cdp.delivery.parcel import RowOrigin
from emarsys_cdp.emarsys.reply_rows import rows_of
from emarsys_cdp.pipeline import Outgoing, Subject
from emarsys_cdp_hooks import Call, Request


def pairings_of(
    space: str,
    outgoing: Outgoing,
    calls: Mapping[int, Call],
    jobs: Mapping[int, int],
    subjects: Mapping[int, Subject],
    names: Pairings,
) -> list[tuple[str, Pairing]]:
    """
    Return the pairing of each request of an outgoing, with its name.

    *calls*, *jobs* (the host's numbers) and *subjects* are by the calls' index. There is none when an extension has
    built requests in which nobody can find a call's row.
    """
    if any(len(subjects[index].keys) != len(outgoing.requests) for index in outgoing.calls):
        return []
    numbers = [jobs[index] for index in outgoing.calls]
    named: list[str] = []
    found: list[tuple[str, Pairing]] = []
    for position, request in enumerate(outgoing.requests):
        keys = rows_of(Request(request.method, request.path, request.body))
        name = names.name(space, numbers, request.method, request.url, keys)
        rows = _origins(space, position, [(calls[one], jobs[one], subjects[one]) for one in outgoing.calls], names)
        found.append((name, Pairing(rows, tuple(named), more=position < len(outgoing.requests) - 1)))
        named.append(name)
    return found


def _origins(
    space: str, position: int, sources: Sequence[tuple[Call, int, Subject]], names: Pairings
) -> tuple[RowOrigin, ...]:
    """Return where the rows of the *position*-th request come from, of calls with their jobs and subjects."""
    found: dict[str, RowOrigin] = {}
    for call, job, subject in sources:
        row = names.row(space, subject.keys[position])
        known = found.get(row) or RowOrigin(row, subject.pid)
        version = (call.event_time, call.message_id)
        found[row] = RowOrigin(row, known.pid, (*known.versions, version), (*known.jobs, job))
    return tuple(found.values())


def aligned(names: Sequence[str], origins: Sequence[RowOrigin]) -> tuple[RowOrigin, ...]:
    """Return the origin of each row by the names of their keys; a row without one is of nobody."""
    known = {origin.name: origin for origin in origins}
    return tuple([known.get(name) or RowOrigin(name, None) for name in names])
