"""The fake's counts: requests of an API user, tokens of a client, records that are kept."""

from __future__ import annotations

import re

import pytest

from emarsys_cdp.testing.fake_emarsys.limits import FetchLimit, RateLimit
from emarsys_cdp.testing.fake_emarsys.options import TOKEN_FETCHES, Options
from emarsys_cdp.testing.fake_emarsys.records import Log

MINUTE = 60_000
START = 1_000 * MINUTE


def test_the_sliding_window_lets_nobody_have_more_in_any_60_seconds() -> None:
    """Requests at the end of a minute still count in the next one, until they are 60 seconds old."""
    rate = RateLimit(2, "sliding")
    taken = [rate.take("user", START + seconds * 1000) for seconds in (50, 59, 61, 109, 110, 119)]

    assert [excess is None for excess in taken] == [True, True, False, False, True, True]
    assert taken[2] == "2 requests in 60 seconds, the limit is 2"


def test_the_fixed_window_begins_anew_with_the_minute() -> None:
    """By the clock's minute, twice the limit passes around its turn."""
    rate = RateLimit(2, "fixed")
    taken = [rate.take("user", START + seconds * 1000) for seconds in (50, 59, 59, 60, 61, 62)]

    assert [excess is None for excess in taken] == [True, True, False, True, True, False]


def test_the_headers_tell_the_minute_of_the_clock() -> None:
    """Whichever window decides, the headers have what is left of the clock's minute and when it ends, in seconds."""
    rate = RateLimit(2, "sliding")
    rate.take("user", START + 50_000)

    assert rate.headers("user", START + 50_000) == {
        "X-RateLimit-Limit": "2",
        "X-Ratelimit-Remaining": "1",
        "X-RateLimit-Reset": str(1_001 * 60),
    }
    assert rate.headers("user", START + 60_000)["X-Ratelimit-Remaining"] == "2"


def test_users_are_counted_apart() -> None:
    """The limit is that of an API user, not of the account."""
    rate = RateLimit(1, "sliding")

    assert rate.take("one", START) is None
    assert rate.take("two", START) is None
    assert rate.take("one", START) is not None
    assert rate.headers(None, START)["X-Ratelimit-Remaining"] == "1"


def test_refused_requests_do_not_count() -> None:
    """Who is refused may come back as soon as those that were accepted are old enough."""
    rate = RateLimit(1, "sliding")
    rate.take("user", START)
    for second in range(1, 60):
        assert rate.take("user", START + second * 1000) is not None

    assert rate.take("user", START + MINUTE) is None


def test_two_tokens_a_minute_and_ten_an_hour() -> None:
    """The third token within a minute and the eleventh within an hour are refused, per client."""
    limit = FetchLimit(TOKEN_FETCHES)
    of_minute = [limit.take("client", START + seconds * 1000) is None for seconds in (0, 1, 59, 60, 61)]
    of_hour = [limit.take("client", START + minutes * MINUTE) is None for minutes in (3, 4, 5, 6, 7, 8, 9, 59, 60)]

    assert of_minute == [True, True, False, True, True]
    assert of_hour == [True, True, True, True, True, True, False, False, True]
    assert limit.take("another", START) is None


def test_a_log_counts_what_it_forgets() -> None:
    """Only the newest records are kept, and the others are counted."""
    log: Log[str] = Log(keep=2)
    numbers = [log.add(text) for text in ("a", "b", "c")]
    log.replace(1, "gone")
    log.replace(3, "C")

    assert numbers == [1, 2, 3]
    assert log.all() == ("b", "C")
    assert (log.total, log.dropped) == (3, 1)
    assert log.get(1) is None


def test_a_log_can_be_limited_by_weight() -> None:
    """The oldest go when all together are too heavy; the newest stays, however heavy it is."""
    log: Log[bytes] = Log(keep=9, keep_bytes=5, weigh=len)
    log.add(b"123")
    log.add(b"45")
    assert log.all() == (b"123", b"45")

    log.add(b"6")
    assert log.all() == (b"45", b"6")

    log.add(b"too heavy alone")
    assert log.all() == (b"too heavy alone",)
    assert log.dropped == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "daily"}, "window='daily' is not known; give 'sliding' or 'fixed'"),
        ({"row_errors": "map"}, "row_errors='map' is not known; give 'nested' or 'flat' or 'array'"),
        ({"no_errors": None}, "no_errors=None is not known; give 'absent' or 'array' or 'object'"),
        ({"limit": 0}, "limit=0 is not above zero"),
        ({"keep": -1}, "keep=-1 is not above zero"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_impossible_options_are_named(options: dict[str, object], message: str) -> None:
    """An option that there is not is refused with what would be right."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Options(**options)  # type: ignore[arg-type]
