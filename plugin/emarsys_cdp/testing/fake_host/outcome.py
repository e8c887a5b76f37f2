"""What sending a request came to, job by job. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec
from msgspec import Raw, Struct

from emarsys_cdp.testing.conformance_types import Json
from emarsys_cdp.testing.fake_host.jobs import Record

NO_RESPONSE = "Response for this job is expected but not found"


class Outcome(Struct, frozen=True):
    """Statuses and texts by jobId, which jobs must not be batched again, and whether anything was *sent*."""

    statuses: dict[int, int]
    errors: dict[int, str]
    dont_batch: dict[int, bool] = {}
    sent: bool = False

    def status(self, record: Record) -> int:
        """Return the status of a job: 500 where the outcome lacks it (reference 1.5)."""
        return self.statuses.get(record.id, HTTPStatus.INTERNAL_SERVER_ERROR)

    def error(self, record: Record) -> str:
        """Return the text that goes with the status."""
        return self.errors.get(record.id, NO_RESPONSE)


def alike(records: Iterable[Record], status: int, error: str, *, sent: bool) -> Outcome:
    """Return an outcome that is the same for all jobs."""
    ids = [record.id for record in records]
    return Outcome(dict.fromkeys(ids, status), dict.fromkeys(ids, error), sent=sent)


class Request(Struct, frozen=True, rename="camel"):
    """A request as the server's Go type takes it (reference 1.3): each part may be absent or null."""

    type: str | None = None
    endpoint: str | None = None
    endpoint_path: str | None = None
    method: str | None = None
    user_id: str | None = None
    headers: dict[str, str] | None = None
    params: dict[str, Raw] | None = None
    body: dict[str, Raw] | None = None
    files: dict[str, Json] | None = None


def read_requests(text: bytes, *, several: bool) -> list[Request]:
    """
    Return the requests that a batchedRequest stands for: one, or where *several* are allowed an array (rule 6).

    Raises:
        ValueError: it cannot be read, which the host answers with a 599.

    """
    if several and text.lstrip()[:1] == b"[":
        return msgspec.json.decode(text, type=list[Request])
    return [msgspec.json.decode(text, type=Request)]
