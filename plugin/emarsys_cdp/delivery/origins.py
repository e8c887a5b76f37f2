"""Which row of a request is of which calls, from how the request was made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from emarsys_cdp.delivery.pairing import Pairing
from emarsys_cdp.delivery.parcel import RowOrigin
from emarsys_cdp.pipeline import Outgoing, Subject


def pairings_of(
    outgoing: Outgoing,
    subjects: Mapping[int, Subject],
    jobs: Sequence[int],
    name: Callable[[Sequence[int], str, str, Sequence[str]], str],
) -> list[tuple[str, Pairing]]:
    """
    Return the pairing of each request of an outgoing, with its name.

    *subjects* are by the calls' index, *jobs* are the host's numbers of the outgoing's calls; *name* makes a name of
    jobs, method, address and the keys of the rows. There is none when an extension has built requests of other numbers
    of actions; where one has built other rows, they have another name and are not found.
    """
    count = len(outgoing.requests)
    sources = [subjects[index] for index in outgoing.calls]
    if [True for subject in sources if len(subject.keys) != count]:
        return []
    named: list[str] = []
    found: list[tuple[str, Pairing]] = []
    for position, request in enumerate(outgoing.requests):
        rows = _rows(position, sources, jobs)
        of_request = name(jobs, request.method, request.url, list(rows))
        more = position < len(outgoing.requests) - 1
        found.append((of_request, Pairing(tuple(rows.values()), tuple(named), more)))
        named.append(of_request)
    return found


def _rows(position: int, sources: Sequence[Subject], jobs: Sequence[int]) -> dict[str, RowOrigin]:
    """Return the rows of the *position*-th request by their keys; the calls of one contact share a row."""
    found: dict[str, RowOrigin] = {}
    for subject, job in zip(sources, jobs, strict=True):
        call = subject.call
        key, version = subject.keys[position], (call.event_time, call.message_id)
        known = found.get(key)
        found[key] = (
            RowOrigin(subject.pid, (version,), (job,))
            if known is None
            else RowOrigin(known.pid, (*known.versions, version), (*known.jobs, job))
        )
    return found
