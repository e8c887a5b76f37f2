"""Durations of documents, and the lifetimes made of them."""

from __future__ import annotations

import pytest

from emarsys_cdp.document.lifetimes import lifetimes_of
from emarsys_cdp.document.model import Settings
from emarsys_cdp.store.lifetimes import Lifetimes
from emarsys_cdp.store.record import Device, Erasing, Record
from emarsys_cdp.values.durations import read_duration

OWN = Lifetimes(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("48h", 172_800), ("7d", 604_800), ("2w", 1_209_600), ("1.5h", 5400), (48, 172_800)],
)
def test_a_duration_is_read(written: float | str, seconds: float) -> None:
    """A number is hours."""
    assert read_duration(written) == seconds


@pytest.mark.parametrize("written", ["", "30", "d", "30 d", "-1d", "1d12h", "30D", "٣d", "1e3d", "9999999999d"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    """With what would be one."""
    with pytest.raises(ValueError, match="write a number of hours, or text such as 30m, 48h, 7d or 2w"):
        read_duration(written)


def test_settings_are_lifetimes() -> None:
    """What they do not say is as usual."""
    assert lifetimes_of(Settings()) == Lifetimes()
    assert lifetimes_of(Settings(anonymous_ttl="1d", shared_ttl=2)) == Lifetimes(anonymous=86_400, shared=7200)


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        (Record("s", devices=(Device("d", 1, 1),)), 1),
        (Record("s", isolate=True), 1),
        (Record("s", user="u"), 2),
        (Record("s", key="k"), 3),
        (Record("s", user="u", key="k"), 3),
        (Record("s", intents=("p",)), 0),
        (Record("s", erasing=Erasing("delete", 1)), 0),
        (Record("s", user="u", redirect="p"), 0),
        (Record("s", tombstones=("n",)), 0),
    ],
)
def test_a_record_stays_by_what_is_known(record: Record, seconds: int) -> None:
    """What is unfinished, or a suppression, stays whatever the settings."""
    assert OWN.of(record) == seconds
