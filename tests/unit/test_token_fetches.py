"""When access tokens may be fetched: never more than Emarsys hands out, by one worker at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emarsys_cdp.emarsys.token_fetches import FETCHES, LOCK, Fetches, Locked, Spent, release, take

NOW = 1_795_000_000_000


@given(st.lists(st.tuples(st.integers(0, 120_000), st.sampled_from(("one", "two")), st.booleans()), max_size=60))
def test_no_more_than_emarsys_hands_out(steps: list[tuple[int, str, bool]]) -> None:
    """Two a minute and ten an hour for all workers together, whoever of them dies while it fetches."""
    fetches, now, fetched = Fetches(), NOW, []
    for wait, worker, dies in steps:
        now += wait
        fetches, answer = take(fetches, worker, now)
        if answer is None:
            fetched.append(now)
            if not dies:
                fetches = release(fetches, worker)

    for number, period in FETCHES:
        for start in fetched:
            assert sum(start <= one < start + period for one in fetched) <= number


def test_one_worker_at_a_time() -> None:
    """The others look for its token; when it dies its lock ends by itself."""
    fetches, mine = take(Fetches(), "one", NOW)
    fetches, other = take(fetches, "two", NOW + 1)
    assert (mine, other) == (None, Locked(NOW + LOCK))

    assert take(fetches, "two", NOW + LOCK)[1] is None
    assert take(release(fetches, "one"), "two", NOW + 1)[1] is None
    assert release(fetches, "two") == fetches


def test_it_says_when_the_next_one_is_due() -> None:
    """The moment at which the oldest of the fetches that count is a minute old."""
    fetches, answers = Fetches(), []
    for step in (0, 1_000, 2_000):
        fetches, answer = take(fetches, "one", NOW + step)
        answers.append(answer)

    assert answers == [None, None, Spent(NOW + 60_001)]
    assert take(fetches, "one", NOW + 60_001)[1] is None
