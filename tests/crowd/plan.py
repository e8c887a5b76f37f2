"""What a crowd of fifty people does: their calls, in requests, in disorder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Final, TypeAlias

from tests.crowd.worker import Call, Erasure, Request

PEOPLE: Final = 50

Ids: TypeAlias = tuple[int, int, int]
"""User, key and device of a call; 0 is none."""

HOARDERS: Final = frozenset({41, 42, 43, 44, 45})
"""People of more devices than a person may have. Nobody else uses these."""

ERASED: Final = frozenset({46, 47, 48, 49, 50})
"""People who are erased amid their calls. All of these name the user, and nobody else uses their devices."""

TABLETS: Final = tuple(range(901, 907))
"""Devices that many people use."""

MAX_REQUEST = 4
"""Calls of a request."""


def crowd(space: str, random: Random) -> list[Request]:
    """Return the requests of fifty people who contradict each other: shared devices and keys, aliases, erasures."""
    calls: list[tuple[Ids, str | None]] = []
    for person in range(1, PEOPLE + 1):
        calls += _conflicting(person, random)
    random.shuffle(calls)
    numbers = iter(random.sample(range(1, 9000), len(calls)))
    made = [Call(space, next(numbers), *ids, previous) for ids, previous in calls]
    erasures: list[Request] = [Erasure(space, person, 4500) for person in sorted(ERASED)]
    requests = list(_requests(made, random))
    for erasure in erasures:
        requests.insert(random.randrange(len(requests)), erasure)
    return requests


def peaceful(space: str, random: Random) -> list[Request]:
    """Return the requests of fifty people who contradict nobody: in any order they come to the same users table."""
    calls = [ids for person in range(1, PEOPLE + 1) for ids in _peaceful(person)]
    random.shuffle(calls)
    numbers = iter(random.sample(range(1, 9000), len(calls)))
    return list(_requests([Call(space, next(numbers), *ids) for ids in calls], random))


def _requests(calls: Iterable[Call], random: Random) -> Iterator[Request]:
    left = list(calls)
    while left:
        size = random.randint(1, MAX_REQUEST)
        yield tuple(left[:size])
        del left[:size]


def devices(person: int) -> list[int]:
    """Return the devices that only this person uses."""
    return [person * 10 + n for n in range(10 if person in HOARDERS else 3)]


def keys(person: int) -> list[int]:
    """Return the keys of a person: before and after a change. The first is a neighbour's for some."""
    return [person - 1 if person % 8 == 0 else person, 100 + person]


def _plain(calls: Iterable[Ids]) -> list[tuple[Ids, str | None]]:
    """Return calls that are no alias calls."""
    return [(ids, None) for ids in calls]


def _conflicting(person: int, random: Random) -> list[tuple[Ids, str | None]]:
    key, new_key = keys(person)
    first, second, third, *_ = devices(person)
    if person in ERASED:
        return _plain((person, k, device) for k in (0, person, person) for device in (0, first, second))
    if person in HOARDERS:
        return _plain([*((person, 0, device) for device in devices(person)), (person, key, first)])
    tablet = random.choice(TABLETS)
    calls = _plain(
        [
            (0, 0, first), (0, 0, first), (0, key, second), (person, 0, third), (person, 0, tablet), (0, 0, tablet),
            (person, key, 0), (person, 0, first), *[(person, 0, 0)] * 4,
        ]
    )  # fmt: skip
    if person % 3 == 0:
        calls.append(((person, new_key, 0), None))
    if person % 5 == 0:
        calls.append(((person, 0, 0), f"anon{second}"))
    if person % 7 == 0:
        calls += [((500 + person, 0, 0), None), ((person, 0, 0), f"user{500 + person}")]
    return calls


def _peaceful(person: int) -> list[Ids]:
    key, new_key = person, 100 + person
    first, second, third = (person * 10 + n for n in range(3))
    if person % 3 == 0:  # keys change: a device that comes with both would contradict
        return [
            (0, 0, first), (person, 0, first), (person, 0, second), (0, key, 0), (0, new_key, 0), (person, key, 0),
            (person, new_key, 0), (0, 0, second), (person, 0, third), (0, 0, third),
        ]  # fmt: skip
    return [
        (0, 0, first), (0, key, first), (0, key, second), (person, 0, third), (0, 0, third), (person, key, 0),
        (person, 0, first), (0, 0, second), (person, key, third), (0, 0, first),
    ]  # fmt: skip
