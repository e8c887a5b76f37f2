"""Names of requests: another request never finds the rows of this one."""

from __future__ import annotations

import pytest

from emarsys_cdp.delivery.pairing import Pairings
from emarsys_cdp.store.keys import Namer
from emarsys_cdp.store.memory import MemoryStore

JOBS = (101, 102)
KEYS = ("a@example.com", "b@example.com")
URL = "https://api.emarsys.net/api/v3/contact/?create_if_not_exists=1"


def name(
    space: str = "dest-1",
    jobs: tuple[int, ...] = JOBS,
    method: str = "PUT",
    endpoint: str = URL,
    keys: tuple[str, ...] = KEYS,
) -> str:
    """Return the name of a request."""
    return Pairings(MemoryStore(), Namer(b"s" * 32), lambda: 0).name(space, jobs, method, endpoint, keys)


def test_the_order_of_jobs_does_not_count() -> None:
    """The host may list them as it likes."""
    assert name(jobs=(102, 101)) == name()


@pytest.mark.parametrize(
    "other",
    [
        name(space="dest-2"),
        name(jobs=(101,)),
        name(jobs=(101, 103)),
        name(method="POST"),
        name(endpoint=URL.replace("=1", "=0")),
        name(keys=("b@example.com", "a@example.com")),
        name(keys=("a@example.com",)),
        name(jobs=(), keys=("101", "102", *KEYS)),
        name(keys=("a@example.com\0b@example.com",)),
    ],
)
def test_everything_else_counts(other: str) -> None:
    """Rows are paired by their position, so their order as well; job ids repeat between hosts, keys do not."""
    assert other != name()
