"""Effects in the outbox: one suite for all stores, every transition of the table in `store/outbox.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import redis
from tests.support.servers import flush
from tests.support.stores import on

from emarsys_cdp.store import START, Commit, Store
from emarsys_cdp.store.keys import SHARDS, dead_key, effect_key, shard
from emarsys_cdp.store.outbox import (
    DEAD,
    EFFECT_SECONDS,
    HANDED,
    LEASED,
    QUEUED,
    SENT,
    WAITING,
    WITHDRAWN,
    EffectRef,
    Posting,
    Settlement,
    StoredEffect,
)
from emarsys_cdp.store.record import Record, pack
from emarsys_cdp.store.redis import RedisStore

MakeStore: TypeAlias = Callable[[], Store]
Step: TypeAlias = Callable[[Store, EffectRef], Awaitable[Any]]

PID, OTHER = "AAAAAAAAAAAA", "BBBBBBBBBBBB"
"""Profiles of two shards."""

ID, SECOND, THIRD = "0" * 32, "1" * 32, "2" * 32
REF, SECOND_REF, THIRD_REF = (EffectRef(shard(PID), name) for name in (ID, SECOND, THIRD))
NOT_THERE = EffectRef(shard(PID), "f" * 32)
NOW = 1_764_000_000_000
UNTIL = NOW + 60_000
EVERY = range(SHARDS)
PLAIN = bytes(range(256)) + b"\r\n\x00"
"""Content of effects: whatever bytes."""


def stored(revision: int) -> bytes:
    """Return the stored form of a record."""
    return pack(Record("dest-1", user="u1"), revision)


async def post(store: Store, *postings: Posting, pid: str = PID, revision: int = 1) -> list[bool]:
    """Commit a record with effects."""
    return await store.commit([Commit(pid, revision - 1, stored(revision), postings=postings)])


async def lease(store: Store, ref: EffectRef, holder: str = "one") -> StoredEffect | None:
    """Lease an effect for a minute."""
    return (await store.lease_effects([ref], holder, NOW, UNTIL))[0]


def settling(state: str, **settled: Any) -> Step:
    """Return a step that leases an effect and settles it."""

    async def step(store: Store, ref: EffectRef) -> None:
        await lease(store, ref)
        assert await store.settle_effects([Settlement(ref, "one", state, **settled)], NOW + 5) == [True]

    return step


async def nothing(store: Store, ref: EffectRef) -> None:
    """Leave an effect as it was posted."""


WAYS: dict[str, Step] = {
    WAITING: nothing,
    LEASED: lease,
    HANDED: lambda store, ref: store.hand_out(ref, "job-1", NOW + 5),
    SENT: settling(SENT),
    DEAD: settling(DEAD, note="refused"),
    WITHDRAWN: lambda store, ref: store.withdraw_effects([ref], NOW + 5),
}
"""How a posted effect gets into each state."""

STATES = pytest.mark.parametrize("state", WAYS)


def in_state(make_store: MakeStore, state: str, step: Step) -> tuple[Any, StoredEffect | None, list[list[EffectRef]]]:
    """Bring an effect into a state, do a step, and return its answer, the effect, and what is queued and dead then."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await WAYS[state](store, REF)
        answer = await step(store, REF)
        (effect,) = await store.read_effects([REF])
        return answer, effect, [await store.list_effects(which, EVERY, 10) for which in (QUEUED, DEAD)]

    answer, effect, lists = on(make_store, use)
    return answer, effect, lists


EXPECTED = {
    WAITING: StoredEffect(REF, WAITING, PLAIN, until=NOW),
    LEASED: StoredEffect(REF, LEASED, PLAIN, "one", UNTIL, 1),
    HANDED: StoredEffect(REF, HANDED, PLAIN, "job-1", changed=NOW + 5),
    SENT: StoredEffect(REF, SENT, PLAIN, tries=1, changed=NOW + 5),
    DEAD: StoredEffect(REF, DEAD, PLAIN, tries=1, note="refused", changed=NOW + 5),
    WITHDRAWN: StoredEffect(REF, WITHDRAWN, PLAIN, changed=NOW + 5),
}
"""An effect in each state, as it has come there."""

LISTED: dict[str, list[list[EffectRef]]] = {WAITING: [[REF], []], LEASED: [[REF], []], DEAD: [[], [REF]]}
"""What is queued, and what is dead, while the effect is in a state: nothing in the others."""


def expected(state: str) -> tuple[StoredEffect, list[list[EffectRef]]]:
    """Return the effect and the lists of a state that was left as it is."""
    return EXPECTED[state], LISTED.get(state, [[], []])


@STATES
def test_states(make_store: MakeStore, state: str) -> None:
    """An effect is stored in each state with what belongs to it, and listed while it is queued or dead."""
    assert in_state(make_store, state, nothing)[1:] == expected(state)


@STATES
def test_lease(make_store: MakeStore, state: str) -> None:
    """Only an effect that waits can be leased; nobody gets one whose lease lasts, not even who has it."""
    answer, *found = in_state(make_store, state, lease)

    assert answer == (EXPECTED[LEASED] if state == WAITING else None)
    assert tuple(found) == expected(LEASED if state == WAITING else state)


@STATES
def test_lease_after_the_lease(make_store: MakeStore, state: str) -> None:
    """When a lease is over the effect can be leased again, and the tries are counted."""

    async def later(store: Store, ref: EffectRef) -> Any:
        return await store.lease_effects([ref], "two", UNTIL, UNTIL + 1)

    answer, effect, _ = in_state(make_store, state, later)

    if state in (WAITING, LEASED):
        assert answer == [effect]
        assert effect == StoredEffect(REF, LEASED, PLAIN, "two", UNTIL + 1, 1 + (state == LEASED))
    else:
        assert (answer, effect) == ([None], EXPECTED[state])


@pytest.mark.parametrize("new", [SENT, DEAD, WAITING, LEASED])
@STATES
def test_settle(make_store: MakeStore, state: str, new: str) -> None:
    """Who has leased an effect says what became of it, and holds it no longer; other states are left alone."""

    async def settle(store: Store, ref: EffectRef) -> Any:
        return await store.settle_effects([Settlement(ref, "one", new, UNTIL + 7, "note", b"new")], NOW + 9)

    answer, *found = in_state(make_store, state, settle)

    if state == LEASED:
        until = UNTIL + 7 if new in (WAITING, LEASED) else 0
        settled = StoredEffect(REF, new, b"new", until=until, tries=1, note="note", changed=NOW + 9)
        assert (answer, *found) == ([True], settled, LISTED.get(new, [[], []]))
    else:
        assert (answer, *found) == ([False], *expected(state))


@pytest.mark.parametrize("holder", ["two", "", "on"])
def test_settle_of_another_holder(make_store: MakeStore, holder: str) -> None:
    """Who has not leased an effect cannot say what became of it."""

    async def settle(store: Store, ref: EffectRef) -> Any:
        return await store.settle_effects([Settlement(ref, holder, SENT)], NOW)

    assert in_state(make_store, LEASED, settle) == ([False], *expected(LEASED))


def test_settle_after_the_lease(make_store: MakeStore) -> None:
    """A lease that is over is its holder's until another has the effect; then it is the other's alone."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW), Posting(SECOND, PLAIN, NOW))
        await store.lease_effects([REF, SECOND_REF], "one", NOW, UNTIL)
        await store.lease_effects([SECOND_REF], "two", UNTIL, UNTIL + 1)
        sent = [Settlement(ref, holder, SENT) for holder in ("one", "two") for ref in (REF, SECOND_REF)]
        return await store.settle_effects(sent, UNTIL)

    assert on(make_store, use) == [True, False, False, True]


def test_settled_as_unclear(make_store: MakeStore) -> None:
    """It is nobody's until its time, stays sent for whoever would withdraw it, and is leased again then."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await settling(LEASED, due=UNTIL, note="no answer")(store, REF)
        refused = [
            *await store.settle_effects([Settlement(REF, "one", SENT), Settlement(REF, "", SENT)], NOW),
            *await store.withdraw_effects([REF], NOW),
            *await store.drop_effects([REF], "by hand", NOW),
            *await store.lease_effects([REF], "two", UNTIL - 1, UNTIL),
        ]
        before = await store.queued(EVERY, UNTIL - 1, 10), await store.queued(EVERY, UNTIL, 10)
        return refused, before, await store.lease_effects([REF], "two", UNTIL, UNTIL + 1)

    refused, before, leased = on(make_store, use)

    assert refused == [False, False, False, False, None]
    assert before == ([], [REF])
    assert leased == [StoredEffect(REF, LEASED, PLAIN, "two", UNTIL + 1, 2, "no answer", NOW + 5)]


def test_settled_as_waiting(make_store: MakeStore) -> None:
    """It is not leased before its time, whoever has seen it in the queue earlier, and can be withdrawn."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await settling(WAITING, due=UNTIL, note="429")(store, REF)
        early = await store.lease_effects([REF], "two", UNTIL - 1, UNTIL + 1)
        return early, await store.queued(EVERY, UNTIL, 10), await store.withdraw_effects([REF], NOW + 6)

    assert on(make_store, use) == ([None], [REF], [True])


@STATES
def test_withdraw(make_store: MakeStore, state: str) -> None:
    """Only an effect that waits is withdrawn; one that is already stays as it is."""

    async def withdraw(store: Store, ref: EffectRef) -> Any:
        return await store.withdraw_effects([ref], NOW + 5)

    new = WITHDRAWN if state == WAITING else state

    assert in_state(make_store, state, withdraw) == ([new == WITHDRAWN], *expected(new))


@STATES
def test_post_again(make_store: MakeStore, state: str) -> None:
    """A withdrawn effect waits again as it is posted; any other stays as it is: the same id is the same effect."""

    async def again(store: Store, ref: EffectRef) -> Any:
        return await post(store, Posting(ref.id, b"again", UNTIL), revision=2)

    answer, *found = in_state(make_store, state, again)

    assert answer == [True]
    if state == WITHDRAWN:
        assert found == [StoredEffect(REF, WAITING, b"again", until=UNTIL), LISTED[WAITING]]
    else:
        assert tuple(found) == expected(state)


@STATES
def test_hand_out(make_store: MakeStore, state: str) -> None:
    """A job gets an effect that waits or is leased; of any other it is told what has become of it."""

    async def hand_out(store: Store, ref: EffectRef) -> Any:
        return await store.hand_out(ref, "job-2", NOW + 6)

    answer, *found = in_state(make_store, state, hand_out)

    if state in (WAITING, LEASED):
        handed = StoredEffect(REF, HANDED, PLAIN, "job-2", tries=int(state == LEASED), changed=NOW + 6)
        assert (answer, *found) == (handed, handed, [[], []])
    else:
        assert (answer, *found) == (EXPECTED[state], *expected(state))


def test_hand_out_to_two_jobs(make_store: MakeStore) -> None:
    """The first job that comes has the effect, and gets the same again; the others see whose it is."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        jobs = [f"job-{number}" for number in range(8)]
        first = await asyncio.gather(*(store.hand_out(REF, job, NOW) for job in jobs))
        again = [await store.hand_out(REF, job, NOW + 9) for job in jobs]
        return first, again, await store.settle_effects([Settlement(REF, "job-0", SENT)], NOW)

    first, again, settled = on(make_store, use)

    assert first[0].holder in {f"job-{number}" for number in range(8)}
    assert set(first) == {StoredEffect(REF, HANDED, PLAIN, first[0].holder, changed=NOW)}
    assert again == first
    assert settled == [False]


def test_hand_out_while_it_is_sent_to_the_host(make_store: MakeStore) -> None:
    """When the job comes back before the sender has noted that it sent it, the note comes too late."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await lease(store, REF)
        handed = await store.hand_out(REF, "job-1", NOW + 1)
        noted = await store.settle_effects([Settlement(REF, "one", WAITING, UNTIL)], NOW + 2)
        return handed, noted, await store.read_effects([REF]), await store.queued(EVERY, UNTIL, 10)

    handed, noted, effects, queue = on(make_store, use)

    assert (noted, queue) == ([False], [])
    assert effects == [handed] == [StoredEffect(REF, HANDED, PLAIN, "job-1", tries=1, changed=NOW + 1)]


@STATES
def test_requeue(make_store: MakeStore, state: str) -> None:
    """A dead effect waits again, with its note and no tries; only one that waits already is there, too."""

    async def requeue(store: Store, ref: EffectRef) -> Any:
        return await store.requeue_effects([ref], NOW + 6)

    answer, *found = in_state(make_store, state, requeue)

    if state == DEAD:
        waiting = StoredEffect(REF, WAITING, PLAIN, until=NOW + 6, note="refused", changed=NOW + 6)
        assert (answer, *found) == ([True], waiting, LISTED[WAITING])
    else:
        assert (answer, *found) == ([state == WAITING], *expected(state))


@STATES
def test_drop(make_store: MakeStore, state: str) -> None:
    """Only an effect that waits is made dead, with the note; one that is already keeps its own."""

    async def drop(store: Store, ref: EffectRef) -> Any:
        return await store.drop_effects([ref], "by hand", NOW + 6)

    answer, *found = in_state(make_store, state, drop)

    if state == WAITING:
        dead = StoredEffect(REF, DEAD, PLAIN, note="by hand", changed=NOW + 6)
        assert (answer, *found) == ([True], dead, LISTED[DEAD])
    else:
        assert (answer, *found) == ([state == DEAD], *expected(state))


@STATES
def test_remove(make_store: MakeStore, state: str) -> None:
    """Whatever has become of an effect: nothing of it is left."""

    async def remove(store: Store, ref: EffectRef) -> Any:
        await store.remove_effects([ref, NOT_THERE])
        return await store.queued(EVERY, UNTIL, 10), await store.size()

    assert in_state(make_store, state, remove) == (([], 1), None, [[], []])


def test_effects_that_are_not_there(make_store: MakeStore) -> None:
    """They cannot be leased, settled, withdrawn, handed out, queued or dropped, and leave no trace."""

    async def use(store: Store) -> Any:
        refs = [NOT_THERE]
        answers = [
            *await store.lease_effects(refs, "one", NOW, UNTIL),
            *await store.settle_effects([Settlement(NOT_THERE, "one", SENT)], NOW),
            *await store.withdraw_effects(refs, NOW),
            await store.hand_out(NOT_THERE, "job-1", NOW),
            *await store.requeue_effects(refs, NOW),
            *await store.drop_effects(refs, "by hand", NOW),
            *await store.read_effects(refs),
        ]
        return answers, await store.size()

    assert on(make_store, use) == ([None, False, False, None, False, False, None], 0)


def test_nothing_is_asked(make_store: MakeStore) -> None:
    """Asking for nothing answers nothing."""

    async def use(store: Store) -> Any:
        return [
            await store.queued([], NOW, 10),
            await store.lease_effects([], "one", NOW, UNTIL),
            await store.settle_effects([], NOW),
            await store.withdraw_effects([], NOW),
            await store.requeue_effects([], NOW),
            await store.drop_effects([], "", NOW),
            await store.read_effects([]),
            await store.list_effects(DEAD, [], 10),
        ]

    assert on(make_store, use) == [[]] * 8


def test_a_commit_that_is_refused_posts_nothing(make_store: MakeStore) -> None:
    """Neither a new effect nor a withdrawn one again, and no timer is set: it is all or nothing."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await store.withdraw_effects([REF], NOW + 5)
        postings = (Posting(ID, b"again", NOW), Posting(SECOND, PLAIN, NOW))
        stale = [Commit(PID, expected, stored(expected + 1), wake=NOW, postings=postings) for expected in (0, 2)]
        written = await store.commit([*stale, Commit(OTHER, 1, b"", wake=NOW, postings=postings)])
        found = await store.read_effects([REF, SECOND_REF, EffectRef(shard(OTHER), SECOND)])
        return written, found, await store.queued(EVERY, UNTIL, 10), await store.count_timers()

    assert on(make_store, use) == ([False] * 3, [EXPECTED[WITHDRAWN], None, None], [], 0)


def test_a_commit_writes_all_of_it(make_store: MakeStore) -> None:
    """The record, its timer and its effects, each of them; the first of two with the same id is the effect."""
    postings = (Posting(ID, PLAIN, NOW), Posting(SECOND, b"", NOW + 1), Posting(ID, b"other", NOW))

    async def use(store: Store) -> Any:
        written = await store.commit([Commit(PID, 0, stored(1), wake=NOW, postings=postings)])
        found = await store.read_records([PID]), await store.due_timers(EVERY, NOW, 10, UNTIL)
        return written, *found, await store.read_effects([REF, SECOND_REF])

    effects = [EXPECTED[WAITING], StoredEffect(SECOND_REF, WAITING, b"", until=NOW + 1)]

    assert on(make_store, use) == ([True], [stored(1)], [PID], effects)


@pytest.mark.parametrize("record", [b"", stored(2)], ids=["removed", "written"])
def test_effects_outlive_their_record(make_store: MakeStore, record: bytes) -> None:
    """Also those that the commit itself posts that removes it."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        await store.commit([Commit(PID, 1, record, postings=(Posting(SECOND, PLAIN, NOW),))])
        return await store.read_records([PID]), await store.queued(EVERY, NOW, 10)

    assert on(make_store, use) == ([record or None], [REF, SECOND_REF])


def test_two_commits_of_one_revision(make_store: MakeStore) -> None:
    """Only the effects of the one that is written are there, also in the same round trip."""

    async def use(store: Store) -> Any:
        both = [Commit(PID, 0, stored(1), postings=(Posting(one, PLAIN, NOW),)) for one in (ID, SECOND)]
        return await store.commit(both), await store.queued(EVERY, NOW, 10)

    assert on(make_store, use) == ([True, False], [REF])


def test_two_holders_race(make_store: MakeStore) -> None:
    """Each effect is leased by one of those who want it at once, and each of them learns which are its own."""
    refs = [EffectRef(shard(PID), f"{number:032x}") for number in range(50)]
    holders = [f"holder-{number}" for number in range(4)]

    async def use(store: Store) -> Any:
        await post(store, *(Posting(ref.id, PLAIN, NOW) for ref in refs))
        leased = await asyncio.gather(*(store.lease_effects(refs, holder, NOW, UNTIL) for holder in holders))
        return leased, await store.read_effects(refs)

    leased, effects = on(make_store, use)

    won = [[one for one in column if one is not None] for column in zip(*leased, strict=True)]
    assert won == [[effect] for effect in effects]
    for holder, answers in zip(holders, leased, strict=True):
        assert {one.holder for one in answers if one is not None} <= {holder}


def test_queue(make_store: MakeStore) -> None:
    """Of the shards that were asked for, by their times whatever the shard, at most the limit of each."""
    far = EffectRef(shard(OTHER), THIRD)

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW), Posting(SECOND, PLAIN, NOW - 9))
        await post(store, Posting(THIRD, PLAIN, NOW - 5), pid=OTHER)
        return [
            await store.queued(EVERY, NOW, 10),
            await store.queued(EVERY, NOW - 1, 10),
            await store.queued(EVERY, NOW, 1),
            await store.queued([shard(OTHER)], NOW, 10),
            await store.queued([700], NOW, 10),
            await store.list_effects(QUEUED, EVERY, 1),
        ]

    assert on(make_store, use) == [
        [SECOND_REF, far, REF],
        [SECOND_REF, far],
        [SECOND_REF, far],
        [far],
        [],
        [SECOND_REF, far],
    ]


def test_dead_ones_are_listed_by_the_time_of_their_death(make_store: MakeStore) -> None:
    """The oldest first, however they died."""

    async def use(store: Store) -> Any:
        await post(store, *(Posting(one, PLAIN, NOW) for one in (ID, SECOND, THIRD)))
        await store.lease_effects([SECOND_REF], "one", NOW, UNTIL)
        await store.drop_effects([REF], "by hand", NOW + 2)
        await store.settle_effects([Settlement(SECOND_REF, "one", DEAD, note="refused")], NOW + 1)
        await store.drop_effects([THIRD_REF], "by hand", NOW + 3)
        return await store.list_effects(DEAD, EVERY, 2), await store.list_effects(DEAD, EVERY, 10)

    assert on(make_store, use) == ([SECOND_REF, REF], [SECOND_REF, REF, THIRD_REF])


@pytest.mark.parametrize("state", [WAITING, SENT, "asleep"])
def test_states_that_are_not_listed(make_store: MakeStore, state: str) -> None:
    """Asking for them is an error that says what can be asked for."""
    with pytest.raises(ValueError, match=f"'{state}' are not listed: ask for 'queued' or 'dead'"):
        on(make_store, lambda store: store.list_effects(state, EVERY, 10))


def test_effects_are_no_people(make_store: MakeStore) -> None:
    """Going through everything finds the record of their profile, and nothing else; they count as keys."""

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        walked = [step async for step in store.walk(100) if step != ([], [])]
        places: list[str | None] = [START]
        stepped = []
        while (place := places[-1]) is not None:
            some, following = await store.step(place, 100)
            stepped += some
            places.append(following)
        return walked, [each async for each in store.scan()], stepped, await store.size()

    walked, *people, size = on(make_store, use)

    assert walked == [([(PID, stored(1))], [])]
    assert people == [[(PID, stored(1))]] * 2
    assert size > 1


@STATES
def test_how_long_effects_are_kept(valkey_url: str, state: str) -> None:
    """Those that are to be sent for ever, all others 30 days; a dead one is listed as long."""
    flush(valkey_url)
    in_state(lambda: RedisStore(valkey_url), state, nothing)

    with redis.Redis.from_url(valkey_url) as client:
        left = client.ttl(effect_key(REF.shard, ID))
        listed = client.ttl(dead_key(REF.shard))

    assert isinstance(left, int)
    if state in (WAITING, LEASED):
        assert left == -1
    else:
        assert EFFECT_SECONDS - 60 < left <= EFFECT_SECONDS
    assert (listed == left) is (state == DEAD)


@pytest.mark.parametrize("state", [DEAD, WITHDRAWN])
def test_an_effect_that_waits_again_is_kept(valkey_url: str, state: str) -> None:
    """A dead one that is queued again and a withdrawn one that is posted again do not disappear while they wait."""
    flush(valkey_url)

    async def again(store: Store, ref: EffectRef) -> None:
        await store.requeue_effects([ref], NOW)
        await post(store, Posting(ref.id, PLAIN, NOW), revision=2)

    _, effect, _ = in_state(lambda: RedisStore(valkey_url), state, again)

    assert effect is not None
    assert effect.state == WAITING
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ttl(effect_key(REF.shard, ID)) == -1


def test_the_list_of_the_dead_is_tidied(valkey_url: str) -> None:
    """When one dies, those are struck off the list that died more than 30 days ago."""
    flush(valkey_url)
    later = NOW + EFFECT_SECONDS * 1000

    async def use(store: Store) -> Any:
        await post(store, *(Posting(one, PLAIN, NOW) for one in (ID, SECOND, THIRD)))
        await store.drop_effects([REF], "by hand", NOW)
        await store.drop_effects([SECOND_REF], "by hand", NOW + 1)
        await store.lease_effects([THIRD_REF], "one", NOW, UNTIL)
        await store.settle_effects([Settlement(THIRD_REF, "one", DEAD)], later)
        return await store.list_effects(DEAD, EVERY, 10)

    assert on(lambda: RedisStore(valkey_url), use) == [SECOND_REF, THIRD_REF]


def test_a_queue_that_names_an_effect_of_the_past(valkey_url: str) -> None:
    """Who tries to lease an effect that is no longer there strikes it off the queue."""
    flush(valkey_url)

    async def use(store: Store) -> Any:
        await post(store, Posting(ID, PLAIN, NOW))
        with redis.Redis.from_url(valkey_url) as client:
            client.delete(effect_key(REF.shard, ID))
        before = await store.queued(EVERY, NOW, 10)
        return before, await lease(store, REF), await store.queued(EVERY, NOW, 10)

    assert on(lambda: RedisStore(valkey_url), use) == ([REF], None, [])
