"""The budget of an API user: never over the limit, fair, and out of the way of an Emarsys that is ill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emarsys_cdp.emarsys.budget import (
    BREAK_AFTER,
    FIRST_BREAK,
    FLIGHT,
    LONGEST_BREAK,
    MAX_PAUSE,
    WINDOW,
    Budget,
    Granted,
    Report,
    Wait,
    report,
    reserve,
    state,
    used,
)

NOW = 1_795_000_000_000


def take(budget: Budget, space: str = "a", now: int = NOW) -> tuple[Budget, Granted]:
    """Reserve a request that has to be granted."""
    budget, answer = reserve(budget, space, now)
    assert isinstance(answer, Granted), answer
    return budget, answer


def refused(budget: Budget, space: str = "a", now: int = NOW) -> tuple[Budget, Wait]:
    """Reserve a request that has to be refused."""
    budget, answer = reserve(budget, space, now)
    assert isinstance(answer, Wait), answer
    assert answer.until > now
    return budget, answer


def fail(budget: Budget, now: int, times: int = 1) -> Budget:
    """Let requests fail one after another."""
    for _ in range(times):
        budget, granted = take(budget, now=now)
        budget = report(budget, granted, Report(failed=True), now, 1.0)
    return budget


@given(
    limit=st.integers(1, 12),
    steps=st.lists(
        st.tuples(
            st.integers(0, 7_000),  # ms since the step before
            st.sampled_from(("a", "b")),
            st.integers(0, FLIGHT - 1),  # ms until Emarsys gets it
            st.integers(0, FLIGHT - 1),  # ms until the answer, None of which comes for the last third
        ),
        max_size=80,
    ),
)
def test_no_minute_of_emarsys_sees_more_than_the_limit(limit: int, steps: list[tuple[int, str, int, int]]) -> None:
    """However long requests are on their way, and whether or not their worker lives to report them."""
    budget, now = Budget(limit=limit), NOW
    flying: list[tuple[int, Granted]] = []
    arrivals: list[int] = []
    for wait, space, there, back in steps:
        now += wait
        for answered, granted in [one for one in flying if one[0] <= now]:
            budget = report(budget, granted, Report(), answered, 0.5)
        flying = [one for one in flying if one[0] > now]
        budget, answer = reserve(budget, space, now)
        if isinstance(answer, Granted):
            arrivals.append(now + there)
            if back % 3:  # else its worker is killed and nobody reports it
                flying.append((now + max(there, back), answer))

    for start in arrivals:
        assert sum(start <= one < start + WINDOW for one in arrivals) <= limit


def test_the_whole_limit_is_used() -> None:
    """With quick answers as many requests as Emarsys takes are sent, at once and again a minute later."""
    budget = Budget(limit=100)
    for _ in range(100):
        budget, granted = take(budget)
        budget = report(budget, granted, Report(), NOW + 100, 0.5)
    budget, wait = refused(budget, now=NOW + 200)

    assert NOW + WINDOW < wait.until <= NOW + WINDOW + 2_000
    assert used(budget, NOW + 200) == 100
    take(budget, now=wait.until)


def test_a_request_whose_worker_died_counts_until_its_time_is_over() -> None:
    """Nobody reports it; it may still reach Emarsys within the time it was given."""
    budget, _ = take(Budget(limit=1))
    budget, _ = refused(budget, now=NOW + WINDOW + FLIGHT // 2)

    take(budget, now=NOW + WINDOW + FLIGHT + 1_000)


def test_a_space_that_waits_gets_its_share() -> None:
    """A space that floods the API user leaves every other request to one that has had less than half."""
    budget = Budget(limit=10)
    for _ in range(10):
        budget, granted = take(budget, "flood")
        budget = report(budget, granted, Report(), NOW, 0.5)
    budget, wait = refused(budget, "other")
    free = wait.until
    budget, _ = refused(budget, "other", free - 1)
    budget, granted = take(budget, "flood", free)  # all ten are free again, and nobody has had its share
    shares = {"flood": 1, "other": 0}
    for _ in range(9):
        for space in ("flood", "other"):
            budget, answer = reserve(budget, space, free)
            shares[space] += isinstance(answer, Granted)

    assert shares == {"flood": 5, "other": 5}


def test_a_space_alone_gets_everything() -> None:
    """What others do not ask for is not kept for them."""
    budget = Budget(limit=10)
    budget, _ = take(budget, "other")
    for _ in range(9):
        budget, _ = take(budget, "flood")

    refused(budget, "flood")


def test_the_limit_is_learned_from_the_answers() -> None:
    """An account with another limit needs no setting."""
    budget, granted = take(Budget())
    budget = report(budget, granted, Report(limit=2), NOW, 0.5)
    budget, _ = take(budget)

    refused(budget)


def test_other_programs_of_the_same_api_user_are_seen() -> None:
    """When Emarsys says that two are left, two are sent until the minute is over, those on their way included."""
    budget, first = take(Budget())
    budget, second = take(budget)
    reset = NOW + 30_000
    budget = report(budget, first, Report(limit=1000, left=3, reset=reset), NOW, 0.5)
    budget = report(budget, second, Report(limit=1000, left=4, reset=reset), NOW, 0.5)  # an older answer comes late
    budget, _ = take(budget)
    budget, _ = take(budget)
    budget, wait = refused(budget)

    assert wait.until == reset
    take(budget, now=reset)


def test_a_429_pauses_until_the_time_that_emarsys_names() -> None:
    """And for everybody who sends as the same API user."""
    budget, granted = take(Budget())
    budget = report(budget, granted, Report(limited=True, reset=NOW + 20_000), NOW, 0.5)
    budget, wait = refused(budget, "b")

    assert wait.until == NOW + 20_000
    assert state(budget, NOW) == "closed"
    take(budget, now=NOW + 20_000)


def test_a_429_with_requests_left_pauses_for_a_moment() -> None:
    """Emarsys is busy then; the end of the minute, which its headers name all the same, is not what it waits for."""
    budget, granted = take(Budget())
    budget = report(budget, granted, Report(limited=True, left=900, reset=NOW + 50_000), NOW, 1.0)

    assert refused(budget)[1].until == NOW + 2_000


def test_a_time_that_cannot_be_true_is_not_believed() -> None:
    """A clock that is wrong by hours must not stop everything for hours; the pause doubles from one 429 to the next."""
    budget, now, pauses = Budget(), NOW, []
    for reset in (None, NOW + MAX_PAUSE + 3_600_000, NOW - 1):
        budget, granted = take(budget, now=now)
        budget = report(budget, granted, Report(limited=True, reset=reset), now, 1.0)
        budget, wait = refused(budget, now=now)
        pauses.append(wait.until - now)
        now = wait.until

    assert pauses == [2_000, 4_000, 8_000]


def test_the_circuit_opens_after_failures_in_a_row() -> None:
    """A success in between begins the count anew."""
    budget = fail(Budget(), NOW, BREAK_AFTER - 1)
    budget, granted = take(budget)
    budget = report(budget, granted, Report(), NOW, 0.5)
    budget = fail(budget, NOW, BREAK_AFTER - 1)
    assert state(budget, NOW) == "closed"
    budget = fail(budget, NOW)

    assert state(budget, NOW) == "open"
    assert refused(budget)[1].until == NOW + FIRST_BREAK


def test_one_request_alone_tries_an_emarsys_that_failed() -> None:
    """Others wait for it; its success closes the circuit, its failure opens it for twice as long."""
    budget = fail(Budget(), NOW, BREAK_AFTER)
    later = NOW + FIRST_BREAK
    assert state(budget, later) == "half-open"
    budget, probe = take(budget, now=later)
    budget, _ = refused(budget, now=later)

    closed = report(budget, probe, Report(), later, 1.0)
    assert state(closed, later) == "closed"
    take(closed, now=later)

    opened = report(budget, probe, Report(failed=True), later, 1.0)
    assert refused(opened, now=later)[1].until == later + 2 * FIRST_BREAK


def test_a_probe_whose_worker_died_is_followed_by_another() -> None:
    """Else the circuit would stay open for ever."""
    budget = fail(Budget(), NOW, BREAK_AFTER)
    budget, _ = take(budget, now=NOW + FIRST_BREAK)

    take(budget, now=NOW + FIRST_BREAK + FLIGHT)


def test_many_failures_at_once_are_one_opening() -> None:
    """Requests in flight when the circuit opens tell nothing new, and the wait has an upper bound."""
    budget, flying = Budget(), []
    for _ in range(50):
        budget, granted = take(budget)
        flying.append(granted)
    for granted in flying:
        budget = report(budget, granted, Report(failed=True), NOW, 1.0)
    assert refused(budget)[1].until == NOW + FIRST_BREAK

    now = NOW
    for _ in range(20):
        now = refused(budget, now=now)[1].until
        budget = fail(budget, now)
    assert refused(budget, now=now)[1].until == now + LONGEST_BREAK


def test_jitter_halves_a_wait_at_most() -> None:
    """Workers and installations do not come back in step."""
    budget = replace(Budget(), failures=BREAK_AFTER - 1)
    budget, granted = take(budget)

    waits = [refused(report(budget, granted, Report(failed=True), NOW, one))[1].until - NOW for one in (0.0, 0.5, 1.0)]
    assert waits == [FIRST_BREAK // 2, FIRST_BREAK * 3 // 4, FIRST_BREAK]
