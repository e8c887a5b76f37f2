"""A person's book: what is kept of calls, what is forgotten, and what two books make together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from emarsys_cdp.credentials import OAuth, Secret
from emarsys_cdp.extensions import build_plugin_manager
from emarsys_cdp.identity.ruling import Ruled, with_rules
from emarsys_cdp.rules.book import ACTIVE, AT_ONCE, CANCELLED, COMPLETED, Book, Logged
from emarsys_cdp.rules.passing import Look, Sight, look, passed
from emarsys_cdp.rules.ruleset import GOES_ON, STARTS, RuleSet
from emarsys_cdp.rules.taking import MAX_LOG, Taken, join_books, refold, take, trim
from emarsys_cdp.service.assembly import build_compiler
from emarsys_cdp.store.record import Record

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
START: Final = 1_764_000_000_000
START_ROW: Final = {"seq": 0, "type": "start", "match": "event = Coupon"}
STOP_ROW: Final = {"seq": 0, "type": "exclude", "match": "event = Order"}
EXIT_ROW: Final = {"seq": 1, "type": "exit", "actions": [{"do": "trigger", "event": "reminder"}]}
WHAT: Final = {"Coupon": STARTS, "Order": GOES_ON}
MANY: Final = 300
"""More calls than a log has in which late ones are folded at once."""


def rules_of(**parts: Any) -> RuleSet:
    """Return the rules of a document with one rule: coupon, no order within 48 hours."""
    compiler = build_compiler(build_plugin_manager([]))
    rule = {"id": "rule", "lifetime": "48h", "conditions": [START_ROW, STOP_ROW, EXIT_ROW], **parts}
    document = compiler.read(
        "test", {"dataMaps": [{"name": "event", "path": "event", "type": "string"}], "rules": [rule]}
    )
    rules = compiler.compile("space", "test", document, OAuth("id", Secret("secret"))).rules
    assert rules is not None
    return rules


def taken(name: str, time: int, message_id: str, seen: int | None = None) -> Taken:
    """Return a call that rules look at."""
    opens = {"rule": 1} if name == "Coupon" else {}
    return Taken(
        Logged(time, message_id, "track", time if seen is None else seen, {"event": name}, opens, "u1"),
        {"rule": WHAT[name]},
    )


def book_of(rules: RuleSet, calls: Iterable[Taken]) -> Book:
    """Return a book with calls."""
    book: Book | None = None
    for call in calls:
        book = take(rules, "space", book, call, {})
    assert book is not None
    return book


def sent(rules: RuleSet, book: Book, now: int, key: str | None = "a@x.com") -> tuple[Book, Look]:
    """Look at a person and send what may be sent."""
    looked = look(rules, book, Sight("space", key, now))
    book = looked.book
    for candidate in looked.candidates:
        book = passed(rules, book, candidate, "AAAAAAAAAAAA", now)
    return book, looked


def statuses(book: Book) -> list[str]:
    """Return the statuses of all instances."""
    return [one.status for state in book.rules.values() for one in state.instances]


def test_a_call_that_comes_again_changes_nothing() -> None:
    """The log is a set of messageIds, also when the second one says something else."""
    rules = rules_of()
    book = book_of(rules, [taken("Coupon", START, "c1")])

    assert take(rules, "space", book, taken("Order", START + HOUR, "c1"), {}) == book


def test_one_call_more_is_as_all_of_them_anew() -> None:
    """The state after each call is the one that the whole log gives."""
    rules = rules_of(multiple=False)
    calls = [taken("Coupon", START, "c1"), taken("Coupon", START + HOUR, "c2"), taken("Order", START + 2 * HOUR, "o1")]
    for count in range(1, len(calls) + 1):
        book = book_of(rules, calls[:count])
        anew = refold(rules, "space", book, calls[count - 1].call.time)
        assert [state.instances for state in book.rules.values()] == [state.instances for state in anew.rules.values()]


def test_order_of_arrival_does_not_matter() -> None:
    """A stop that comes before its start, and a start that comes after a later one, end in the same."""
    rules = rules_of()
    calls = [taken("Coupon", START, "c1", START + DAY), taken("Order", START + HOUR, "o1", START + DAY)]

    forth, back = book_of(rules, calls), book_of(rules, reversed(calls))

    assert statuses(forth) == statuses(back) == [CANCELLED]
    assert forth.log == back.log


def test_what_is_over_is_forgotten_and_counted() -> None:
    """Long after the end the log is empty, and the instance is a number."""
    rules = rules_of(reentry={"maxEntries": 1})
    book, looked = sent(rules, book_of(rules, [taken("Coupon", START, "c1")]), START + 2 * DAY)
    assert len(looked.candidates) == 1
    assert statuses(book) == [COMPLETED]

    later = trim(rules, book, START + 30 * DAY)

    assert (later.log, statuses(later)) == ((), [])
    assert later.rules["rule"].entries == 1
    assert statuses(take(rules, "space", later, taken("Coupon", START + 30 * DAY, "c2"), {})) == []


def test_what_runs_is_not_forgotten() -> None:
    """A call that opened something that waits for a key stays, however old it is."""
    rules = rules_of(holdForKey="365d")
    book, _ = sent(rules, book_of(rules, [taken("Coupon", START, "c1")]), START + 3 * DAY, None)

    later = trim(rules, book, START + 100 * DAY)

    assert [call.message_id for call in later.log] == ["c1"]


def test_the_log_has_an_end() -> None:
    """Of very many calls the oldest leave it, but not the one that opened what is alive."""
    rules = rules_of(lifetime="90d")
    first = taken("Coupon", START, "c0")
    calls = [first, *[taken("Coupon", START + number, f"c{number}") for number in range(1, MAX_LOG + 50)]]

    book = trim(rules, book_of(rules, calls), START + HOUR)

    assert len(book.log) <= MAX_LOG + 1
    assert book.log[0] == first.call
    assert statuses(book) == [ACTIVE]


def test_a_call_from_before_the_log_changes_nothing() -> None:
    """What is older than everything that is remembered starts and stops nothing any more."""
    rules = rules_of()
    book = replace(book_of(rules, [taken("Coupon", START, "c1")]), floor=START)

    assert take(rules, "space", book, taken("Coupon", START - 1, "c0"), {}) == book


def test_two_books_are_one() -> None:
    """A stop on one device counts for what began on another, and what was sent stays sent."""
    rules = rules_of()
    phone = book_of(rules, [taken("Coupon", START, "c1")])
    laptop = book_of(rules, [taken("Order", START + DAY, "o1")])
    both = join_books(phone, laptop)
    assert both is not None
    assert both.stale

    assert statuses(refold(rules, "space", both, START + DAY)) == [CANCELLED]

    mailed, _ = sent(rules, phone, START + 2 * DAY)
    late = join_books(mailed, laptop)
    assert late is not None
    after, looked = sent(rules, late, START + 3 * DAY)
    assert looked.candidates == ()
    assert len(after.rules["rule"].facts) == 1


def test_who_has_a_key_at_last_is_looked_at() -> None:
    """A message that waits for a key makes the next call that brings one wake the person at once."""
    rules = rules_of()
    book, _ = sent(rules, book_of(rules, [taken("Coupon", START, "c1")]), START + 2 * DAY, None)
    assert book.held
    anonymous = Record("space", book=book)

    assert with_rules(anonymous, anonymous, "space", None).book == book
    known = with_rules(anonymous, replace(anonymous, key="a@x.com"), "space", None)
    assert known.book is not None
    assert known.book.wake == AT_ONCE


def test_a_shared_device_is_in_no_rule() -> None:
    """What is known of a device that several people use never leads to anything (P12)."""
    rules = rules_of()
    record = Record("space", isolate=True)

    assert with_rules(None, record, "space", Ruled(rules, taken("Coupon", START, "c1"))) is record


def test_a_late_call_in_a_long_log_is_folded_when_the_person_is_looked_at() -> None:
    """Somebody's calls that come backwards end as in their order, and are folded together instead of one by one."""
    rules = rules_of(conditions=[{**START_ROW, "count": 3, "countWithin": "1h"}, STOP_ROW, EXIT_ROW], multiple=True)
    names = ["Coupon", "Coupon", "Coupon", "Order"]
    calls = [taken(names[number % 4], START + number, f"c{number:04}", START + HOUR) for number in range(MANY)]

    book = book_of(rules, reversed(calls))
    looked = look(rules, book, Sight("space", "a@x.com", START + HOUR)).book

    assert (book.stale, book.wake, looked.stale) == (True, AT_ONCE, False)
    forth = refold(rules, "space", book_of(rules, calls), START + HOUR)
    assert looked.rules["rule"].instances == forth.rules["rule"].instances
