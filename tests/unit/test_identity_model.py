"""The model of the users table: the vectors of the semantics, and what has to be true of any users table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model import properties, timelines
from tests.model.identity import Model
from tests.model.profiles import Profile
from tests.model.table import Call, Erase, Json, Step, play
from tests.model.timelines import DAY, DOCUMENT, examples
from tests.model.vectors import ORIGIN, VECTORS, Vector, differences, read

ABOUT = ("profiles", "values", "shared", "warnings")
QUIET = timelines.Names(odd=False)
"""Without identifiers that are none: every warning is then about people."""

CASES = [
    vector
    for name in ("vectors.json", "examples.json", "identity.json")
    for vector in read(VECTORS / name)
    if any(vector.results) or any(part in vector.expect for part in ABOUT)
]


@pytest.mark.parametrize("vector", CASES, ids=lambda vector: vector.name)
def test_vectors(vector: Vector) -> None:
    """Every vector about the users table ends as it says."""
    assert differences(Model, vector) == {}


def test_all_vectors_of_identity_are_run() -> None:
    """The vectors I* of the semantics are all about the users table."""
    names = {vector.name for vector in read(VECTORS / "vectors.json") if vector.name.startswith("I")}

    assert len(names) == 11
    assert names <= {vector.name for vector in CASES}


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines())
def test_every_identifier_has_one_owner(document: dict[str, Json], steps: list[Step]) -> None:
    """P6, as it is seen from outside."""
    properties.every_identifier_has_one_owner(Model, document, steps)


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines())
def test_owners_are_live_and_agree(document: dict[str, Json], steps: list[Step]) -> None:
    """P6, inside: owners are live profiles, which own their user and their devices."""
    model = Model(document)
    for step in steps:
        play(model, [step])
        live = set(model.live.values())

        assert set(model.owner.values()) | set(model.isolates.values()) <= live
        assert [one for one in live if one.user and model.owner.get(("user", one.user)) is not one] == []
        assert [one for one in live for anon in one.anons if model.owner.get(("anon", anon)) is not one] == []
        assert [one for one in live if (one.key is None) != (one.key_version is None)] == []
        assert [key for (kind, key), one in model.owner.items() if kind == "key" and key not in _keys(one)] == []
        assert [anon for anon in model.shared_since if ("anon", anon) in model.owner] == []


def _keys(profile: Profile) -> set[str | None]:
    return {profile.key, *profile.former}


@examples(60, 2_000)
@given(data=st.data(), calls=timelines.peaceful())
def test_order_of_arrival_does_not_matter(data: st.DataObject, calls: list[Call]) -> None:
    """P10, with redeliveries and last-writer values."""
    orders = data.draw(timelines.orders(calls))

    properties.order_of_arrival_does_not_matter(Model, DOCUMENT, calls, orders)


@examples(60, 2_000)
@given(document=timelines.documents(separate=True), steps=timelines.timelines(erasures=False, aliases=False))
def test_users_stay_apart(document: dict[str, Json], steps: list[Step]) -> None:
    """P11 without aliases."""
    properties.users_stay_apart(Model, document, steps)


@examples(60, 2_000)
@given(document=timelines.documents(separate=True), steps=timelines.timelines(erasures=False))
def test_aliases_link_what_they_name(document: dict[str, Json], steps: list[Step]) -> None:
    """P11 with aliases."""
    properties.aliases_link_what_they_name(Model, document, steps)


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(), later=timelines.device_calls())
def test_a_shared_device_is_nobody(document: dict[str, Json], steps: list[Step], later: list[Call]) -> None:
    """P12, as far as people are concerned."""
    properties.a_shared_device_is_nobody(Model, document, steps, later)


@examples(60, 2_000)
@given(calls=timelines.claims())
def test_the_key_is_the_last_claim(calls: list[Call]) -> None:
    """P13."""
    properties.the_key_is_the_last_claim(Model, DOCUMENT, calls)


@examples(60, 2_000)
@given(document=timelines.documents(), steps=timelines.timelines(), others=timelines.bystanders())
def test_calls_of_nobody_change_nothing(
    document: dict[str, Json], steps: list[Step], others: list[tuple[int, Call]]
) -> None:
    """P15."""
    properties.calls_of_nobody_change_nothing(Model, document, steps, others)


@examples(60, 2_000)
@given(
    document=timelines.documents(),
    ones=timelines.timelines(QUIET, size=8),
    others=timelines.timelines(QUIET.other(), size=8),
    turns=st.lists(st.booleans(), max_size=16),
)
def test_strangers_do_not_meet(
    document: dict[str, Json], ones: list[Step], others: list[Step], turns: list[bool]
) -> None:
    """P16."""
    properties.strangers_do_not_meet(Model, document, ones, others, turns)


@examples(60, 2_000)
@given(
    document=timelines.documents(),
    steps=timelines.timelines(),
    identifier=timelines.identifiers(),
    mode=st.sampled_from(("delete", "suppress")),
    after=st.sampled_from((0, DAY)),
)
def test_nothing_survives_erasure(
    document: dict[str, Json], steps: list[Step], identifier: tuple[str, str], mode: str, after: int
) -> None:
    """P19."""
    last = max((step.arrival for step in steps if isinstance(step, Call)), default=ORIGIN)

    properties.nothing_survives_erasure(Model, document, steps, identifier, mode, last + after)


@examples(60, 2_000)
@given(data=st.data(), document=timelines.documents())
def test_a_redelivery_at_once_changes_nothing(data: st.DataObject, document: dict[str, Json]) -> None:
    """P1, as far as profiles are concerned; without aliases of devices that leave for the limit (they come back)."""
    roomy = document["settings"]["anonLimit"] == 100
    steps = data.draw(timelines.timelines(aliases=roomy))

    properties.a_redelivery_at_once_changes_nothing(Model, document, steps)


def test_erasure_leaves_only_the_tombstones() -> None:
    """P19, inside: what was erased is nowhere in the model but in its tombstones."""
    message = {
        "type": "identify",
        "messageId": "m1",
        "userId": "u1",
        "anonymousId": "d1",
        "traits": {"email": "a@x.com"},
    }
    model = Model(DOCUMENT)
    play(model, [Call(message, ORIGIN), Erase("anon", "d1", "delete", ORIGIN)])
    everything = {name: repr(part) for name, part in vars(model).items() if name not in {"tombstones", "rules"}}

    assert [name for name, text in everything.items() if "u1" in text or "d1" in text or "a@x.com" in text] == []
    assert set(model.tombstones) == {("user", "u1"), ("key", "a@x.com"), ("anon", "d1")}
