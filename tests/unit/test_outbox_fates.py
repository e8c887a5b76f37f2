"""What becomes of an effect after a try, and when it is tried again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.support.outbox import effect, ref_of

from emarsys_cdp.delivery.parcel import Sent
from emarsys_cdp.effect import Sending, unpack_effect
from emarsys_cdp.emarsys.outcomes import Delivered, Dropped, Retry
from emarsys_cdp.outbox.fates import (
    HELD_WAIT,
    MAX_WAIT,
    POSTED_WAIT,
    UNCLEAR_WAITS,
    Again,
    Done,
    Fate,
    Held,
    Never,
    Posted,
    fate_of,
    final,
    settlement,
)
from emarsys_cdp.store.outbox import DEAD, LEASED, SENT, WAITING

NOW = 1_795_000_000_000
ONE = effect(1)
DAY = 24 * 3_600_000


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (Sent(Delivered("connected to nothing"), 200), Done("connected to nothing")),
        (Sent(Dropped("bad"), 400), Never("bad")),
        (Sent(Dropped("no contact"), 200, missing=True), Never("no contact", missing=True)),
        (Sent(Retry("busy", lasting=True)), Again("busy")),
        (Sent(Retry("limit", NOW + 5), 429), Again("limit", NOW + 5)),
        (Sent(Retry("key"), 401), Again("key")),
        (Sent(Retry("permission"), 403), Again("permission")),
        (Sent(Retry("down"), 500), Again("down", unclear=True)),
        (Sent(Retry("no answer"), 504), Again("no answer", unclear=True)),
        (Sent(Retry("garbage"), 200), Again("garbage", unclear=True)),
    ],
)
def test_what_was_sent_has_a_fate(sent: Sent, wanted: Fate) -> None:
    """Only what Emarsys has certainly not processed counts as not taken."""
    assert fate_of(sent) == wanted


@pytest.mark.parametrize(
    ("fate", "tries", "state", "wait", "sending"),
    [
        (Done("note"), 1, SENT, None, Sending()),
        (Never("bad"), 1, DEAD, None, Sending()),
        (Posted(), 1, WAITING, POSTED_WAIT, Sending(posted=NOW)),
        (Posted("perhaps"), 1, WAITING, 2000, Sending(posted=NOW)),
        (Held("unknown"), 1, WAITING, HELD_WAIT, Sending(held=True)),
        (Again("limit"), 1, WAITING, 2000, Sending()),
        (Again("limit"), 4, WAITING, 16_000, Sending()),
        (Again("limit"), 1000, WAITING, MAX_WAIT, Sending()),
        (Again("limit", NOW + 60_000), 1, WAITING, 60_000, Sending()),
        (Again("down", unclear=True), 1, LEASED, UNCLEAR_WAITS[0], Sending(unclear=1)),
    ],
)
def test_what_the_store_is_told(fate: Fate, tries: int, state: str, wait: int | None, sending: Sending) -> None:
    """State, time of the next try, and what is noted in the effect."""
    told = settlement(ref_of(ONE), "me", ONE, fate, tries, NOW, 0.5)

    assert told.state == state
    assert told.due == (0 if wait is None else NOW + wait)
    assert told.content is not None
    assert unpack_effect(told.content) == replace(ONE, sending=sending)


def test_unclear_tries_are_ten_within_a_day() -> None:
    """Others do not count, however many; the eleventh is not made."""
    one, due, tries = ONE, NOW, 0
    fate: Fate = Again("down", unclear=True)
    while not isinstance(final(one, fate), Never):
        told = settlement(ref_of(one), "me", one, fate, 500, due, 0.5)
        assert told.content is not None
        one, due, tries = unpack_effect(told.content), told.due, tries + 1

    assert tries + 1 == 10
    assert DAY * 0.9 < due - NOW < DAY * 1.1


def test_the_next_tries_are_spread() -> None:
    """By a quarter to both sides, so that all of an outage do not come back at once."""
    dues = [settlement(ref_of(ONE), "me", ONE, Again("limit"), 9, NOW, chance).due - NOW for chance in (0.0, 1.0)]

    assert dues == [384_000, 640_000]
